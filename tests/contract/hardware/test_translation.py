"""What the core does with page tables: rights, accessed and dirty bits, both stages, shootdowns, code that changes."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_kit.bus.run_page import DIRTY_CONTROL, DIRTY_GPRS, DIRTY_RIP, ExitReason

TEXT, DATA, FREE = 0x400000, 0x600000, 0x70_0000
P, RW, US, A, D, PS, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
EPT_R, EPT_W, EPT_X, EPT_A, EPT_D = 1, 2, 4, 1 << 8, 1 << 9
KERNEL, KERNEL_DATA = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0001_0000


async def attempt(process: Any, program: str, address: int) -> Any:
    """Runs a one-access program on an address."""
    process.load(program)
    process.page.rdi = address
    return await process.run()


async def test_a_fault_says_where_and_why(bench: Any) -> None:
    """A first touch exits with CR2 to the byte and the error code; after the mapping the same instruction runs."""
    process = await bench.process()
    record = await attempt(process, "store", FREE + 0x123)
    assert (record.reason, record.address, record.error_code) == (ExitReason.PAGE_FAULT, FREE + 0x123, 0b110)
    assert (record.rip, record.instructions_retired, process.page.cr2) == (TEXT + 2, 2, FREE + 0x123)
    frame = bench.frames()
    process.tables.map(FREE, frame)
    process.page.rbx = 77
    process.page.dirty = DIRTY_GPRS
    record = await process.run()
    assert (record.reason, record.instructions_retired) == (ExitReason.SYSCALL, 3)
    assert bench.bus.load64(frame + 0x123 & ~7) != 0


async def test_accessed_and_dirty_bits_are_set_in_ram(bench: Any) -> None:
    """A read sets A in every entry of the walk and D nowhere; a write sets D in the leaf."""
    process = await bench.process()
    process.tables.map(FREE, bench.frames())
    await attempt(process, "load", FREE)
    assert process.entry(FREE) & (A | D) == A
    assert [process.entry(FREE, level) & (A | D) for level in (2, 3, 4)] == [A, A, A]
    await attempt(process, "store", FREE)
    assert process.entry(FREE) & (A | D) == A | D
    assert process.entry(TEXT) & (A | D) == A


async def test_a_write_after_a_read_still_sets_dirty(bench: Any) -> None:
    """The right to write is not cached before D is set, even when the page was read first in the same run."""
    process = await bench.process("store_load")
    process.tables.bus.store64(process.tables.entry(DATA), process.data | P | RW | US)
    await process.run()
    assert process.entry(DATA) & D


@pytest.mark.parametrize(
    ("bits", "program", "code"),
    [
        (P | US, "store", 0b111),
        (P | RW, "store", 0b111),
        (P | RW, "load", 0b101),
        (P | RW | US | NX, "jump", 0b10101),
        (P | RW, "jump", 0b10101),
        (0, "jump", 0b10100),
        (0, "load", 0b100),
    ],
)
async def test_rights_are_checked(bench: Any, bits: int, program: str, code: int) -> None:
    """Read-only, supervisor, no-execute and missing pages refuse with the manual's error code, and leave D alone."""
    process = await bench.process()
    process.tables.map(FREE, bench.frames(), bits)
    record = await attempt(process, program, FREE)
    assert (record.reason, record.error_code, record.address) == (ExitReason.PAGE_FAULT, code, FREE)
    assert process.entry(FREE) & D == 0


async def test_rights_add_up_over_the_levels(bench: Any) -> None:
    """A write needs RW, and ring 3 needs US, at every level."""
    process = await bench.process()
    process.tables.map(FREE << 9, bench.frames(), make=P | US)
    record = await attempt(process, "store", FREE << 9)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b111)


@pytest.mark.parametrize(("level", "size"), [(2, 2 << 20), (3, 1 << 30)])
async def test_large_pages(bench: Any, level: int, size: int) -> None:
    """Pages of 2 MiB and 1 GiB translate with their own offset bits and carry A and D in their one entry."""
    process = await bench.process()
    va = 5 << 30
    place = process.tables.map(va, 0, P | RW | US | PS, level=level)
    frame = bench.frames()
    process.page.rbx = 0x77
    record = await attempt(process, "store", va + frame + 8)
    assert record.reason == ExitReason.SYSCALL
    assert bench.bus.load64(frame + 8) == 0x77
    assert bench.bus.load64(place) & (A | D) == A | D
    assert frame < size


async def test_reserved_bits_are_refused(bench: Any) -> None:
    """A large page with address bits below its size, and PS in the root, are faults with the RSVD bit."""
    process = await bench.process()
    va = 6 << 30
    process.tables.map(va, 0x8000, P | RW | US | PS, level=2)
    record = await attempt(process, "load", va)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b1101)


async def test_no_table_reaches_beyond_ram(bench: Any) -> None:
    """Entries and leaves that point outside RAM fault; nothing else of the host is ever touched."""
    process = await bench.process()
    process.tables.map(FREE, (64 << 20) + 0x1000)
    record = await attempt(process, "load", FREE)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b1101)
    process.tables.bus.store64(process.tables.entry(7 << 30, 2), 0xF_FFFF_FFFF_F000 | P | RW | US)
    record = await attempt(process, "store", 7 << 30)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b1111)
    process.page.cr3 = 0xF_FFFF_FFFF_F000
    process.page.dirty = DIRTY_CONTROL
    record = await process.run()
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b11101)


async def test_a_store_across_pages_is_whole_or_not_at_all(bench: Any) -> None:
    """A store that crosses into a missing page faults at that page and writes nothing."""
    process = await bench.process("straddle")
    second = process.tables.entry(DATA + 0x1000)
    kept = bench.bus.load64(second)
    bench.bus.store64(second, 0)
    record = await process.run()
    assert (record.reason, record.address & ~0xFFF) == (ExitReason.PAGE_FAULT, DATA + 0x1000)
    assert bench.bus.load64(process.data + 0xFF8) == 0
    bench.bus.store64(second, kept)
    assert (await process.run()).reason == ExitReason.SYSCALL
    assert bench.bus.read(process.data + 0xFFC, 8).hex() == "8877665544332211"


async def test_a_string_copy_goes_on_where_it_faulted(bench: Any) -> None:
    """REP MOVSB keeps its registers at the fault and copies every byte once."""
    process = await bench.process("copy")
    pattern = bytes(n * 7 & 0xFF for n in range(8192))
    bench.bus.write(process.data, pattern)
    place = process.tables.entry(0x611000)
    kept = bench.bus.load64(place)
    bench.bus.store64(place, 0)
    record = await process.run()
    assert (record.reason, record.address) == (ExitReason.PAGE_FAULT, 0x611000)
    assert process.page.rcx == 4096
    first = record.instructions_retired
    bench.bus.store64(place, kept)
    record = await process.run()
    assert first + record.instructions_retired == 3 + 8192 + 1 + 1
    assert bench.bus.read(process.data + 0x10000, 8192) == pattern


async def test_shootdown_takes_a_right_away(bench: Any) -> None:
    """After a shootdown the next access walks again; until then the core may use what it had."""
    process = await bench.process()
    place = process.tables.map(FREE, bench.frames())
    await attempt(process, "store", FREE)
    bench.bus.cas64(place, bench.bus.load64(place), 0)
    answer = await bench.cpu.Shootdown(pb.ShootdownRequest(root=process.tables.root))
    assert answer.cores == 1
    record = await attempt(process, "store", FREE)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0b110)
    other = await bench.process()
    assert (await bench.cpu.Shootdown(pb.ShootdownRequest(root=other.tables.root))).cores == 0


async def test_translate_shows_every_entry(bench: Any) -> None:
    """Translate visits four entries and agrees with RAM; it sets no bits."""
    process = await bench.process()
    frame = bench.frames()
    process.tables.map(FREE, frame)
    wish = {"root": process.tables.root, "address": FREE + 0x45, "user": True}
    request = pb.TranslateRequest(access=access_pb2.ACCESS_WRITE, **wish)
    answer = await bench.cpu.Translate(request)
    assert answer.outcome == pb.TranslateResponse.OUTCOME_TRANSLATED
    assert (answer.physical_address, answer.page_size_bytes) == (frame + 0x45, 4096)
    assert [step.table for step in answer.steps] == ["PML4", "PDPT", "PD", "PT"]
    for step in answer.steps:
        assert bench.bus.load64(step.entry_address) == step.entry
    assert process.entry(FREE) & (A | D) == 0
    request.address = FREE + 0x1000
    answer = await bench.cpu.Translate(request)
    assert (answer.outcome, answer.error_code) == (pb.TranslateResponse.OUTCOME_PAGE_FAULT, 0b110)


# ── two stages ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_missing_second_stage_is_the_hypervisors(bench: Any) -> None:
    """A guest page without backing exits with GPA and GVA to the byte; backed, the guest never knows."""
    guest = await bench.guest("kernel_cr3")
    gpa = 0x4000_0000
    guest.tables.map(FREE, gpa)
    guest.page.rdi, guest.page.rsi = FREE + 0x18, guest.tables.root
    record = await guest.run()
    assert (record.reason, record.gpa, record.address) == (ExitReason.EPT_VIOLATION, gpa + 0x18, FREE + 0x18)
    assert (record.access, record.rip, record.instruction_length) == (access_pb2.ACCESS_READ, KERNEL, 3)
    bench.bus.store64(guest.back(gpa) + 0x18, 0xABCD)
    record = await guest.run()
    assert (record.reason, guest.page.rbx, guest.page.rcx) == (ExitReason.HLT, 0xABCD, 0xABCD)


async def test_a_guest_table_without_backing_is_a_violation_too(bench: Any) -> None:
    """When the page that holds a guest table entry is not backed, the GPA is that of the entry."""
    guest = await bench.guest("kernel_cr3")
    missing = 0x4100_0000
    guest.tables.map(FREE, guest.gpa_frames())
    guest.bench.bus.store64(guest.tables.entry(FREE, 2), missing | P | RW | US)
    guest.page.rdi, guest.page.rsi = FREE, guest.tables.root
    record = await guest.run()
    assert (record.reason, record.gpa) == (ExitReason.EPT_VIOLATION, missing + ((FREE >> 12) & 511) * 8)


async def test_both_stages_keep_accessed_and_dirty(bench: Any) -> None:
    """A and D are set in the guest's entry and in the EPT's, there D for the page and for the tables written."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(0x80, "handler_hlt", 0x400, 3)
    guest.user("user_fault")
    gpa = guest.gpa_frames()
    guest.tables.map(FREE, gpa)
    guest.page.rdi = FREE
    assert guest.ept_entry(gpa) & (EPT_A | EPT_D) == 0
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.entry(FREE) & (A | D) == A | D
    assert guest.ept_entry(gpa) & (EPT_A | EPT_D) == EPT_A | EPT_D
    assert guest.ept_entry(guest.tables.root) & (EPT_A | EPT_D) == EPT_A | EPT_D
    assert guest.ept_entry(guest.text) & (EPT_A | EPT_D) == EPT_A


@pytest.mark.parametrize(("rights", "access"), [(EPT_R | EPT_X, 2), (EPT_X, 2), (EPT_R | EPT_W, 2)])
async def test_second_stage_rights(bench: Any, rights: int, access: int) -> None:
    """A store needs W in the EPT; with it the store goes through."""
    guest = await bench.guest("store")
    gpa = guest.gpa_frames()
    guest.tables.map(FREE, gpa)
    guest.back(gpa, rights)
    guest.page.rdi = FREE
    record = await guest.run()
    if rights & EPT_W:
        assert guest.entry(FREE) & D
        assert record.reason != ExitReason.EPT_VIOLATION
    else:
        assert (record.reason, record.access, record.gpa) == (ExitReason.EPT_VIOLATION, access, gpa)


async def test_a_guest_flushes_its_own_tlb(bench: Any) -> None:
    """MOV CR3 and INVLPG of the guest drop its translations without an exit."""
    guest = await bench.guest("kernel_invlpg")
    first, second = guest.gpa_frames(), guest.gpa_frames()
    bench.bus.store64(guest.host_of(first), 1)
    bench.bus.store64(guest.host_of(second), 2)
    guest.tables.map(FREE, first)
    window = guest.tables.entry(FREE)
    table = next(gpa for gpa, host in guest._backed.items() if host == window & ~4095)
    guest.tables.map(KERNEL + 0x80000, table, P | RW)
    guest.page.rdi, guest.page.rsi = FREE, KERNEL + 0x80000 + (window & 4095)
    guest.page.rdx = second | P | RW | US
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.page.rbx, guest.page.rcx) == (1, 2)


async def test_a_guest_changes_its_address_space(bench: Any) -> None:
    """After MOV CR3 the same address reads the other space's page."""
    guest = await bench.guest("kernel_cr3")
    first, second, root = guest.gpa_frames(), guest.gpa_frames(), guest.gpa_frames()
    bench.bus.store64(guest.host_of(first), 11)
    bench.bus.store64(guest.host_of(second), 22)
    bench.bus.write(guest.host_of(root), bench.bus.read(guest.host_of(guest.tables.root), 4096))
    low = 3 << 39
    guest.tables.map(low, first)
    guest.tables.root = root
    guest.tables.map(low, second)
    guest.page.rdi, guest.page.rsi = low, root
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.page.rbx, guest.page.rcx, guest.page.cr3) == (11, 22, root)


async def test_an_ept_shootdown_reaches_the_guest(bench: Any) -> None:
    """An EPT entry that is cleared and shot down exits at the next access."""
    guest = await bench.guest("kernel_cr3")
    gpa = guest.gpa_frames()
    guest.tables.map(FREE, gpa)
    guest.page.rdi, guest.page.rsi = FREE, guest.tables.root
    assert (await guest.run()).reason == ExitReason.HLT
    bench.bus.store64(guest.ept.entry(gpa), 0)
    assert (await bench.cpu.Shootdown(pb.ShootdownRequest(eptp=guest.ept.root))).cores == 1
    guest.at(KERNEL)
    record = await guest.run()
    assert (record.reason, record.gpa) == (ExitReason.EPT_VIOLATION, gpa)


# ── code that changes ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_code_written_through_the_bus_runs(bench: Any) -> None:
    """What the holder writes over code that ran is what runs next."""
    process = await bench.process("return_7")
    await process.run()
    bench.bus.write(process.text, bytes.fromhex("b8090000000f05"))
    process.page.rip = TEXT
    process.page.dirty = DIRTY_RIP
    await process.run()
    assert process.page.rax == 9


async def test_code_written_by_rpc_runs(bench: Any) -> None:
    """So does what WriteMemory writes."""
    process = await bench.process("return_7")
    await process.run()
    data = bytes.fromhex("b8090000000f05")
    await bench.memory.WriteMemory(pb.WriteMemoryRequest(address=process.text, data=data))
    process.page.rip = TEXT
    process.page.dirty = DIRTY_RIP
    await process.run()
    assert process.page.rax == 9


async def test_a_program_may_patch_its_next_instruction(bench: Any) -> None:
    """A store into the running block takes effect on the very next instruction, and is counted once."""
    process = await bench.process()
    process.tables.map(TEXT, process.text, P | RW | US)
    process.load("patch_same_page")
    record = await process.run()
    assert (record.reason, process.page.rax) == (ExitReason.SYSCALL, 0x2222)
    assert record.instructions_retired == 4


@pytest.mark.parametrize("alias", [False, True])
async def test_generated_code_is_always_current(bench: Any, alias: bool) -> None:
    """Code that a program writes and calls a thousand times is new each time, also through another address."""
    process = await bench.process()
    frame = bench.frames()
    process.tables.map(DATA, frame, P | RW | US)
    process.load("patch_loop")
    record = await process.run()
    assert (record.reason, process.page.rbx) == (ExitReason.SYSCALL, 500_500)
    assert record.instructions_retired == 4 + 1000 * 9 + 1
    if alias:
        process.tables.map(FREE, frame, P | RW | US)
        process.page.rbx = 0xC3_0000_0042_B8
        await attempt(process, "store", FREE)
        process.page.rsp = 0x611000
        bench.bus.store64(process.data + 0x10FF8, TEXT + 2)
        process.page.rsp = 0x610FF8
        process.at(DATA)
        await process.run()
        assert process.page.rax & 0xFFFF_FFFF == 0x42
