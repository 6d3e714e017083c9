"""The header that the kernel puts before frames whose rest it leaves to hardware, and takes before such frames.

Source: Virtual I/O Device (VIRTIO) 1.2, 5.1.6; include/uapi/linux/virtio_net.h of Linux 6.18.
"""

from __future__ import annotations

import struct

from lamina_net.offload.headers import parse
from lamina_vswitch.domain.frames.metadata import DATA_VALID, NEEDS_CHECKSUM, Offload, laden, load_of

LAYOUT = struct.Struct("<BBHHHH")
"""flags, kind of segments, bytes of headers, bytes of a segment, where the sum starts, where it stands from there."""

COMPLETE = bytes(LAYOUT.size)
_KNOWN = NEEDS_CHECKSUM | DATA_VALID


def from_kernel(header: bytes, frame: bytes, tag: bytes = b"") -> bytes:
    """Return a frame that came from the kernel with its load; a tag that was taken off stands in it again.

    The kernel's bytes of headers are those that happen to lie together, so they are counted anew. `tag` is four bytes
    or none.
    """
    flags, kind, _, segment, start, offset = LAYOUT.unpack_from(header)
    flags &= _KNOWN
    if tag:
        frame, start = frame[:12] + tag + frame[12:], start + len(tag)
    if not kind and not flags & NEEDS_CHECKSUM:
        return frame
    if not flags & NEEDS_CHECKSUM:
        start = offset = 0
    headers = parse(frame, stacked=True).payload if kind and len(frame) >= 14 else 0
    return laden(frame, Offload(flags, kind, headers, segment if kind else 0, start, offset), None)


def to_kernel(frame: bytes) -> bytes:
    """Return the header for a frame that was finished as far as the kernel wants it."""
    offload, _ = load_of(frame)
    if offload is None or not (offload.kind or offload.flags & NEEDS_CHECKSUM):
        return COMPLETE
    flags = offload.flags & NEEDS_CHECKSUM
    return LAYOUT.pack(
        flags, offload.kind, offload.header_bytes, offload.segment_bytes, offload.sum_start, offload.sum_offset
    )
