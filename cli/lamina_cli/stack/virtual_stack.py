"""A stack on a virtual loop with everything that makes it one for the outside: gateway, ports, input log, event log.

The process behind `lamina up --clock scaled|stepped|virtual` runs one (`daemon.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from lamina_cli.stack import recording
from lamina_cli.stack.embedded import Settings, Stack
from lamina_kit.errors import FailedPrecondition
from lamina_kit.gateway.gateway import Gateway
from lamina_kit.gateway.log import InputLog
from lamina_kit.gateway.pace import Pace
from lamina_kit.gateway.ports import serve_port
from lamina_kit.layer.service import LAST_WORDS_S, Served
from lamina_kit.process.options import GRACE_S
from lamina_kit.security.transport import PLAIN
from lamina_kit.telemetry.events import EventRecord
from lamina_kit.virtual.loop import VirtualLoop

BESIDE = {"hardware": ("lamina.hardware.v1.Clock",)}
"""Services that are answered beside the stack: a stack that waits for its clock to move cannot move it."""
INPUT_LOG = "input.jsonl"
"""Name of the input log in a stack's folder, unless another file is named."""


def check_supported(settings: Settings) -> None:
    """Raises `FailedPrecondition` `CLOCK_NEEDS_MODEL` when an engine lives on the machine's clock alone."""
    others = [f"{layer}: {engine}" for layer, engine in settings.engines.items() if engine != "model"]
    if others:
        raise FailedPrecondition(
            f"a {settings.clock} clock needs model engines in all layers, and these are others: {', '.join(others)}",
            reason="CLOCK_NEEDS_MODEL",
            next_step="leave --engines away, or --clock: what runs on the real kernel runs in real time",
        )


class VirtualStack:
    """A served stack in virtual time, from `open` to `close`; both on the real loop."""

    def __init__(self, started: recording.Started, loop: VirtualLoop, state_dir: Path) -> None:
        self._started = started
        self._loop = loop
        self._state_dir = state_dir
        self._served: list[Served] = []
        self._files = ExitStack()
        self.gateway: Gateway | None = None
        self.security = PLAIN
        """Certificates for ports beyond the host."""
        self.grace_s: float = GRACE_S
        self.stack = Stack(started.settings, state_dir, lambda entry: self._sink(entry))
        self._sink: Callable[[EventRecord], None] = lambda entry: None

    async def open(
        self,
        input_log: Path,
        event_log: Path | None,
        addresses: Mapping[str, str],
        progress: Callable[[str], None] = lambda layer: None,
    ) -> dict[str, str]:
        """Starts the stack and serves it. Returns the targets that clients connect to.

        Raises as `Stack.start` and `Stack.serve` do, and for logs that cannot be written (`INPUT_LOG_UNWRITABLE`,
        `EVENT_LOG_UNWRITABLE`); then nothing is left running.
        """
        check_supported(self._started.settings)
        kept = self._state_dir.exists() and any(self._state_dir.iterdir())
        log = InputLog(input_log, recording.header(self._started, kept_state=kept))
        self._files.callback(log.close)
        tally, self._sink = self._files.enter_context(recording.tallied(event_log))
        pace = Pace(self._started.settings.clock, self._started.rate_permille)
        gateway = self.gateway = Gateway(self._loop, pace, log, tally)
        try:
            await gateway.within(partial(self.stack.start, progress))
            gateway.add(self.stack.servers())
            targets = {layer: await self._serve(gateway, layer, address) for layer, address in addresses.items()}
            gateway.wake()  # a clock that goes by itself does so from here on, whether somebody calls or not
            return targets
        except BaseException:
            await self.close()
            raise

    async def _serve(self, gateway: Gateway, layer: str, address: str) -> str:
        service, state = {name: (service, state) for name, service, state in self.stack.layers()}[layer]
        beside = BESIDE.get(service.layer, ())
        served = await serve_port(gateway, service, [address], state, beside=beside, name=layer, security=self.security)
        self._served.append(served)
        return self.security.from_here(served.addresses[0])

    def hasten(self) -> None:
        """Ends the grace of a `close` that waits."""
        if self.gateway is not None:
            self.gateway.hasten()

    async def close(self) -> None:
        """Ends advances and open calls, stops the stack, and ends the logs. Idempotent."""
        if self.gateway is not None:
            await self.gateway.shut(self.grace_s)
        await asyncio.gather(*(served.stop(LAST_WORDS_S) for served in self._served))
        self._served.clear()
        if self.gateway is not None:
            await self.gateway.stop(self.stack.stop)
        self._files.close()
