"""The side columns of a batch: offload headers and trace records as bytes. Nothing here trusts the bytes.

Source: `PortRings` in the contract; Virtual I/O Device (VIRTIO) 1.2, 5.1.6 for the first 12 bytes of a header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from lamina_vswitch.domain.frames.metadata import Offload, any_laden, laden, load_of, with_tag_within

HEADER_BYTES = 20
RECORD_BYTES = 32

_HEADER = struct.Struct("<BBHHHHHHHI")
_COMPLETE = bytes(HEADER_BYTES)
_COMPLETE_BUT_HASH = bytes(HEADER_BYTES - 4)
_NO_RECORD = bytes(RECORD_BYTES)
_TAG_TYPES = (0x8100, 0x88A8)


def fits(frames: Sequence[bytes], headers: bytes, records: bytes) -> bool:
    """Tell whether the columns of a batch, empty or not, have one entry for each frame."""
    return len(headers) in (0, len(frames) * HEADER_BYTES) and len(records) in (0, len(frames) * RECORD_BYTES)


def joined(frames: Sequence[bytes], headers: bytes, records: bytes) -> list[bytes]:
    """Return frames with their loads. The columns fit. A tag beside a frame is put into it."""
    if not headers and not records:
        return list(frames)
    found = []
    for number, frame in enumerate(frames):
        header = headers[number * HEADER_BYTES : (number + 1) * HEADER_BYTES] or _COMPLETE
        record: bytes | None = records[number * RECORD_BYTES : (number + 1) * RECORD_BYTES]
        if not record or record == _NO_RECORD:
            record = None
        found.append(with_header(frame, header, record))
    return found


def with_header(frame: bytes, header: bytes, record: bytes | None) -> bytes:
    """Return one frame with the load that 20 bytes of header and a record, None for none, say."""
    if header == _COMPLETE:
        return laden(frame, None, record)
    offload = Offload(*_HEADER.unpack(header))
    whole = laden(frame, offload, record)
    return with_tag_within(whole) if offload.tag_type in _TAG_TYPES and len(frame) >= 14 else whole


def parted(frames: Sequence[bytes]) -> tuple[list[bytes], bytes, bytes]:
    """Return frames as plain bytes, their header column and their record column; a column of nothing is empty."""
    if not any_laden(frames):
        return list(frames), b"", b""
    plain, loads = list(map(bytes, frames)), list(map(load_of, frames))
    headers = records = b""
    if any(offload is not None for offload, _ in loads):
        headers = b"".join(_COMPLETE if offload is None else _HEADER.pack(*offload) for offload, _ in loads)
    if any(record is not None for _, record in loads):
        records = b"".join(record or _NO_RECORD for _, record in loads)
    return plain, headers, records


def header_of(offload: Offload | None) -> bytes:
    """Return the 20 bytes of one header."""
    return _COMPLETE if offload is None else _HEADER.pack(*offload)
