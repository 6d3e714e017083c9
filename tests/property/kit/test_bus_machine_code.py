"""The machine code of a bus's words against what numba compiles of the same operations, and against plain numbers."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.bus import atomics, machine_code

FRAMES = 8
STATES = 40960
"""Where the words of the frames are, behind the header and its ring of 4096 places."""
BYTES = STATES + 4 * FRAMES

CODE = machine_code.loaded()
pytestmark = pytest.mark.skipif(CODE is None, reason="this machine runs no machine code of ours")


class Head:
    """The header of a bus with its ring and the state words of a few frames."""

    def __init__(self, words: list[int], head: int, tail: int) -> None:
        self.memory = ctypes.create_string_buffer(BYTES)
        self.base = ctypes.addressof(self.memory)
        for offset, value in ((40, STATES), (128, head), (192, tail)):
            ctypes.c_uint64.from_address(self.base + offset).value = value
        for frame, word in enumerate(words):
            ctypes.c_uint32.from_address(self.base + STATES + 4 * frame).value = word


states = st.lists(st.integers(0, 15) | st.integers(0, 2**32 - 1), min_size=FRAMES, max_size=FRAMES)


@given(states, st.integers(0, FRAMES), st.integers(0, FRAMES), st.integers(0, 5000), st.integers(0, 4100))
def test_written_frames_are_marked_and_queued_alike(
    words: list[int], first: int, last: int, tail: int, used: int
) -> None:
    """State words, ring, head and the flag for everything are the same bytes, also with a full ring."""
    assert CODE is not None
    ours, theirs = Head(words, tail + used, tail), Head(words, tail + used, tail)
    CODE.mark_written(ours.base, first, max(0, last - first))
    atomics.mark_written(theirs.base, first, max(0, last - first))
    assert ours.memory.raw == theirs.memory.raw


@given(st.sampled_from([0, 1, 2, 0xFFFE, 0xFFFF]), st.integers(0, 255), st.integers(0, 255), st.booleans())
def test_pins_count_alike(pins: int, low: int, high: int, more: bool) -> None:
    """The new count, or -1 beyond either end, and nothing else of the word changes."""
    assert CODE is not None
    word = ctypes.c_uint32(high << 24 | pins << 8 | low)
    wanted = pins + (1 if more else -1)
    found = CODE.change_pins(ctypes.addressof(word), more)
    assert found == (wanted if 0 <= wanted <= 0xFFFF else -1)
    assert word.value == high << 24 | (wanted if found >= 0 else pins) << 8 | low


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_a_swap_happens_only_when_it_finds_what_was_expected(was: int, other: int, new: int, fits: bool) -> None:
    """It returns what was there in either case."""
    assert CODE is not None
    expected = was if fits else other
    word = ctypes.c_uint64(was)
    assert CODE.swap64(ctypes.addressof(word), expected, new) == was
    assert word.value == (new if expected == was else was)
