"""Frames that carry something beside their bytes: what is left to do with them, and whose trace they belong to.

Most frames are plain `bytes` and stay that. One with an offload header or a trace record is a `LadenFrame`: bytes to
all of the pipeline, which hands it on as the same object. Only the exit of a port looks at what it carries, and
finishes it where the device does not take it (`domain/offload/egress.py`). Slicing it gives plain bytes without load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NEEDS_CHECKSUM, DATA_VALID, TAG_BESIDE = 1, 2, 4
NO_SEGMENTS, TCP4, UDP, TCP6, ECN = 0, 1, 3, 4, 0x80

_CWR, _TCP_SUM = 0x80, 16
_TAG = slice(12, 16)
_UDP_BYTES = 8
_FRAGMENT_HEADER_BYTES = 8


class Offload(NamedTuple):
    """What is left to do with a frame: the fields of the offload header, as `PortRings` in the contract says them.

    `kind` is NO_SEGMENTS, TCP4, UDP or TCP6, perhaps with ECN; offsets count from the frame's first byte, but for
    `sum_offset`, which counts from `sum_start`.
    """

    flags: int = 0
    kind: int = NO_SEGMENTS
    header_bytes: int = 0
    segment_bytes: int = 0
    sum_start: int = 0
    sum_offset: int = 0
    joined: int = 0
    tag_type: int = 0
    tag: int = 0
    flow_hash: int = 0

    @property
    def segments(self) -> int:
        """The kind of segments without its ECN bit; 0 for none."""
        return self.kind & ~ECN

    def moved(self, distance: int) -> Offload:
        """Return it for a frame whose headers behind the addresses lie `distance` bytes further on."""
        return self._replace(
            header_bytes=self.header_bytes + distance if self.segments else self.header_bytes,
            sum_start=self.sum_start + distance if self.flags & NEEDS_CHECKSUM else self.sum_start,
        )


class LadenFrame(bytes):
    """A frame with `offload`, None for a complete frame, and `record`, 32 bytes of trace or None."""

    offload: Offload | None
    record: bytes | None


def laden(frame: bytes, offload: Offload | None, record: bytes | None) -> bytes:
    """Return `frame` with its load: plain bytes when there is none."""
    if offload is None and record is None:
        return frame if type(frame) is bytes else bytes(frame)
    found = LadenFrame(frame)
    found.offload = offload
    found.record = record
    return found


def long_frame(frame: bytes, segment_bytes: int) -> bytes:
    """Return an untagged frame of TCP over IPv4, with the sum of its pseudo header, to be cut into segments."""
    at = 14 + (frame[14] & 15) * 4
    header = at + (frame[at + 12] >> 4) * 4
    kind = TCP4 | ECN if frame[at + 13] & _CWR else TCP4
    return laden(frame, Offload(NEEDS_CHECKSUM, kind, header, segment_bytes, at, _TCP_SUM), None)


def load_of(frame: bytes) -> tuple[Offload | None, bytes | None]:
    """Return what a frame carries."""
    return (frame.offload, frame.record) if isinstance(frame, LadenFrame) else (None, None)


def any_laden(frames: Sequence[bytes]) -> bool:
    """Tell whether any of some frames may carry something beside its bytes."""
    return bool([frame for frame in frames if type(frame) is not bytes])  # in half the time of `any`


def longest_piece(offload: Offload, version: int) -> int:
    """Return the most bytes of a frame that a long one over IP of this version, 4 or 6, leaves as. It has segments."""
    if offload.segments != UDP:
        return offload.header_bytes + offload.segment_bytes
    datagram = offload.header_bytes - _UDP_BYTES  # the fragments of a datagram repeat the headers before it
    return datagram + (_FRAGMENT_HEADER_BYTES if version == 6 else 0) + (offload.segment_bytes & ~7)


def without_tag(frame: bytes) -> bytes:
    """Return a frame, laden or not, without the four bytes of its outer tag, which is there."""
    bare = frame[:12] + frame[16:]
    if isinstance(frame, LadenFrame):
        return laden(bare, frame.offload and frame.offload.moved(-4), frame.record)
    return bare


def with_tag(frame: bytes, tag: bytes) -> bytes:
    """Return a frame, laden or not, with four bytes of tag (type and control information) behind its addresses."""
    tagged = frame[:12] + tag + frame[12:]
    if isinstance(frame, LadenFrame):
        return laden(tagged, frame.offload and frame.offload.moved(4), frame.record)
    return tagged


def with_tag_within(frame: bytes) -> bytes:
    """Return a frame whose tag, if one lies beside it, stands in it again."""
    offload, record = load_of(frame)
    if offload is None or not offload.flags & TAG_BESIDE:
        return frame
    left = offload._replace(flags=offload.flags & ~TAG_BESIDE, tag_type=0, tag=0)
    bare = laden(frame, left if left != Offload() else None, record)
    return with_tag(bare, offload.tag_type.to_bytes(2, "big") + offload.tag.to_bytes(2, "big"))


def tag_of(frame: bytes) -> bytes:
    """Return the four bytes behind the addresses."""
    return frame[_TAG]
