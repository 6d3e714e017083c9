"""What protects memory beside the plain bits: NXE, SMEP, SMAP, CR0.WP, and the second stage's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_kit.bus.run_page import ExitReason

DATA, FREE = 0x600000, 0x70_0000
P, RW, US, A, D, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 63
EPT_R, EPT_W, EPT_X, EPT_A, EPT_D = 1, 2, 4, 1 << 8, 1 << 9
KERNEL = 0xFFFF_8000_0000_0000
CODE = {
    "load": bytes.fromhex("488b1ff4"),  # mov rbx, [rdi]; hlt
    "store": bytes.fromhex("48891ff4"),  # mov [rdi], rbx; hlt
    "jump": bytes.fromhex("ffe7"),  # jmp rdi
}


async def attempt(process: Any, program: str, address: int) -> Any:
    """Runs a one-access program on an address."""
    process.load(program)
    process.page.rdi = address
    return await process.run()


@pytest.mark.parametrize("entry", [EPT_W, EPT_W | EPT_X, EPT_R | EPT_W | 2 << 3, EPT_R | 3 << 3])
async def test_a_malformed_entry_is_a_misconfiguration(bench: Any, entry: int) -> None:
    """W without R, and memory types that there are not, exit as a misconfiguration with the GPA, not as a violation."""
    guest = await bench.guest("store")
    gpa = guest.gpa_frames()
    guest.tables.map(FREE, gpa)
    guest.back(gpa, entry)
    guest.page.rdi = FREE
    record = await guest.run()
    assert (record.reason, record.gpa, record.address) == (ExitReason.EPT_MISCONFIGURATION, gpa, FREE)


async def test_a_guest_table_entry_is_reached_as_a_write(bench: Any) -> None:
    """With A and D kept in the EPT, the frame of a guest's table needs W and gets D, though the guest only reads."""
    guest = await bench.guest("kernel_cr3")
    gpa = guest.gpa_frames()
    guest.tables.map(FREE, gpa)
    guest.page.rdi, guest.page.rsi = FREE, guest.tables.root
    table = next(gpa for gpa, host in guest._backed.items() if host == guest.tables.entry(FREE) & ~4095)
    guest.back(table, EPT_R)
    record = await guest.run()
    place = table + (FREE >> 12 & 511) * 8
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, place, access_pb2.ACCESS_WRITE)
    guest.back(table)
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.ept_entry(table) & (EPT_A | EPT_D) == EPT_A | EPT_D
    assert guest.ept_entry(gpa) & (EPT_A | EPT_D) == EPT_A


async def test_an_entry_moves_with_its_table_page(bench: Any) -> None:
    """A is set in the frame that the EPT names at that moment: after a move not in the frame that was there before."""
    guest = await bench.guest("kernel_cr3")
    gpa = guest.gpa_frames()
    guest.tables.map(FREE, gpa)
    guest.page.rdi, guest.page.rsi = FREE, guest.tables.root
    entry = guest.tables.entry(FREE)
    table = next(gpa for gpa, host in guest._backed.items() if host == entry & ~4095)
    moved = bench.frames()
    bench.bus.write(moved, bench.bus.read(entry & ~4095, 4096))
    guest.ept.map(table, moved, EPT_R | EPT_W | EPT_X)
    assert (await guest.run()).reason == ExitReason.HLT
    assert bench.bus.load64(moved | entry & 4095) & A
    assert bench.bus.load64(entry) & A == 0


async def test_no_execute_without_nxe_is_reserved(bench: Any) -> None:
    """With EFER.NXE clear, bit 63 is reserved, and fetches are not told in the error code."""
    process = await bench.process()
    process.tables.map(FREE, bench.frames(), P | RW | US | NX)
    process.load("load")
    process.page.rdi, process.page.efer = FREE, process.page.efer & ~(1 << 11)
    for page in range(32):
        place = process.tables.entry(DATA + page * 4096)
        bench.bus.store64(place, bench.bus.load64(place) & ~NX)
    record = await process.run()
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b1101)
    process.tables.map(FREE, bench.frames(), P | RW)
    await bench.cpu.Shootdown(pb.ShootdownRequest(root=process.tables.root))
    record = await attempt(process, "jump", FREE)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b101)


async def test_supervisor_mode_prevention(bench: Any) -> None:
    """Ring 0 does not fetch from user pages under CR4.SMEP, nor read them under CR4.SMAP unless RFLAGS.AC is set."""
    guest = await bench.guest("load", intercepts=pb.Intercepts(exceptions=1 << 14, cpuid=True))
    guest.tables.map(FREE, guest.gpa_frames(), P | RW | US)
    host = (await bench.hosts.GetHost(pb.GetHostRequest())).core_path
    smep, smap, plain = 1 << 20, 1 << 21, guest.page.cr4
    for cr4, rflags, program, code in (
        (plain | smep, 2, "jump", 0b10001),
        (plain | smap, 2, "load", 0b1),
        (plain | smap, 2 | 1 << 18, "load", None),
        (plain | smep, 2, "load", None),
    ):
        if cr4 & smap and host == "portable":
            continue  # the capability `smap` is the walker core's
        guest.put(KERNEL, CODE[program])
        guest.page.rdi, guest.page.cr4, guest.page.rflags = FREE, cr4, rflags
        guest.at(KERNEL)
        record = await guest.run()
        if code is None:
            assert record.reason == ExitReason.HLT
        else:
            assert (record.reason, record.error_code, record.address) == (ExitReason.PAGE_FAULT, code, FREE)


async def test_a_supervisor_writes_where_write_protection_is_off(bench: Any) -> None:
    """Without CR0.WP ring 0 writes to read-only pages, and D is set; with it the write faults."""
    guest = await bench.guest("store", intercepts=pb.Intercepts(exceptions=1 << 14, cpuid=True))
    guest.tables.map(FREE, guest.gpa_frames(), P | US)
    guest.put(KERNEL, CODE["store"])
    guest.page.rdi = FREE
    record = await guest.run()
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b11)
    guest.page.cr0 &= ~(1 << 16)
    guest.at(KERNEL)
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.entry(FREE) & D
