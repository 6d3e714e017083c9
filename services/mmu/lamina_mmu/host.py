"""The shell around one host's engine: opens RAM and swap, drives steps, frees what expired sessions owned."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import grpc
from lamina.common.v1 import layer_pb2_grpc
from lamina.hardware.v1 import disks_pb2_grpc, hardware_pb2, hardware_pb2_grpc

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.driver import Performer, drive
from lamina_kit.effects import Effect, Step, WaitFor
from lamina_kit.engines import load_engine
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.layer.owner_session import handshake
from lamina_kit.layer.service import Environment
from lamina_kit.paging import PAGE_SHIFT
from lamina_kit.process.upstreams import extend_boot
from lamina_kit.rpc.status import rpc_error
from lamina_kit.telemetry import trace
from lamina_mmu.config import MmuConfig
from lamina_mmu.domain.effects import PRESSURE, ZEROED, OpenSwapDisk
from lamina_mmu.domain.names import Names
from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.domain.session import NOBODY, Session
from lamina_mmu.engines.interface import MmuEngine
from lamina_mmu.failing_memory import FailingMemory
from lamina_mmu.io import policies
from lamina_mmu.io.linux.kernel import NO_RAM, NO_SWAP, open_kernel
from lamina_mmu.io.performer import kernel_performer, performer
from lamina_mmu.io.swap.disks import SwapDisks
from lamina_mmu.io.swap.files import SwapFile
from lamina_mmu.io.swap.media import SwapFiles

T = TypeVar("T")

SWAP_FILE = "swap"


def _trace_id() -> str:
    """Returns the id of the trace that is being served; empty without one."""
    context = trace.current()
    return context.trace_id if context is not None else ""


class MmuHost:
    """What the servicers work with. `engine` and `perform` exist between `start` and `stop`."""

    engine: MmuEngine
    perform: Performer

    def __init__(self, environment: Environment, config: MmuConfig) -> None:
        self._environment = environment
        self._config = config
        self._engine_class: type[MmuEngine] = load_engine("mmu", environment.layer.engine)
        environment.layer.capabilities = self._engine_class.capabilities
        self.name = environment.host
        self.names = Names(environment.host)
        self._bus: MemoryBus | None = None
        self._media: SwapFiles | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._started = self._keeps_zeroed = False

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_started(self) -> bool:
        """Whether the layer is between its start and its stop."""
        return self._started

    @property
    def is_virtual(self) -> bool:
        """Whether the stack's clock is virtual, which no program outside keeps."""
        return self._environment.clock.mode == "virtual"

    async def start(self) -> None:
        """Shakes hands with the hardware, maps its RAM, opens the swap file, makes the engine."""
        environment, config = self._environment, self._config
        environment.state_dir.mkdir(parents=True, exist_ok=True)
        if self._engine_class.on_kernel:
            self._start_on_kernel()
            return
        channel = environment.channels.get("hardware")
        if channel is None:
            raise FailedPrecondition(
                "The MMU has no hardware below it.",
                reason="HARDWARE_REQUIRED",
                next_step="Start the hardware service first, and give the MMU a channel to it.",
            )
        bus = environment.bus or await self._open_bus(channel)
        swap = SwapFile(environment.state_dir / SWAP_FILE, config.swap_bytes >> PAGE_SHIFT)
        self._media = SwapFiles(environment.state_dir, swap)
        self.perform = performer(environment.clock, hardware_pb2_grpc.CpuStub(channel))
        self.perform.on(OpenSwapDisk, SwapDisks(disks_pb2_grpc.DisksStub(channel), self.spawn).open)
        events = environment.layer.events
        now_ns, wake = environment.clock.now_ns, self.perform.wake
        ports = Ports(environment.host, bus, swap, now_ns, events.record, wake, _trace_id, self._media)
        policy, installed = policies.installed(config.policy)
        frames, ahead, zeroed = config.memory_bytes >> PAGE_SHIFT, config.swap_readahead, config.zeroed_frames
        self._begin(self._engine_class(ports, Settings(policy, frames, installed, ahead, zeroed)))
        self.spawn(self._keep_ahead())
        self.spawn(self._failing_memory(channel).follow())
        self.keep_zeroed(config.zeroed_frames)

    def _start_on_kernel(self) -> None:
        """Makes an engine that works on the memory of the machine itself, and needs no hardware layer."""
        environment, engine = self._environment, self._engine_class
        if self.is_virtual:
            raise FailedPrecondition(
                f"The engine {engine.name} of the MMU works on the kernel, which keeps no virtual clock.",
                reason="ENGINE_NEEDS_REAL_TIME",
                next_step="Start the stack with --clock real, or with the engine model.",
            )
        environment.layer.boot_id = environment.rng.id("mmu")
        self.perform = kernel_performer(environment.clock)
        now_ns, wake, record = environment.clock.now_ns, self.perform.wake, environment.layer.events.record
        kernel = open_kernel(environment.host, environment.state_dir, wake)
        self._begin(
            engine(Ports(environment.host, NO_RAM, NO_SWAP, now_ns, record, wake, _trace_id, None, kernel), Settings())
        )

    def _begin(self, engine: MmuEngine) -> None:
        """Takes an engine into use."""
        self.engine = engine
        sessions = self._environment.layer.sessions
        sessions.adopted = engine.owned
        sessions.on_expired(self._expire)
        self._started = True

    def _failing_memory(self, channel: grpc.aio.Channel) -> FailingMemory:
        """Returns what watches the hardware for memory that fails."""
        environment, frames = self._environment, self.engine.memory().total
        hosts, record = hardware_pb2_grpc.HostsStub(channel), environment.layer.events.record
        return FailingMemory(hosts, environment.clock, self.name, frames, self._lose, record)

    async def _lose(self, frame: int) -> None:
        await self.finish(self.engine.offline_frames([frame], lost=True))

    async def stop(self) -> None:
        """Cancels what is at work, and closes RAM and swap."""
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        if self._started:
            self._started = self._keeps_zeroed = False
            self.engine.close()
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        if self._media is not None:
            self._media.close()

    async def _open_bus(self, channel: grpc.aio.Channel) -> MemoryBus:
        """Returns the host's RAM, as the hardware says where it is."""
        environment = self._environment
        try:
            answer = await handshake(layer_pb2_grpc.LayerStub(channel), "mmu")
            environment.layer.boot_id = extend_boot(answer.boot_id, environment.rng.id("mmu"))
            request = hardware_pb2.MapMemoryRequest()
            mapped = await hardware_pb2_grpc.MemoryStub(channel).MapMemory(request)
        except grpc.aio.AioRpcError as error:
            raise rpc_error(error) from error
        if len(mapped.extents) != 1 or mapped.extents[0].address:
            raise FailedPrecondition(
                f"The hardware has its RAM in {len(mapped.extents)} extents; the MMU maps one that begins at 0.",
                reason="RAM_NOT_MAPPABLE",
                next_step="Run the MMU on hardware whose RAM is one memory bus file.",
            )
        self._bus = MemoryBus.open(environment.bus_path or Path(mapped.extents[0].path))
        return self._bus

    # ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def drive(self, step: Step[T], begun: Effect | None = None) -> Coroutine[Any, Any, T]:
        """Runs a step of the engine; a cancelled caller ends it where it waits, and it puts back what it began.

        `begun` is the first effect of a step that has begun.
        """
        return drive(step, self.perform, begun)

    async def finish(self, step: Step[T]) -> T:
        """Runs a step that must come to its end once begun, whether its caller waits for it or not."""
        task = self.spawn(drive(step, self.perform))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._unheard)
            raise

    def _unheard(self, task: asyncio.Task[Any]) -> None:
        """Records the error of a step whose caller has gone."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            reason = error.reason if isinstance(error, LaminaError) else type(error).__name__
            self._environment.layer.events.record(
                f"hosts/{self.name}", "step.failed", reason=reason, message=str(error)
            )

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Runs work in a task that `stop` cancels."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def swap_fails(self, name: str = "", *, reads: bool, writes: bool) -> None:
        """Makes the disk under a swap area (all of them) fail, or work again."""
        assert self._media is not None, "the host has not started"
        self._media.break_io(name, reads=reads, writes=writes)

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        return self._environment.clock.now_ns()

    def session(self, context: Any) -> Session:
        """Returns the session that a call names."""
        found = self._environment.layer.sessions.find(context)
        return Session(found.owner, found.epoch) if found is not None else NOBODY

    async def _expire(self, owner: str, epoch: int) -> None:
        await self.finish(self.engine.expire(owner, epoch))

    def keep_zeroed(self, frames: int) -> None:
        """Begins to keep a stock of zeroed frames, if there is to be one and none is kept so far."""
        if frames and not self._keeps_zeroed:
            self._keeps_zeroed = True
            self.spawn(self._keep_zeroed())

    async def _keep_zeroed(self) -> None:
        """Keeps a stock of zeroed frames."""
        while True:
            await self.drive(self.engine.zero_ahead())
            await self.perform(WaitFor(ZEROED))

    async def _keep_ahead(self) -> None:
        """Frees frames ahead of need whenever they become few."""
        while True:
            await self.perform(WaitFor(PRESSURE))
            try:
                await self.drive(self.engine.reclaim_ahead())
            except LaminaError as error:
                record = self._environment.layer.events.record
                record(self.names.group("root"), "reclaim.failed", reason=error.reason, message=error.message)
