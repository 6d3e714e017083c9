"""The process behind `lamina up`: an embedded stack that serves six ports until it is told to stop.

It reports to the command that started it on file descriptor 3, a line each: `starting LAYER`, then `ready` or
`failed` with the error as JSON. After that it lives on its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lamina_cli import home
from lamina_kit.errors import LaminaError

REPORT = 3
"""File descriptor of the report."""


def report(line: str) -> None:
    """Writes a line of the report. A starter that left early is not missed."""
    try:
        os.write(REPORT, line.encode() + b"\n")
    except OSError as error:
        print(f"the command that started this stack does not listen: {error}", file=sys.stderr)


def describe(problem: BaseException) -> dict[str, Any]:
    """Returns an error as plain values, for the other process to raise."""
    if isinstance(problem, LaminaError):
        return {
            "code": problem.code,
            "message": problem.message,
            "reason": problem.reason,
            "next_step": problem.next_step,
        }
    return {"code": "INTERNAL", "message": f"{type(problem).__name__}: {problem}", "reason": "DEFECT", "next_step": ""}


async def run(args: argparse.Namespace) -> int:
    """Starts the stack, serves it, and stops it on SIGTERM or SIGINT. Returns the exit status."""
    from lamina_cli.stack import Settings, Stack
    from lamina_kit.layer import version

    settings = Settings(
        host=args.host,
        engines=json.loads(args.engines),
        config_file=args.config,
        overrides=json.loads(args.overrides),
        seed=args.seed,
    )
    folder = home.stack_dir(args.stack)
    stack = Stack(settings, folder / "state")
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    try:
        await stack.start(lambda layer: report(f"starting {layer}"))
        targets = await stack.serve(json.loads(args.addresses))
    except Exception as problem:
        # Whatever it is, the starter has to show it; the log keeps the traceback.
        report(f"failed {json.dumps(describe(problem))}")
        await stack.stop()
        raise
    pid = os.getpid()
    home.write_record(
        home.StackRecord(
            name=args.stack,
            pid=pid,
            start_ticks=home.start_ticks(pid),
            host=args.host,
            targets=targets,
            engines=dict(settings.engines),
            version=version(),
        )
    )
    report("ready")
    os.close(REPORT)
    await told_to_stop.wait()
    await stack.stop()
    home.record_path(args.stack).unlink(missing_ok=True)
    return 0


def main() -> int:
    """Runs the stack that the arguments describe; they come from `lamina up`."""
    parser = argparse.ArgumentParser(prog="lamina_cli.daemon")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--engines", required=True)
    parser.add_argument("--addresses", required=True)
    parser.add_argument("--overrides", required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    from lamina_kit.log import configure

    configure()
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
