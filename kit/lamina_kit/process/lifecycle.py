"""The lives of one layer's service: one object after another, as its host loses power and gets it back.

    build ─▶ wait for the layers below ─▶ check the bus ─▶ start ─▶ calls reach it
      ▲                                                                │
      └──── stop, calls in flight end ◀──── a layer below has another boot, or has left during the start

Power that is lost below takes everything above with it, as on a real machine: a service does not mend what it held in
layers that are gone, it starts from its state directory, as after its own death. `docs/adr/0011-processes.md`
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lamina_kit.bus.identity import check_bus
from lamina_kit.clock import Clock
from lamina_kit.errors import DeadlineExceeded, LaminaError, Unavailable
from lamina_kit.layer.service import Environment, Service
from lamina_kit.layer.state import LayerState
from lamina_kit.process.options import Options
from lamina_kit.process.switchboard import Switchboard
from lamina_kit.process.upstreams import Upstreams
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import Channel
from lamina_kit.rpc.inflight import shutting_down
from lamina_kit.telemetry import log

STOP_S = 15.0
"""How long a service may take to stop before it is left behind."""
JOIN_S = 3.0
"""How long a layer that needs none below waits for one that tells the time of the stack."""
RETRY_NS = 200_000_000
"""Pause before another start after a layer below has left in the middle of one."""

Announce = Callable[[bool], Awaitable[None]]


@dataclass(frozen=True)
class Role:
    """What a layer is as a process.

    `calls` are the layers below that it has channels to, `needs` those without which it cannot start: when one of them
    comes back with another boot, so does this layer. `makes_bus` and `maps_bus` say what it does with the host's RAM;
    `per_host` is false for a layer of the whole cluster. `alone` are the engines that work on the machine's kernel:
    with them the layer needs none below, and no RAM of the stack's.
    """

    layer: str
    build: Callable[[Environment, Any], Service]
    config: type[Any]
    calls: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    makes_bus: bool = False
    maps_bus: bool = False
    per_host: bool = True
    alone: tuple[str, ...] = ()

    def of(self, options: Options) -> Role:
        """Returns what the layer is with the engine of the options."""
        if options.engine not in self.alone:
            return self
        return replace(self, calls=tuple(options.upstreams), needs=(), makes_bus=False, maps_bus=False)

    def placed(self, options: Options) -> Options:
        """Returns the options with a place for the host's RAM where this layer makes it and nobody says where."""
        if not self.makes_bus or options.bus is not None:
            return options
        return replace(options, bus=options.state_dir / f"{options.host}.ram")

    def state(self, options: Options, clock: Clock, rng: Rng) -> LayerState:
        """Returns the state of the layer before its first start."""
        host = options.host if self.per_host else ""
        return LayerState(self.layer, host, clock, rng.child("state"), engine=options.engine)


class Lifecycle:
    """Builds and runs the service of a role until `stop`.

    `board` stands for it at a server; `state` is that of its present start. `join` is told the time of the stack before
    each start.
    """

    def __init__(
        self,
        role: Role,
        options: Options,
        config: Any,
        state: LayerState,
        rng: Rng,
        channels: Mapping[str, Channel],
        join: Callable[[int], None] = lambda now_ns: None,
    ) -> None:
        self._role = role
        self._options = options
        self._config = config
        self._clock = state.clock
        self._rng = rng
        self._channels = channels
        self._join = join
        self.state = state
        self.upstreams = Upstreams(channels, options.upstreams, role.layer, state.host, state.clock, options.security())
        self.board = Switchboard(self._waiting, self.upstreams.explain)
        self._log = log.logger(role.layer)
        self._stopping = asyncio.Event()
        self._reset = asyncio.Event()
        self._starts = 0
        self._started = False
        self._service = self._build()

    def stop(self) -> None:
        """Has `run` end, with the grace of the options for calls with one response; a second time ends the grace."""
        if self._stopping.is_set():
            self.board.hasten()
        self._stopping.set()

    def reboot(self) -> None:
        """Ends the present life and begins the next one, as a machine does whose power is switched off and on."""
        self._reset.set()

    async def run(self, announce: Announce) -> None:
        """Lives until `stop`. `announce` is told when calls begin and cease to reach the service.

        Raises what keeps the service from starting and no waiting mends.
        """
        self.upstreams.follow()
        try:
            while await self._live(announce):
                self._service = self._build()
        finally:
            await self.upstreams.stop()

    # ── one life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _build(self) -> Service:
        """Builds the service from its state directory, and puts it behind the board."""
        options = self._options
        if self._starts:
            self.state = self.state.next_start()
        self._starts += 1
        environment = Environment(
            host=options.host,
            clock=self._clock,
            rng=self._rng.child(f"start-{self._starts}"),
            state_dir=options.state_dir,
            layer=self.state,
            channels=self._channels,
            bus_path=options.bus,
            config=self._config,
            security=options.security(),
        )
        service = self._role.build(environment, self._config)
        self.board.connect(service, self.state)
        return service

    async def _live(self, announce: Announce) -> bool:
        """Brings one service object from its start to its end. Returns whether another one is to follow."""
        try:
            if not await self._unless_stopped(self._ready()):
                return False
            await self._service.start()
            self.board.open()
            self._started = True
            await announce(True)
            self._log.info("layer.started", boot_id=self.state.boot_id, start=self._starts)
            return await self._unless_stopped(self._power_lost())
        except Unavailable as error:
            self._log.warning("layer.start_failed", reason=error.reason, message=error.message)
            return await self._unless_stopped(self._clock.sleep_ns(RETRY_NS))
        finally:
            await announce(False)
            if self._stopping.is_set():
                await self.board.drain(self._over, self._options.grace_s)
            await self.board.close(self._over)
            await self._end()
            self.state.close()
            self._drop_bus()

    async def _ready(self) -> None:
        """Returns when the layers below and the host's RAM are as this layer needs them.

        Raises:
            DeadlineExceeded: `UPSTREAM_MISSING`, the layers below did not come in the time that was given for them.
        """
        options, role = self._options, self._role
        self.board.refuse(self._waiting)
        try:
            async with asyncio.timeout(options.patience_s or None):
                await self.upstreams.ready(role.needs)
        except TimeoutError:
            waiting = self._waiting()
            raise DeadlineExceeded(
                f"{waiting.message[:-1]}, and not longer than {options.patience_s} s.",
                reason="UPSTREAM_MISSING",
                next_step=waiting.next_step,
                missing=waiting.metadata["missing"],
            ) from None
        if role.calls and (now_ns := await self.upstreams.time_ns(JOIN_S)) is not None:
            self._join(now_ns)
        if role.maps_bus and options.bus is not None:
            answers = [self.upstreams.answer(layer) for layer in role.needs]
            boots = [str(answer.boot_id) for answer in answers if answer is not None]
            check_bus(options.bus, options.host, min(boots, key=len, default=""))

    async def _power_lost(self) -> None:
        """Returns when this layer is to be built anew: after `reboot`, or when one below has another boot."""
        await _first(self._other_boot(), self._reset.wait())
        self._reset.clear()

    async def _other_boot(self) -> None:
        """Returns when a layer below has come back with another boot; for a layer that needs none, never."""
        layer, boot = await self.upstreams.changed()
        self._log.warning("host.rebooted", below=layer, boot_id=boot)
        record, rule = self.state.events.record, "a layer below has another boot"
        record(f"hosts/{self._options.host}", "host.rebooted", rule=rule, below=layer, boot_id=boot)

    async def _end(self) -> None:
        """Stops the service. What fails or hangs in it must not keep the next one from starting."""
        try:
            async with asyncio.timeout(STOP_S):
                await self._service.stop()
        except Exception as error:
            self._log.error("layer.stop_failed", start=self._starts, exc_info=error)

    def _drop_bus(self) -> None:
        """Removes the RAM that this layer made when it stops in order: it holds real memory and is of no use."""
        path = self._options.bus
        if self._role.makes_bus and path is not None and self._started and self._stopping.is_set():
            path.unlink(missing_ok=True)

    # ── what callers are told ────────────────────────────────────────────────────────────────────────────────────

    def _waiting(self) -> LaminaError:
        return self.upstreams.waiting_for(self._role.needs)

    def _over(self) -> LaminaError:
        layer = self._role.layer
        if self._stopping.is_set():
            return shutting_down(layer)
        text = f"The host of the {layer} layer has lost power."
        return Unavailable(text, reason="HOST_REBOOTED", next_step="Try again when it serves.", layer=layer)

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Does work unless a stop comes first. Returns whether it was done."""
        await _first(work, self._stopping.wait())
        return not self._stopping.is_set()


async def _first(*works: Awaitable[object]) -> None:
    """Returns when one of some works is done, raising what it raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    ended = asyncio.get_running_loop().create_future()

    def note(_: asyncio.Future[Any]) -> None:
        if not ended.done():
            ended.set_result(None)

    for task in tasks:
        task.add_done_callback(note)
    try:
        await ended
        for task in tasks:
            if task.done():
                await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
