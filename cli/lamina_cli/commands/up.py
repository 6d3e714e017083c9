"""`lamina up`: starts a stack in the background and serves its six ports."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from lamina_cli import home, output, parse
from lamina_cli.client import guarded
from lamina_cli.progress import Line
from lamina_kit.errors import CLASSES, FailedPrecondition, Internal, InvalidArgument, LaminaError, Violation

LAST_PORT = 65535


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="name of the stack (default: default)")
    parser.add_argument("--host", default="h1", help="name of its host (default: h1)")
    parser.add_argument("--cores", type=parse.INT64, help="number of cores (default 4)")
    parser.add_argument("--memory", type=parse.size, help="RAM, for example 8GiB (default 8GiB; sparse)")
    parser.add_argument("--engines", default="model", help="engine set (default: model)")
    first = home.PORTS["hardware"]
    parser.add_argument("--port", type=parse.INT32, default=first, help=f"first of six ports (default {first})")
    parser.add_argument("--config", type=Path, help="configuration file in TOML, a table a layer")
    parser.add_argument("--seed", type=parse.INT64, help="seed of ids and choices (default: random)")
    parser.set_defaults(run=lambda args: guarded(lambda: up(args)))


def addresses(first: int) -> dict[str, str]:
    """Returns the address of each layer on loopback, six ports in a row.

    Raises:
        InvalidArgument: `PORT_INVALID`.
    """
    last = first + len(home.LAYERS) - 1
    if not 1 <= first <= last <= LAST_PORT:
        raise InvalidArgument(
            f"there are no six ports from {first}",
            reason="PORT_INVALID",
            violations=[Violation("port", f"must be 1 to {LAST_PORT - len(home.LAYERS) + 1}")],
            next_step="choose another one, for example --port 50051",
        )
    return {layer: f"127.0.0.1:{first + offset}" for offset, layer in enumerate(home.LAYERS)}


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
            next_step="stop it with `lamina down`, or start another one with --stack NAME --port PORT",
        )
    overrides = {}
    if args.cores is not None:
        overrides["LAMINA_HARDWARE_CORES"] = str(args.cores)
    if args.memory is not None:
        overrides["LAMINA_HARDWARE_MEMORY_BYTES"] = str(args.memory)
    words = ["--stack", args.stack, "--host", args.host, "--engines", json.dumps(engine_set(args.engines))]
    words += ["--addresses", json.dumps(addresses(args.port)), "--overrides", json.dumps(overrides)]
    if args.config is not None:
        words += ["--config", str(args.config.absolute())]
    if args.seed is not None:
        words += ["--seed", str(args.seed)]
    with Line(f"starting stack {args.stack}") as line:
        start(words, home.stack_dir(args.stack) / "log", line)
    started = home.running(args.stack)
    output.table(("LAYER", "ADDRESS"), ((layer, started.targets[layer]) for layer in home.LAYERS))
    print(f"process {started.pid}; `lamina status` shows it, `lamina down` stops it")
    return 0


def start(words: list[str], log: Path, line: Line) -> None:
    """Starts the process of the stack and follows its report until it serves.

    Raises:
        LaminaError: what the process reported.
        Internal: `STACK_DIED`, it ended without a report.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    listen, speak = os.pipe()
    with log.open("ab") as sink:
        # The report goes to the descriptor that the daemon knows by number: the shell moves it there.
        command = [sys.executable, "-m", "lamina_cli.daemon", *words]
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
