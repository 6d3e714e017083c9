"""`lamina down`: stops the stack."""

from __future__ import annotations

import argparse
import os
import signal
import time

from lamina_cli.client import home
from lamina_cli.client.client import guarded
from lamina_cli.output.progress import Line
from lamina_kit.errors import DeadlineExceeded

PATIENCE_SECONDS = {"embedded": 20.0, "split": 120.0}
"""By topology: six processes stop one after the other, top down."""
LOOK_SECONDS = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="which stack (default: default)")
    parser.set_defaults(run=lambda args: guarded(lambda: down(args)))


def down(args: argparse.Namespace) -> int:
    """Tells the stack to stop and waits until it has."""
    record = home.running(args.stack)
    with Line(f"stopping stack {args.stack}"):
        os.kill(record.pid, signal.SIGTERM)
        processes = max(len(record.processes), 1)  # those of a split stack stop one after the other
        patience = PATIENCE_SECONDS[record.topology] + record.grace_s * processes
        end = time.monotonic() + patience
        while record.is_alive():
            if time.monotonic() > end:
                raise DeadlineExceeded(
                    f"process {record.pid} of stack {args.stack!r} has not stopped within {patience:.0f} s",
                    reason="STACK_WILL_NOT_STOP",
                    next_step=f"its log is {home.stack_dir(args.stack) / 'log'}; `kill -9 {record.pid}` ends it",
                )
            time.sleep(LOOK_SECONDS)
    return 0
