"""Entries of bridges' forwarding databases: asked for, made, removed, and what the kernel tells of them.

Source: rtnetlink(7); include/uapi/linux/neighbour.h, net/bridge/br_fdb.c of Linux 6.18.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lamina_vswitch.engines.linux.netlink.requests import CREATE, DUMP, REPLACE, Answer, Netlink, attribute, attributes
from lamina_vswitch.engines.linux.refusal import KernelRefusal

TOLD = 1 << 2
"""The group of the kernel's notices of neighbours, RTNLGRP_NEIGH, as a mask."""

NEW, GONE = 28, 29
_GET = 30
_AF_BRIDGE = 7
_NEIGHBOUR = struct.Struct("=B3xiHBB")
_CACHE = struct.Struct("=IIII")
_ADDRESS, _CACHE_INFO, _MASTER = 2, 3, 9
_STATIC, _OWN = 0x40, 0x80
_BY_ITSELF, _BY_MASTER, _STICKY = 0x02, 0x04, 0x40
_NS_PER_TICK = 10_000_000


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry: index of the bridge, index of its port, address, whether a user made it, and its age."""

    bridge: int
    port: int
    mac: bytes
    static: bool
    age_ns: int


def listed(netlink: Netlink, bridge: int) -> list[Neighbour]:
    """Return the entries of a bridge, but for the addresses of its own devices."""
    body = _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0) + attribute(_MASTER, bridge)
    return [found for _, found in told(netlink.ask(_GET, body, DUMP)) if found.bridge == bridge]


def told(answers: Sequence[Answer]) -> Iterator[tuple[int, Neighbour]]:
    """Yield what messages say of entries, each with NEW or GONE, but for addresses of the kernel's own devices."""
    for kind, body in answers:
        if kind not in (NEW, GONE) or len(body) < _NEIGHBOUR.size:
            continue
        family, port, state, _, _ = _NEIGHBOUR.unpack_from(body)
        found = attributes(body, _NEIGHBOUR.size)
        mac, master, cache = (found.get(each, b"") for each in (_ADDRESS, _MASTER, _CACHE_INFO))
        if family != _AF_BRIDGE or state & _OWN or (len(mac), len(master)) != (6, 4):
            continue
        seen = _CACHE.unpack(cache)[2] if len(cache) == _CACHE.size else 0
        bridge = int.from_bytes(master, sys.byteorder)
        yield kind, Neighbour(bridge, port, mac, bool(state & _STATIC), seen * _NS_PER_TICK)


def add_static(netlink: Netlink, port: int, mac: bytes) -> None:
    """Make an entry at a port of a bridge that neither ages nor moves, in place of any other."""
    body = _NEIGHBOUR.pack(_AF_BRIDGE, port, _STATIC, _BY_MASTER | _STICKY, 0) + attribute(_ADDRESS, mac)
    netlink.ask(NEW, body, CREATE | REPLACE)


def add_sunk(netlink: Netlink, bridge: int, mac: bytes) -> None:
    """Have a bridge keep frames for an address to itself, where they end."""
    body = _NEIGHBOUR.pack(_AF_BRIDGE, bridge, _OWN, _BY_ITSELF, 0) + attribute(_ADDRESS, mac)
    netlink.ask(NEW, body, CREATE | REPLACE)


def remove(netlink: Netlink, index: int, mac: bytes, *, sunk: bool = False) -> None:
    """Remove the entry of an address at a port of a bridge, or the one that the bridge itself sinks, if it is there."""
    body = _NEIGHBOUR.pack(_AF_BRIDGE, index, 0, _BY_ITSELF if sunk else _BY_MASTER, 0) + attribute(_ADDRESS, mac)
    try:
        netlink.ask(GONE, body)
    except KernelRefusal as refusal:
        if refusal.number not in (errno.ENOENT, errno.ENODEV):
            raise
