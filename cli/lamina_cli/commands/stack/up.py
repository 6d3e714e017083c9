"""`lamina up`: starts a stack in the background and serves its ports: six, and five more for each further host."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lamina_cli.client import home
from lamina_cli.client.client import guarded
from lamina_cli.input import parse
from lamina_cli.layers import layers_of
from lamina_cli.output import printing
from lamina_cli.output.progress import Line
from lamina_cli.stack import fault_plans, operations, orphans
from lamina_kit.errors import CLASSES, FailedPrecondition, Internal, InvalidArgument, LaminaError, Violation
from lamina_kit.security.private_folder import make_private
from lamina_kit.security.transport import TLS, Security, TlsFiles

LAST_PORT = 65535
LOOPBACK = "127.0.0.1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="name of the stack (default: default)")
    parser.add_argument("--host", default="h1", help="name of its host (default: h1)")
    parser.add_argument("--cores", type=parse.INT64, help="number of cores (default 4)")
    parser.add_argument("--memory", type=parse.size, help="RAM, for example 8GiB (default 8GiB; sparse)")
    parser.add_argument(
        "--engines", default="model",
        help="engine set (default: model); kvm: virtual machines on the processor itself, no containers",
    )  # fmt: skip
    first = home.PORTS["hardware"]
    parser.add_argument("--port", type=parse.INT32, default=first, help=f"first of six ports (default {first})")
    parser.add_argument(
        "--address",
        default=LOOPBACK,
        metavar="IP",
        help=f"where the ports are, 0.0.0.0 for everywhere (default {LOOPBACK})",
    )
    parser.add_argument(
        "--tls-dir",
        type=Path,
        metavar="DIR",
        help="certificates for an --address beyond this host; `lamina ca` makes them",
    )
    parser.add_argument(
        "--plain-network", action="store_true", help="the network of --address is private: no TLS is needed there"
    )
    parser.add_argument(
        "--grace", type=parse.whole(0, 3600), metavar="SECONDS", help="how long calls may go on once it is told to stop"
    )
    parser.add_argument("--config", type=Path, help="configuration file in TOML, a table a layer")
    parser.add_argument("--seed", type=parse.INT64, help="seed of ids and choices (default: random)")
    parser.add_argument(
        "--clock",
        choices=("real", "scaled", "stepped", "virtual"),
        default="real",
        help="real: the machine's (default); scaled: --rate times as fast; stepped: stands still until `lamina clock"
        " advance`; virtual: as fast as the work allows while there is some",
    )
    parser.add_argument(
        "--rate",
        type=parse.rate,
        default=1000,
        metavar="N",
        help="how fast a scaled clock goes, and a stepped one while a call waits; a multiple of real time (default 1)",
    )
    parser.add_argument("--hosts", type=parse.INT32, default=1, metavar="N", help="number of hosts (default 1)")
    parser.add_argument(
        "--input-log", type=Path, metavar="FILE", help="where a stack that is not in real time logs what enters it"
    )
    parser.add_argument(
        "--event-log", type=Path, metavar="FILE", help="write the events of all layers, a JSON line each"
    )
    parser.add_argument(
        "--split", action="store_true", help="a process a layer, supervised; not all of them in one process"
    )
    operations.add_arguments(parser)
    fault_plans.add_option(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: up(args)))


def addresses(first: int, hosts: Sequence[str] = (), at: str = LOOPBACK) -> dict[str, str]:
    """Returns the address of each layer: six ports in a row, and five more for each further host.

    Raises:
        InvalidArgument: `PORT_INVALID`.
    """
    lower = [layer for layer in home.LAYERS if layer != home.ORCHESTRATOR]
    names = [*home.LAYERS, *(f"{host}/{layer}" for host in hosts[1:] for layer in lower)]
    last = first + len(names) - 1
    if not 1 <= first <= last <= LAST_PORT:
        count = {6: "six"}.get(len(names), str(len(names)))
        raise InvalidArgument(
            f"there are no {count} ports from {first}",
            reason="PORT_INVALID",
            violations=[Violation("port", f"must be 1 to {LAST_PORT - len(names) + 1}")],
            next_step="choose another one, for example --port 50051",
        )
    at = f"[{at}]" if ":" in at.strip("[]") and not at.startswith(("[", TLS)) else at
    return {name: f"{at}:{first + offset}" for offset, name in enumerate(names)}


def engine_set(name: str) -> dict[str, str]:
    """Returns the engines of a supported set by layer.

    Raises:
        InvalidArgument: `ENGINE_SET_UNSUPPORTED`, naming the sets there are.
    """
    from lamina_kit.engines import SETS

    if name not in SETS:
        raise InvalidArgument(
            f"there is no engine set {name!r}",
            reason="ENGINE_SET_UNSUPPORTED",
            violations=[Violation("engines", f"must be one of {', '.join(SETS)}")],
            next_step="leave --engines away for the model engines, which run anywhere",
        )
    return SETS[name]


def up(args: argparse.Namespace) -> int:
    """Starts the stack and waits until it serves."""
    record = home.read_record(args.stack)
    if record is not None and record.is_alive():
        raise FailedPrecondition(
            f"the stack {args.stack!r} is up already (process {record.pid})",
            reason="STACK_IS_UP",
            next_step=f"stop it with `lamina down{home.option(args.stack)}`, or start another one "
            "with --stack NAME --port PORT",
        )
    orphans.wait_out(record)
    overrides = {}
    if args.cores is not None:
        overrides["LAMINA_HARDWARE_CORES"] = str(args.cores)
    if args.memory is not None:
        overrides["LAMINA_HARDWARE_MEMORY_BYTES"] = str(args.memory)
    check_clock(args)
    operations.check(args)
    engines = engine_set(args.engines)
    words = ["--stack", args.stack, "--host", args.host, "--engines", json.dumps(engines)]
    ports = addresses(args.port, home.host_names(args.host, args.hosts), args.address)
    served = layers_of(engines)
    listened = {name: address for name, address in ports.items() if name.rpartition("/")[2] in served}
    check_security(listened, args)
    words += ["--addresses", json.dumps(listened), "--overrides", json.dumps(overrides)]
    if args.config is not None:
        words += ["--config", str(args.config.absolute())]
    if args.seed is not None:
        words += ["--seed", str(args.seed)]
    if fault_plans.read(args.fault_plan) is not None:
        words += ["--fault-plan", str(fault_plans.path_of(args.fault_plan))]
    words += clock_words(args)
    words += operations.words(args)
    if args.tls_dir is not None:
        words += ["--tls-dir", str(args.tls_dir.absolute())]
    if args.grace is not None:
        words += ["--grace", str(args.grace)]
    if args.plain_network:
        words += ["--plain-network"]
    kept = has_state(args.stack)
    with Line(f"starting stack {args.stack}") as line:
        module = "lamina_cli.stack.supervisor" if args.split else "lamina_cli.stack.daemon"
        start(words, home.stack_dir(args.stack) / "log", line, module)
    started = home.running(args.stack)
    printing.table(("LAYER", "ADDRESS"), ((name, started.targets[name]) for name in listened))
    if started.clock != "real":
        print(f"{started.clock} clock, seed {args.seed}; what enters is logged in {input_log(args)}")
        if kept:
            print("it found state of an earlier run, which the log does not hold: `lamina replay` will refuse the log")
            print("for a log that can be replayed, start it under a name that was not used yet: --stack NAME")
    if started.metrics:
        print(f"metrics on http://{started.metrics}/metrics")
    elif args.metrics is not None:
        print(f"metrics of each layer on a port of its own, from {args.metrics} on, in the order of this table")
    which = home.option(args.stack)
    print(f"process {started.pid}; `lamina status{which}` shows it, `lamina down{which}` stops it")
    return 0


def check_security(listened: Mapping[str, str], args: argparse.Namespace) -> None:
    """Refuses ports beyond this host without certificates, and certificates that cannot be used.

    Raises:
        FailedPrecondition: `TLS_REQUIRED`, or as `lamina_kit.security.certificates.read`.
    """
    security = Security(TlsFiles.of(args.tls_dir) if args.tls_dir is not None else None, args.plain_network)
    encrypted = [address for address in listened.values() if security.encrypts(address)]
    if encrypted and security.tls is not None:
        security.tls.read("server")
    elif security.tls is not None:
        print("the certificates are not used: traffic within this host is plain", file=sys.stderr)


def check_clock(args: argparse.Namespace) -> None:
    """Refuses what does not go with a clock or a topology; chooses a seed for a stack that needs one.

    Raises:
        InvalidArgument: `TOPOLOGY_UNSUPPORTED`, `CLOCK_RATE_INVALID`, `INPUT_LOG_UNSUPPORTED` or `LOGS_ARE_ONE_FILE`.
    """
    from lamina_kit.clock_control import check_rate

    if args.split and (args.clock != "real" or args.hosts != 1 or args.event_log is not None):
        raise InvalidArgument(
            "a split stack has the machine's clock, one host, and an event log a layer",
            reason="TOPOLOGY_UNSUPPORTED",
            next_step="leave --split away, or --clock, --hosts and --event-log",
        )
    if args.clock == "real":
        if args.input_log is not None:
            raise InvalidArgument(
                "what enters a stack in real time cannot be replayed",
                reason="INPUT_LOG_UNSUPPORTED",
                next_step="choose another clock, for example --clock stepped",
            )
        return
    if args.clock != "virtual":
        check_rate(args.clock, args.rate)
    if args.event_log is not None and args.event_log.resolve() == input_log(args).resolve():
        raise InvalidArgument(
            f"the input log and the event log cannot both be {args.event_log}",
            reason="LOGS_ARE_ONE_FILE",
            violations=[Violation("event_log", "names the file of the input log")],
            next_step="name another file with --event-log",
        )
    if args.seed is None:
        args.seed = int.from_bytes(os.urandom(4))


def has_state(stack: str) -> bool:
    """Says whether an earlier run of a stack left state behind, with which the next one begins."""
    folder = home.stack_dir(stack) / "state"
    return folder.exists() and any(folder.iterdir())


def clock_words(args: argparse.Namespace) -> list[str]:
    """Returns the arguments of the stack's process that are about its clock, its hosts and its logs."""
    words = []
    if args.hosts != 1:
        words += ["--hosts", str(args.hosts)]
    if args.clock != "real":
        words += ["--clock", args.clock, "--rate", str(args.rate), "--input-log", str(input_log(args))]
    if args.event_log is not None:
        words += ["--event-log", str(args.event_log.absolute())]
    return words


def input_log(args: argparse.Namespace) -> Path:
    """Returns the file in which a stack logs what enters it."""
    given: Path | None = args.input_log
    return given.absolute() if given is not None else home.stack_dir(args.stack) / "input.jsonl"


def start(words: list[str], log: Path, line: Line, module: str = "lamina_cli.stack.daemon") -> None:
    """Starts the process of the stack, which runs `module`, and follows its report until it serves.

    Raises:
        LaminaError: what the process reported, or as `make_private` for the stack's folder.
        Internal: `STACK_DIED`, it ended without a report.
    """
    make_private(log.parent)
    listen, speak = os.pipe()
    with log.open("ab") as sink:
        # The report goes to the descriptor that the daemon knows by number: the shell moves it there.
        command = [sys.executable, "-m", module, *words]
        process = subprocess.Popen(
            ["sh", "-c", f'exec 3>&{speak}; exec "$@" {speak}>&-', "lamina", *command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=(speak,),
            start_new_session=True,
        )
    os.close(speak)
    with os.fdopen(listen) as lines:
        for text in lines:
            word, _, rest = text.strip().partition(" ")
            if word == "ready":
                return
            if word == "failed":
                process.wait()
                raise reported(json.loads(rest))
            line.step(rest)
    raise Internal(
        f"the process of the stack ended with status {process.wait()} before it was ready",
        reason="STACK_DIED",
        next_step=f"its log is {log}",
    )


def reported(problem: dict[str, str]) -> LaminaError:
    """Returns the error that the process of the stack reported."""
    kind = next((known for known in CLASSES if known.code == problem["code"]), Internal)
    return kind(problem["message"], reason=problem["reason"], next_step=problem["next_step"])
