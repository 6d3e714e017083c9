"""Reading ELF headers: what is accepted, and what is refused with which reason."""

from __future__ import annotations

import pytest
from tests.unit.container_runtime.elf_files import INTERP, STACK, Part, R, W, program

from lamina_container_runtime.domain import elf
from lamina_kit.errors import InvalidArgument


def parse(data: bytes) -> elf.Program:
    """Parses bytes as a file."""
    return elf.parse(lambda offset, count: data[offset : offset + count], len(data))


def reason(data: bytes) -> str:
    """Returns the reason with which bytes are refused."""
    with pytest.raises(InvalidArgument) as caught:
        parse(data)
    return caught.value.reason


def test_segments_come_in_the_order_of_their_addresses() -> None:
    """Pages, rights and the file part of each segment are worked out; the stack is not executable unless asked."""
    text = Part(vaddr=0x400010, offset=0x10, file_size=0x1000, mem_size=0x1000)
    data = Part(flags=R | W, offset=0x2100, vaddr=0x402100, file_size=0x100, mem_size=0x3000)
    found = parse(program(data, text, Part(kind=STACK, flags=R | W, file_size=0, mem_size=0)))
    assert [(part.start, part.file_end, part.end) for part in found.segments] == [
        (0x400000, 0x402000, 0x402000),
        (0x402000, 0x403000, 0x406000),
    ]
    assert [(part.readable, part.writable, part.executable) for part in found.segments] == [
        (True, False, True),
        (True, True, False),
    ]
    assert (found.start, found.end, found.executable_stack) == (0x400000, 0x406000, False)


def test_program_headers_are_found_in_memory() -> None:
    """AT_PHDR is where the segment that holds the table puts it; 0 when no segment does."""
    assert parse(program(Part())).program_headers == 0x400040
    assert parse(program(Part(offset=0x1000, vaddr=0x401000), entry=0x401000)).program_headers == 0


def test_position_independent_programs_are_relocatable() -> None:
    """ET_DYN without an interpreter is a static-pie program."""
    assert parse(program(Part(vaddr=0), kind=3)).relocatable


def test_a_segment_without_file_bytes_is_all_bss() -> None:
    """Its file part ends where it starts."""
    found = parse(program(Part(), Part(flags=R | W, vaddr=0x500123, offset=0x7, file_size=0, mem_size=0x10)))
    assert found.segments[1].file_end == found.segments[1].start == 0x500000


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", "PROGRAM_NOT_EXECUTABLE"),
        (b"MZ" + bytes(100), "PROGRAM_NOT_EXECUTABLE"),
        (program(Part())[:63], "ELF_TRUNCATED"),
        (program(Part())[:100], "ELF_TRUNCATED"),
        (program(Part(file_size=0x5000, mem_size=0x5000)), "ELF_TRUNCATED"),
        (program(Part(), machine=183), "ELF_FOREIGN"),
        (program(Part(), bits=1), "ELF_FOREIGN"),
        (program(Part(), order=2), "ELF_FOREIGN"),
        (program(Part(), abi=9), "ELF_FOREIGN"),
        (program(Part(), Part(kind=INTERP)), "ELF_DYNAMIC"),
        (program(Part(), kind=1), "ELF_MALFORMED"),
        (program(Part(), kind=4), "ELF_MALFORMED"),
        (program(), "ELF_MALFORMED"),
        (program(Part(kind=STACK)), "ELF_MALFORMED"),
        (program(Part(), count=5000), "ELF_MALFORMED"),
        (program(Part(file_size=0x300)), "ELF_MALFORMED"),
        (program(Part(offset=0x10)), "ELF_MALFORMED"),
        (program(Part(align=3)), "ELF_MALFORMED"),
        (program(Part(vaddr=0xFFFF_8000_0000_0000)), "ELF_MALFORMED"),
        (program(Part(vaddr=0x7FFF_FFFF_F000, mem_size=1 << 63)), "ELF_MALFORMED"),
        (program(Part(), Part(vaddr=0x400100, offset=0x100)), "ELF_MALFORMED"),
        (program(Part(), entry=0xFFFF_FFFF_FFFF_0000), "ELF_MALFORMED"),
        (program(Part(), Part(kind=6, vaddr=(1 << 64) - 8)), "ELF_MALFORMED"),
        (program(Part(vaddr=0), Part(kind=6, vaddr=(1 << 64) - 8), kind=3, entry=0x100), "ELF_MALFORMED"),
        (program(Part(vaddr=0), Part(kind=6, vaddr=0x7FFF_0000_0000), kind=3, entry=0x100), "ELF_MALFORMED"),
        (program(Part(vaddr=7 << 44), Part(kind=6, vaddr=64), kind=3, entry=(7 << 44) + 0x100), "ELF_MALFORMED"),
        (program(Part(vaddr=0x7FFF_0000_0000), kind=3, entry=0), "ELF_MALFORMED"),
        (program(Part(vaddr=0), Part(vaddr=0x7FFF_0000_0000), kind=3, entry=0x100), "ELF_MALFORMED"),
    ],
)
def test_what_cannot_be_loaded_is_refused(data: bytes, wanted: str) -> None:
    """Each kind of damage has its reason."""
    assert reason(data) == wanted
