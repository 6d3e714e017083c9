"""Reads of device memory on KVM cores: which move it was is found out from what a mark did to its register."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from lamina_hardware.io.kvm import device_reads
from lamina_hardware.io.kvm.opcodes import length_of_outs

WHOLE = (1 << 64) - 1
MOVES = {
    "8a07": (1, 1, "keep"), "668b07": (2, 2, "keep"), "8b07": (4, 8, "zero"), "488b07": (8, 8, "zero"),
    "0fb607": (1, 8, "zero"), "660fb607": (1, 2, "zero"), "480fb607": (1, 8, "zero"), "0fb707": (2, 8, "zero"),
    "0fbe07": (1, 4, "sign"), "660fbe07": (1, 2, "sign"), "480fbe07": (1, 8, "sign"), "0fbf07": (2, 4, "sign"),
    "480fbf07": (2, 8, "sign"), "486307": (4, 8, "sign"), "8a27": (1, 1, "second"),
}  # fmt: skip
"""Code of a read through RDI: bytes read, bytes written, and what becomes of the rest."""


def processor(code: str, kept: int, answer: int) -> int:
    """Returns what the instruction leaves of a register, byte by byte."""
    size, count, how = MOVES[code]
    read, old = answer.to_bytes(8, "little")[:size], kept.to_bytes(8, "little")
    if how == "second":
        return int.from_bytes(old[:1] + read + old[2:], "little")
    fill = b"\xff" if how == "sign" and read[-1] & 0x80 else b"\x00"
    written = (read + fill * 8)[:count]
    if count == 4:
        written += bytes(4)
    return int.from_bytes(written + old[len(written) :], "little")


words = st.one_of(
    st.integers(0, WHOLE),
    st.tuples(*[st.sampled_from((0, 0xFF, 0xA5, 0x80))] * 8).map(lambda held: int.from_bytes(bytes(held), "little")),
)


@given(st.sampled_from(sorted(MOVES)), words, words, words)
@example("8a07", WHOLE, 0x12, 0)
@example("660fbe07", 0xFFFF_FF00, 0x12, 0)
def test_a_read_is_completed_as_the_instruction_says(code: str, kept: int, answer: int, other: int) -> None:
    """Whatever the register held, the answer that comes later fills it as the processor would have."""
    byte = device_reads.mark(kept.to_bytes(8, "little") + other.to_bytes(8, "little") * 15)
    after = processor(code, kept, int.from_bytes(bytes([byte]) * 8, "little"))
    assert after != kept
    found = device_reads.moves(MOVES[code][0], byte, kept, after)
    if not device_reads.is_sure(found):
        found = device_reads.by_code(found, bytes.fromhex(code))
    assert {device_reads.filled(word, kept, answer) for word in found} == {processor(code, kept, answer)}


@given(st.sampled_from((1, 2, 4, 8, 3, 0)), words, words)
def test_what_no_move_leaves_is_none(size: int, kept: int, after: int) -> None:
    """A register that an addition or another operation changed is that of no move, unless it looks the same."""
    byte = device_reads.mark(kept.to_bytes(8, "little") * 16)
    for word in device_reads.moves(size, byte, kept, after):
        assert after.to_bytes(8, "little").count(byte) >= size
        assert device_reads.filled(word, kept, int.from_bytes(bytes([byte]) * 8, "little")) == after


def test_strings_of_output_are_told_from_what_is_none() -> None:
    """REP OUTS is told with any prefix and size; a single OUTS, OUT and cut code are not."""
    strings = {"f36e": 2, "f36f": 2, "f3676e": 3, "66f36f": 3, "f3486f": 3, "26f26e": 3}
    others = ("6e", "ee", "e680", "", "f3", "f3ee", "f30f6e", "f36c")
    assert {code: length_of_outs(bytes.fromhex(code)) for code in (*strings, *others)} == {
        **strings, **dict.fromkeys(others, 0),
    }  # fmt: skip
