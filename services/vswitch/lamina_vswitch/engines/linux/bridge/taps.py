"""A TAP of an engine: one end is a port of a bridge, the other is in this process.

Writing a frame runs the bridge before the call returns, so what becomes of it lies in the queues of the other TAPs
then. Headers of what is left to do pass both ways (`domain/backend/vnet.py`), so long TCP and partial sums cross as
they are.

Source: Documentation/networking/tuntap.rst; drivers/net/tun.c of Linux 6.18, tun_get_user, tun_net_xmit.
"""

from __future__ import annotations

import fcntl
import os
import struct

from lamina_vswitch.domain.backend.vnet import LAYOUT, from_kernel, to_kernel
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 2, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_ECN = 1, 2, 4, 8
_PLAIN = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
_LONGEST = LAYOUT.size + 65535 + 22


class Tap:
    """A TAP device by this name, which goes when it is closed."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        """Make it. Raises Unavailable `KERNEL_REFUSED`."""
        self.file = -1
        try:
            with namespace.inside():
                self.file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(self.file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            self._leave_unfinished()
        except OSError as error:
            self.close()
            raise KernelRefusal("a TAP", error.errno or 0) from error

    def write(self, frame: bytes) -> None:
        """Send a frame into the bridge. Raises Unavailable `KERNEL_REFUSED` when the kernel does not take it."""
        try:
            os.writev(self.file, (to_kernel(frame), frame))
        except OSError as error:
            raise KernelRefusal("a frame", error.errno or 0) from error

    def read(self) -> tuple[bytes, bytes] | None:
        """Return header and bytes of the next frame out of the bridge; None when there is none."""
        try:
            data = os.read(self.file, _LONGEST)
        except BlockingIOError:
            return None
        return data[: LAYOUT.size], data[LAYOUT.size :]

    def close(self) -> None:
        """Close it. Idempotent."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _leave_unfinished(self) -> None:
        """Have the kernel hand over what it would else finish, of what can be finished here: no UDP in segments."""
        try:
            fcntl.ioctl(self.file, _TUNSETOFFLOAD, _PLAIN | _TUN_F_ECN)
        except OSError:
            fcntl.ioctl(self.file, _TUNSETOFFLOAD, _PLAIN)


def laden(header: bytes, frame: bytes) -> bytes:
    """Return a frame that the kernel gave, with what is left to do with it."""
    return from_kernel(header, frame)
