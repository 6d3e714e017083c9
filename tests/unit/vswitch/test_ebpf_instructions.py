"""The assembler of eBPF beside bytes that RFC 9669 gives, and jumps that find their labels."""

from __future__ import annotations

import pytest

from lamina_vswitch.ebpf import assembler as bpf


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (bpf.load(2, 6, 20), "6162140000000000"),
        (bpf.store(10, -4, 7), "637afcff00000000"),
        (bpf.add_to_memory(0, 0, 1), "db10000000000000"),
        (bpf.put(8, -1), "b7080000ffffffff"),
        (bpf.copy(6, 1), "bf16000000000000"),
        (bpf.add(2, -4), "07020000fcffffff"),
        (bpf.mask(7, 0xFFF), "57070000ff0f0000"),
        (bpf.set_bits(3, 10), "470300000a000000"),
        (bpf.call(23), "8500000017000000"),
        (bpf.leave(), "9500000000000000"),
        (bpf.load16(9, 10, -10), "69a9f6ff00000000"),
        (bpf.load64(2, 6, 20), "7962140000000000"),
        (bpf.store64(10, -8, 7), "7b7af8ff00000000"),
        (bpf.fetch_and_add(7, 40, 1), "db17280001000000"),
        (bpf.exchange(7, 32, 1), "db172000e1000000"),
        (bpf.load_value(1, 5, 16), "18210000050000000000000010000000"),
        (bpf.load_number(2, 0x9E3779B97F4A7C15), "18020000157c4a7f00000000b979379e"),
        (bpf.load_map(1, 5), "18110000050000000000000000000000"),
    ],
)
def test_instructions_are_these_bytes(instruction: bpf.Instruction, expected: str) -> None:
    """Opcode, registers, offset and number stand where the kernel reads them."""
    assert bpf.assemble([instruction]).hex() == expected


def test_jumps_count_places_from_the_next_instruction() -> None:
    """A wide instruction counts twice; a jump may go back."""
    code = bpf.assemble(
        [bpf.Label("a"), bpf.jump_if(1, 0, "b"), bpf.load_map(1, 5), bpf.jump("a"), bpf.Label("b"), bpf.leave()]
    )
    assert (code[:8].hex(), code[24:32].hex()) == ("1501030000000000", "0500fcff00000000")


def test_a_label_that_is_not_there_is_an_error() -> None:
    """A program with a jump to nowhere is not assembled."""
    with pytest.raises(KeyError):
        bpf.assemble([bpf.jump("nowhere")])
