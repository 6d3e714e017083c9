"""What joins a router: a translator of addresses, services at its own address, other routers of the host.

A packet is a complete IPv4 packet as bytes, a frame a complete Ethernet frame. All of them return at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from lamina_net.packets import ipv4, udp
from lamina_vswitch.domain.frames.drop_reasons import DropReason

Dropped = Callable[[DropReason, bytes, int], None]
"""Called with the reason, the frame and the time of every frame that the router drops."""
ToNetwork = Callable[[bytes, int], None]
"""Takes a packet, and the time, for another network of the host."""


class Translator(Protocol):
    """Rewrites addresses between a network and its outside, and stands for several backends."""

    def stands_for(self, address: int) -> bool:
        """Tell whether packets to an address are for the translator: a virtual server. The router answers ARP for it
        when it lies in the subnet."""

    def from_inside(self, packet: bytes, now_ns: int) -> Sequence[bytes] | DropReason | None:
        """Take a packet that leaves the subnet for the outside, that is for a virtual server, or that is for the router
        itself and for none of its services. Its time to live is counted down already.

        Returns packets for the router to send on, without translating them again (none when it was consumed); the
        reason when it has to be dropped, after the translator said so to the sender if that is due; None when it is
        not the translator's, so that the router does what it would do without one.
        """

    def unfinished(self, packet: bytes, segment_bytes: int, now_ns: int) -> Sequence[bytes] | None:
        """Take a TCP packet whose sum is left to be computed, and which may be longer than the MTU: segments of
        `segment_bytes` each, 0 for one. Its time to live is not counted down.

        Returns packets as `from_inside` does; None when it has to be finished first, and then comes there.
        """

    def hold(self) -> None:
        """Answer what comes from now on together, at `release`, as far as that changes nothing."""

    def release(self, now_ns: int) -> Sequence[bytes]:
        """Return the packets of what has waited since `hold`."""


class Arrival(NamedTuple):
    """A datagram for the router itself: MAC address of the frame that brought it, packet, datagram."""

    mac: bytes
    packet: ipv4.Packet
    datagram: udp.Datagram


class UdpService(Protocol):
    """A service at a UDP port of the router."""

    def receive(self, arrival: Arrival, frame: bytes, now_ns: int) -> list[bytes]:
        """Take a datagram; return frames to send."""
