"""`lamina doctor`: tells what this machine can run, and what is missing.

Nothing is changed, no stack is needed, and every look has a limit. Exit status 1 only when something is missing without
which no stack starts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import lamina_kit.errors
from lamina_cli.client import home
from lamina_cli.client.client import add_form, guarded
from lamina_cli.doctor import kernel as doctor_kernel
from lamina_cli.doctor import tools
from lamina_cli.doctor.machine import Finding, Machine
from lamina_cli.output import printing
from lamina_kit.errors import LaminaError

PYTHON = (3, 11)
ENGINE_NEEDS = {"kvm": ("kvm",), "linux": ("cgroups", "namespaces", "overlayfs", "tap")}
"""What the sets of engines beside `model` need of the kernel, as checks."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_form(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: doctor(args)))


def doctor(args: argparse.Namespace) -> int:
    """Looks at everything and prints it. Returns 0 unless something required is missing."""
    findings = examine(Machine())
    if args.output == "json":
        printing.as_json([asdict(finding) for finding in findings])
    else:
        report(findings)
    return 1 if any(finding.required and finding.state == "missing" for finding in findings) else 0


def report(findings: list[Finding]) -> None:
    """Prints what was found, then what to do about what is not as it could be."""
    printing.table(("CHECK", "STATE", "FOUND", "FOR"), ((f.check, f.state, f.found, f.purpose) for f in findings))
    steps = [finding for finding in findings if finding.next_step]
    if steps:
        print()
        printing.table(("CHECK", "NEXT STEP"), ((f.check, f.next_step) for f in steps))
    lacking = [finding.check for finding in findings if finding.required and finding.state == "missing"]
    print()
    print(
        f"no stack starts here without: {', '.join(lacking)}"
        if lacking
        else "`lamina demo` and `lamina up` can run here"
    )


def examine(machine: Machine) -> list[Finding]:
    """Returns all findings, in the order of the report."""
    probes: list[Callable[[], Finding]] = [
        partial(python, sys.version_info[:3]),
        partial(doctor_kernel.processor, machine),
        *(partial(probe, machine) for probe in _KERNEL),
        partial(tools.ports, machine, stacks()),
        partial(tools.shared_memory, machine),
        partial(tools.open_files, machine),
        partial(folder_of_state, machine),
        partial(folder_of_code, machine),
        partial(tools.docker, machine),
        *(partial(tools.tool, machine, name) for name in tools.TOOLS),
    ]
    with ThreadPoolExecutor(len(probes)) as pool:
        model = pool.submit(engines, "model", [])
        findings = [task.result() for task in [pool.submit(probe) for probe in probes]]
    known = {finding.check: finding for finding in findings}
    others = [engines(name, [known[check] for check in needed]) for name, needed in ENGINE_NEEDS.items()]
    return [findings[0], model.result(), *others, *findings[1:]]


_KERNEL = (
    doctor_kernel.kvm,
    doctor_kernel.cgroups,
    doctor_kernel.namespaces,
    doctor_kernel.overlayfs,
    doctor_kernel.tap,
)


def python(version: tuple[int, ...]) -> Finding:
    """Looks at the Python that runs this."""
    found = f"{'.'.join(map(str, version))}, {sys.executable}"
    purpose = "everything"
    if version >= PYTHON:
        return Finding("python", "ok", found, purpose, required=True)
    step = f"Install Python {'.'.join(map(str, PYTHON))} or newer; LAMINA_PYTHON names it for `./run`."
    return Finding("python", "missing", found, purpose, step, required=True)


def engines(name: str, kernel: list[Finding]) -> Finding:
    """Looks whether a set of engines is installed and can run; `kernel` is what it needs of this machine."""
    from lamina_kit.engines import SETS, entry_points

    check, required = f"engines: {name}", name == "model"
    purpose = {
        "model": "everything, in a model that needs no rights",
        "kvm": "virtual machines on the processor itself",
        "linux": "containers, switching and memory of the kernel itself",
    }[name]
    absent, reasons = [], [f"{one.check}: {one.found}" for one in kernel if one.state == "missing"]
    limits = [f"{one.check}: {one.found}" for one in kernel if one.state not in {"ok", "missing"}]
    for layer, engine in SETS[name].items():
        points = entry_points(layer)
        if engine not in points:
            absent.append(layer)
            continue
        try:
            reasons += [f"{layer}: {reason}" for reason in points[engine].load().missing()]
        except (ImportError, OSError, LaminaError) as error:
            reasons.append(f"{layer}: {error}")
    if absent:
        bounds = "; ".join(reasons + limits)
        could = f"; the machine would limit it: {bounds}" if bounds else "; the machine has what it needs"
        found = f"not installed for {', '.join(absent)}{could if kernel else ''}"
        step = "Install Lamina again." if required else "Lamina has none yet; `model` does without."
        return Finding(check, "missing", found, purpose, step, required)
    if reasons:
        return Finding(check, "missing", "; ".join(reasons), purpose, "Provide what is missing.", required)
    if limits:
        found = f"{', '.join(SETS[name])}; {'; '.join(limits)}"
        return Finding(check, "limited", found, purpose, "Read below what limits it.", required)
    return Finding(check, "ok", f"{', '.join(SETS[name])}", purpose, "", required)


def stacks() -> dict[int, str]:
    """Returns the processes of the stacks that are up, each with the name of its stack."""
    found: dict[int, str] = {}
    for path in home.home().glob("*/stack.json"):
        try:
            record = home.read_record(path.parent.name)
        except LaminaError:
            continue  # `lamina status --stack NAME` tells what is wrong with it
        if record is not None and record.is_alive():
            found[record.pid] = record.name
            found |= {int(process["pid"]): record.name for process in record.processes.values()}
    return found


def folder_of_state(machine: Machine) -> Finding:
    """Looks at the folder of all stacks."""
    step = "Name another one in LAMINA_HOME."
    purpose = "state, logs and records of stacks"
    return tools.folder(machine, "state folder", home.home(), purpose, step, required=True)


def folder_of_code(machine: Machine) -> Finding:
    """Looks at the folder of compiled code."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(lamina_kit.errors.__file__).parent  # numba writes beside the module it compiles, when it may
    path = Path(given) if given else beside if machine.writable(str(beside)) else Path(tempfile.gettempdir())
    purpose = "compiled walkers and switches, kept from one start to the next"
    step = "Name one that can be written in NUMBA_CACHE_DIR."
    return tools.folder(machine, "numba cache", path, purpose, step, required=True)
