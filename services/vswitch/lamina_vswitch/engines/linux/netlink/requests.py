"""Netlink: requests to the kernel, and what it tells by itself.

One request is one call: the kernel answers a request while it is sent, so nothing here waits, and it can be used where
an event loop runs (docs/adr/0046-linux-switching.md says why no library does this).

Source: netlink(7), rtnetlink(7); include/uapi/linux/netlink.h of Linux 6.18.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator, Mapping

from lamina_vswitch.engines.linux.refusal import KernelRefusal

Answer = tuple[int, bytes]
"""Type and body of a message."""

ACK, DUMP, EXCLUSIVE, CREATE, REPLACE = 0x4, 0x300, 0x200, 0x400, 0x100
NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_REQUEST, _TELLS_MORE = 0x1, 0x200
_NOOP, _FAILED, _DONE = 1, 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_MESSAGE = 1
_TYPE_MASK = 0x3FFF
_LONGEST = 1 << 18
_SO_RCVBUFFORCE = 33
_WAITING_BYTES = 8 << 20


class Netlink:
    """One socket of a protocol (0: links and neighbours; 12: netfilter), in the namespace where it was made.

    `groups` is a mask of what the kernel shall tell by itself; such a socket only listens.
    """

    def __init__(self, protocol: int = 0, groups: int = 0) -> None:
        """Open it. Raises Unavailable `KERNEL_REFUSED` when the kernel has no such protocol."""
        try:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise KernelRefusal(f"netlink's protocol {protocol}", error.errno or 0) from error
        try:
            self._prepare(groups)
        except OSError as error:
            self.socket.close()
            raise KernelRefusal("a netlink socket", error.errno or 0) from error
        self._serial = 0

    def ask(
        self, kind: int, body: bytes, flags: int = 0, keep: Callable[[bytes], bool] = lambda body: True
    ) -> list[Answer]:
        """Send one request; return the messages that answer it, of which `keep` keeps the body.

        Raises Unavailable `KERNEL_REFUSED`.
        """
        self._serial += 1
        wants = _REQUEST | flags | (0 if flags & DUMP == DUMP else ACK)
        self._send(_HEADER.pack(_HEADER.size + len(body), kind, wants, self._serial, 0) + body)
        answers: list[Answer] = []
        while True:
            for found, serial, flagged, content in messages(self._received()):
                if serial != self._serial:
                    continue
                if found == _DONE:
                    return answers
                if found == _FAILED:
                    _raise(content, flagged)
                    return answers
                if keep(content):
                    answers.append((found, content))

    def heard(self) -> list[Answer] | None:
        """Return what the kernel told since the last call; None when it told more than there was room for.

        What it tells meanwhile, beyond what had room when the call began, stays for the next one.
        """
        answers: list[Answer] = []
        taken = 0
        while taken <= _WAITING_BYTES:
            try:
                data = self.socket.recv(_LONGEST)
            except BlockingIOError:
                return answers
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # something was lost
                    return None
                raise
            answers.extend((kind, content) for kind, _, _, content in messages(data))
            taken += len(data)
        return answers

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self.socket.close()

    def _send(self, request: bytes) -> None:
        try:
            self.socket.send(request)
        except OSError as error:
            raise KernelRefusal("a request", error.errno or 0) from error

    def _received(self) -> bytes:
        try:
            return self.socket.recv(_LONGEST)
        except OSError as error:  # the kernel had no room for an answer, as when memory is short
            raise KernelRefusal("a request", error.errno or 0) from error

    def _prepare(self, groups: int) -> None:
        self.socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self.socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        if groups:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _WAITING_BYTES)
            self.socket.setblocking(False)
        self.socket.bind((0, groups))


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, serial number, flags and body of the messages in a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, serial, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            return
        if kind != _NOOP:
            yield kind, serial, flags, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """Return the attributes that begin at a place in a body, by their types."""
    found: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size or at + size > len(data):
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found


def attribute(kind: int, value: bytes | int | str | Mapping[int, bytes | int]) -> bytes:
    """Return one attribute: bytes as they are, a number in four bytes, a text with its end, a mapping nested."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, Mapping):
        kind, value = kind | NESTED, b"".join(attribute(key, each) for key, each in value.items())
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _raise(content: bytes, flags: int) -> None:
    """Raise what an error message says; one with the number 0 is an acknowledgement."""
    number = -_ERROR.unpack_from(content)[0]
    if not number:
        return
    words = b""
    if flags & _TELLS_MORE:
        words = attributes(content, _ERROR.size + _HEADER.size).get(_MESSAGE, b"").rstrip(b"\0")
    raise KernelRefusal("a request", number, words.decode(errors="replace"))
