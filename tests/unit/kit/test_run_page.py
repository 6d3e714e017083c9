"""The run page."""

from __future__ import annotations

import pytest

from lamina_kit.bus.run_page import (
    DIRTY_ALL,
    EXIT_OFFSET,
    FXSAVE_OFFSET,
    GPR_NAMES,
    SEGMENT_NAMES,
    CpuidEntry,
    ExitReason,
    ExitRecord,
    RunPage,
    Segment,
)
from lamina_kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted


def fresh() -> RunPage:
    """Returns a run page of zeros."""
    return RunPage(memoryview(bytearray(4096)))


def test_registers_stand_in_hardware_order() -> None:
    """`gpr[i]` is the register that instructions call i."""
    page = fresh()
    for number, name in enumerate(GPR_NAMES):
        setattr(page, name, number + 100)
    assert list(page.gpr) == list(range(100, 116))
    page.gpr[4] = 7
    assert page.rsp == 7


def test_a_register_holds_64_bits() -> None:
    """The highest value fits, one more does not."""
    page = fresh()
    page.rip = 2**64 - 1
    assert page.rip == 2**64 - 1
    with pytest.raises(ValueError, match="invalid value"):
        page.rip = 2**64


def test_the_fields_do_not_overlap() -> None:
    """Every named word keeps its value while all others are written."""
    page = fresh()
    names = sorted(name for name, value in vars(RunPage).items() if isinstance(value, property))
    names = [name for name in names if name not in ("fs_base", "gs_base")]
    for number, name in enumerate(names):
        setattr(page, name, number + 1)
    for number, name in enumerate(SEGMENT_NAMES):
        page.set_segment(name, Segment(number, 1000 + number, 2000 + number, 3000 + number))
    page.set_cpuid((CpuidEntry(1, 2, 3, 4, 5, 6),) * 32)
    page.fxsave[:] = b"\xaa" * 512
    assert [getattr(page, name) for name in names] == list(range(1, len(names) + 1))
    assert [page.segment(name).base for name in SEGMENT_NAMES] == [1000 + number for number in range(8)]


def test_the_base_of_fs_is_one_word() -> None:
    """`fs_base` and the segment's base are the same."""
    page = fresh()
    page.set_segment("fs", Segment(0x33, 0x7000, 0xFFFFF, 0xF3))
    page.fs_base = 0x8000
    assert page.segment("fs") == Segment(0x33, 0x8000, 0xFFFFF, 0xF3)


def test_an_exit_record_is_stored_and_loaded() -> None:
    """What a core stores is what the holder loads; a fresh page never ran."""
    page = fresh()
    assert page.load_exit().reason == ExitReason.NONE
    record = ExitRecord(ExitReason.IO, port=0x3F8, io_size=1, io_direction=1, io_data=65, io_count=1, rip=0x1002)
    page.store_exit(record)
    assert page.load_exit() == record
    assert page.exit_reason == ExitReason.IO
    page.store_exit(ExitRecord(ExitReason.PAGE_FAULT, vector=14, error_code=6, address=0x7000))
    assert (page.exit_reason, page.exit_error_code, page.exit_address) == (ExitReason.PAGE_FAULT, 6, 0x7000)


def test_areas_are_aligned_as_the_hardware_wants() -> None:
    """FXSAVE needs 16 bytes; the exit record starts on a cache line."""
    assert FXSAVE_OFFSET % 16 == 0 and EXIT_OFFSET % 64 == 0


def test_registers_are_saved_and_restored() -> None:
    """A snapshot goes into another page, which is then all dirty; exit record and mark stay its own."""
    page, other = fresh(), fresh()
    page.rax, page.rip, page.cr3, page.cpl = 1, 2, 3, 3
    page.fxsave[5] = 9
    page.activity, page.interruptibility, page.dr7, page.xcr0 = 1, 8, 0x400, 3
    other.store_exit(ExitRecord(ExitReason.HLT))
    other.restore(page.save())
    assert (other.rax, other.rip, other.cr3, other.cpl, other.fxsave[5]) == (1, 2, 3, 3, 9)
    assert (other.activity, other.interruptibility, other.dr7, other.xcr0) == (1, 8, 0x400, 3)
    assert other.dirty == DIRTY_ALL and other.load_exit().reason == ExitReason.HLT
    with pytest.raises(InvalidArgument):
        other.restore(b"short")


def test_the_exit_record_ends_where_the_state_begins() -> None:
    """The qualification is the word at 0x4C8, as version 2 says, and the state behind it stays as it is."""
    page = fresh()
    page.interruptibility = 0x55
    page.store_exit(ExitRecord(ExitReason.CR_ACCESS, qualification=0x77))
    assert (page.words[0x4C8 >> 3], page.words[0x4D0 >> 3], page.load_exit().qualification) == (0x77, 0x55, 0x77)


def test_posted_writes_lie_where_the_contract_says() -> None:
    """Slot n is two words at 0x8C0 + 16 n: how many, and the last value."""
    page = fresh()
    page.words[(0x8C0 >> 3) + 30], page.words[(0x8C0 >> 3) + 31] = 5, 9
    assert page.posted(15) == (5, 9) and page.posted(14) == (0, 0)


def test_cpuid_answers_are_kept_in_order() -> None:
    """Up to 32 leaves; more are refused, and a count that somebody else wrote is bounded."""
    page = fresh()
    entries = tuple(CpuidEntry(leaf, 0, 1, 2, 3, 2**32 - 1) for leaf in range(32))
    page.set_cpuid(entries)
    assert page.cpuid() == entries
    page.set_cpuid(entries[:2])
    assert page.cpuid() == entries[:2]
    with pytest.raises(ResourceExhausted):
        page.set_cpuid((*entries, entries[0]))
    page.words[0x578 // 8] = 2**63
    assert len(page.cpuid()) == 32


def test_clearing_makes_a_page_that_never_ran() -> None:
    """Only the mark stays."""
    page = fresh()
    page.rax = 5
    page.clear()
    assert page.rax == 0
    assert RunPage(page.view).words[0] != 0


def test_a_foreign_page_is_refused() -> None:
    """Another version's page, or no page at all, is not read."""
    raw = bytearray(4096)
    raw[0:8] = b"whatever"
    with pytest.raises(FailedPrecondition) as caught:
        RunPage(memoryview(raw))
    assert caught.value.reason == "RUN_PAGE_FOREIGN"
    for view in (memoryview(bytearray(100)), memoryview(bytes(4096))):
        with pytest.raises(InvalidArgument):
            RunPage(view)
