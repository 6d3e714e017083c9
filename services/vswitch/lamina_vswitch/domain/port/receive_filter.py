"""What a device listens to, as its driver set it."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.frames.header import is_group

MOST_GROUPS = 1024
BROADCAST = b"\xff" * 6


@dataclass(frozen=True, slots=True)
class ReceiveFilter:
    """Six bytes of address that the device uses, the multicast addresses that it wants, whether it wants all of them,
    and whether it asks to see everything, which the security policy decides."""

    mac: bytes
    groups: frozenset[bytes] = frozenset()
    all_groups: bool = False
    promiscuous: bool = False

    def wants(self, frame: bytes) -> bool:
        """Tell whether the device's filter lets a frame pass, which is only asked about group addresses."""
        dst = frame[:6]
        return self.all_groups or not is_group(dst) or dst == BROADCAST or dst in self.groups
