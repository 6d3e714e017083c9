"""What a run in virtual time is a function of, written down and read back: the header of an input log.

The configuration is kept as it was given (the text of the files, the variables) and as it took effect (every value of
every layer), so that a replay can start the same stack and name each value that has become another one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lamina_cli.client.home import LAYERS, host_names
from lamina_cli.stack.embedded import Settings, builder, config_type
from lamina_cli.stack.virtual_run import event_file
from lamina_kit import config
from lamina_kit.checks import Checks, shown
from lamina_kit.clock_control import MAX_RATE_PERMILLE
from lamina_kit.errors import DataLoss, InvalidArgument
from lamina_kit.gateway.log import EventTally, Header
from lamina_kit.layer.owner_session import REVISION
from lamina_kit.layer.state import version

SOFTWARE = ("grpcio", "numba", "numpy", "protobuf", "unicorn")
"""Distributions whose version may change what a stack does."""
PACKAGES = (
    "lamina_kit", "lamina_net", "lamina_cli", "lamina_hardware", "lamina_mmu", "lamina_vswitch", "lamina_hypervisor",
    "lamina_container_runtime", "lamina_orchestrator",
)  # fmt: skip


@dataclass(frozen=True)
class Started:
    """What a stack in virtual time was started with."""

    settings: Settings
    seed: int
    rate_permille: int
    fault_plan_text: str | None = None


def header(started: Started, *, kept_state: bool) -> Header:
    """Returns the header of the log of a stack that is about to start. Raises as `config.load` does."""
    settings = started.settings
    if settings.config_file is not None:
        config.check_sections(settings.config_file, LAYERS)
    given = {
        "host": settings.host,
        "hosts": settings.hosts,
        "engines": dict(settings.engines),
        "clock": settings.clock,
        "rate_permille": started.rate_permille,
        "seed": started.seed,
        "config_text": settings.config_file.read_text() if settings.config_file is not None else None,
        "variables": variables({**os.environ, **settings.overrides}),
        "fault_plan_text": started.fault_plan_text,
        "effective": effective(settings),
    }
    return Header(
        version=version(),
        revision=REVISION,
        configuration=given,
        hash_seed=os.environ.get("PYTHONHASHSEED", ""),
        software=software(),
        state="kept" if kept_state else "empty",
    )


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that configure layers."""
    prefixes = tuple(f"{config.PREFIX}{layer.upper().replace('-', '_')}_" for layer in LAYERS)
    return {key: environment[key] for key in sorted(environment) if key.startswith(prefixes)}


def effective(settings: Settings) -> dict[str, dict[str, str]]:
    """Returns every value of every layer's configuration as text, as it takes effect here and now."""
    given = {**os.environ, **settings.overrides}
    found: dict[str, dict[str, str]] = {}
    for layer in LAYERS:
        values = config.load(layer, config_type(builder(layer)), settings.config_file, given)
        found[layer] = {key: str(value) for key, value in sorted(asdict(values).items())}
    return found


def software() -> dict[str, str]:
    """Returns the versions of what a stack runs on, and a digest of Lamina's own source."""
    found = {name: metadata.version(name) for name in SOFTWARE}
    found["python"] = platform.python_version()
    found["machine"] = platform.machine()
    found["source"] = source_digest()
    return found


def source_digest() -> str:
    """Returns the first 16 digits of the SHA-256 of Lamina's Python source: versions of a checkout differ in it."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in sorted(spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(folder)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def restored(header: Header, scratch: Path) -> Started:
    """Returns what a log's stack was started with; its configuration file is written anew into `scratch`.

    Raises:
        DataLoss: `INPUT_LOG_MALFORMED`, the configuration is not what Lamina writes.
    """
    given = header.configuration
    try:
        config_text, plan_text = given["config_text"], given["fault_plan_text"]
        overrides = {str(key): str(value) for key, value in given["variables"].items()}
        engines = {str(key): str(value) for key, value in given["engines"].items()}
        seed, rate, hosts = (int(given[key]) for key in ("seed", "rate_permille", "hosts"))
        plan = tomllib.loads(plan_text) if plan_text is not None else None
        clock, host = str(given["clock"]), str(given["host"])
        if set(engines) != set(LAYERS) or clock not in ("scaled", "stepped", "virtual"):
            raise ValueError("its engines or its clock are none")
        if not (-(1 << 63) <= seed < 1 << 63 and 0 <= rate <= MAX_RATE_PERMILLE):
            raise ValueError("its seed or rate is out of range")
        with Checks() as check:  # host names become names of folders and files
            check.identifier("host", host)
        host_names(host, hosts)
        if config_text is not None:
            (scratch / "lamina.toml").write_text(config_text)
    except (KeyError, TypeError, ValueError, AttributeError, InvalidArgument) as error:
        raise DataLoss(
            f"The configuration in the header of the input log is not what Lamina writes: {shown(error)}.",
            reason="INPUT_LOG_MALFORMED",
            next_step="Take the log as it was written.",
        ) from error
    config_file = scratch / "lamina.toml" if config_text is not None else None
    settings = Settings(host, hosts, engines, config_file, overrides, seed, plan, clock)
    return Started(settings, seed, rate, plan_text)


def differences(header: Header, started: Started) -> list[str]:
    """Returns what is another here than where the log was written and may lead a replay elsewhere, a line each."""
    found = []
    if header.version != version():
        found.append(f"version: {shown(header.version)} in the log, {shown(version())} here")
    if header.revision != REVISION:
        found.append(f"contract revision: {shown(header.revision)} in the log, {shown(REVISION)} here")
    if header.hash_seed != os.environ.get("PYTHONHASHSEED", ""):
        found.append(f"PYTHONHASHSEED: {shown(header.hash_seed)} in the log")
    if header.state != "empty":
        found.append("state: the stack began with state of an earlier run, which the log does not hold")
    there, here = header.configuration.get("effective"), effective(started.settings)
    for layer in LAYERS:
        before = there.get(layer) if isinstance(there, dict) else None
        before, after = before if isinstance(before, dict) else {}, here[layer]
        found += [f"configuration {layer}.{line}" for line in changes(before, after)]
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns what differs between the values of a log and those of here, a line each."""
    return [
        f"{key}: {said(before.get(key))} in the log, {said(after.get(key))} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def said(value: Any) -> str:
    """Returns a value for a message; that of a log is somebody else's, so it is cut and its odd characters escaped."""
    return "absent" if value is None else shown(value)


def other_software(header: Header) -> list[str]:
    """Returns what the stack runs on that is another here than where the log was written, a line each."""
    return changes(header.software, software())


def without_variables() -> None:
    """Takes the variables that configure layers out of this process's environment: a replay has those of its log."""
    for key in variables(os.environ):
        del os.environ[key]


@contextmanager
def tallied(path: Path | None) -> Iterator[tuple[EventTally, Callable[[Any], None]]]:
    """Yields a tally of events and the sink that feeds it; with a path each event is written there as a line at once.

    Raises:
        FailedPrecondition: `EVENT_LOG_UNWRITABLE`.
    """
    if path is None:
        tally = EventTally()
        yield tally, lambda entry: tally.add(entry.json_line())
        return
    with event_file(path, 1) as file:  # line by line: a killed process leaves what it has recorded
        tally = EventTally(file.write)
        yield tally, lambda entry: tally.add(entry.json_line())
