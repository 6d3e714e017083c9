"""The process behind `lamina up`: an embedded stack that serves six ports until it is told to stop.

In real time the stack lives on the loop of the sockets; on any other clock on a virtual loop behind a gateway.

It reports to the command that started it on file descriptor 3, a line each: `starting LAYER`, then `ready` or
`failed` with the error as JSON. After that it lives on its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lamina_cli.client import home
from lamina_cli.stack import fault_plans
from lamina_cli.stack import operations as operating
from lamina_cli.stack.stop_signal import StopSignal
from lamina_cli.stack.virtual_run import event_log
from lamina_kit.errors import LaminaError
from lamina_kit.operations.operations import Operations
from lamina_kit.operations.reload import HangUp
from lamina_kit.process.options import GRACE_S
from lamina_kit.security.transport import Security, TlsFiles

if TYPE_CHECKING:
    from lamina_cli.stack.embedded import Settings
    from lamina_kit.layer.state import LayerState
    from lamina_kit.virtual.loop import VirtualLoop

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


class Running(Protocol):
    """A stack that the process can start and stop."""

    async def open(self, progress: Callable[[str], None]) -> dict[str, str]:
        """Starts and serves it. Returns the targets that clients connect to."""

    def states(self) -> list[LayerState]:
        """Returns the states of the layers that have started."""

    async def close(self) -> None:
        """Stops it. Idempotent."""

    def hasten(self) -> None:
        """Ends the grace of calls while it stops."""

    def failed(self) -> asyncio.Future[None] | None:
        """Returns what is done when the stack cannot go on; None when there is no such case."""


class RealStack:
    """A stack in real time."""

    def __init__(self, args: argparse.Namespace, settings: Settings, state_dir: Path, security: Security) -> None:
        from lamina_cli.stack.embedded import Stack

        self._addresses = json.loads(args.addresses)
        self._security = security
        self._files = ExitStack()
        sink = self._files.enter_context(event_log(args.event_log))
        self._stack = Stack(settings, state_dir, sink)
        self._stack.grace_s = args.grace

    async def open(self, progress: Callable[[str], None]) -> dict[str, str]:
        """Starts and serves it."""
        await self._stack.start(progress)
        return await self._stack.serve(self._addresses, self._security)

    def states(self) -> list[LayerState]:
        """Returns the states of the layers."""
        return [state for _, _, state in self._stack.layers()]

    async def close(self) -> None:
        """Stops it."""
        await self._stack.stop()
        self._files.close()

    def hasten(self) -> None:
        """Ends the grace of calls."""
        self._stack.hasten()

    def failed(self) -> asyncio.Future[None] | None:
        """Returns None: a layer that fails answers so."""
        return None


class SteppedStack:
    """A stack on a clock that is not the machine's."""

    def __init__(
        self, args: argparse.Namespace, settings: Settings, state_dir: Path, security: Security, loop: VirtualLoop
    ) -> None:
        from lamina_cli.stack import virtual_stack
        from lamina_cli.stack.recording import Started

        plan = args.fault_plan.read_text() if args.fault_plan is not None else None
        self._args = args
        self._stack = virtual_stack.VirtualStack(Started(settings, args.seed, args.rate, plan), loop, state_dir)
        self._stack.security = security
        self._stack.grace_s = args.grace

    async def open(self, progress: Callable[[str], None]) -> dict[str, str]:
        """Starts and serves it."""
        args = self._args
        return await self._stack.open(args.input_log, args.event_log, json.loads(args.addresses), progress)

    def states(self) -> list[LayerState]:
        """Returns the states of the layers, which are looked at from outside the virtual loop."""
        return [state for _, _, state in self._stack.stack.layers()]

    async def close(self) -> None:
        """Stops it."""
        await self._stack.close()

    def hasten(self) -> None:
        """Ends the grace of calls."""
        self._stack.hasten()

    def failed(self) -> asyncio.Future[None] | None:
        """Returns the gateway's failure."""
        return self._stack.gateway.failed if self._stack.gateway is not None else None


async def run(args: argparse.Namespace, loop: VirtualLoop | None) -> int:
    """Starts the stack, serves it, and stops it on SIGTERM or SIGINT. Returns the exit status."""
    from lamina_cli.stack.embedded import Settings

    stop = StopSignal()
    stop.install()
    stack: Running | None = None
    operations: Operations | None = None
    states: list[LayerState] = []
    try:
        settings = Settings(
            host=args.host,
            hosts=args.hosts,
            engines=json.loads(args.engines),
            config_file=args.config,
            overrides=json.loads(args.overrides),
            seed=args.seed,
            fault_plan=fault_plans.read(args.fault_plan),
            clock=args.clock,
        )
        state_dir = home.stack_dir(args.stack) / "state"
        security = security_of(args)
        if loop is None:
            stack = RealStack(args, settings, state_dir, security)
        else:
            stack = SteppedStack(args, settings, state_dir, security, loop)
        operations = operating.of_stack(
            settings, args, states, lambda: "" if states else "the stack starts", security.users
        )
        await operations.start()
        targets = await stack.open(lambda layer: report(f"starting {layer}"))
    except Exception as problem:
        # Whatever it is, the starter has to show it; the log keeps the traceback.
        report(f"failed {json.dumps(describe(problem))}")
        if stack is not None:
            await stack.close()
        if operations is not None:
            await operations.stop()
        raise
    states += stack.states()
    operations.attach()
    HangUp(operations.reload, home.stack_dir(args.stack)).install()
    write_record(args, targets, settings.engines, operations.metrics_address)
    report("ready")
    os.close(REPORT)
    stop.hasten = stack.hasten
    await until_told(stop.told, stack.failed())
    operations.look()
    await stack.close()
    await operations.stop()
    home.record_path(args.stack).unlink(missing_ok=True)
    return 0


async def until_told(told_to_stop: asyncio.Event, failed: asyncio.Future[None] | None) -> None:
    """Returns when the process is told to stop, or its stack cannot go on; the log says why."""
    if failed is not None:
        failed.add_done_callback(lambda _: told_to_stop.set())
    await told_to_stop.wait()
    if failed is not None and failed.done() and (error := failed.exception()) is not None:
        print(f"the stack stops: {error}", file=sys.stderr)


def security_of(args: argparse.Namespace) -> Security:
    """Returns what the stack has for talking beyond its host."""
    return Security(TlsFiles.of(args.tls_dir) if args.tls_dir else None, args.plain_network)


def add_security(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `security_of` reads, and how long calls may go on once the stack is told to stop."""
    parser.add_argument("--grace", type=int, default=GRACE_S)
    parser.add_argument("--tls-dir", type=Path)
    parser.add_argument("--plain-network", action="store_true")


def write_record(args: argparse.Namespace, targets: dict[str, str], engines: Mapping[str, str], metrics: str) -> None:
    """Writes what other commands need to know of this stack."""
    from lamina_kit.layer.state import version

    pid = os.getpid()
    home.write_record(
        home.StackRecord(
            name=args.stack,
            pid=pid,
            start_ticks=home.start_ticks(pid),
            host=args.host,
            targets=targets,
            engines=dict(engines),
            clock=args.clock,
            version=version(),
            metrics=metrics,
            tls_dir=str(args.tls_dir or ""),
            plain_network=args.plain_network,
            grace_s=args.grace,
        )
    )


def main() -> int:
    """Runs the stack that the arguments describe; they come from `lamina up`."""
    parser = argparse.ArgumentParser(prog="lamina_cli.stack.daemon")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--engines", required=True)
    parser.add_argument("--addresses", required=True)
    parser.add_argument("--overrides", required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--fault-plan", type=Path)
    parser.add_argument("--clock", default="real")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--input-log", type=Path)
    parser.add_argument("--event-log", type=Path)
    add_security(parser)
    operating.add_arguments(parser)
    args = parser.parse_args()
    from lamina_kit.telemetry.log import configure

    if args.clock == "real":
        configure()
        return asyncio.run(run(args, None))
    from lamina_cli.stack.virtual_run import with_fixed_hashes
    from lamina_kit.virtual.loop import VirtualLoop

    with_fixed_hashes()
    configure()
    loop = VirtualLoop(args.seed)
    with loop.collecting_garbage():
        return asyncio.run(run(args, loop))


if __name__ == "__main__":
    sys.exit(main())
