"""What a NIC does to a frame before it goes out: tags, checksums, cutting of TCP segments (TSO).

Source: Intel 82599 datasheet 331520, chapters 7.2.4 (segmentation) and 7.2.5 (checksums); RFC 3168 for CWR.
"""

from __future__ import annotations

from lamina_hardware.domain.nic.descriptors import Malformed, TransmitContext, TransmitData
from lamina_hardware.domain.nic.headers import CWR, FIN, PSH, fill_ipv4_sum, ones_sum

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
    header, payload = frame[:size], memoryview(frame)[size:]
    sequence = int.from_bytes(frame[l4 + 4 : l4 + 8], "big")
    identification = int.from_bytes(frame[l3 + 4 : l3 + 6], "big")
    pseudo = _pseudo_without_length(header, context)
    pieces = []
    for number, begin in enumerate(range(0, max(len(payload), 1), context.mss)):
        part = payload[begin : begin + context.mss]
        piece = bytearray(header)
        piece += part
        is_first, is_last = begin == 0, begin + context.mss >= len(payload)
        piece[l4 + 13] &= 0xFF ^ ((0 if is_last else FIN | PSH) | (0 if is_first else CWR))
        piece[l4 + 4 : l4 + 8] = ((sequence + begin) & 0xFFFFFFFF).to_bytes(4, "big")
        if context.is_ipv4:
            piece[l3 + 2 : l3 + 4] = (len(piece) - l3).to_bytes(2, "big")
            piece[l3 + 4 : l3 + 6] = ((identification + number) & 0xFFFF).to_bytes(2, "big")
            fill_ipv4_sum(piece, l3, context.ip_bytes)
        else:
            piece[l3 + 4 : l3 + 6] = (len(piece) - l3 - 40).to_bytes(2, "big")
        piece[l4 + 16 : l4 + 18] = b"\0\0"
        total = ones_sum(piece[l4:], pseudo + len(piece) - l4)
        piece[l4 + 16 : l4 + 18] = (0xFFFF ^ total).to_bytes(2, "big")
        pieces.append(piece)
    return pieces


def _pseudo_without_length(header: bytearray, context: TransmitContext) -> int:
    """Returns the sum of addresses and protocol, from the packet itself, so that drivers may leave any seed."""
    first, size = (12, 8) if context.is_ipv4 else (8, 32)
    l3 = context.mac_bytes
    return ones_sum(header[l3 + first : l3 + first + size], 6)
