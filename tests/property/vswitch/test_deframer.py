"""Frames in a byte stream, cut anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.backend.deframer import Deframer, framed

PIECES = st.lists(st.one_of(st.binary(max_size=100), st.integers(65536, 70000)), max_size=8)


@given(PIECES, st.lists(st.integers(1, 50_000), max_size=20))
def test_frames_come_back_however_the_stream_is_cut(pieces: list[bytes | int], cuts: list[int]) -> None:
    """Frames come in order, and what is announced too long is counted and passed over."""
    stream = b"".join(
        framed([piece]) if isinstance(piece, bytes) else piece.to_bytes(4, "big") + bytes(piece) for piece in pieces
    )
    deframer, frames, too_long, at = Deframer(), [], 0, 0
    for size in [*cuts, len(stream)]:
        found, skipped = deframer.feed(stream[at : at + size])
        frames += found
        too_long += skipped
        at += size
    assert frames == [piece for piece in pieces if isinstance(piece, bytes)]
    assert too_long == sum(isinstance(piece, int) for piece in pieces)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_are_a_stream(pieces: list[bytes]) -> None:
    """Whatever a peer sends, no more comes out than went in, and no more is kept than one frame."""
    deframer = Deframer()
    found = sum(len(frame) for piece in pieces for frame in deframer.feed(piece)[0])
    assert found <= sum(map(len, pieces))
    assert len(deframer._held) <= 65536 + 4
