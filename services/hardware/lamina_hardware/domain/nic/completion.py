"""Frames that the kernel has not finished, because hardware does the rest: checksums, and cutting into segments.

A packet socket tells with each frame what is left to do (a virtio-net header). A wire carries only what could be on
one, so it is done here, as the NIC's own offloads do it. Pure.

Source: Virtual I/O Device (VIRTIO) 1.2, 5.1.6; include/uapi/linux/virtio_net.h of Linux 6.18.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_hardware.domain.nic.descriptors import Malformed, TransmitContext, TransmitData
from lamina_hardware.domain.nic.segmentation import MOST_SEGMENTS, prepare
from lamina_net.offload.headers import TCP, UDP, Headers, parse
from lamina_net.offload.segments import cut_udp, with_sum

HEADER = struct.Struct("=BBHHHH")
"""flags, kind of segmentation, header bytes, segment bytes, where a checksum begins, where it goes from there."""

NEEDS_SUM = 1
"""Flag: the checksum field holds the sum of the pseudo header only."""
_NONE, _TCPV4, _TCPV6, _UDP_L4, _ECN = 0, 1, 4, 5, 0x80


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is left to do: `kind` of segmentation into `segment` bytes of payload, a sum from `start` at `offset`."""

    flags: int
    kind: int
    segment: int
    start: int
    offset: int


def read(raw: bytes) -> Unfinished:
    """Returns what a virtio-net header of ten bytes says."""
    flags, kind, _, segment, start, offset = HEADER.unpack(raw)
    return Unfinished(flags, kind, segment, start, offset)


def complete(frame: bytes, left: Unfinished) -> list[bytes]:
    """Returns the frames that hardware would have sent.

    Raises `Malformed` for kinds of segmentation that no NIC here does, and for headers that the frame does not have.
    """
    kind = left.kind & ~_ECN
    if kind == _NONE:
        return [_summed(frame, left) if left.flags & NEEDS_SUM else frame]
    headers = parse(frame)
    if not left.segment or not headers.l4:
        raise Malformed(f"segments of {left.segment} bytes of a frame without a transport header")
    if kind in (_TCPV4, _TCPV6) and headers.protocol == TCP:
        return _tcp(frame, headers, left.segment)
    if kind == _UDP_L4 and headers.protocol == UDP:
        return _udp(frame, headers, left.segment)
    raise Malformed(f"segmentation of kind {left.kind:#x}")


def _summed(frame: bytes, left: Unfinished) -> bytes:
    """Adds the rest of a frame to the sum of the pseudo header that lies in the checksum's place."""
    place = left.start + left.offset
    if place + 2 > len(frame):
        raise Malformed(f"a checksum at {place} in a frame of {len(frame)}")
    return with_sum(frame, left.start, left.offset)


def _tcp(frame: bytes, headers: Headers, segment: int) -> list[bytes]:
    context = TransmitContext(
        mac_bytes=headers.l3, ip_bytes=headers.l4 - headers.l3, l4_bytes=headers.payload - headers.l4, mss=segment,
        vlan=0, is_ipv4=headers.version == 4, l4_type=1,
    )  # fmt: skip
    whole = bytearray(frame[: headers.end])
    data = TransmitData(
        address=0, size=len(whole), is_last=True, wants_report=False, insert_vlan=False, segment=True, ip_sum=True,
        l4_sum=True, payload_bytes=len(whole) - headers.payload,
    )  # fmt: skip
    return prepare(whole, data, context)


def _udp(frame: bytes, headers: Headers, segment: int) -> list[bytes]:
    if headers.end - headers.payload > MOST_SEGMENTS * segment:
        raise Malformed(f"more than {MOST_SEGMENTS} segments of {segment} bytes")
    return [bytes(piece) for piece in cut_udp(frame, headers, segment)]
