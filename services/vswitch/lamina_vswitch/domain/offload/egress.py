"""The exit of a port: frames are finished as far as the device there does not take them as they are."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_net.offload.headers import fill_transport_sum, parse
from lamina_net.offload.segments import cut_tcp, fragment_udp, with_sum
from lamina_vswitch.domain.frames.header import TPID_8021Q
from lamina_vswitch.domain.frames.metadata import (
    NEEDS_CHECKSUM,
    TAG_BESIDE,
    UDP,
    LadenFrame,
    Offload,
    laden,
    tag_of,
    without_tag,
)
from lamina_vswitch.domain.offload.features import Takes

_NOTHING = Offload()


def finished(frames: Sequence[bytes], takes: Takes) -> list[bytes]:
    """Return what the device gets for frames that were admitted: each as it is, summed, or cut into pieces."""
    found: list[bytes] = []
    for frame in frames:
        if type(frame) is not bytes:
            found += _finished(frame, takes)
        elif takes.tag_beside and frame[12:14] == TPID_8021Q:
            found.append(_beside(frame))
        else:
            found.append(frame)
    return found


def _finished(frame: bytes, takes: Takes) -> list[bytes]:
    if not isinstance(frame, LadenFrame):
        return [frame]
    offload, record = frame.offload, frame.record if takes.records else None
    if offload is None:
        pieces = [bytes(frame)]
    elif offload.segments and not takes.segments(offload.kind):
        pieces, offload = _cut(frame, offload), None
    elif offload.flags & NEEDS_CHECKSUM and not takes.checksum:
        pieces, offload = [_summed(frame, offload)], offload._replace(flags=0, sum_start=0, sum_offset=0)
    else:
        pieces = [bytes(frame)]
    if not takes.offloads:
        offload = None
    loaded = [laden(piece, offload, record) for piece in pieces]
    if takes.tag_beside:
        loaded = [_beside(piece) if piece[12:14] == TPID_8021Q else piece for piece in loaded]
    return loaded


def _cut(frame: bytes, offload: Offload) -> list[bytes]:
    headers = parse(frame, stacked=True)
    cut = fragment_udp if offload.segments == UDP else cut_tcp
    return [bytes(piece) for piece in cut(frame, headers, offload.segment_bytes)]


def _summed(frame: bytes, offload: Offload) -> bytes:
    """Return the frame with its sum. That of a long TCP packet covers all of it, whatever its sender had put there."""
    if not offload.segments:
        return with_sum(bytes(frame), offload.sum_start, offload.sum_offset)
    whole = bytearray(frame)
    fill_transport_sum(whole, parse(whole, stacked=True))
    return bytes(whole)


def _beside(frame: bytes) -> bytes:
    """Return a tagged frame with its tag beside it; one too short for a tag as it is."""
    if len(frame) < 18:
        return frame
    tag = tag_of(frame)
    bare = without_tag(frame)
    offload, record = (bare.offload, bare.record) if isinstance(bare, LadenFrame) else (None, None)
    offload = offload or _NOTHING
    kind, control = int.from_bytes(tag[:2], "big"), int.from_bytes(tag[2:], "big")
    return laden(bare, offload._replace(flags=offload.flags | TAG_BESIDE, tag_type=kind, tag=control), record)
