"""The kernel's connection tracking: what it tracks, and forgetting some of it.

A flow is read as the kernel tells it; what is not IPv4 or not in the zone of everybody is left out.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c of Linux 6.18.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.nat.flows.entry import Endpoint
from lamina_vswitch.domain.nat.outside.kernel import Tracked
from lamina_vswitch.domain.nat.packets.packet import ECHO_REPLY, ICMP
from lamina_vswitch.engines.linux.netlink.requests import DUMP, NESTED, Netlink, attribute, attributes
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_NEW, _GET, _DELETE = 0x100, 0x101, 0x102
_GENERIC = struct.Struct("=BBH")
_HEADER = _GENERIC.pack(socket.AF_INET, 0, 0)
_TUPLE, _ANSWER, _STATUS, _PROTOCOL_INFO, _TIMEOUT = 1, 2, 3, 4, 7
_COUNTS, _ANSWER_COUNTS, _ID, _ZONE, _TIMES = 9, 10, 12, 18, 20
_IP, _PROTOCOL = 1, 2
_SOURCE, _DESTINATION = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT, _ICMP_ID, _ICMP_TYPE = 1, 2, 3, 4, 5
_TCP, _TCP_STATE = 1, 1
_PACKETS, _BYTES = 1, 2
_START = 1
_FIRST = struct.Struct("=4xHH2xH2xH4s")
_NEXT = struct.Struct("=2xH2xH2xH4s")
_KIND = NESTED - 1


def tracked(netlink: Netlink, inside: Sequence[Subnet]) -> Iterator[Tracked]:
    """Yield the IPv4 flows that an address of these subnets began, or answers. Raises Unavailable `KERNEL_REFUSED`."""
    for kind, body in netlink.ask(_GET, _HEADER, DUMP, lambda body: may_be_of(body, inside)):
        flow = read_flow(body) if kind == _NEW else None
        if flow is not None and any(flow.source[0] in each or flow.answer_source[0] in each for each in inside):
            yield flow


def may_be_of(body: bytes, inside: Sequence[Subnet]) -> bool:
    """Tell, without reading all of a message, whether one of its sources is in these subnets.

    A machine may track a million flows of others. True for a message that does not begin as the kernel's do: both
    directions first, each with its addresses first. Never raises.
    """
    if len(body) < _FIRST.size:
        return True
    size, *kinds, source = _FIRST.unpack_from(body)
    at = _GENERIC.size + ((size + 3) & ~3)
    if [kind & _KIND for kind in kinds] != [_TUPLE, _IP, _SOURCE] or len(body) < at + _NEXT.size:
        return True
    *kinds, answer_source = _NEXT.unpack_from(body, at)
    if [kind & _KIND for kind in kinds] != [_ANSWER, _IP, _SOURCE]:
        return True
    ends = int.from_bytes(source, "big"), int.from_bytes(answer_source, "big")
    return any(end in each for end in ends for each in inside)


def forget(netlink: Netlink, flows: Iterable[Tracked]) -> int:
    """Have the kernel forget flows; return how many it still knew. Raises Unavailable `KERNEL_REFUSED`."""
    count = 0
    for flow in flows:
        try:
            netlink.ask(_DELETE, _HEADER + flow.identity)
        except KernelRefusal as refusal:
            if refusal.number != errno.ENOENT:
                raise
        else:
            count += 1
    return count


def read_flow(body: bytes) -> Tracked | None:
    """Return the flow that a message tells, None if it is not IPv4 or not whole. Never raises."""
    told = attributes(body, _GENERIC.size)
    if _ZONE in told:
        return None
    ends, answer = _ends(told.get(_TUPLE, b"")), _ends(told.get(_ANSWER, b""))
    if ends is None or answer is None:
        return None
    protocol = attributes(told.get(_PROTOCOL_INFO, b"")).get(_TCP, b"")
    identity = attribute(_TUPLE | NESTED, told[_TUPLE])
    if len(told.get(_ID, b"")) == 4:
        identity += attribute(_ID, told[_ID])
    return Tracked(
        ends[0], ends[1], ends[2], answer[1], answer[2],
        _number(told.get(_STATUS)),
        _number(attributes(protocol).get(_TCP_STATE)),
        _number(told.get(_TIMEOUT)),
        _number(attributes(told.get(_TIMES, b"")).get(_START)),
        _counts(told.get(_COUNTS)),
        _counts(told.get(_ANSWER_COUNTS)),
        identity,
    )  # fmt: skip


def _ends(data: bytes) -> tuple[int, Endpoint, Endpoint] | None:
    """Return protocol, source and destination of one direction."""
    told = attributes(data)
    addresses, protocol = attributes(told.get(_IP, b"")), attributes(told.get(_PROTOCOL, b""))
    source, destination, number = addresses.get(_SOURCE, b""), addresses.get(_DESTINATION, b""), protocol.get(_NUMBER)
    if len(source) != 4 or len(destination) != 4 or number is None or len(number) != 1:
        return None
    if number[0] == ICMP:
        identifier = _number(protocol.get(_ICMP_ID))
        is_answer = _number(protocol.get(_ICMP_TYPE)) == ECHO_REPLY
        ports = (0, identifier) if is_answer else (identifier, 0)
    else:
        ports = (_number(protocol.get(_SOURCE_PORT)), _number(protocol.get(_DESTINATION_PORT)))
    return number[0], (_number(source), ports[0]), (_number(destination), ports[1])


def _counts(data: bytes | None) -> tuple[int, int]:
    """Return packets and bytes; none are told while the kernel does not count."""
    told = attributes(data or b"")
    return _number(told.get(_PACKETS)), _number(told.get(_BYTES))


def _number(data: bytes | None) -> int:
    """Return a number in network order; 0 for one that is not told."""
    return int.from_bytes(data or b"", "big")
