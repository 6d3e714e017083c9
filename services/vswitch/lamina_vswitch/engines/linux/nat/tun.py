"""A TUN device: packets of a network into the kernel of the machine, and out of it. It goes when it is closed.

Source: Documentation/networking/tuntap.rst; rtnetlink(7); include/uapi/linux/rtnetlink.h of Linux 6.18.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from lamina_kit.errors import PermissionDenied
from lamina_net.packets.address import Subnet
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.netlink import links, veth
from lamina_vswitch.engines.linux.netlink.requests import CREATE, EXCLUSIVE, Netlink, attribute
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_TUN_EXCL = 1, 0x1000, 0x8000
_NEWADDR, _NEWROUTE, _DELROUTE = 20, 24, 25
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_LOCAL, _OWN = 2, 1
_TO, _BY, _PRIORITY = 1, 4, 6
_LATER = 1 << 16
_MAIN_TABLE, _STATIC, _LINK_SCOPE, _HOST_SCOPE, _UNICAST = 254, 4, 253, 254, 1
_LONGEST = 65535
_SETTINGS = (
    ("net/ipv6/conf/{}/disable_ipv6", "1"),
    ("net/ipv4/conf/{}/route_localnet", "1"),  # forwards at 127.0.0.1; the rules keep the network away from it
)


class Tun:
    """A TUN device with the address of a router, in a namespace; `netlink` is a socket there."""

    def __init__(self, namespace: Namespace, netlink: Netlink, name: str, mtu_bytes: int) -> None:
        """Make it, without routes. Raises PermissionDenied `DEVICE_FORBIDDEN`, Unavailable `KERNEL_REFUSED`."""
        self.file, self.name = -1, name
        self._netlink, self._routes = netlink, tuple[Subnet, ...]()
        try:
            with namespace.inside():
                self.file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL
                fcntl.ioctl(self.file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                for path, value in _SETTINGS:
                    setting = Path("/proc/sys", path.format(name))
                    if setting.exists():
                        setting.write_text(value)
            self.index = links.index_of(netlink, name)
            links.set_mtu(netlink, self.index, mtu_bytes)
            veth.set_up(netlink, self.index, up=True)
        except OSError as error:
            self.close()
            raise _refused(name, error) from error
        except KernelRefusal:
            self.close()
            raise

    def set_address(self, address: int) -> None:
        """Give it the address from which the kernel speaks to the network. Raises Unavailable `KERNEL_REFUSED`."""
        text = address.to_bytes(4, "big")
        body = _ADDRESS.pack(socket.AF_INET, 32, 0, _HOST_SCOPE, self.index)
        self._netlink.ask(_NEWADDR, body + attribute(_LOCAL, text) + attribute(_OWN, text), CREATE | EXCLUSIVE)

    def route(self, subnets: Iterable[Subnet]) -> None:
        """Have the kernel send packets for these subnets here, and for no others. Raises Unavailable `KERNEL_REFUSED`.

        The first is the network's own, and must be nobody else's; for the others a way that is there is better.
        """
        wanted = tuple(dict.fromkeys(subnets))
        for subnet in wanted:
            if subnet not in self._routes:
                self._netlink.ask(_NEWROUTE, self._way(subnet, first=subnet == wanted[0]), CREATE | EXCLUSIVE)
                self._routes += (subnet,)
        for subnet in self._routes:
            if subnet not in wanted:
                self._take_away(subnet)
        self._routes = wanted

    def resize(self, mtu_bytes: int) -> None:
        """Take another MTU. Raises Unavailable `KERNEL_REFUSED`."""
        links.set_mtu(self._netlink, self.index, mtu_bytes)

    def write(self, packet: bytes) -> bool:
        """Give a packet to the kernel. False: it did not take it."""
        try:
            os.write(self.file, packet)
        except OSError:
            return False
        return True

    def read(self) -> bytes | None:
        """Return the next packet of the kernel; None when there is none. Raises OSError when the device is gone."""
        try:
            return os.read(self.file, _LONGEST)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close it; addresses and routes go with it. Idempotent."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _take_away(self, subnet: Subnet) -> None:
        try:
            self._netlink.ask(_DELROUTE, self._way(subnet, first=False))
        except KernelRefusal as refusal:
            if refusal.number != errno.ESRCH:  # somebody else did so, as who sets a device down and up again
                raise

    def _way(self, subnet: Subnet, *, first: bool) -> bytes:
        body = _ROUTE.pack(socket.AF_INET, subnet.length, 0, 0, _MAIN_TABLE, _STATIC, _LINK_SCOPE, _UNICAST, 0)
        body += attribute(_TO, subnet.network.to_bytes(4, "big")) + attribute(_BY, self.index)
        return body if first else body + attribute(_PRIORITY, _LATER + self.index)


def _refused(name: str, error: OSError) -> PermissionDenied | KernelRefusal:
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return PermissionDenied(
            f"This process may not make the device {name}: {error.strerror}.",
            reason="DEVICE_FORBIDDEN",
            next_step="Start the service with CAP_NET_ADMIN in that namespace, and a /proc/sys that can be written.",
        )
    return KernelRefusal(f"the device {name}", error.errno or 0)
