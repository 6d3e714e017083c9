"""One capture: bounds, losses, limits and order, without a service around it."""

from __future__ import annotations

import pytest
from tests import pcapng_reader

from lamina_vswitch.domain.capture.capture import MAX_PIECE_BYTES, Capture
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.capture.selection import BUFFER_BYTES, Selection
from lamina_vswitch.domain.frames.drop_reasons import DropReason

SWITCH = "hosts/h1/switches/s1"
A, B = f"{SWITCH}/ports/a", f"{SWITCH}/ports/b"
IN = Direction.INGRESS


def drained(capture: Capture) -> bytes:
    """Returns everything that waits, in pieces none of which is too large."""
    data = b""
    while (piece := capture.take(0)) is not None:
        assert len(piece.data) <= MAX_PIECE_BYTES
        data += piece.data
    return data


def test_a_slow_reader_loses_and_is_told() -> None:
    """What does not fit is counted at its port, statistics follow what waited, and the file goes on after that."""
    capture = Capture(Selection(SWITCH, buffer_bytes=BUFFER_BYTES[0]), 0, lambda: None)
    frames = [number.to_bytes(4, "big") + bytes(996) for number in range(100)]
    capture.see(A, IN, frames, 1)
    capture.see(B, IN, frames[:5], 1)
    first = drained(capture)
    told = pcapng_reader.read(first)
    kept = len(told.packets)
    assert 55 < kept < 66 and capture.lost == 105 - kept
    assert [(s.interface, s.received, s.dropped, s.delivered) for s in told.statistics] == [
        (A, 100, 100 - kept, kept),
        (B, 5, 5, 0),
    ]
    capture.see(A, IN, frames[:1], 2)
    capture.end(3)
    whole = pcapng_reader.read(first + drained(capture))
    assert [packet.data for packet in whole.packets] == [*frames[:kept], frames[0]]
    assert [s.received for s in whole.statistics[2:]] == [101, 5]


def test_losses_are_told_once() -> None:
    """Without new losses nothing waits for the reader."""
    capture = Capture(Selection(SWITCH, buffer_bytes=BUFFER_BYTES[0]), 0, lambda: None)
    capture.see(A, IN, [bytes(60_000)] * 3, 1)
    assert pcapng_reader.read(drained(capture)).blocks == ["section", "interface", "packet", "statistics"]
    assert capture.take(2) is None


def test_what_nobody_had_is_lost_and_told() -> None:
    """Frames that the kernel had no room for count at their port, like those that did not fit; unless not wanted."""
    capture = Capture(Selection(SWITCH, direction=IN), 0, lambda: None)
    capture.miss(A, IN, 3, 1)
    capture.miss(A, Direction.EGRESS, 3, 1)
    capture.see(A, IN, [bytes(60)], 2)
    told = pcapng_reader.read(drained(capture))
    assert [(s.interface, s.received, s.dropped, s.delivered) for s in told.statistics] == [(A, 4, 3, 1)]
    assert (capture.lost, len(told.packets)) == (3, 1)


def test_the_longest_frame_fits_into_the_smallest_buffer() -> None:
    """A reader who keeps up loses nothing, though the block of such a frame is longer than all that may wait."""
    capture = Capture(Selection(SWITCH, buffer_bytes=BUFFER_BYTES[0]), 0, lambda: None)
    data = b""
    for _ in range(2):
        capture.see(A, IN, [bytes(65535)], 1)
        data += drained(capture)
    assert len(pcapng_reader.read(data).packets) == 2 and capture.lost == 0


def test_nothing_is_taken_beyond_the_limit() -> None:
    """A batch that goes over the limit is cut, and later ones are not looked at."""
    capture = Capture(Selection(SWITCH, frame_limit=2), 0, lambda: None)
    for _ in range(2):
        capture.see(A, IN, [bytes(60)] * 3, 1)
    assert capture.full and len(pcapng_reader.read(drained(capture)).packets) == 2


def test_nothing_is_taken_after_the_end() -> None:
    """The statistics of an ended capture are its last blocks."""
    capture = Capture(Selection(SWITCH), 0, lambda: None)
    capture.see(A, IN, [bytes(60)], 1)
    capture.end(2)
    capture.see(A, IN, [bytes(60)], 3)
    assert pcapng_reader.read(drained(capture)).blocks == ["section", "interface", "packet", "statistics"]


def test_times_are_shifted_by_the_epoch() -> None:
    """On the machine's clock a file tells wall time, in frames as in statistics."""
    capture = Capture(Selection(SWITCH), 1_700_000_000_000_000_000, lambda: None)
    capture.see(A, IN, [bytes(60)], 7)
    capture.end(9)
    found = pcapng_reader.read(drained(capture))
    times = (found.packets[0].time_ns, found.statistics[0].start_ns, found.statistics[0].end_ns)
    assert [time - 1_700_000_000_000_000_000 for time in times] == [7, 7, 9]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 13, 65535])
def test_every_length_makes_a_whole_block(size: int) -> None:
    """Frames are padded to four bytes, and keep their length."""
    capture = Capture(Selection(SWITCH, drops=True), 0, lambda: None)
    capture.see(A, IN, [b"\xaa" * size], 1, DropReason.RUNT)
    (packet,) = pcapng_reader.read(drained(capture)).packets
    assert (packet.data, packet.length, packet.comments) == (b"\xaa" * size, size, ["drop: RUNT"])


def test_another_switch_of_a_longer_name_is_another_switch() -> None:
    """Ports belong to a capture by the whole name of their switch."""
    capture = Capture(Selection(SWITCH), 0, lambda: None)
    capture.see("hosts/h1/switches/s11/ports/a", IN, [bytes(60)], 1)
    assert pcapng_reader.read(drained(capture)).blocks == ["section"]
