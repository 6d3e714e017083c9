"""The hardware service on real sockets, checked against the RAM file that it leaves."""

from __future__ import annotations

import mmap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason, RunPage
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, connect, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.call import MAX_ANSWER

RAM = 16 << 20
P, RW, US, A, D = 1, 2, 4, 1 << 5, 1 << 6
TEXT, DATA = 0x400000, 0x600000
STORE_AND_CALL = bytes.fromhex("48b8000060000000000048c700341200000f05")
"""MOV RAX, DATA; MOV QWORD PTR [RAX], 0x1234; SYSCALL."""


class RamFile:
    """An independent look at RAM: the file, its extent, and a walk written for this test alone."""

    def __init__(self, extent: pb.Extent) -> None:
        with open(extent.path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._offset = extent.offset

    def word(self, address: int) -> int:
        """Returns eight bytes of RAM."""
        at = self._offset + address
        return int.from_bytes(self._map[at : at + 8], "little")

    def store(self, address: int, value: int) -> None:
        """Stores eight bytes of RAM."""
        at = self._offset + address
        self._map[at : at + 8] = value.to_bytes(8, "little")

    def leaf(self, root: int, va: int) -> int:
        """Returns the level-1 entry of an address, or 0."""
        table = root
        for shift in (39, 30, 21):
            entry = self.word(table + (va >> shift & 511) * 8)
            if not entry & P:
                return 0
            table = entry & 0xF_FFFF_FFFF_F000
        return self.word(table + (va >> 12 & 511) * 8)


@pytest.fixture
async def target(short_dir: Path) -> AsyncIterator[str]:
    """Returns the address of a hardware service on a free port."""
    clock, rng = RealClock(), Rng(3)
    layer = LayerState("hardware", "h1", clock, rng)
    environment = Environment("h1", clock, rng, short_dir, layer, bus_path=short_dir / "ram")
    service = build(environment, HardwareConfig(cores=2, memory_bytes=RAM, run_pages=16))
    await service.start()
    served = await serve(service, ["127.0.0.1:0"], layer)
    yield served.addresses[0]
    await served.stop()
    await service.stop()


async def test_a_client_that_was_told_nothing_takes_the_longest_read(target: str) -> None:
    """Every size that may be read fits into the message that gRPC takes by default."""
    async with grpc.aio.insecure_channel(target) as channel:
        request = pb.ReadMemoryRequest(address=0x1000, size_bytes=MAX_ANSWER)
        assert len((await rpc.MemoryStub(channel).ReadMemory(request)).data) == MAX_ANSWER


async def test_a_program_runs_over_sockets(target: str) -> None:
    """A caller in another process maps RAM, builds tables, runs code; the file shows what the core did."""
    async with connect(target) as channel:
        hosts, memory, cpu = rpc.HostsStub(channel), rpc.MemoryStub(channel), rpc.CpuStub(channel)
        host = await hosts.GetHost(pb.GetHostRequest())
        assert host.memory_bytes == RAM
        extent = (await memory.MapMemory(pb.MapMemoryRequest())).extents[0]
        ram = RamFile(extent)
        for address, value in (
            (0x1000, 0x2007), (0x2000, 0x3007), (0x3010, 0x4007), (0x3018, 0x5007), (0x4000, 0x6005), (0x5000, 0x7007),
        ):  # fmt: skip
            ram.store(address, value)
        await memory.WriteMemory(pb.WriteMemoryRequest(address=0x6000, data=STORE_AND_CALL))
        made = await cpu.CreateContext(pb.CreateContextRequest())
        with MemoryBus.open(extent.path) as bus:
            page = RunPage(bus.run_page(made.run_page))
            page.cr3, page.rip, page.dirty = 0x1000, TEXT, DIRTY_ALL
            stream: Any = cpu.Run()
            await stream.write(pb.RunRequest(handle=made.handle, sequence=1))
            response = await stream.read()
            assert (response.reason, response.instructions) == (pb.EXIT_REASON_SYSCALL, 3)
            assert page.load_exit().reason == ExitReason.SYSCALL
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
        assert ram.word(0x7000) == 0x1234
        assert ram.leaf(0x1000, DATA) & (A | D) == A | D
        assert ram.leaf(0x1000, TEXT) & (A | D) == A
        walk = await cpu.Translate(pb.TranslateRequest(root=0x1000, address=DATA + 5))
        assert [step.entry for step in walk.steps] == [ram.word(step.entry_address) for step in walk.steps]
        assert walk.physical_address == 0x7005


async def test_the_layer_introduces_itself(target: str) -> None:
    """The handshake gives engine, boot id and what the cores can do."""
    async with connect(target) as channel:
        stub = layer_pb2_grpc.LayerStub(channel)
        answer = await stub.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"))
        assert (answer.layer, answer.engine) == ("hardware", "model")
        assert answer.boot_id
        assert "exact-budget" in answer.capabilities
        explained = await stub.Explain(layer_pb2.ExplainRequest(object="hosts/h1"))
        assert explained.decisions[0].event == "core_path.chosen"


async def test_a_wrong_name_is_refused_with_a_reason(target: str) -> None:
    """Errors cross the wire with their code and reason."""
    async with connect(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc.CpuStub(channel).GetRunGroup(pb.GetRunGroupRequest(name="hosts/h1/runGroups/none"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
