"""The sockets of the host, as a gateway needs them. `io/host_sockets.py` has them; tests bring their own.

No call waits, and no call comes back into the gateway before it returns. What happens later is told to the user that
was given, with the time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from lamina_vswitch.domain.nat.flows.entry import Endpoint


class HostError(enum.Enum):
    """Why a socket could not be had, or failed; the value says it in words."""

    REFUSED = "the peer refuses"
    UNREACHABLE = "there is no way to the peer, or it does not answer"
    RESET = "the peer reset the connection"
    FORBIDDEN = "the machine does not let this process"
    IN_USE = "a program of this machine has that port"
    NO_ADDRESS = "the machine does not have that address"
    EXHAUSTED = "the process or the machine has no further sockets or ports"


class DatagramUser(Protocol):
    """Whose datagrams a socket carries."""

    def got(self, data: bytes, now_ns: int) -> None:
        """Take a datagram from the peer."""

    def failed(self, error: HostError, now_ns: int) -> None:
        """Learn that a datagram did not arrive."""


class StreamUser(Protocol):
    """Whose bytes a connection carries."""

    def connected(self, now_ns: int) -> None:
        """Learn that the peer took the connection."""

    def failed(self, error: HostError, now_ns: int) -> None:
        """Learn that the connection could not be made, or broke. Nothing follows."""

    def received(self, data: bytes, now_ns: int) -> None:
        """Take what was asked for by `read`; empty at the end of the stream."""

    def written(self, now_ns: int) -> None:
        """Learn that what `write` did not take at once has gone."""


class HostDatagrams(Protocol):
    """A socket for datagrams to and from one peer. `local` is its own address and port, of an echo the identifier."""

    local: Endpoint

    def send(self, data: bytes) -> None:
        """Send a datagram, or lose it when the machine does not take it now."""

    def close(self) -> None:
        """End. Idempotent."""


class HostStream(Protocol):
    """A connection. `local` is its own address and port."""

    local: Endpoint

    def read(self) -> None:
        """Ask for bytes: `received` is called once, when there are some."""

    def write(self, data: bytes) -> bool:
        """Send bytes. False: some wait; `written` will be called, and nothing may be written before."""

    def finish(self) -> None:
        """Tell the peer that nothing more will be sent. Nothing waits."""

    def close(self) -> None:
        """End in order. Idempotent."""

    def abort(self) -> None:
        """End with a reset. Idempotent."""


class HostPort(Protocol):
    """A port at which others may begin. `local` is where it is."""

    local: Endpoint

    def send(self, data: bytes, peer: Endpoint) -> None:
        """Send a datagram from here; only for UDP."""

    def close(self) -> None:
        """End. Idempotent; connections that were accepted go on."""


Accepted = Callable[[HostStream, Endpoint, int], StreamUser | None]
"""Called with a connection that came, its peer and the time; returns its user, or None to reset it."""
Arrived = Callable[[bytes, Endpoint, int], None]
"""Called with a datagram that came to a port, its sender and the time."""


class Host(Protocol):
    """Makes sockets. Each call returns at once, with a `HostError` when it cannot."""

    def datagrams(self, peer: Endpoint, user: DatagramUser) -> HostDatagrams | HostError:
        """Return a UDP socket to a peer."""

    def echo(self, address: int, user: DatagramUser) -> HostDatagrams | HostError:
        """Return a socket for ICMP echo to an address; its datagrams are ICMP messages."""

    def stream(self, peer: Endpoint, user: StreamUser) -> HostStream | HostError:
        """Begin a TCP connection to a peer."""

    def listen(self, at: Endpoint, accepted: Accepted) -> HostPort | HostError:
        """Take TCP connections at an address and port; port 0 takes a free one."""

    def receive(self, at: Endpoint, arrived: Arrived) -> HostPort | HostError:
        """Take UDP datagrams at an address and port; port 0 takes a free one."""
