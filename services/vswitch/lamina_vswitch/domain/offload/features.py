"""What the device behind a port takes unfinished."""

from __future__ import annotations

from typing import NamedTuple

from lamina_vswitch.domain.frames.metadata import ECN, TCP4, TCP6, UDP


class Takes(NamedTuple):
    """What a device takes as it is: partial checksums, long TCP over IPv4 and IPv6, long UDP, tags beside the frame,
    trace records. Without any, it gets complete frames only."""

    checksum: bool = False
    tcp4: bool = False
    tcp6: bool = False
    udp: bool = False
    tag_beside: bool = False
    records: bool = False

    @property
    def offloads(self) -> bool:
        """Whether it takes any frame with something left to do."""
        return self.checksum or self.tcp4 or self.tcp6 or self.udp or self.tag_beside

    def segments(self, kind: int) -> bool:
        """Tell whether it takes a frame of this kind of segments uncut; there is a kind."""
        return {TCP4: self.tcp4, TCP6: self.tcp6, UDP: self.udp}[kind & ~ECN]


PLAIN = Takes()
ALL = Takes(True, True, True, True, True, True)
"""What the switch takes from devices."""
