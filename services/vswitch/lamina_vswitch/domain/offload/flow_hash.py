"""Which queue of a device a frame goes to: the flow decides, so that a flow keeps its order."""

from __future__ import annotations

import zlib

from lamina_net.offload.headers import parse
from lamina_vswitch.domain.frames.metadata import load_of


def flow_hash(frame: bytes) -> int:
    """Return a hash of a frame's flow, 1 to 2^32-1: of IP addresses, protocol and ports, or of Ethernet addresses.

    The hash that came beside the frame counts first, as whoever computed it may see inside of a tunnel.
    """
    offload, _ = load_of(frame)
    if offload is not None and offload.flow_hash:
        return offload.flow_hash
    headers = parse(frame, stacked=True) if len(frame) >= 14 else None
    if headers is None or not headers.version:
        return zlib.crc32(frame[:12]) or 1
    first, size = (12, 8) if headers.version == 4 else (8, 32)
    flow = frame[headers.l3 + first : headers.l3 + first + size]
    if headers.l4:  # fragments have no ports: those of one datagram stay together, by their addresses
        flow += bytes((headers.protocol,)) + frame[headers.l4 : headers.l4 + 4]
    return zlib.crc32(flow) or 1
