"""A wire to an interface of the kernel: what comes in through a ring, what leaves by a socket. It needs CAP_NET_RAW.

A ring for what leaves was measured and is not faster: the kernel copies either way. ADR 0028.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import Sequence

from lamina_hardware.domain.nic.completion import HEADER, NEEDS_SUM, complete, read
from lamina_hardware.domain.nic.descriptors import Malformed
from lamina_hardware.io.media.medium import DENIED, MOST_FRAME, Deliver, is_over, refuse_privilege, unavailable
from lamina_hardware.io.media.packet_ring import SOL_PACKET, Arrived, ReceiveRing

MOST_AT_ONCE = 256
"""Frames that one turn of the loop takes from the ring."""

_ETH_P_ALL = 3
_ADD_MEMBERSHIP, _STATISTICS, _COPY_THRESHOLD, _VNET_HEADER, _IGNORE_OUTGOING = 1, 6, 7, 15, 23
_MR_PROMISC = 1
_SIOCGIFMTU, _SO_RCVBUFFORCE = 0x8921, 33
_LINK_BYTES = 14 + 4
_MOST_SLOT = 65536
_QUEUE_BYTES = 8 << 20
"""Room for frames that are longer than a slot: some hundred TCP segments that nobody has cut yet."""


class PacketMedium:
    """A packet socket on an interface: all that comes in by it is heard, and ours leave by it.

    Tags are put back in, checksums filled in and segments cut, so that what is heard are frames as they would be on a
    cable. `lost` counts frames that the ring had no room for, too.
    """

    def __init__(self, name: str) -> None:
        what = f"packet socket on {name}"
        self._lost = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as error:
            refuse_privilege(what, error)
        try:
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            try:
                self._open(name)
            except BaseException:
                self._out.close()
                raise
        except OSError as error:
            self._end.close()
            if error.errno in DENIED:
                refuse_privilege(what, error)
            raise unavailable(what, error) from error

    def _open(self, name: str) -> None:
        end, longest = self._end, _mtu(self._end, name) + _LINK_BYTES
        number = socket.if_nametoindex(name)
        end.setsockopt(SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", number, _MR_PROMISC, 0, b""))
        end.setsockopt(SOL_PACKET, _VNET_HEADER, 1)
        end.setsockopt(SOL_PACKET, _COPY_THRESHOLD, MOST_FRAME)
        _enlarge(end)
        end.setsockopt(SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._received = ReceiveRing(end, min(longest, _MOST_SLOT))
        try:
            self._out.bind((name, 0))
            end.bind((name, _ETH_P_ALL))
        except BaseException:
            self._received.close()
            raise

    @property
    def lost(self) -> int:
        """Frames that could not be handed over, in either direction."""
        if self._end.fileno() >= 0:
            counts = self._end.getsockopt(SOL_PACKET, _STATISTICS, 8)  # since they were read last
            self._lost += struct.unpack("=II", counts)[1]
        return self._lost

    def attach(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        """Begins to deliver what comes in."""
        self._loop = loop
        loop.add_reader(self._end.fileno(), self._readable, deliver)

    def send(self, frames: Sequence[bytes]) -> None:
        """Sends frames; those that do not go are counted as lost, whatever the kernel has against them."""
        for frame in frames:
            try:
                self._out.send(frame)
            except OSError:
                self._lost += 1

    def close(self) -> None:
        """Closes the sockets and gives the ring back. Idempotent."""
        if self._end.fileno() < 0:
            return
        self._lost = self.lost
        if self._loop is not None:
            self._loop.remove_reader(self._end.fileno())
        self._received.close()
        self._end.close()
        self._out.close()

    def _readable(self, deliver: Deliver) -> None:
        frames, taken = self._received.take(MOST_AT_ONCE, self._finished)
        if not taken:
            self._note_error()
        if frames:
            deliver(frames)

    def _finished(self, found: Arrived) -> list[bytes]:
        """Returns the frames that were on the cable for one that the kernel showed."""
        data, offloads = found.data, found.offloads
        if found.is_copied:
            try:
                whole = self._end.recv(MOST_FRAME + HEADER.size)
            except OSError:
                whole = b""
            offloads, data = whole[: HEADER.size], whole[HEADER.size :]
        if len(data) < found.length or len(offloads) < HEADER.size:
            self._lost += 1
            return []
        pieces = [data]
        if offloads[0] & NEEDS_SUM or offloads[1]:
            try:
                pieces = complete(data, read(offloads))
            except Malformed:
                self._lost += 1
                return []
        return [piece[:12] + found.tag + piece[12:] for piece in pieces] if found.tag else pieces

    def _note_error(self) -> None:
        """Takes an error of the socket, which would wake the loop for ever: its interface went down, or is gone."""
        number = self._end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._lost += 1
            if is_over(OSError(number, "")) and self._loop is not None:
                self._loop.remove_reader(self._end.fileno())


def _enlarge(end: socket.socket) -> None:
    """Gives a socket a long queue; without CAP_NET_ADMIN as long as the system allows."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)


def _mtu(end: socket.socket, name: str) -> int:
    """Returns the most bytes of a frame behind its Ethernet header. Raises `OSError` for an unknown interface."""
    found = fcntl.ioctl(end, _SIOCGIFMTU, struct.pack("16si20x", name.encode(), 0))
    mtu: int = struct.unpack_from("16xi", found)[0]
    return mtu
