"""A trunk: which VLANs a port carries with their tags, and which one without."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RANGES = 64
"""Most ranges of a trunk."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """VLANs of a trunk: ranges of (first, last), 0 to 4094 each; none means all.

    The native VLAN travels untagged and is carried whether a range names it or not. VLAN 0 has no tag by which the
    other end would know it, so it is carried only as the native one. `provider_tags` lets frames with an outer 802.1ad
    tag (0x88a8) pass by that tag. Source: IEEE 802.1Q-2022, 6.9 and 9.5 (C-TAG 0x8100, S-TAG 0x88a8).
    """

    ranges: tuple[tuple[int, int], ...] = ()
    native: int = 0
    provider_tags: bool = False

    def carries(self, vlan: int) -> bool:
        """Tell whether frames of a VLAN travel here."""
        if vlan == self.native:
            return True
        if not 1 <= vlan <= 4094:
            return False
        return not self.ranges or any(first <= vlan <= last for first, last in self.ranges)
