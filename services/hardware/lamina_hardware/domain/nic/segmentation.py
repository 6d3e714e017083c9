"""What a NIC does to a frame before it goes out: tags, checksums, cutting of TCP segments (TSO).

Source: Intel 82599 datasheet 331520, chapters 7.2.4 (segmentation) and 7.2.5 (checksums); RFC 3168 for CWR.
"""

from __future__ import annotations

from lamina_hardware.domain.nic.descriptors import Malformed, TransmitContext, TransmitData
from lamina_net.offload.headers import TCP, Headers, fill_ipv4_sum, ones_sum
from lamina_net.offload.segments import cut_tcp

MOST_BYTES = 256 << 10
"""Most payload of one segmented send."""

MOST_SEGMENTS = 8192
"""Most frames of one segmented send: 256 KiB in segments of the smallest MSS that makes sense, and some. A driver that
asks for segments of one byte would hold up everybody."""

_L4_TCP, _L4_UDP = 1, 0
_SUM_PLACE = {_L4_TCP: 16, _L4_UDP: 6}
_LEAST_HEADER = {_L4_TCP: 20, _L4_UDP: 8}


def prepare(frame: bytearray, data: TransmitData, context: TransmitContext | None) -> list[bytes]:
    """Returns the frames that leave for one send. Raises `Malformed` for a send that its context does not fit.

    `data` is the first data descriptor of the frame: the chip takes all commands but EOP and RS from there.
    """
    if context is None and (data.segment or data.ip_sum or data.l4_sum or data.insert_vlan):
        raise Malformed("an offload without a context descriptor before it")
    if context is None:
        return [bytes(frame)]
    if data.segment:
        cut = _cut(frame, data, context)
    else:
        _fill_sums(frame, data, context)
        cut = [frame]
    return [bytes(_tagged(piece, context.vlan) if data.insert_vlan else piece) for piece in cut]


def _tagged(frame: bytearray, tag: int) -> bytearray:
    return frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:]


def _check(frame: bytearray, context: TransmitContext, wants_l4: bool) -> None:
    """Raises `Malformed` unless the headers that the context names lie in the frame."""
    l3, l4 = context.mac_bytes, context.mac_bytes + context.ip_bytes
    if l3 < 14 or (context.is_ipv4 and context.ip_bytes < 20) or (not context.is_ipv4 and context.ip_bytes < 40):
        raise Malformed(f"header lengths {context.mac_bytes} and {context.ip_bytes}")
    if l4 > len(frame):
        raise Malformed(f"headers of {l4} bytes in a frame of {len(frame)}")
    if wants_l4:
        if context.l4_type not in _SUM_PLACE:
            raise Malformed(f"transport type {context.l4_type}")
        if l4 + _LEAST_HEADER[context.l4_type] > len(frame):
            raise Malformed("the transport header lies outside the frame")


def _fill_sums(frame: bytearray, data: TransmitData, context: TransmitContext) -> None:
    if not (data.ip_sum or data.l4_sum):
        return
    _check(frame, context, data.l4_sum)
    if data.ip_sum and context.is_ipv4:
        fill_ipv4_sum(frame, context.mac_bytes, context.ip_bytes)
    if data.l4_sum:
        _fill_l4(frame, context)


def _fill_l4(frame: bytearray, context: TransmitContext) -> None:
    """Adds the segment to the sum of the pseudo header that the driver left in the checksum field."""
    l4 = context.mac_bytes + context.ip_bytes
    place = l4 + _SUM_PLACE[context.l4_type]
    value = 0xFFFF ^ ones_sum(frame[l4 : _packet_end(frame, context)])
    if not value and context.l4_type == _L4_UDP:
        value = 0xFFFF
    frame[place : place + 2] = value.to_bytes(2, "big")


def _packet_end(frame: bytearray, context: TransmitContext) -> int:
    """Returns where the IP packet ends: what pads a frame is no part of it."""
    l3 = context.mac_bytes
    if context.is_ipv4:
        end = l3 + int.from_bytes(frame[l3 + 2 : l3 + 4], "big")
    else:
        end = l3 + 40 + int.from_bytes(frame[l3 + 4 : l3 + 6], "big")
    return end if l3 + context.ip_bytes < end <= len(frame) else len(frame)


def _cut(frame: bytearray, data: TransmitData, context: TransmitContext) -> list[bytearray]:
    """Returns a TCP segment as frames of at most `mss` bytes of payload each."""
    _check(frame, context, wants_l4=True)
    l3, l4 = context.mac_bytes, context.mac_bytes + context.ip_bytes
    size = l4 + context.l4_bytes
    if context.l4_type != _L4_TCP or context.l4_bytes < _LEAST_HEADER[_L4_TCP] or size > len(frame):
        raise Malformed(f"segmentation with a transport header of {context.l4_bytes} bytes of type {context.l4_type}")
    if not context.mss or data.payload_bytes != len(frame) - size or data.payload_bytes > MOST_BYTES:
        raise Malformed(
            f"segments of {context.mss} bytes, payload told {data.payload_bytes}, there {len(frame) - size}"
        )
    if data.payload_bytes > MOST_SEGMENTS * context.mss:
        raise Malformed(f"more than {MOST_SEGMENTS} segments of {context.mss} bytes")
    headers = Headers(l3, 4 if context.is_ipv4 else 6, l4, TCP, size, len(frame))
    return cut_tcp(frame, headers, context.mss)
