"""The MMU over the real hardware layer, in both topologies: machine code runs while its pages come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import access_pb2, faults_pb2, faults_pb2_grpc, layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import hardware_pb2 as hw
from lamina.hardware.v1 import hardware_pb2_grpc as hw_rpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from tests.contract.mmu.stack import walk_file

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build as build_hardware
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason, RunPage
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, connect, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.telemetry.events import EventLog
from lamina_mmu.config import MmuConfig
from lamina_mmu.server import build as build_mmu

PAGE = 4096
TEXT, DATA, PAGES = 0x40_0000, 0x60_0000, 64
FILL = bytes.fromhex("48893f4881c70010000048ffce75f10f05")
"""again: MOV [RDI], RDI; ADD RDI, 4096; DEC RSI; JNZ again; SYSCALL."""
CHECK = bytes.fromhex("48393f750e4881c70010000048ffce75ef0f050f0b")
"""again: CMP [RDI], RDI; JNE wrong; ADD RDI, 4096; DEC RSI; JNZ again; SYSCALL; wrong: UD2."""


class Host:
    """Both layers of one host, running, with stubs and the RAM file."""

    def __init__(self, hardware: Any, mmu: Any, path: Path, events: EventLog) -> None:
        self.cpu, self.memory = hw_rpc.CpuStub(hardware), hw_rpc.MemoryStub(hardware)
        self.spaces, self.groups = rpc.SpacesStub(mmu), rpc.GroupsStub(mmu)
        self.layer = layer_pb2_grpc.LayerStub(mmu)
        self.events = events
        self.faulty = faults_pb2_grpc.FaultsStub(hardware)
        self.bus = MemoryBus.open(path)
        self.faults = 0

    async def program(self, code: bytes, group: str = "") -> Program:
        """Makes a space with text, and PAGES pages of data, and a context for it."""
        space = await self.spaces.CreateSpace(pb.CreateSpaceRequest(space=pb.Space(group=group)))
        for address, pages, rights in (
            (TEXT, 1, pb.Protection(read=True, execute=True)),
            (DATA, PAGES, pb.Protection(read=True, write=True)),
        ):
            request = pb.MapRangeRequest(
                handle=space.handle, address=address, size_bytes=pages * PAGE, protection=rights, fixed=True
            )
            await self.spaces.MapRange(request)
        text = pb.WriteSpaceRequest(handle=space.handle, address=TEXT, data=code, force=True)
        await self.spaces.WriteSpace(text)
        return await self.context(space)

    async def context(self, space: pb.Space) -> Program:
        """Makes a context for a space."""
        context = await self.cpu.CreateContext(hw.CreateContextRequest())
        page = RunPage(self.bus.run_page(context.run_page))
        page.cr3 = space.root_address
        return Program(self, space, context, page)


class Program:
    """One context in one space."""

    def __init__(self, host: Host, space: pb.Space, context: hw.Context, page: RunPage) -> None:
        self.host, self.space, self.context, self.page = host, space, context, page

    async def run(self, offset: int = 0) -> int:
        """Runs from TEXT + `offset` over all data pages, faulting pages in; returns how the program ended."""
        page = self.page
        page.rip, page.rdi, page.rsi, page.dirty = TEXT + offset, DATA, PAGES, DIRTY_ALL
        stream: Any = self.host.cpu.Run()
        try:
            while True:
                await stream.write(hw.RunRequest(handle=self.context.handle, sequence=1))
                reason = (await stream.read()).reason
                if reason != ExitReason.PAGE_FAULT:
                    return int(reason)
                await self.fault()
        finally:
            stream.cancel()

    async def fault(self) -> None:
        """Has the page of the fault brought in."""
        record = self.page.load_exit()
        access = access_pb2.ACCESS_WRITE if record.error_code & 2 else access_pb2.ACCESS_READ
        if record.error_code & 16:
            access = access_pb2.ACCESS_EXECUTE
        request = pb.FaultRequest(handle=self.space.handle, address=record.address, access=access)
        answer = await self.host.spaces.Fault(request)
        assert answer.outcome not in (6, 7), answer
        self.host.faults += 1

    async def view(self) -> pb.Space:
        """Returns the space as it is now."""
        found: pb.Space = await self.host.spaces.GetSpace(pb.GetSpaceRequest(handle=self.space.handle))
        return found


@pytest.fixture(params=["embedded", "split"])
async def host(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[Host]:
    """Returns a host with 2 cores and 16 MiB; `split`: the layers talk over UNIX sockets."""
    clock, rng = RealClock(), Rng(5)
    lower = LayerState("hardware", "h1", clock, rng.child("hardware"))
    environment = Environment("h1", clock, rng, short_dir / "hw", lower, bus_path=short_dir / "ram")
    (short_dir / "hw").mkdir()
    hardware = build_hardware(environment, HardwareConfig(cores=2, memory_bytes=16 << 20, run_pages=16))
    await hardware.start()
    served = []
    if request.param == "split":
        served.append(await serve(hardware, [f"unix:{short_dir}/hw.sock"], lower))
    below: Any = connect(served[0].addresses[0]) if served else local(hardware, lower)
    upper = LayerState("mmu", "h1", clock, rng.child("mmu"))
    mmu = build_mmu(Environment("h1", clock, rng, short_dir / "mmu", upper, {"hardware": below}), MmuConfig(4 << 20))
    await mmu.start()
    if served:
        served.append(await serve(mmu, [f"unix:{short_dir}/mmu.sock"], upper))
    above: Any = connect(served[1].addresses[0]) if served else local(mmu, upper)
    made = Host(below, above, short_dir / "ram", upper.events)
    yield made
    for server in reversed(served):
        await server.stop()
    await mmu.stop()
    await hardware.stop()
    made.bus.close()
    for channel in (above, below):
        await channel.close()


async def test_a_program_faults_its_pages_in(host: Host) -> None:
    """Each first touch of a real core is one fault; the file shows its words, with A and D in the entries."""
    program = await host.program(FILL)
    assert await program.run() == ExitReason.SYSCALL
    view = await program.view()
    assert view.resident_pages == PAGES + 1 and host.faults == PAGES
    for index in range(PAGES):
        frame = walk_file(host.bus.path, host.bus.ram_offset, program.space.root_address, DATA + index * PAGE)
        assert frame and host.bus.load64(frame * PAGE) == DATA + index * PAGE
    explained = await host.spaces.Translate(pb.TranslateRequest(handle=program.space.handle, address=DATA))
    assert {"A", "D"} <= set(explained.steps[-1].bits)
    walk = await host.cpu.Translate(hw.TranslateRequest(root=program.space.root_address, address=DATA, user=True))
    assert walk.physical_address == explained.physical_address
    assert [step.entry for step in walk.steps] == [step.entry for step in explained.steps]


async def test_a_program_outgrows_its_memory(host: Host) -> None:
    """With room for 16 of 64 pages a program fills and checks them all: evicted pages leave no TLB behind."""
    group = await host.groups.CreateGroup(pb.CreateGroupRequest(group_id="tight", group=pb.Group(max_bytes=20 * PAGE)))
    program = await host.program(FILL.ljust(256, b"\x90") + CHECK, group.name)
    assert await program.run() == ExitReason.SYSCALL
    for _ in range(3):
        assert await program.run(256) == ExitReason.SYSCALL
    view = await program.view()
    assert view.resident_pages <= 16 and view.major_faults >= PAGES
    assert (await host.groups.GetGroup(pb.GetGroupRequest(name=group.name))).usage_bytes <= 20 * PAGE


async def test_parent_and_child_run_apart(host: Host) -> None:
    """After a fork both run on real cores: each sees what was there, and its own writes alone."""
    parent = await host.program(FILL.ljust(256, b"\x90") + CHECK)
    assert await parent.run() == ExitReason.SYSCALL
    forked = await host.spaces.ForkSpace(pb.ForkSpaceRequest(handle=parent.space.handle))
    child = await host.context(forked)
    assert await child.run(256) == ExitReason.SYSCALL
    await host.spaces.WriteSpace(pb.WriteSpaceRequest(handle=forked.handle, address=DATA, data=b"\0" * 8))
    assert await child.run(256) == ExitReason.EXCEPTION
    assert await parent.run(256) == ExitReason.SYSCALL
    assert await child.run() == ExitReason.SYSCALL
    assert await child.run(256) == ExitReason.SYSCALL
    assert (await child.view()).cow_faults >= PAGES - 1


async def test_two_programs_share_little_memory(host: Host) -> None:
    """Two programs at once in one tight group, each checking its words, on two cores."""
    group = await host.groups.CreateGroup(pb.CreateGroupRequest(group_id="tight", group=pb.Group(max_bytes=40 * PAGE)))
    programs = [await host.program(FILL.ljust(256, b"\x90") + CHECK, group.name) for _ in range(2)]

    async def both(offset: int) -> list[int]:
        return list(await asyncio.gather(*(program.run(offset) for program in programs)))

    assert await both(0) == [ExitReason.SYSCALL] * 2
    for _ in range(3):
        assert await both(256) == [ExitReason.SYSCALL] * 2


async def test_the_mmu_has_the_boot_id_of_its_hardware(host: Host) -> None:
    """The handshake of the MMU names the start of the hardware below it, and what its engine can do."""
    answer = await host.layer.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"))
    assert (answer.layer, answer.engine, answer.host) == ("mmu", "model", "h1")
    assert answer.boot_id
    assert list(answer.capabilities) == ["explain", "fork", "hold", "swap"]


async def test_a_page_in_failed_memory_is_lost_to_its_program(host: Host, eventually: Any) -> None:
    """The machine tells the MMU, which takes the frame out of use; the program meets PAGE_LOST, another runs on."""
    program, other = await host.program(FILL), await host.program(FILL.ljust(256, b"\x90") + CHECK)
    assert await program.run() == await other.run() == ExitReason.SYSCALL
    frame = walk_file(host.bus.path, host.bus.ram_offset, program.space.root_address, DATA + PAGE)
    assert frame is not None
    given = [layer_pb2.Attribute(key="address", value=str(frame * PAGE + 8))]
    fault = faults_pb2.Fault(kind="memory-failed", object="hosts/h1", parameters=given)
    await host.faulty.InjectFault(faults_pb2.InjectFaultRequest(fault=fault))

    offlined = f"hosts/h1/frames/{frame}"
    await eventually(lambda: [one.event for one in host.events.list(offlined)] == ["frame.offlined"], "it goes")
    request = pb.FaultRequest(handle=program.space.handle, address=DATA + PAGE, access=access_pb2.ACCESS_READ)
    answer = await host.spaces.Fault(request)
    assert (answer.outcome, answer.refusal_reason) == (pb.FaultResponse.OUTCOME_BUS_ERROR, "PAGE_LOST")
    assert await other.run(256) == ExitReason.SYSCALL
