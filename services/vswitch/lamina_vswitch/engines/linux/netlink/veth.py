"""Pairs of devices: what enters one end comes out of the other.

Source: veth(4); include/uapi/linux/veth.h, if_link.h of Linux 6.18.
"""

from __future__ import annotations

import errno
import struct

from lamina_vswitch.engines.linux.netlink.requests import CREATE, EXCLUSIVE, Netlink, attribute, attributes
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_NEWLINK, _GETLINK = 16, 18
_IFINFO = struct.Struct("=BxHiII")
_IFF_UP = 1
_NAME, _MTU, _LINK_INFO, _STATISTICS, _NAMESPACE = 3, 4, 18, 23, 28
_KIND, _DATA, _PEER = 1, 2, 1
_COUNTS = struct.Struct("=QQQQ")


def add_pair(netlink: Netlink, name: str, peer: str, mtu_bytes: int, namespace: int = -1) -> None:
    """Make a pair, both ends down; the peer in the namespace of a descriptor, if one is given."""
    other = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_NAME, peer) + attribute(_MTU, mtu_bytes)
    if namespace >= 0:
        other += attribute(_NAMESPACE, namespace)
    info = attribute(_KIND, "veth") + attribute(_DATA, attribute(_PEER, other))
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_NAME, name) + attribute(_MTU, mtu_bytes)
    netlink.ask(_NEWLINK, body + attribute(_LINK_INFO, info), CREATE | EXCLUSIVE)


def set_up(netlink: Netlink, index: int, *, up: bool) -> None:
    """Bring a device up or down."""
    netlink.ask(_NEWLINK, _IFINFO.pack(0, 0, index, _IFF_UP if up else 0, _IFF_UP))


def counts(netlink: Netlink, index: int) -> tuple[int, int, int, int] | None:
    """Return frames and bytes that came in at a device, frames and bytes that left; None when it is gone."""
    try:
        answers = netlink.ask(_GETLINK, _IFINFO.pack(0, 0, index, 0, 0))
    except KernelRefusal as refusal:
        if refusal.number != errno.ENODEV:
            raise
        return None
    told = attributes(answers[0][1], _IFINFO.size)[_STATISTICS]
    received, sent, received_bytes, sent_bytes = _COUNTS.unpack_from(told)
    return received, received_bytes, sent, sent_bytes
