"""`lamina reload`: has the stack read its configuration anew, and shows what changed.

Logs, metrics and export change at once; what a layer is configured with is shown and waits for a restart. A
configuration with a mistake changes nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lamina_cli.client import home
from lamina_cli.client.client import add_form, guarded
from lamina_cli.output import printing
from lamina_kit.errors import CLASSES, DeadlineExceeded, Internal
from lamina_kit.operations import reload as reloading

PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.05

Asked = Mapping[str, tuple[int, Path]]
"""Processes by name: the pid, and the folder in which it leaves its report."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="which stack (default: default)")
    add_form(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: reload(args)))


def reload(args: argparse.Namespace) -> int:
    """Asks the processes of the stack and shows their reports. Returns 0 only if none refused."""
    record = home.running(args.stack)
    folder = home.stack_dir(args.stack)
    asked: dict[str, tuple[int, Path]] = {"stack": (record.pid, folder)}
    for layer in home.LAYERS:
        process = record.processes.get(layer)
        if process is not None and process["state"] == "serving":
            asked[layer] = (process["pid"], folder / "state" / layer)
    reports = ask(record.pid, asked)
    whole = reports["stack"]
    if whole.reason:
        kind = next((known for known in CLASSES if known.code == whole.code), Internal)
        raise kind(whole.message, reason=whole.reason, next_step=whole.next_step)
    if args.output == "json":
        printing.as_json({name: asdict(report) for name, report in reports.items()})
    else:
        show(reports)
    return 1 if any(report.reason for report in reports.values()) else 0


def ask(pid: int, asked: Asked) -> dict[str, reloading.Reloaded]:
    """Sends the signal to the process of the stack, and returns the report of each process that is to follow it.

    Raises:
        DeadlineExceeded: `RELOAD_UNANSWERED`, naming the processes that said nothing.
    """
    before = {name: _number(folder, process) for name, (process, folder) in asked.items()}
    os.kill(pid, signal.SIGHUP)
    found: dict[str, reloading.Reloaded] = {}
    end = time.monotonic() + PATIENCE_SECONDS
    while len(found) < len(asked):
        for name, (process, folder) in asked.items():
            written = reloading.read(folder)
            if written is not None and written.pid == process and written.number > before[name]:
                found[name] = written.report
        if "stack" in found and found["stack"].reason:
            break  # the others were not asked
        if time.monotonic() > end:
            silent = ", ".join(name for name in asked if name not in found)
            raise DeadlineExceeded(
                f"no answer within {PATIENCE_SECONDS:.0f} s from: {silent}",
                reason="RELOAD_UNANSWERED",
                next_step="look at `lamina status`, and at the log of that process",
            )
        time.sleep(LOOK_SECONDS)
    return {name: found[name] for name in asked if name in found}


def show(reports: Mapping[str, reloading.Reloaded]) -> None:
    """Prints each change once, with the processes that it concerns."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for name, report in reports.items():
        for change in report.changes:
            row = (change.name, change.old or "-", change.new or "-", change.effect)
            rows.setdefault(row, []).append(name)
    if rows:
        printing.table(
            ("SETTING", "OLD", "NEW", "EFFECT", "PROCESS"), ((*row, ",".join(names)) for row, names in rows.items())
        )
    elif not any(report.reason for report in reports.values()):
        print("nothing has changed")
    for name, report in reports.items():
        if report.reason:
            print(f"{name} refused, and goes on as before: {report.reason}: {report.message} {report.next_step}")


def _number(folder: Path, pid: int) -> int:
    """Returns how many reloads a process has reported."""
    written = reloading.read(folder)
    return written.number if written is not None and written.pid == pid else 0
