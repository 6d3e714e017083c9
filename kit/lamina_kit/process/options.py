"""What a service process is told: its flags, and the environment variables that say the same.

    python -m lamina_mmu --host h1 --state-dir D --bus /dev/shm/h1.ram --listen unix:/run/mmu.sock \\
        --listen 127.0.0.1:50052 --upstream hardware=unix:/run/hardware.sock

A flag stands above its variable: `LAMINA_HOST`, `LAMINA_STATE_DIR`, `LAMINA_BUS`, `LAMINA_LISTEN` (addresses separated
by commas), `LAMINA_UPSTREAM_HARDWARE` (one variable a layer), `LAMINA_CONFIG` … The configuration of the layer itself
is not here: it comes from the file and from `LAMINA_<LAYER>_<KEY>` (`config.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lamina_kit.checks import Checks, shown
from lamina_kit.errors import InvalidArgument
from lamina_kit.rpc.channel import check_target
from lamina_kit.security.transport import Security, TlsFiles
from lamina_kit.telemetry.log import FORMATS, LEVELS

PREFIX = "LAMINA_"
UPSTREAM = "UPSTREAM_"
MAX_ADDRESSES = 16
GRACE_S = 2
MAX_GRACE_S = 3600
_YES = {"1": True, "true": True, "yes": True, "": False, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Options:
    """One process of one layer.

    `state_dir` belongs to this process alone; `bus` is the memory bus of the host, which hardware makes and others map;
    `listen` are the addresses to serve, `upstreams` the target of each layer below; `patience_s` is how long to wait
    for those before giving up, 0 meaning for ever. `seed` makes the ids and choices of each start of the process
    repeatable. `parent` is the process with which this one ends, however that ends. `grace_s` is how long calls with
    one response may go on once a stop was asked for. `tls` are the certificates for talking beyond the host, whose
    networks are private with `plain_network`.
    """

    host: str
    state_dir: Path
    listen: tuple[str, ...]
    bus: Path | None = None
    upstreams: Mapping[str, str] = field(default_factory=dict)
    config: Path | None = None
    fault_plan: Path | None = None
    engine: str = "model"
    seed: int | None = None
    patience_s: int = 0
    parent: int | None = None
    grace_s: int = GRACE_S
    tls: TlsFiles | None = None
    plain_network: bool = False
    operations: Mapping[str, Any] = field(default_factory=dict)
    """What flags say of the configuration's section of operations; they stand above it (`operations/settings.py`)."""
    metrics_offset: int = 0
    """Added to the port of the metrics: the processes of a stack share one configuration."""

    def security(self) -> Security:
        """Returns what this process has for talking beyond its host."""
        return Security(self.tls, self.plain_network)


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print and exit for."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(
            f"{self.prog}: {message}.",
            reason="PROCESS_OPTIONS_INVALID",
            next_step=f"`{self.prog} --help` lists the flags.",
        )


def parser(layer: str, calls: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of the process of a layer that calls the layers `calls`."""
    below = ", ".join(calls) or "none: this layer calls nobody"
    parser = _Parser(
        prog=f"python -m lamina_{layer.replace('-', '_')}",
        description=f"Serves the {layer} layer as a process of its own.",
        epilog="Each flag has a variable of the same name: --state-dir is LAMINA_STATE_DIR. "
        "Exit status: 0 stopped, 2 wrong flags or configuration, 3 cannot start or go on, 1 a defect.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", metavar="NAME", help="name of the host (default h1)")
    parser.add_argument("--state-dir", metavar="DIR", help="folder of this process alone; made when missing")
    parser.add_argument(
        "--bus", metavar="PATH", help="the host's memory bus; hardware makes it, by default in its state folder"
    )
    parser.add_argument(
        "--listen", action="append", metavar="ADDRESS", help="unix:/PATH or HOST:PORT; may be given several times"
    )
    parser.add_argument(
        "--upstream", action="append", metavar="LAYER=ADDRESS", help=f"where a layer below is ({below})"
    )
    parser.add_argument("--config", metavar="FILE", help="configuration in TOML, a table a layer")
    parser.add_argument("--fault-plan", metavar="FILE", help="plan of faults of the calls to the layers below, in TOML")
    parser.add_argument("--engine", metavar="NAME", help="engine of this layer (default model)")
    parser.add_argument("--seed", metavar="N", help="seed of ids and choices (default random)")
    parser.add_argument(
        "--patience", metavar="SECONDS", help="how long to wait for the layers below (default for ever)"
    )
    parser.add_argument("--parent", metavar="PID", help="stop when this process, which started us, ends")
    parser.add_argument(
        "--grace", metavar="SECONDS", help=f"how long calls may go on after a stop was asked for (default {GRACE_S})"
    )
    parser.add_argument(
        "--tls-dir", metavar="DIR", help="folder with ca.pem, cert.pem and key.pem, as `lamina ca issue` makes it"
    )
    for name, what in (("ca", "authorities"), ("cert", "certificate"), ("key", "its key")):
        parser.add_argument(f"--tls-{name}", metavar="FILE", help=f"{what}, instead of the one in --tls-dir")
    parser.add_argument(
        "--plain-network", action="store_const", const="1", help="its networks are private: no TLS is needed there"
    )
    parser.add_argument("--log-level", metavar="LEVEL", help=f"{', '.join(LEVELS)} (default info)")
    parser.add_argument("--log-format", metavar="FORMAT", help=f"{' or '.join(FORMATS)} (default console)")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve metrics for Prometheus there")
    parser.add_argument("--metrics-remote", action="store_true", help="allow --metrics beyond this machine")
    parser.add_argument("--metrics-offset", metavar="N", help="added to the port of the metrics (default 0)")
    return parser


def read(
    layer: str, calls: Sequence[str], words: Sequence[str], environ: Mapping[str, str], alone: Sequence[str] = ()
) -> Options:
    """Returns the options in `words` and, where they are silent, in the environment.

    With an engine of `alone` no layer below is needed.

    Raises:
        InvalidArgument: `PROCESS_OPTIONS_INVALID`, `ADDRESS_INVALID` or `SOCKET_PATH_TOO_LONG`, naming the flag or
            variable.
        FailedPrecondition: `TLS_REQUIRED`, an address lies beyond the host and no certificate is given.
    """
    given = vars(parser(layer, calls).parse_args(words))

    def value(name: str) -> str:
        return str(given[name] or environ.get(PREFIX + name.upper(), ""))

    listen = given["listen"] or [part.strip() for part in environ.get("LAMINA_LISTEN", "").split(",") if part.strip()]
    options = Options(
        host=value("host") or "h1",
        state_dir=Path(value("state_dir")).absolute(),
        listen=tuple(listen),
        bus=Path(value("bus")).absolute() if value("bus") else None,
        upstreams=_upstreams(calls, given["upstream"] or [], environ),
        config=Path(value("config")).absolute() if value("config") else None,
        fault_plan=Path(value("fault_plan")).absolute() if value("fault_plan") else None,
        engine=value("engine") or "model",
        seed=_number(value("seed"), "--seed"),
        patience_s=_number(value("patience"), "--patience") or 0,
        parent=_number(value("parent"), "--parent"),
        grace_s=GRACE_S if (grace := _number(value("grace"), "--grace")) is None else grace,
        tls=_tls_files(*(value(f"tls_{name}") for name in ("dir", "ca", "cert", "key"))),
        plain_network=_flag(value("plain_network"), "--plain-network"),
        operations={
            "log_level": given["log_level"],
            "log_format": given["log_format"],
            "metrics_listen": given["metrics"],
            "metrics_remote": given["metrics_remote"] or None,
        },
        metrics_offset=_number(given["metrics_offset"] or "", "--metrics-offset") or 0,
    )
    _check(options, () if options.engine in alone else calls, bool(value("state_dir")))
    return options


def _upstreams(calls: Sequence[str], words: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for layer in calls:
        target = environ.get(f"{PREFIX}{UPSTREAM}{layer.upper().replace('-', '_')}", "")
        if target:
            found[layer] = target
    for word in words:
        layer, _, target = word.partition("=")
        if layer not in calls or not target:
            raise InvalidArgument(
                f"--upstream {shown(word)} is not LAYER=ADDRESS with one of the layers below.",
                reason="PROCESS_OPTIONS_INVALID",
                next_step=f"Layers below are: {', '.join(calls) or 'none'}.",
            )
        found[layer] = target
    return found


def _tls_files(folder: str, *files: str) -> TlsFiles | None:
    """Returns the paths of certificates: a folder's, or those of the files named in their places."""
    if not folder and not any(files):
        return None
    with Checks("PROCESS_OPTIONS_INVALID") as check:
        for name, path in zip(("ca", "cert", "key"), files, strict=True):
            check.that(bool(folder or path), f"tls-{name}", "is missing, and no --tls-dir has it")
    ca, cert, key = (Path(path).absolute() if path else None for path in files)
    return TlsFiles.of(Path(folder).absolute(), ca, cert, key)


def _flag(text: str, flag: str) -> bool:
    if text.lower() not in _YES:
        raise InvalidArgument(
            f"{flag} {shown(text)} is neither true nor false.",
            reason="PROCESS_OPTIONS_INVALID",
            next_step="Give 1 or 0.",
        )
    return _YES[text.lower()]


def _number(text: str, flag: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise InvalidArgument(
            f"{flag} {shown(text)} is no whole number from 0 on.",
            reason="PROCESS_OPTIONS_INVALID",
            next_step=f"Give {flag} a number, or leave it away.",
        )
    return int(text)


def _check(options: Options, calls: Sequence[str], has_state_dir: bool) -> None:
    with Checks("PROCESS_OPTIONS_INVALID") as check:
        check.identifier("host", options.host)
        check.that(has_state_dir, "state-dir", "is missing: every process needs a folder of its own")
        check.that(0 < len(options.listen) <= MAX_ADDRESSES, "listen", f"needs 1 to {MAX_ADDRESSES} addresses")
        for layer in calls:
            check.that(layer in options.upstreams, f"upstream {layer}", "is missing: this layer calls it")
        check.range("grace", options.grace_s, 0, MAX_GRACE_S)
        check.one_of("log-level", options.operations.get("log_level") or LEVELS[0], LEVELS)
        check.one_of("log-format", options.operations.get("log_format") or FORMATS[0], FORMATS)
        check.range("metrics-offset", options.metrics_offset, 0, 1000)
    for address in (*options.listen, *options.upstreams.values()):
        check_target(address)
        options.security().encrypts(address)
