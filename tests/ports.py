"""Ports of loopback for tests that start services: no two tests are given the same, in whatever process they run.

A port that was found free may be somebody else's a moment later, when tests run side by side; one that the kernel chose
(port 0) is given away again as soon as it is closed, to any client that connects. So ports are dealt out from below the
kernel's own range, one after the other, by a counter in a file that all processes of a user share.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, END = 20000, 32000
"""The kernel's own begin at 32768 (Linux, net.ipv4.ip_local_port_range)."""


def take(count: int) -> int:
    """Returns the first of `count` ports in a row that nobody listens on, and that nobody else is given soon."""
    book = Path(tempfile.gettempdir(), f"lamina-test-ports-{os.getuid()}")
    with open(os.open(book, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first = int(file.read() or FIRST)
        for _ in range((END - FIRST) // count):
            first = first if FIRST <= first <= END - count else FIRST
            following = first + count
            if all(_is_free(port) for port in range(first, following)):
                file.seek(0)
                file.truncate()
                file.write(str(following))
                return first
            first = following
    raise AssertionError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
