"""Device memory, doorbells, the port bitmap of the TSS, the preemption timer, and what EPT exits say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2 as pb

from lamina_kit.bus.run_page import DIRTY_GPRS, ExitReason

KERNEL, DATA, DEVICE_VA = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0001_0000, 0x70_0000
DEVICE, TEXT = 0xFE00_0000, 0x40_0000
P, RW, US = 1, 2, 4
RANGES = [pb.DeviceRange(gpa=DEVICE, size_bytes=0x2000)]


async def prepare(bench: Any, code: str, **fields: Any) -> Any:
    """Returns a guest whose DEVICE_VA is a device's page, with RBX there."""
    guest = await bench.guest("hlt")
    controls = pb.ExitControls(
        exceptions=(1 << 32) - 1, instructions=[pb.TRAPPED_INSTRUCTION_HLT], device_ranges=RANGES, **fields
    )
    await bench.cpu.SetExitControls(pb.SetExitControlsRequest(handle=guest.context.handle, controls=controls))
    guest.tables.map(DEVICE_VA, DEVICE, P | RW)
    guest.put(KERNEL, bytes.fromhex(code))
    guest.page.rbx, guest.page.rax, guest.page.rcx = DEVICE_VA + 0x10, 0x1122_3344_5566_7788, 0x99
    guest.at(KERNEL)
    return guest


STORES = [("8803", 1, 0x88), ("668903", 2, 0x7788), ("8903", 4, 0x5566_7788), ("488903", 8, 0x1122_3344_5566_7788),
          ("c60342", 1, 0x42), ("48c703ffffffff", 8, 2**64 - 1), ("0fc303", 4, 0x5566_7788),
          ("8823", 1, 0x77)]  # fmt: skip
LOADS = [("8a0b", 1, 1, 0x81), ("8b0b", 4, 1, 0x8182_8381), ("480fb60b", 1, 1, 0x81), ("480fbe0b", 1, 1, 2**64 - 0x7F),
         ("0fb70b", 2, 1, 0x8381), ("480fbf0b", 2, 1, 2**64 - 0x7C7F),
         ("48630b", 4, 1, 2**64 - 0x7E7D_7C7F)]  # fmt: skip


@pytest.mark.parametrize(("code", "size", "value"), STORES)
async def test_device_writes_are_decoded(bench: Any, code: str, size: int, value: int) -> None:
    """A store exits behind itself with address, size and value, and is counted."""
    guest = await prepare(bench, code + "f4")
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.MMIO, DEVICE + 0x10, 2)
    assert (record.access_size, record.access_value) == (size, value)
    assert (record.rip - KERNEL, record.instructions_retired) == (len(code) // 2, 1)
    assert (await guest.run()).reason == ExitReason.HLT


@pytest.mark.parametrize(("code", "size", "register", "value"), LOADS)
async def test_device_reads_are_completed(bench: Any, code: str, size: int, register: int, value: int) -> None:
    """A load names the register; what the holder puts there is taken by size and extended as the instruction says."""
    guest = await prepare(bench, code + "f4")
    record = await guest.run()
    found = (record.reason, record.gpa, record.access, record.access_size, record.access_register)
    assert found == (ExitReason.MMIO, DEVICE + 0x10, 1, size, register)
    guest.page.gpr[register] = 0x8182_8381
    guest.page.dirty = DIRTY_GPRS
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.gpr[register] == value


async def test_other_instructions_exit_undecoded(bench: Any) -> None:
    """ADD to device memory exits on itself with size 0, for the holder to do."""
    guest = await prepare(bench, "0103f4")
    record = await guest.run()
    assert (record.reason, record.access_size, record.rip, record.gpa) == (ExitReason.MMIO, 0, KERNEL, DEVICE + 0x10)
    assert record.instructions_retired == 0


async def test_doorbells_are_counted(bench: Any) -> None:
    """Writes that match a posted write are counted with the last value, by port and by address, and do not exit."""
    posted = [
        pb.PostedWrite(slot=3, port=0x50, size_bytes=1),
        pb.PostedWrite(slot=5, gpa=DEVICE + 0x10, size_bytes=4, value=7),
    ]
    code = "b80700000089038903e650b8080000008903f4"
    guest = await prepare(bench, code, posted_writes=posted, ports=pb.PortControls(all=True))
    watch = bench.cpu.WatchPostedWrites(pb.WatchPostedWritesRequest(handles=[guest.context.handle]))
    record = await guest.run()
    assert (record.reason, record.access_value) == (ExitReason.MMIO, 8)
    assert (guest.page.posted(3), guest.page.posted(5)) == ((1, 7), (2, 7))
    watch.cancel()


async def test_the_port_bitmap_of_the_tss(bench: Any) -> None:
    """A ring-3 program may use the ports that the TSS's bitmap allows; another port is a #GP."""
    guest = await bench.guest("kernel_enter_user")
    tss = KERNEL + 0x32000
    bench.bus.write(guest.host_of(guest.text), bytes.fromhex("e461e460"))
    guest.put(tss + 102, (104).to_bytes(2, "little"))
    guest.put(tss + 104, bytes(12) + b"\x01" + bytes(19) + b"\xff")
    guest.page.set_segment("tr", replace(guest.page.segment("tr"), limit=104 + 32))
    guest.gate(13, "handler_hlt", 0x400)
    record = await guest.run()
    assert (record.reason, record.port) == (ExitReason.IO, 0x61)
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL + 0x401)


async def test_the_preemption_timer_ends_a_run(bench: Any) -> None:
    """A run that would never end is ended by its timer."""
    process = await bench.process("long_block")
    controls = pb.ExitControls(
        exceptions=(1 << 32) - 1, instructions=[pb.TRAPPED_INSTRUCTION_HLT], preemption_timer_ns=2_000_000
    )
    await bench.cpu.SetExitControls(pb.SetExitControlsRequest(handle=process.context.handle, controls=controls))
    record = await process.run()
    assert record.reason == ExitReason.PREEMPTION_TIMER
    assert process.response.run_time_ns >= 2_000_000 or process.response.instructions >= 1_900_000


async def test_ept_violations_have_their_qualification(bench: Any) -> None:
    """The qualification says which access it was, what the entries allow, and whether the page itself was meant."""
    guest = await bench.guest("hlt")
    gpa = guest.gpa_frames()
    guest.tables.map(DEVICE_VA, gpa, P | RW)
    guest.back(gpa, 0b101)
    guest.put(KERNEL, bytes.fromhex("8903f4"))
    guest.page.rbx = DEVICE_VA
    record = await guest.run()
    assert (record.reason, hex(record.qualification)) == (
        ExitReason.EPT_VIOLATION,
        hex(2 | 0b101 << 3 | 1 << 7 | 1 << 8),
    )
