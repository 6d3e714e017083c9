"""The boot protocol: tables, information and registers."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from lamina_hypervisor.domain.boot import protocol
from lamina_hypervisor.domain.boot.elf import Kernel
from lamina_kit import paging


def image_of(pieces: list[protocol.Piece]) -> dict[int, int]:
    """Returns the words that pieces write, by address."""
    words = {}
    for piece in pieces:
        data = piece.data.ljust(-(-len(piece.data) // 8) * 8, b"\0")
        for number, (word,) in enumerate(struct.iter_unpack("<Q", data)):
            words[piece.gpa + 8 * number] = word
    return words


@pytest.mark.parametrize("memory", [2 << 20, 64 << 20, (3 << 30) + (1 << 20), 64 << 30])
def test_the_first_table_maps_ram_one_to_one(kernel: Kernel, memory: int) -> None:
    """The first, a middle and the last page of RAM are mapped to themselves, and the page behind is not."""
    words = image_of(protocol.pieces(kernel, memory, 1, ""))

    def translate(gva: int) -> int | None:
        table: int = protocol.PML4
        for level in (4, 3, 2):
            entry = words.get(table + 8 * paging.index(gva, level), 0)
            if not entry & paging.PRESENT:
                return None
            table = entry & paging.ADDR_MASK
        return table | gva & 0x1FFFFF

    for address in (0, memory // 2, memory - 1):
        assert translate(address) == address
    assert translate(-(-memory // (2 << 20)) * (2 << 20)) is None


def test_no_boot_table_reaches_the_kernel_or_the_free_pages(kernel: Kernel) -> None:
    """With the largest RAM everything lies between 0x90000 and 1 MiB, stacks included."""
    low = [piece for piece in protocol.pieces(kernel, protocol.MAX_MEMORY, 16, "x" * 2047) if piece.gpa < 0x100000]
    assert min(piece.gpa for piece in low) == 0x90000
    assert max(piece.gpa + len(piece.data) for piece in low) <= protocol.KERNEL_LOWEST
    assert protocol.registers(kernel, 15).rsp <= protocol.PML4


def test_the_information_describes_the_vm(kernel: Kernel) -> None:
    """Magic, memory, vCPUs, command line and the kernel's span are at the fixed address."""
    pieces = {piece.gpa: piece.data for piece in protocol.pieces(kernel, 64 << 20, 3, "quiet")}
    info = struct.unpack("<8sIIQIIQQQQII", pieces[protocol.INFO])
    assert info[:7] == (b"LAMINA01", 1, len(pieces[protocol.INFO]), 64 << 20, 3, 5, protocol.COMMAND_LINE)
    assert info[7:] == (kernel.start, kernel.end, 10**9, 0x3F8, 0x24)
    assert pieces[protocol.COMMAND_LINE] == b"quiet\0"


def test_each_vcpu_has_its_number_and_its_stack(kernel: Kernel) -> None:
    """RDI points to the information, RSI is the number, and stacks do not overlap."""
    starts = [protocol.registers(kernel, number) for number in range(16)]
    assert [start.rsi for start in starts] == list(range(16))
    assert {start.rdi for start in starts} == {protocol.INFO}
    assert [b.rsp - a.rsp for a, b in pairwise(starts)] == [4096] * 15
