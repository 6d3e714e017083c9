"""Memory that fails: told, and met by cores as a machine check."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2
from lamina.hardware.v1 import hardware_pb2 as hw
from lamina.hardware.v1 import topology_pb2 as pb
from tests.contract.hardware.conftest import DATA
from tests.contract.hardware.device_bench import reason

from lamina_kit.bus.run_page import ExitReason

pytestmark = pytest.mark.inside  # errors of memory of a machine that nobody used before

HOST = "hosts/h1"


async def fail(bench: Any, kind: str, address: int) -> Any:
    """Injects an error of memory; returns what clears it."""
    faults = faults_pb2_grpc.FaultsStub(bench.channel)
    given = [layer_pb2.Attribute(key="address", value=str(address))]
    fault = faults_pb2.Fault(kind=kind, object=HOST, parameters=given)
    made = await faults.InjectFault(faults_pb2.InjectFaultRequest(fault=fault))

    async def clear() -> None:
        await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))

    return clear


async def memory_news(bench: Any) -> list[pb.MemoryError]:
    """Returns what is told of memory now."""
    stream, found = bench.hosts.WatchMachine(pb.WatchMachineRequest()), []
    while (event := await stream.read()).WhichOneof("event") != "current":
        if event.WhichOneof("event") == "memory":
            found.append(event.memory)
    stream.cancel()
    return found


@pytest.mark.parametrize("program", ["store", "load"])
async def test_a_core_meets_failed_memory(bench: Any, program: str) -> None:
    """A core that touches the frame gives its context back on the instruction; mended, it goes on as if nothing was."""
    process = await bench.process(program)
    process.page.rdi = DATA + 16
    clear = await fail(bench, "memory-failed", process.data + 8)
    record = await process.run()
    assert record.reason == ExitReason.MACHINE_CHECK
    assert record.gpa >> 12 == process.data >> 12
    assert record.address >> 12 == DATA >> 12
    again = await process.run()
    assert (again.reason, again.rip) == (record.reason, record.rip)
    await clear()
    assert (await process.run()).reason != ExitReason.MACHINE_CHECK
    [told] = await memory_news(bench)
    assert (told.address, told.corrected, told.count) == (process.data + 8, False, 1)


async def test_a_translation_that_a_core_holds_goes(bench: Any) -> None:
    """A frame that fails while its translation is in a TLB is met at the next access all the same."""
    process = await bench.process("syscall_loop")
    await process.run()
    text_fails = await fail(bench, "memory-failed", process.text)
    record = await process.run()
    assert (record.reason, record.gpa >> 12) == (ExitReason.MACHINE_CHECK, process.text >> 12)
    await text_fails()
    assert (await process.run()).reason == ExitReason.SYSCALL


async def test_a_guest_meets_failed_memory(bench: Any) -> None:
    """Behind an EPT the record names the guest physical address."""
    guest = await bench.guest("hlt")
    gpa = next(iter(guest.kernel.values()))
    clear = await fail(bench, "memory-failed", guest.host_of(gpa))
    record = await guest.run()
    assert (record.reason, record.gpa >> 12) == (ExitReason.MACHINE_CHECK, gpa >> 12)
    await clear()
    assert (await guest.run()).reason == ExitReason.HLT


async def test_a_core_meets_failed_memory_in_its_tables(bench: Any) -> None:
    """A table in a frame that failed is a machine check at its entry, on the instruction whose walk met it."""
    process = await bench.process("load")
    process.page.rdi = DATA + 16
    entry = process.tables.entry(DATA)
    clear = await fail(bench, "memory-failed", entry)
    record = await process.run()
    assert (record.reason, record.gpa) == (ExitReason.MACHINE_CHECK, entry)
    assert record.address >> 12 == DATA >> 12
    await clear()
    assert (await process.run()).reason != ExitReason.MACHINE_CHECK


async def test_a_core_meets_failed_memory_in_its_second_stage(bench: Any) -> None:
    """A table of the second stage that failed is a machine check too; the record names what was looked up there."""
    guest = await bench.guest("hlt")
    gpa = next(iter(guest.kernel.values()))
    clear = await fail(bench, "memory-failed", guest.ept.entry(gpa, make=7))
    record = await guest.run()
    assert record.reason == ExitReason.MACHINE_CHECK
    await clear()
    assert (await guest.run()).reason == ExitReason.HLT


async def test_failed_memory_is_not_read(bench: Any) -> None:
    """Reading it over the contract is data loss, beside it works, and so does it once it is mended."""
    frame = bench.frames(2)
    clear = await fail(bench, "memory-failed", frame + 100)
    read = bench.memory.ReadMemory(hw.ReadMemoryRequest(address=frame - 8, size_bytes=16))
    assert await reason(read) == ("DATA_LOSS", "MEMORY_FAILED")
    await bench.memory.ReadMemory(hw.ReadMemoryRequest(address=frame + 4096, size_bytes=16))
    await clear()
    await bench.memory.ReadMemory(hw.ReadMemoryRequest(address=frame, size_bytes=16))


async def test_corrected_errors_are_counted(bench: Any) -> None:
    """The bytes stay right; each error of a frame is told with how many there were."""
    frame = bench.frames()
    bench.bus.write(frame, b"right")
    for _ in range(3):
        await fail(bench, "memory-corrected", frame + 2)
    assert (await bench.memory.ReadMemory(hw.ReadMemoryRequest(address=frame, size_bytes=5))).data == b"right"
    [told] = await memory_news(bench)
    assert (told.corrected, told.count, told.size_bytes) == (True, 3, 1)


async def test_frames_fail_one_by_one(bench: Any) -> None:
    """Any number of frames may have failed; a frame that has fails no second time, and each is mended by itself."""
    first = bench.frames(3)
    frames = [first, first + 2 * 4096]
    clears = [await fail(bench, "memory-failed", frame + 8) for frame in frames]
    assert await reason(fail(bench, "memory-failed", frames[1])) == ("FAILED_PRECONDITION", "FAULT_ACTIVE")
    for frame, clear in zip(frames, clears, strict=True):
        request = hw.ReadMemoryRequest(address=frame, size_bytes=8)
        assert await reason(bench.memory.ReadMemory(request)) == ("DATA_LOSS", "MEMORY_FAILED")
        await clear()
        assert (await bench.memory.ReadMemory(request)).data == bytes(8)
