"""What is left to do with a frame, said as a NIC wants to hear it."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_net.offload.headers import TCP, checksum_offset, parse
from lamina_vswitch.domain.frames.metadata import NEEDS_CHECKSUM, LadenFrame, Offload
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import PLAIN
from lamina_vswitch.domain.uplink.nic.descriptors import MOST_ETHERNET_BYTES, MOST_IP_BYTES, Work


def prepared(frame: bytes) -> Sequence[tuple[bytes, Work | None]]:
    """Return a frame with what the NIC does to it; frames that nothing is left of, when no NIC can say it."""
    if not isinstance(frame, LadenFrame) or frame.offload is None:
        return ((bytes(frame), None),)
    offload = frame.offload
    if not offload.segments and not offload.flags & NEEDS_CHECKSUM:
        return ((bytes(frame), None),)
    work = _work(frame, offload)
    if work is not None:
        return ((bytes(frame), work),)
    return [(piece, None) for piece in finished([frame], PLAIN)]


def _work(frame: bytes, offload: Offload) -> Work | None:
    """Return what the NIC does; None when the headers are none that it knows, such as a sum within a tunnel."""
    headers = parse(frame)
    ip_bytes = headers.l4 - headers.l3
    if not headers.l4 or headers.l3 > MOST_ETHERNET_BYTES or ip_bytes > MOST_IP_BYTES:
        return None
    tcp = headers.protocol == TCP
    size, ipv4 = headers.payload - headers.l4, headers.version == 4
    if offload.segments:
        segment = offload.segment_bytes
        return Work(headers.l3, ip_bytes, size, ipv4, tcp, segment, len(frame) - headers.payload) if tcp else None
    if (offload.sum_start, offload.sum_start + offload.sum_offset) != (headers.l4, checksum_offset(headers)):
        return None
    return Work(headers.l3, ip_bytes, size, ipv4, tcp)
