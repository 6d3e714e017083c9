"""The network namespace that an engine's devices are in: nothing of them is seen on the machine, all go with it.

No thread stays inside: whoever makes a device or a socket there steps in and out again, in the same call.

Source: setns(2), unshare(2), network_namespaces(7) of man-pages 6.9.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina_vswitch.engines.linux.refusal import KernelRefusal

CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
}
"""What devices of a namespace are told when they are made, as far as the kernel has it."""


class Namespace:
    """A network namespace without a process in it; it ends when it is closed and its sockets and devices are."""

    def __init__(self) -> None:
        """Make one. Raises Unavailable `KERNEL_REFUSED` when the process may not."""
        outside = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", CLONE_NEWNET)
            try:
                self.file = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    _silence()
                except KernelRefusal:
                    self.close()
                    raise
            finally:
                _call("setns", outside, CLONE_NEWNET)
        finally:
            os.close(outside)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread be inside for the length of a block, which must not wait."""
        outside = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self.file, CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", outside, CLONE_NEWNET)
        finally:
            os.close(outside)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def _silence() -> None:
    """Have the kernel add nothing of its own to what passes, and judge nothing of it.

    Without IPv6 it neither discovers neighbours nor joins groups. A bridge that calls iptables drops frames whose IP
    header is wrong (net/bridge/br_netfilter_hooks.c, br_validate_ipv4): what is in frames is no business of a switch.
    """
    for name, value in _SETTINGS.items():
        setting = Path("/proc/sys", name)
        if setting.exists():
            try:
                setting.write_text(value)
            except OSError as error:  # in a container they may be there to be read alone
                raise KernelRefusal(f"a change of {setting}", error.errno or 0) from error


def _call(name: str, *numbers: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*numbers) != 0:
        number = ctypes.get_errno()
        raise KernelRefusal("a network namespace", number)
