"""Pages that a guest on a core of the host needs and the EPT does not have: each is a violation, none a fault of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.conftest import (
    DATA,
    KERNEL_GDT,
    KERNEL_IDT,
    KERNEL_STACK_TOP,
    KERNEL_TSS,
    TEXT,
    US,
    P,
)
from tests.contract.hardware.kvm_bench import KERNEL_AT, bench, guest_of, variant

from lamina_kit.bus.run_page import ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, DIRTY_RIP, ExitReason

pytestmark = pytest.mark.real_time("the cores are processors of the host")
__all__ = ["bench", "variant"]

UNDEFINED = 6
ABSENT = DATA + 0x8000


async def take(bench: Any, guest: Any, gpa: int) -> None:
    """Takes a page out of the EPT, as a holder of memory does that must give it back."""
    bench.bus.store64(guest.ept.entry(gpa), 0)
    pages = [pb.AddressRange(start=gpa & ~4095, size_bytes=4096)]
    await bench.cpu.Shootdown(pb.ShootdownRequest(eptp=guest.ept.root, ranges=pages))


async def run_through(guest: Any) -> tuple[Any, list[int]]:
    """Runs and backs every page that is refused; returns the record of the first other exit, and the pages."""
    pages: list[int] = []
    while len(pages) < 20:
        record = await guest.run()
        if record.reason != ExitReason.EPT_VIOLATION:
            return record, pages
        guest.back(record.gpa)
        pages.append(record.gpa & ~4095)
    raise AssertionError(f"still refused: {pages}")


async def test_a_guest_without_a_single_page_starts(bench: Any) -> None:
    """Its tables and its code are refused one after the other, and when they are there it runs."""
    guest = await guest_of(bench, b"\xf4")
    tables = [guest.tables.root, *(guest.tables.entry(KERNEL_AT, level) for level in (3, 2, 1))]
    for gpa in list(guest._backed):
        bench.bus.store64(guest.ept.entry(gpa), 0)
    record, pages = await run_through(guest)
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL_AT + 1)
    code = guest.kernel[KERNEL_AT]
    assert pages[0] == tables[0] and pages[-1] == code and len(pages) == 5


@pytest.mark.parametrize("level", [1, 2, 3, 4])
async def test_a_table_that_was_taken_away_is_refused_before_the_guest_runs(bench: Any, level: int) -> None:
    """The guest has a handler for page faults, and never learns of it."""
    guest = await guest_of(bench, bytes.fromhex("48a1") + DATA.to_bytes(8, "little") + b"\xe6\x80\xeb\xf2")
    guest.gate(14, "handler_hlt", 0x400)
    assert (await guest.run()).reason == ExitReason.IO
    host = guest.tables.entry(DATA, level) & ~4095
    table = next(gpa for gpa, backed in guest._backed.items() if backed == host)
    await take(bench, guest, table)
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, table, ACCESS_WRITE)
    guest.back(table)
    assert (await guest.run()).reason == ExitReason.IO


@pytest.mark.parametrize(
    "place", [KERNEL_IDT, KERNEL_GDT, KERNEL_TSS, KERNEL_STACK_TOP - 0x1000], ids=["idt", "gdt", "tss", "stack"]
)
async def test_what_delivers_an_exception_may_be_absent(bench: Any, place: int) -> None:
    """A gate, a segment, the TSS or the handler's stack that is not there is a violation, not a triple fault."""
    guest = await guest_of(bench, "kernel_enter_user")
    guest.gate(UNDEFINED, "handler_hlt", 0x400)
    bench.bus.write(guest.host_of(guest.text), b"\xeb\xfe")
    guest.page.rip, guest.page.dirty = KERNEL_AT, DIRTY_RIP
    await bench.begin(guest.context)
    await bench.cpu.KickContext(pb.KickContextRequest(handle=guest.context.handle))
    await bench.stream.read()
    while guest.page.rip != TEXT:
        await bench.begin(guest.context)
        await bench.cpu.KickContext(pb.KickContextRequest(handle=guest.context.handle))
        await bench.stream.read()
    bench.bus.write(guest.host_of(guest.text), b"\x0f\x0b")  # ud2
    await take(bench, guest, guest.kernel[place])
    record, pages = await run_through(guest)
    assert pages == [guest.kernel[place]]
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL_AT + 0x401)
    assert guest.get(guest.page.rsp) == TEXT


@pytest.mark.parametrize(
    ("code", "access"),
    [
        ("488907 0f0b", ACCESS_WRITE),  # mov [rdi], rax
        ("488b07 0f0b", ACCESS_READ),  # mov rax, [rdi]
        ("488b4700 0f0b", ACCESS_READ),  # mov rax, [rdi+0]
        ("488744e700 0f0b", ACCESS_READ),  # xchg [rdi], rax by index: RSP as an index is none
        ("aa 0f0b", ACCESS_WRITE),  # stosb
        ("4889fc 5b 0f0b", ACCESS_READ),  # mov rsp, rdi; pop rbx
        ("f30f6f07 0f0b", ACCESS_READ),  # movdqu xmm0, [rdi]
    ],
)
async def test_ring_3_s_memory_may_be_absent(bench: Any, code: str, access: int) -> None:
    """An operand of a program at ring 3 is refused with its address; then the access is made."""
    guest = await guest_of(bench, "kernel_enter_user")
    guest.gate(UNDEFINED, "handler_hlt", 0x400)
    program = bytes.fromhex(code.replace(" ", ""))
    bench.bus.write(guest.host_of(guest.text), program)
    guest.page.rdi = ABSENT
    guest.page.dirty |= DIRTY_RIP
    page = guest.data + ABSENT - DATA
    guest.tables.map(ABSENT, page, P | 2 | US)
    await take(bench, guest, page)
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, page, access)
    guest.back(page)
    assert (await guest.run()).reason == ExitReason.HLT


async def test_an_instruction_may_reach_into_a_page_that_is_absent(bench: Any) -> None:
    """The first page has its beginning, the second is refused as code."""
    guest = await guest_of(bench, b"\xf4")
    guest.put(KERNEL_AT + 0xFFD, bytes.fromhex("48b988"))
    guest.put(KERNEL_AT + 0x1000, bytes.fromhex("7766554433221100"[2:] + "f4"))
    guest.page.rip = KERNEL_AT + 0xFFD
    guest.page.dirty |= DIRTY_RIP
    second = guest.kernel[KERNEL_AT + 0x1000]
    await take(bench, guest, second)
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, second, ACCESS_EXECUTE)
    guest.back(second)
    assert (await guest.run()).reason == ExitReason.HLT


async def test_the_host_says_how_fast_its_time_stamps_are(bench: Any) -> None:
    """What RDTSC counts between two exits is what the clock says, by the frequency that the host tells."""
    hz = (await bench.hosts.GetHost(pb.GetHostRequest())).tsc_frequency_hz
    guest = await guest_of(bench, bytes.fromhex("0f31 48c1e220 4809d0 e680 ebf3".replace(" ", "")))
    stamps, before, after = [], [], []
    for _ in range(300):
        before.append(time.perf_counter_ns())
        assert (await guest.run()).reason == ExitReason.IO
        after.append(time.perf_counter_ns())
        stamps.append(guest.page.rax)
    assert stamps == sorted(stamps)
    elapsed = (stamps[-1] - stamps[0]) * 1e9 / hz
    assert 0.99 * (before[-1] - after[0]) <= elapsed <= 1.01 * (after[-1] - before[0])
