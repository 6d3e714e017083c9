"""Frames in a byte stream: four bytes of length, big-endian, before each, as QEMU's `-netdev stream` sends them.

Source: QEMU net/stream.c and net/net.c, net_fill_rstate.
"""

from __future__ import annotations

from collections.abc import Iterable

from lamina_vswitch.domain.frames.header import MAX_FRAME_BYTES

LENGTH_BYTES = 4


class Deframer:
    """Cuts a stream into frames. What it holds is bounded by one frame, whatever the peer announces."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._skipped = 0

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the frames that are complete now, and how many were too long, of which no byte is kept."""
        frames: list[bytes] = []
        too_long = 0
        self._held += data
        at = 0
        while True:
            if self._skipped:
                gone = min(self._skipped, len(self._held) - at)
                self._skipped -= gone
                at += gone
            if self._skipped or len(self._held) - at < LENGTH_BYTES:
                break
            length = int.from_bytes(self._held[at : at + LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                too_long += 1
                at += LENGTH_BYTES
                self._skipped = length
                continue
            if len(self._held) - at < LENGTH_BYTES + length:
                break
            at += LENGTH_BYTES
            frames.append(bytes(self._held[at : at + length]))
            at += length
        del self._held[:at]
        return frames, too_long


def framed(frames: Iterable[bytes]) -> bytes:
    """Return frames with their lengths, as they go into a stream."""
    return b"".join(len(frame).to_bytes(LENGTH_BYTES, "big") + frame for frame in frames)
