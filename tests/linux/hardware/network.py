"""A network namespace of the tests' own with a pair of interfaces in it. It goes with its thread and its sockets."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

_CLONE_NEWNET = 0x40000000
_PACKET_ALL = 3

Result = TypeVar("Result")


class Network:
    """Interfaces `left` and `right`: what leaves by one comes in by the other. IPv6 is off, so that neither speaks."""

    def __init__(self, mtu: int = 1500) -> None:
        self._inside = ThreadPoolExecutor(1, initializer=_leave)
        try:
            self.run(f"ip link add name left mtu {mtu} type veth peer name right mtu {mtu}")
            for name in ("left", "right"):
                self.do(lambda name=name: _quiet(name))  # type: ignore[misc]
                self.run(f"ip link set {name} up")
        except BaseException:
            self.close()
            raise

    def do(self, work: Callable[[], Result]) -> Result:
        """Does something in the namespace."""
        return self._inside.submit(work).result(30)

    def run(self, command: str) -> None:
        """Runs a command in the namespace."""
        self.do(lambda: subprocess.run(command.split(), check=True, capture_output=True, timeout=20))

    def end(self, name: str) -> socket.socket:
        """Returns a plain packet socket on an interface; it hears what comes in and what leaves."""

        def made() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_PACKET_ALL))
            found.bind((name, _PACKET_ALL))
            found.setblocking(False)
            return found

        return self.do(made)

    def close(self) -> None:
        """Ends the thread; the namespace goes with the last socket of it."""
        self._inside.shutdown()


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


def _quiet(name: str) -> None:
    """Has the kernel not speak on an interface by itself."""
    path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    if os.path.exists(path):
        with open(path, "w") as file:
            file.write("1")


def needs_network() -> None:
    """Skips a test where there may be no namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace with a pair of interfaces needs root and the command ip")
    try:
        Network().close()
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        pytest.skip(f"this kernel gives no network namespace with a pair of interfaces: {error}")
