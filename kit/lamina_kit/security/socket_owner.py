"""Which user owns the other end of a TCP connection, as the kernel tells of sockets of this machine.

    end = Connection(fd, inode, peer, local)            # our end, found by `connections_of`
    owner(end)                                          # uid, or None when the other end is not a socket of ours to see

The kernel's table is asked for the one socket with NETLINK_SOCK_DIAG; a kernel without that has it as text in
/proc/net/tcp. A socket that its process has closed already has no owner any more (its inode is 0, and older kernels
then tell uid 0): it counts as unknown. Source: sock_diag(7), linux/inet_diag.h, proc(5).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOCK_DIAG, BY_FAMILY, REQUEST, ERROR = 4, 20, 1, 2
"""Protocol of netlink, the message's type, its flag, and the type of an answer that is an error."""
ANY_STATE, ANY_COOKIE = 0xFFFFFFFF, 0xFFFFFFFF
HEADER, DIAG_REQUEST = struct.Struct("=IHHII"), struct.Struct("=BBBBI")
PORTS, INTERFACE_AND_COOKIE = struct.Struct("!HH"), struct.Struct("=III")
OWNER_AT = HEADER.size + 4 + PORTS.size + 32 + INTERFACE_AND_COOKIE.size + 12
"""Where uid and inode (two numbers of 32 bits) lie in an answer: behind state, addresses, expiry and two queues."""
LARGEST_ANSWER = 4096

Place = tuple[str, int]
"""An address, IPv4 where it is one in IPv6 clothes, and a port."""


class Connection(NamedTuple):
    """Our end of a TCP connection: where it stands in this process, and the two places it connects."""

    fd: int
    inode: int
    """Names the socket for as long as it exists; `fd` may be given to another one after it."""
    peer: Place
    local: Place

    def stands(self) -> bool:
        """Says whether the descriptor still is this socket."""
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False


def place(host: str, port: int) -> Place:
    """Returns an address and a port in the one form that compares."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), port


def connections_of(peer: Place) -> Iterator[Connection]:
    """Yields the TCP connections of this process to a place. Sockets that others close meanwhile are passed over."""
    for name in os.listdir("/proc/self/fd"):
        found = _connection(int(name))
        if found is not None and found.peer == peer:
            yield found


def _connection(fd: int) -> Connection | None:
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            return None
        inode = os.fstat(fd).st_ino
        end = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        if end.family not in (socket.AF_INET, socket.AF_INET6) or end.type != socket.SOCK_STREAM:
            return None
        return Connection(fd, inode, place(*end.getpeername()[:2]), place(*end.getsockname()[:2]))
    except OSError:
        return None
    finally:
        end.detach()


def owner(connection: Connection) -> int | None:
    """Returns the uid that owns the other end of a connection; None when the kernel does not see it or its owner."""
    try:
        return _by_netlink(connection.peer, connection.local)
    except OSError:
        return by_text(connection.peer, connection.local)


def _by_netlink(source: Place, target: Place) -> int | None:
    """Asks for the socket whose own address is `source`. Raises `OSError` where the kernel has no such questions."""
    family = _family(source)
    request = DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, ANY_STATE) + PORTS.pack(source[1], target[1])
    request += _packed(source) + _packed(target) + INTERFACE_AND_COOKIE.pack(0, ANY_COOKIE, ANY_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SOCK_DIAG) as kernel:
        kernel.send(HEADER.pack(HEADER.size + len(request), BY_FAMILY, REQUEST, 1, 0) + request)
        answer = kernel.recv(LARGEST_ANSWER)
    _, kind, _, _, _ = HEADER.unpack_from(answer)
    if kind == ERROR:
        number = -struct.unpack_from("=i", answer, HEADER.size)[0]
        if number == errno.ENOENT:
            return None
        raise OSError(number, os.strerror(number))
    uid, inode = struct.unpack_from("=II", answer, OWNER_AT)
    return int(uid) if inode else None


def by_text(source: Place, target: Place) -> int | None:
    """Looks for the socket in /proc/net/tcp or tcp6, which a program that has other rights reads too."""
    table = Path("/proc/net/tcp" if _family(source) == socket.AF_INET else "/proc/net/tcp6")
    wanted = [_as_text(source), _as_text(target)]
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7]) if int(fields[9]) else None
    return None


def _family(where: Place) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in where[0] else socket.AF_INET


def _packed(where: Place) -> bytes:
    return socket.inet_pton(_family(where), where[0]).ljust(16, b"\0")


def _as_text(where: Place) -> str:
    """Returns a place as /proc/net/tcp writes it: words of 32 bits as this machine has them, and the port."""
    raw = socket.inet_pton(_family(where), where[0])
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return "".join(f"{word:08X}" for word in words) + f":{where[1]:04X}"
