"""The host below: sessions with its hardware and MMU, its RAM, and what happens when it reboots.

The death of the hardware or of the MMU is the host's loss of power. Both sessions are opened again by themselves; when
one of them meets another boot, or finds nothing of what this runtime had there, the host has rebooted: RAM is another
file, all objects are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.user_memory import UserMemory
from lamina_kit.errors import FailedPrecondition
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.layer.service import Environment
from lamina_kit.rpc.channel import Channel
from lamina_kit.rpc.status import rpc_error

HARDWARE, MMU = 0, 1
"""Places of the sessions, in the order in which they are opened."""


class HostMemory:
    """User memory on the present memory bus (`user.Memory` of the kernel)."""

    def __init__(self, bus: MemoryBus) -> None:
        self.use(bus)

    def use(self, bus: MemoryBus) -> None:
        """Goes on with another bus."""
        memory = UserMemory(bus)
        self.read = memory.read
        self.write = memory.write
        self.cstring = memory.cstring


class Host:
    """Sessions and RAM. `on_epoch` is told each number that a session takes.

    `on_reboot` is told when the host has rebooted, with the new RAM and whether the MMU lost what it had. `holds` says
    whether this runtime has something in the hardware, and in the MMU.
    """

    def __init__(self, environment: Environment, on_epoch: Callable[[int], None]) -> None:
        self._environment = environment
        self._on_epoch = on_epoch
        self._opened: MemoryBus | None = None
        self.on_reboot: Callable[[MemoryBus, bool], None] = lambda bus, memory: None
        self.holds: Callable[[], tuple[bool, bool]] = lambda: (True, True)
        self.sessions: tuple[OwnerSession, OwnerSession]
        self._held: list[OwnerSession] = []
        self._boots: dict[int, str] = {}  # of each session held, by its place
        self.hardware = self._channel("hardware")
        self.mmu = self._channel("mmu")

    async def open(self, epoch: int) -> MemoryBus:
        """Opens the sessions and the memory bus, and returns it."""
        self.sessions = (await self._open_session(self.hardware, epoch), await self._open_session(self.mmu, epoch))
        self._environment.layer.boot_id = self.sessions[1].handshake.boot_id
        return self._environment.bus or await self._open_bus()

    async def close(self) -> None:
        """Ends the sessions and closes the bus. Idempotent."""
        for session in self._held:
            await session.close(free=True)
        self._held.clear()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def _open_session(self, channel: Channel, epoch: int) -> OwnerSession:
        owner = f"{self._environment.host}/container-runtime"
        clock = self._environment.clock
        session = await OwnerSession.open(channel, owner, epoch, clock, self._on_epoch, fresh=True)
        place = len(self._held)
        self._held.append(session)
        self._boots[place] = session.handshake.boot_id
        session.on_reopened(lambda: self._reopened(session, place))
        return session

    async def _reopened(self, session: OwnerSession, place: int) -> None:
        known, self._boots[place] = self._boots[place], session.handshake.boot_id
        same = session.handshake.boot_id == known
        if same and (session.adopted_objects or not self.holds()[place]):
            return
        self._environment.layer.boot_id = max(self._boots.values(), key=len)
        self._environment.layer.events.record(
            f"hosts/{self._environment.host}", "host.rebooted", rule="a session below found nothing of this runtime's"
        )
        self.on_reboot(await self._open_bus(), place == MMU or not same)

    async def _open_bus(self) -> MemoryBus:
        """Returns the host's RAM, as the hardware says where it is. An older one stays mapped as long as it is used."""
        try:
            mapped = await hardware_pb2_grpc.MemoryStub(self.hardware).MapMemory(hardware_pb2.MapMemoryRequest())
        except grpc.aio.AioRpcError as error:
            raise rpc_error(error) from error
        if len(mapped.extents) != 1 or mapped.extents[0].address:
            raise FailedPrecondition(
                f"The hardware has its RAM in {len(mapped.extents)} extents; the runtime maps one that begins at 0.",
                reason="RAM_NOT_MAPPABLE",
                next_step="Run the runtime on hardware whose RAM is one memory bus file.",
            )
        self._opened = MemoryBus.open(self._environment.bus_path or Path(mapped.extents[0].path))
        return self._opened

    def _channel(self, layer: str) -> Channel:
        channel = self._environment.channels.get(layer)
        if channel is None:
            raise FailedPrecondition(
                f"The container runtime has no {layer} layer below it.",
                reason="LAYER_REQUIRED",
                next_step=f"Start the {layer} service first, and give the runtime a channel to it.",
            )
        return channel
