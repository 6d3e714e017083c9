"""What an interface of the machine is, as the kernel tells: whether it can send, and belongs to nothing else.

Source: rtnetlink(7); include/uapi/linux/if_link.h of Linux 6.18.
"""

from __future__ import annotations

import struct
import sys

from lamina_kit.errors import LaminaError
from lamina_vswitch.engines.linux.netlink.requests import Netlink, attributes

_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_MESSAGE = struct.Struct("=BxHiII")
_UP, _RUNNING, _LINKS = 1 << 0, 1 << 6, 1
_MTU, _MASTER = 4, 10


class DeviceState:
    """One interface, by its index in the network namespace of the thread that made this."""

    def __init__(self, index: int) -> None:
        """Ask for it. Raises Unavailable `KERNEL_REFUSED`."""
        self._index, self._is_gone = index, False
        self._told = Netlink(0, _LINKS)  # before it is asked, so that no change is missed
        try:
            self._asking = Netlink()
        except BaseException:
            self._told.close()
            raise
        self.free = False
        """Whether frames may leave by it, and it is not a port of something else of the kernel."""
        self.mtu_bytes = 0
        try:
            self._ask()
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """Readable when the kernel told something."""
        return self._told.socket.fileno()

    def changed(self) -> bool:
        """Return whether `free` or `mtu_bytes` has changed since the last call."""
        before = self.free, self.mtu_bytes
        heard = self._told.heard()
        if heard is None:
            try:
                self._ask()
            except LaminaError:  # it is gone, or the kernel has no room to say so
                self.free = False
        else:
            for kind, content in heard:
                self._note(kind, content)
        return (self.free, self.mtu_bytes) != before

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._told.close()
        self._asking.close()

    def _ask(self) -> None:
        for kind, content in self._asking.ask(_GET_LINK, _MESSAGE.pack(0, 0, self._index, 0, 0)):
            self._note(kind, content)

    def _note(self, kind: int, content: bytes) -> None:
        if kind not in (_NEW_LINK, _DELETE_LINK) or len(content) < _MESSAGE.size:
            return
        family, _, index, flags, _ = _MESSAGE.unpack_from(content)
        if index == self._index and not family:
            self._is_gone |= kind == _DELETE_LINK  # for ever: another interface may be given the same index
            can_send = not self._is_gone and flags & (_UP | _RUNNING) == _UP | _RUNNING
            told = attributes(content, _MESSAGE.size)
            self.free = can_send and _MASTER not in told
            self.mtu_bytes = int.from_bytes(told.get(_MTU, b""), sys.byteorder)
