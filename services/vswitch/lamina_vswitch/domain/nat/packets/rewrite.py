"""Rewrites the addresses and ports of a packet and brings its sums along.

Sums are updated by what changed and never computed anew, so that a packet that came broken stays broken. A UDP sum of
0 means that there is none, and stays 0. Source: RFC 1624; RFC 768; RFC 3022, 4.1 to 4.3.
"""

from __future__ import annotations

import struct

from lamina_net.packets.checksum import updated
from lamina_vswitch.domain.nat.packets.packet import ECHO_REQUEST, ICMP, TCP, UDP, FlowKey, Kind, View

_SUM_AT = {TCP: 16, UDP: 6, ICMP: 2}
_IP_SUM_AT = 10
_ICMP_HEADER_BYTES = 8
_LONGEST_TRANSPORT_BYTES = 20
_ADDRESSES = struct.Struct("!II")
_PORTS = struct.Struct("!HH")


def rewrite(packet: bytes, view: View, to: FlowKey) -> bytes:
    """Return a packet of a flow, or a fragment of one, with the addresses and ports of `to`; padding is cut off."""
    buffer = bytearray(packet[: view.total])
    _rewrite_at(buffer, 0, view, to)
    return bytes(buffer)


def rewrite_error(packet: bytes, view: View, src: int, dst: int, quoted: View, to: FlowKey) -> bytes:
    """Return an ICMP error from `src` to `dst` with the packet that it quotes as `to`.

    Source: RFC 5508, 4.2.
    """
    buffer = bytearray(packet[: view.total])
    _rewrite_at(buffer, 0, view, view.key._replace(src=src, dst=dst))
    begin = view.header + _ICMP_HEADER_BYTES
    end = min(view.total, begin + quoted.header + _LONGEST_TRANSPORT_BYTES) & ~1
    before = bytes(buffer[begin:end])
    _rewrite_at(buffer, begin, quoted, to)
    _update(buffer, view.header + _SUM_AT[ICMP], before, bytes(buffer[begin:end]))
    return bytes(buffer)


def _rewrite_at(buffer: bytearray, base: int, view: View, to: FlowKey) -> None:
    """Rewrite the packet that begins at `base` and ends `view.total` bytes behind it, or earlier."""
    old, new = bytes(buffer[base + 12 : base + 20]), _ADDRESSES.pack(to.src, to.dst)
    buffer[base + 12 : base + 20] = new
    _update(buffer, base + _IP_SUM_AT, old, new)
    if view.kind is not Kind.FLOW:
        return
    at, protocol = base + view.header, view.key.protocol
    place, ports = _ports(buffer, at, protocol, to)
    ports_before = bytes(buffer[place : place + len(ports)])
    buffer[place : place + len(ports)] = ports
    if protocol == ICMP:
        old, new = b"", b""
    sum_at = at + _SUM_AT[protocol]
    if sum_at + 2 > base + view.total or (protocol == UDP and not any(buffer[sum_at : sum_at + 2])):
        return
    _update(buffer, sum_at, old + ports_before, new + ports)
    may_not_be_zero = protocol == UDP or (protocol == ICMP and _is_zero(buffer, at, view))
    if may_not_be_zero and not any(buffer[sum_at : sum_at + 2]):
        buffer[sum_at : sum_at + 2] = b"\xff\xff"


def _is_zero(buffer: bytearray, at: int, view: View) -> bool:
    """Tell whether a whole message is zero, as an empty echo reply may be: 0xffff is its sum, which no update finds."""
    return not view.fragmented and not any(buffer[at:])


def _ports(buffer: bytearray, at: int, protocol: int, to: FlowKey) -> tuple[int, bytes]:
    """Return where the ports of a transport header are, and what to write there."""
    if protocol != ICMP:
        return at, _PORTS.pack(to.src_port, to.dst_port)
    identifier = to.src_port if buffer[at] == ECHO_REQUEST else to.dst_port
    return at + 4, identifier.to_bytes(2, "big")


def _update(buffer: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Update the sum at `at` after `old`, a whole number of words, became `new`."""
    if old == new:
        return
    before = int.from_bytes(buffer[at : at + 2], "big")
    after = updated(before, int.from_bytes(old, "big"), int.from_bytes(new, "big"))
    buffer[at : at + 2] = after.to_bytes(2, "big")
