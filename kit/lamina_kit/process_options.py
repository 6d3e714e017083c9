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
from typing import NoReturn

from lamina_kit.channel import check_target
from lamina_kit.checks import Checks, shown
from lamina_kit.errors import InvalidArgument

PREFIX = "LAMINA_"
UPSTREAM = "UPSTREAM_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMS = ("text", "json")
MAX_ADDRESSES = 16


@dataclass(frozen=True)
class Options:
    """One process of one layer.

    `state_dir` belongs to this process alone; `bus` is the memory bus of the host, which hardware makes and others map;
    `listen` are the addresses to serve, `upstreams` the target of each layer below; `patience_s` is how long to wait
    for those before giving up, 0 meaning for ever. `seed` makes ids and choices repeatable. `parent` is the process
    with which this one ends, however that ends.
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
    log_level: str = "info"
    log_form: str = "text"


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
    parser.add_argument("--bus", metavar="PATH", help="the host's memory bus; the hardware layer makes it")
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
    parser.add_argument("--log-level", metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)} (default info)")
    parser.add_argument("--log-form", metavar="FORM", help=f"{' or '.join(LOG_FORMS)} (default text)")
    return parser


def read(layer: str, calls: Sequence[str], words: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Returns the options in `words` and, where they are silent, in the environment.

    Raises:
        InvalidArgument: `PROCESS_OPTIONS_INVALID`, `ADDRESS_INVALID` or `SOCKET_PATH_TOO_LONG`, naming the flag or
            variable.
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
        log_level=value("log_level") or "info",
        log_form=value("log_form") or "text",
    )
    _check(options, calls, bool(value("state_dir")))
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
        check.one_of("log-level", options.log_level, LOG_LEVELS)
        check.one_of("log-form", options.log_form, LOG_FORMS)
    for address in (*options.listen, *options.upstreams.values()):
        check_target(address)
