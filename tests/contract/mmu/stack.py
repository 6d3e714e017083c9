"""An MMU service over a stand-in for the hardware: a real memory bus, and shootdowns that are written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from lamina.mmu.v1 import policies_pb2_grpc, swap_pb2_grpc
from tests.virtual_time import clock_of_loop

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.clock import Clock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_mmu.config import MmuConfig
from lamina_mmu.server import build

PAGE = 4096
RW = pb.Protection(read=True, write=True)
READ, WRITE, EXECUTE = access_pb2.ACCESS_READ, access_pb2.ACCESS_WRITE, access_pb2.ACCESS_EXECUTE
Outcome = pb.FaultResponse


class FakeMemory(hardware_pb2_grpc.MemoryServicer):
    """Says where the RAM file is."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    async def MapMemory(self, request: Any, context: Any) -> hardware_pb2.MapMemoryResponse:
        """Returns the one extent."""
        extent = hardware_pb2.Extent(path=str(self.bus.path), offset=self.bus.ram_offset, size_bytes=self.bus.size)
        return hardware_pb2.MapMemoryResponse(extents=[extent], boot_id="boot-1")


class FakeCpu(hardware_pb2_grpc.CpuServicer):
    """Writes shootdowns down; the next `failures` of them break off, as when a connection goes."""

    def __init__(self) -> None:
        self.shot: list[tuple[int, int, list[tuple[int, int]]]] = []
        self.failures = 0

    async def Shootdown(self, request: Any, context: Any) -> hardware_pb2.ShootdownResponse:
        """Notes (root, eptp, ranges)."""
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the hardware is gone")
        self.shot.append((request.root, request.eptp, [(one.start, one.size_bytes) for one in request.ranges]))
        return hardware_pb2.ShootdownResponse(cores=1)


class FakeHardware:
    """The service around both."""

    layer = "hardware"
    service_names: tuple[str, ...] = ("lamina.hardware.v1.Memory", "lamina.hardware.v1.Cpu")

    def __init__(self, bus: MemoryBus) -> None:
        self.memory, self.cpu = FakeMemory(bus), FakeCpu()

    def register(self, server: Any) -> None:
        """Adds the two servicers."""
        hardware_pb2_grpc.add_MemoryServicer_to_server(self.memory, server)
        hardware_pb2_grpc.add_CpuServicer_to_server(self.cpu, server)

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


class Stack:
    """A started MMU with stubs for its four services. `frames` of RAM, `swap_pages` of swap."""

    def __init__(
        self,
        folder: Path,
        clock: Clock | None = None,
        frames: int = 4096,
        swap_pages: int = 1024,
        engine: str = "model",
        config: MmuConfig | None = None,
    ) -> None:
        self.clock: Clock = clock or clock_of_loop()
        self.folder = folder
        self.engine = engine
        self.bus = MemoryBus.create(folder / "ram", frames * PAGE, run_pages=16, reset=True)
        rng = Rng(1)
        self.hardware = FakeHardware(self.bus)
        state = LayerState("hardware", "h1", self.clock, rng.child("hardware"), boot_id="boot-1")
        channels = {"hardware": local(self.hardware, state)}
        self.layer = LayerState("mmu", "h1", self.clock, rng.child("mmu"), engine=engine)
        self.environment = Environment("h1", self.clock, rng, folder / "state", self.layer, channels)
        self.service: Any = build(self.environment, config or MmuConfig(swap_bytes=swap_pages * PAGE))

    async def __aenter__(self) -> Stack:
        await self.service.start()
        self.channel = local(self.service, self.layer)
        self.connect_stubs()
        return self

    def connect_stubs(self) -> None:
        """Makes the stubs of the services."""
        self.spaces = rpc.SpacesStub(self.channel)
        self.objects = rpc.ObjectsStub(self.channel)
        self.frames = rpc.FramesStub(self.channel)
        self.groups = rpc.GroupsStub(self.channel)
        self.policies = policies_pb2_grpc.PoliciesStub(self.channel)
        self.swap = swap_pb2_grpc.SwapStub(self.channel)

    async def __aexit__(self, *failure: object) -> None:
        await self.service.stop()
        self.bus.close()

    @property
    def machine(self) -> Any:
        """Returns the state of the model engine."""
        return self.service.host.engine.machine

    @property
    def shot(self) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Returns the shootdowns so far."""
        return self.hardware.cpu.shot

    async def space(self, group: str = "", **fields: Any) -> pb.Space:
        """Creates a space."""
        made: pb.Space = await self.spaces.CreateSpace(pb.CreateSpaceRequest(space=pb.Space(group=group, **fields)))
        return made

    async def guest(self, pages: int, **fields: Any) -> pb.Space:
        """Creates a VM's RAM of `pages` pages from address 0."""
        space = await self.space(kind=pb.Space.KIND_GUEST_RAM, **fields)
        await self.map(space, 0, pages)
        return space

    async def map(self, space: pb.Space, address: int, pages: int, protection: Any = RW, **fields: Any) -> int:
        """Maps `pages` pages at a fixed address, or where the MMU chooses for None."""
        request = pb.MapRangeRequest(
            handle=space.handle, address=address, size_bytes=pages * PAGE, protection=protection, fixed=True
        )
        request.MergeFrom(pb.MapRangeRequest(**fields))
        return int((await self.spaces.MapRange(request)).address)

    async def fault(self, space: pb.Space, address: int, access: Any = WRITE) -> pb.FaultResponse:
        """Faults."""
        request = pb.FaultRequest(handle=space.handle, address=address, access=access)
        answer: pb.FaultResponse = await self.spaces.Fault(request)
        return answer

    async def write(self, space: pb.Space, address: int, data: bytes, force: bool = False) -> None:
        """Writes bytes of a space."""
        await self.spaces.WriteSpace(pb.WriteSpaceRequest(handle=space.handle, address=address, data=data, force=force))

    async def read(self, space: pb.Space, address: int, size: int) -> bytes:
        """Reads bytes of a space."""
        request = pb.ReadSpaceRequest(handle=space.handle, address=address, size_bytes=size)
        return bytes((await self.spaces.ReadSpace(request)).data)

    async def fork(self, space: pb.Space, label: str = "") -> pb.Space:
        """Forks a space."""
        child: pb.Space = await self.spaces.ForkSpace(pb.ForkSpaceRequest(handle=space.handle, label=label))
        return child

    async def translate(self, space: pb.Space, address: int) -> pb.TranslateResponse:
        """Explains an address."""
        answer: pb.TranslateResponse = await self.spaces.Translate(
            pb.TranslateRequest(handle=space.handle, address=address)
        )
        return answer

    async def group(self, name: str, pages: int = 0, parent: str = "", swap_pages: int | None = None) -> str:
        """Creates a group with limits in pages (0: none); returns its name."""
        swap = None if swap_pages is None else swap_pages * PAGE
        limits = pb.Group(max_bytes=pages * PAGE, parent=parent, swap_max_bytes=swap)
        made = await self.groups.CreateGroup(pb.CreateGroupRequest(group_id=name, group=limits))
        return str(made.name)

    async def object(self, content: bytes, size: int = 0) -> pb.Object:
        """Creates an object with content."""
        wanted = pb.Object(size_bytes=size or len(content))
        made: pb.Object = await self.objects.CreateObject(pb.CreateObjectRequest(object=wanted))

        async def pieces() -> Any:
            for start in range(0, len(content), 1 << 20):
                part = content[start : start + (1 << 20)]
                yield pb.WriteObjectRequest(handle=made.handle, offset=start, data=part)

        if content:
            await self.objects.WriteObject(pieces())
        return made

    def walk(self, space: pb.Space, address: int) -> int | None:
        """Returns the frame of an address, found in the bytes of the RAM file alone; None when a core would fault."""
        return walk_file(self.bus.path, self.bus.ram_offset, space.root_address, address)


class OutsideStack(Stack):
    """An MMU that somebody else started, on a real hardware service. What a test makes is deleted after it."""

    def __init__(self, channel: Any, bus: Path) -> None:
        self.channel = channel
        self.engine = ""  # nobody said
        self.bus = MemoryBus.open(bus)

    async def __aenter__(self) -> OutsideStack:
        self.connect_stubs()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for space in (await self.spaces.ListSpaces(pb.ListSpacesRequest(page_size=1000))).spaces:
            await self.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
        for found in (await self.objects.ListObjects(pb.ListObjectsRequest(page_size=1000))).objects:
            await self.objects.DeleteObject(pb.DeleteObjectRequest(handle=found.handle))
        await self.delete_groups()
        await self.channel.close()
        self.bus.close()

    async def delete_groups(self) -> None:
        """Deletes all groups but the root, children first."""
        found = (await self.groups.ListGroups(pb.ListGroupsRequest(page_size=1000))).groups
        parents = {group.name: group.parent for group in found if group.parent}
        while leaves := [name for name in parents if name not in parents.values()]:
            for name in leaves:
                await self.groups.DeleteGroup(pb.DeleteGroupRequest(name=name))
                del parents[name]


def walk_file(path: Path, ram_offset: int, root: int, address: int) -> int | None:
    """Walks four levels of tables in a RAM file: an independent reading of Intel SDM vol. 3, 5.5."""
    table = root
    with path.open("rb") as file:
        for shift in (39, 30, 21, 12):
            file.seek(ram_offset + table + 8 * ((address >> shift) % 512))
            entry = int.from_bytes(file.read(8), "little")
            if entry % 2 == 0:
                return None
            table = entry % (1 << 52) // 4096 * 4096
            if shift == 21 and entry & 0x80:  # a huge page
                return table // 4096 + (address >> 12) % 512
    return table // 4096
