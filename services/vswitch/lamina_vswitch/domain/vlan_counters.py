"""What went through each VLAN of a switch, without a count for each frame: a port's counters are its VLAN's.

While a port is in a VLAN, everything that it counts belongs there, frames that are dropped before their tag is read
included. When it leaves, what it counted since it came is added to what the VLAN keeps.
"""

from __future__ import annotations

from collections.abc import Iterable

from lamina_vswitch.domain.counters import Counters


class VlanCounters:
    """The VLANs of one switch. Ports are known by their slots; counters that are passed are copies."""

    def __init__(self) -> None:
        self._kept: dict[int, Counters] = {}
        self._before: dict[int, Counters] = {}

    def leave(self, slot: int, vlan: int, counted: Counters) -> None:
        """Note that a port leaves a VLAN with these counters, for another one or for good."""
        kept = self._kept.setdefault(vlan, Counters())
        _add(kept, counted, 1)
        if slot in self._before:
            _add(kept, self._before[slot], -1)
        self._before[slot] = counted

    def forget(self, slot: int) -> None:
        """Note that a port that has left is gone; its slot may be another port's."""
        self._before.pop(slot, None)

    def all(self, ports: Iterable[tuple[int, int, Counters]]) -> list[tuple[int, Counters]]:
        """Return the counters of every VLAN that has or had ports, ordered; `ports` are (slot, VLAN, counters)."""
        found: dict[int, Counters] = {}
        for vlan, kept in self._kept.items():
            _add(found.setdefault(vlan, Counters()), kept, 1)
        for slot, vlan, counted in ports:
            total = found.setdefault(vlan, Counters())
            _add(total, counted, 1)
            if slot in self._before:
                _add(total, self._before[slot], -1)
        for total in found.values():
            total.drops = {reason: frames for reason, frames in total.drops.items() if frames}
        return sorted(found.items())


def _add(total: Counters, part: Counters, sign: int) -> None:
    total.received_frames += sign * part.received_frames
    total.received_bytes += sign * part.received_bytes
    total.sent_frames += sign * part.sent_frames
    total.sent_bytes += sign * part.sent_bytes
    total.flooded_frames += sign * part.flooded_frames
    for reason, frames in part.drops_by_reason():
        total.drops[reason] = total.drops.get(reason, 0) + sign * frames
