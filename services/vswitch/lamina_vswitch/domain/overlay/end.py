"""One end of an overlay: which remote ends get a frame of the VLAN, and what of a tunnel packet goes into the VLAN.

    switch ──▶ known behind an end: a copy to it          tunnel ──▶ end may speak, frame may be ──▶ learn ──▶ switch
               broadcast, multicast, unknown: a copy to each end

What came in through a tunnel is never sent into one: this object has no way from the one to the other, and the switch
sends nothing back through the port where it came from (split horizon). Source: RFC 7348, 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.frame import HEADER_BYTES, Header, is_group, is_station, parse
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
        if len(frame) < HEADER_BYTES:
            return self._drop(DropReason.RUNT, frame, now_ns)
        if len(frame) - HEADER_BYTES > self._mtu_bytes():
            return self._drop(DropReason.FRAGMENT_NEEDED, frame, now_ns)
        dst = frame[0:6]
        known = None if is_group(dst) else self.remotes.lookup(dst, now_ns)
        chosen = self.remotes.addresses(now_ns) if known is None else [known]
        if not chosen:
            return self._drop(DropReason.NO_DESTINATION, frame, now_ns)
        for address in chosen:
            self.remotes.sent(address)
        return chosen

    def inwards(self, address: int, frame: bytes, now_ns: int) -> bytes | None:
        """Return what goes into the VLAN of a frame that a tunnel packet from `address` carried; None for nothing.

        The end must be one that was told, or strangers be accepted. Frames that the switch would refuse teach nothing
        here: runts, giants, those with an impossible source, those with a VLAN tag, as a tag has no meaning beyond its
        own switch (RFC 7348, 6.1).
        """
        if not self.remotes.is_told(address) and not self.learning.accept_unknown:
            self._drop(DropReason.TUNNEL_PEER_UNKNOWN, frame, now_ns)
            return None
        header = self._checked(frame)
        learn = not self.learning.nothing and not isinstance(header, DropReason)
        self.remotes.heard(address, now_ns, learn=learn)
        if isinstance(header, DropReason):
            self._drop(header, frame, now_ns)
            return None
        if learn:
            self.remotes.learn(header.src, address, now_ns)
        return frame

    def _checked(self, frame: bytes) -> Header | DropReason:
        header = parse(frame, self._mtu_bytes())
        if isinstance(header, DropReason):
            return header
        if header.tag_vid:
            return DropReason.VLAN_MISMATCH
        return header if is_station(header.src) else DropReason.SOURCE_INVALID

    def _drop(self, reason: DropReason, frame: bytes, now_ns: int) -> list[int]:
        self.dropped(reason, frame, now_ns)
        return []
