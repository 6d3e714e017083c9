"""The process behind `lamina up --split`: keeps the six processes of a stack running until it is told to stop.

It reports to the command that started it as `daemon.py` does, and writes what becomes of its processes into the
stack's record, where `lamina status` reads it. When it is killed, the kernel ends its processes too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from lamina_cli.client import home
from lamina_cli.stack import operations as operating
from lamina_cli.stack.daemon import REPORT, add_security, describe, report, security_of
from lamina_cli.stack.stop_signal import StopSignal
from lamina_kit.operations.reload import HangUp, Reloaded
from lamina_kit.process.options import GRACE_S
from lamina_kit.security.transport import PLAIN


async def run(args: argparse.Namespace) -> int:
    """Starts the processes, keeps them, and stops them on SIGTERM or SIGINT. Returns the exit status."""
    from lamina_cli.stack.embedded import Settings
    from lamina_cli.stack.split import SplitStack

    settings = Settings(
        host=args.host,
        engines=json.loads(args.engines),
        config_file=args.config,
        overrides=json.loads(args.overrides),
        seed=args.seed,
    )
    written = Written(args.stack, settings.host, dict(settings.engines))
    stack = SplitStack(settings, home.stack_dir(args.stack), json.loads(args.addresses), lambda: written.update(stack))
    stack.fault_plan = args.fault_plan
    stack.security = written.security = security_of(args)
    stop = StopSignal()
    stop.install()
    stack.grace_s = written.grace_s = args.grace
    operations = operating.of_supervisor(settings, args)
    stack.operations = operating.words(args)
    try:
        await operations.start()
        await stack.start(lambda layer: report(f"starting {layer}"))
    except Exception as problem:
        # Whatever it is, the starter has to show it; the log keeps the traceback.
        report(f"failed {json.dumps(describe(problem))}")
        raise
    written.open(stack)

    def pass_on(outcome: Reloaded) -> None:
        if not outcome.reason:
            stack.reload()

    HangUp(operations.reload, home.stack_dir(args.stack), pass_on).install()
    report("ready")
    os.close(REPORT)
    stop.hasten = stack.hasten
    await stop.told.wait()
    written.close()
    await stack.stop()
    home.record_path(args.stack).unlink(missing_ok=True)
    return 0


class Written:
    """The stack's record on disk, from `open` to `close` always as the processes are."""

    def __init__(self, name: str, host: str, engines: dict[str, str]) -> None:
        self._name = name
        self._host = host
        self._engines = engines
        self._open = False
        self.security = PLAIN
        self.grace_s = GRACE_S

    def open(self, stack: object) -> None:
        """Begins to write."""
        self._open = True
        self.update(stack)

    def close(self) -> None:
        """Ends writing: what is stopped on purpose is no news."""
        self._open = False

    def update(self, stack: object) -> None:
        """Writes the record anew."""
        from lamina_cli.stack.split import SplitStack
        from lamina_kit.layer.state import version

        if not self._open or not isinstance(stack, SplitStack):
            return
        pid = os.getpid()
        home.write_record(
            home.StackRecord(
                name=self._name,
                pid=pid,
                start_ticks=home.start_ticks(pid),
                host=self._host,
                targets=stack.targets,
                engines=self._engines,
                topology="split",
                version=version(),
                tls_dir=str(self.security.tls.ca.parent) if self.security.tls else "",
                plain_network=self.security.plain_network,
                grace_s=self.grace_s,
                processes={layer: asdict(known) for layer, known in stack.reports().items()},
            )
        )


def main() -> int:
    """Runs the supervisor that the arguments describe; they come from `lamina up --split`."""
    parser = argparse.ArgumentParser(prog="lamina_cli.stack.supervisor")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--engines", required=True)
    parser.add_argument("--addresses", required=True)
    parser.add_argument("--overrides", required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--fault-plan", type=Path)
    add_security(parser)
    operating.add_arguments(parser)
    args = parser.parse_args()
    from lamina_kit.telemetry.log import configure

    configure()
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
