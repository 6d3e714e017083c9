"""One end of an overlay: which remote ends get a frame of the VLAN, and what of a tunnel packet goes into the VLAN.

    switch ──▶ known behind an end: a copy to it          tunnel ──▶ end may speak, frame may be ──▶ learn ──▶ switch
               broadcast, multicast, unknown: a copy to each end

What came in through a tunnel is never sent into one: this object has no way from the one to the other, and the switch
sends nothing back through the port where it came from (split horizon). Source: RFC 7348, 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import HEADER_BYTES, Header, is_group, is_station, parse
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.remote_ends import RemoteEnds

Dropped = Callable[[DropReason, bytes, int], None]
"""Called with a reason, the frame and the time for each frame that goes nowhere."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How an end learns: nothing at all; from ends that nobody told it of, too."""

    nothing: bool = False
    accept_unknown: bool = False


class OverlayEnd:
    """The end of the network `vni`. `mtu_bytes` says the largest payload that fits through now."""

    def __init__(
        self, vni: int, remotes: RemoteEnds, learning: Learning, mtu_bytes: Callable[[], int], dropped: Dropped
    ) -> None:
        self.vni = vni
        self.remotes = remotes
        self.learning = learning
        self._mtu_bytes = mtu_bytes
        self.dropped = dropped

    def set_learning(self, learning: Learning, now_ns: int) -> None:
        """Learn in another way; what the old one learned and the new one would not is forgotten."""
        if learning.nothing or (self.learning.accept_unknown and not learning.accept_unknown):
            self.remotes.forget_learned(now_ns)
        self.learning = learning

    def outwards(self, frame: bytes, now_ns: int) -> list[int]:
        """Return the addresses of the ends to which a frame of the VLAN, untagged, goes: each gets one copy."""
        chosen = self.choose(frame, now_ns)
        if isinstance(chosen, DropReason):
            self.dropped(chosen, frame, now_ns)
            return []
        for address in chosen:
            self.remotes.sent(address)
        return chosen

    def choose(self, frame: bytes, now_ns: int) -> list[int] | DropReason:
        """Return the addresses of the ends to which a frame would go, or why to none. Changes nothing."""
        if len(frame) < HEADER_BYTES:
            return DropReason.RUNT
        if len(frame) - HEADER_BYTES > self._mtu_bytes():
            return DropReason.FRAGMENT_NEEDED
        known = self._behind(frame, now_ns)
        return (self.remotes.addresses(now_ns) if known is None else [known]) or DropReason.NO_DESTINATION

    def is_known(self, frame: bytes, now_ns: int) -> bool:
        """Tell whether a frame goes to one end because its destination is known to be behind it."""
        return self._behind(frame, now_ns) is not None

    def _behind(self, frame: bytes, now_ns: int) -> int | None:
        dst = frame[0:6]
        return None if is_group(dst) else self.remotes.lookup(dst, now_ns)

    def inwards(self, address: int, frame: bytes, now_ns: int) -> bytes | None:
        """Return what goes into the VLAN of a frame that a tunnel packet from `address` carried; None for nothing.

        The end must be one that was told, or strangers be accepted. Frames that the switch would refuse teach nothing
        here: runts, giants, those with an impossible source, those with a VLAN tag, as a tag has no meaning beyond its
        own switch (RFC 7348, 6.1).
        """
        header = self.judge(address, frame)
        learn = not self.learning.nothing and not isinstance(header, DropReason)
        if header is not DropReason.TUNNEL_PEER_UNKNOWN:
            self.remotes.heard(address, now_ns, learn=learn)
        if isinstance(header, DropReason):
            self.dropped(header, frame, now_ns)
            return None
        if learn:
            self.remotes.learn(header.src, address, now_ns)
        return frame

    def judge(self, address: int, frame: bytes) -> Header | DropReason:
        """Return the head of a frame that an end at `address` may send into the VLAN, or why not. Changes nothing."""
        if not self.remotes.is_told(address) and not self.learning.accept_unknown:
            return DropReason.TUNNEL_PEER_UNKNOWN
        header = parse(frame, self._mtu_bytes())
        if isinstance(header, DropReason):
            return header
        if header.tag_vid:
            return DropReason.VLAN_MISMATCH
        return header if is_station(header.src) else DropReason.SOURCE_INVALID


class Way(NamedTuple):
    """How an end reaches others: the subnet of its address, the router to others (0: none), the UDP port of all."""

    subnet: Subnet
    gateway: int = 0
    udp_port: int = vxlan.PORT


@dataclass(slots=True)
class TunnelledEnd:
    """An end with its way; `deliver` puts a frame into its VLAN."""

    end: OverlayEnd
    way: Way
    deliver: Callable[[bytes], None]
