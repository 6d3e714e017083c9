"""A host whose sockets a test plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lamina_net.packets.address import LOOPBACK
from lamina_vswitch.domain.nat.flows.entry import Endpoint
from lamina_vswitch.domain.nat.sockets.host import Accepted, Arrived, HostError


@dataclass
class Socket:
    """A socket of the played host: what was asked of it."""

    local: Endpoint
    peer: Endpoint
    user: Any
    sent: list[bytes] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    room: int = 1 << 30

    def send(self, data: bytes, peer: Endpoint | None = None) -> None:
        """Note a datagram."""
        self.sent.append(data)

    def read(self) -> None:
        """Note that bytes are wanted."""
        self.words.append("read")

    def write(self, data: bytes) -> bool:
        """Take bytes; those beyond the room are said to wait."""
        self.sent.append(data)
        self.room -= len(data)
        return self.room > 0

    def finish(self) -> None:
        """Note the end of what is sent."""
        self.words.append("finish")

    def close(self) -> None:
        """Note the end."""
        self.words.append("close")

    def abort(self) -> None:
        """Note the reset."""
        self.words.append("abort")


class PlayedHost:
    """A host on which every socket can be had, unless `refuses` says how not."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.ports: list[Socket] = []
        self.refuses: HostError | None = None

    def _make(self, peer: Endpoint, user: Any) -> Socket | HostError:
        if self.refuses:
            return self.refuses
        self.sockets.append(Socket((LOOPBACK, 50000 + len(self.sockets)), peer, user))
        return self.sockets[-1]

    def datagrams(self, peer: Endpoint, user: Any) -> Socket | HostError:
        """Return a UDP socket."""
        return self._make(peer, user)

    def echo(self, address: int, user: Any) -> Socket | HostError:
        """Return a ping socket."""
        return self._make((address, 0), user)

    def stream(self, peer: Endpoint, user: Any) -> Socket | HostError:
        """Return a connection that is being made."""
        return self._make(peer, user)

    def listen(self, at: Endpoint, accepted: Accepted) -> Socket | HostError:
        """Return a port."""
        self.ports.append(Socket(at, (0, 0), accepted))
        return self.ports[-1]

    def receive(self, at: Endpoint, arrived: Arrived) -> Socket | HostError:
        """Return a port."""
        self.ports.append(Socket(at, (0, 0), arrived))
        return self.ports[-1]
