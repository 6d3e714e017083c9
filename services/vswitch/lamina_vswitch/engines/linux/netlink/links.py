"""Links as an engine needs them: bridges, and what is set at them and at their ports.

Source: rtnetlink(7); include/uapi/linux/if_link.h, net/bridge/br_netlink.c of Linux 6.18.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_vswitch.engines.linux.netlink.requests import CREATE, EXCLUSIVE, Netlink, attribute, attributes

RESERVED_MAC = bytes.fromhex("06004c616d69")
"""The address of every device of the engine. The kernel keeps frames for it to itself, so no station can have it."""

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_IFINFO = struct.Struct("=BxHiII")
_IFF_UP = 1
_AF_BRIDGE = 7
_ADDRESS, _NAME, _MTU, _MASTER, _PORT_SETTINGS, _LINK_INFO = 1, 3, 4, 10, 12, 18
_KIND, _DATA = 1, 2
_AGEING, _STP, _SNOOPING, _MAX_LEARNED = 4, 5, 23, 49
_STATE, _LEARNING, _ISOLATED = 1, 8, 33
_DISABLED, _FORWARDING = 0, 3
_TICKS = 100
"""Of the clock in which the kernel takes times, in a second."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """What a port of a bridge does: whether frames pass it, whether it learns, whether it is isolated, and its MTU.

    `forwarding` None: frames pass when the device has a carrier, as the kernel has it by itself.
    """

    forwarding: bool | None
    learning: bool
    isolated: bool
    mtu_bytes: int


def add_bridge(netlink: Netlink, name: str, ageing_seconds: int) -> int:
    """Make a bridge without spanning tree and multicast snooping, up; return its index."""
    data: dict[int, bytes | int] = {_AGEING: ageing_seconds * _TICKS, _STP: 0, _SNOOPING: b"\0"}
    info = attribute(_KIND, "bridge") + attribute(_DATA, data)
    body = _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_NAME, name) + attribute(_ADDRESS, RESERVED_MAC)
    netlink.ask(_NEWLINK, body + attribute(_LINK_INFO, info), CREATE | EXCLUSIVE)
    return index_of(netlink, name)


def set_bridge(netlink: Netlink, index: int, ageing_seconds: int, max_learned: int) -> None:
    """Set the ageing time of a bridge, and how many addresses it may learn: 1 or more."""
    data = {_AGEING: ageing_seconds * _TICKS, _MAX_LEARNED: max_learned}
    info = attribute(_KIND, "bridge") + attribute(_DATA, data)
    netlink.ask(_NEWLINK, _IFINFO.pack(0, 0, index, 0, 0) + attribute(_LINK_INFO, info))


def bridge_settings(netlink: Netlink, index: int) -> dict[int, bytes]:
    """Return what the kernel says of a bridge, by attribute."""
    answers = netlink.ask(_GETLINK, _IFINFO.pack(0, 0, index, 0, 0))
    info = attributes(attributes(answers[0][1], _IFINFO.size)[_LINK_INFO])
    return attributes(info[_DATA])


def limits_learning(netlink: Netlink, index: int) -> bool:
    """Tell whether the kernel can limit how many addresses a bridge learns."""
    return _MAX_LEARNED in bridge_settings(netlink, index)


def enslave(netlink: Netlink, index: int, bridge: int, mtu_bytes: int) -> None:
    """Make a device a port of a bridge, up."""
    body = _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP) + attribute(_MTU, mtu_bytes)
    netlink.ask(_NEWLINK, body + attribute(_ADDRESS, RESERVED_MAC))
    join(netlink, index, bridge)


def join(netlink: Netlink, index: int, bridge: int) -> None:
    """Make a device, which has the reserved address, a port of a bridge, up or not; bridge 0: of none any more."""
    netlink.ask(_NEWLINK, _IFINFO.pack(0, 0, index, 0, 0) + attribute(_MASTER, bridge))


def reserve(netlink: Netlink, index: int) -> None:
    """Give a device the reserved address."""
    netlink.ask(_NEWLINK, _IFINFO.pack(0, 0, index, 0, 0) + attribute(_ADDRESS, RESERVED_MAC))


def set_mtu(netlink: Netlink, index: int, mtu_bytes: int) -> None:
    """Set the MTU of a device."""
    netlink.ask(_NEWLINK, _IFINFO.pack(0, 0, index, 0, 0) + attribute(_MTU, mtu_bytes))


def set_port(netlink: Netlink, index: int, settings: PortSettings) -> None:
    """Set what a port of a bridge does, but for its MTU."""
    flags = {_LEARNING: bytes([settings.learning]), _ISOLATED: bytes([settings.isolated])}
    if settings.forwarding is not None:
        flags[_STATE] = bytes([_FORWARDING if settings.forwarding else _DISABLED])
    body = _IFINFO.pack(_AF_BRIDGE, 0, index, 0, 0) + attribute(_PORT_SETTINGS, flags)
    netlink.ask(_SETLINK, body)


def remove(netlink: Netlink, index: int) -> None:
    """Remove a device."""
    netlink.ask(_DELLINK, _IFINFO.pack(0, 0, index, 0, 0))


def index_of(netlink: Netlink, name: str) -> int:
    """Return the index of a device. Raises Unavailable `KERNEL_REFUSED` when there is none."""
    answers = netlink.ask(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_NAME, name))
    index: int = _IFINFO.unpack_from(answers[0][1])[2]
    return index
