"""What went through each VLAN of a switch, without a count for each frame where that can be: an access port's counters
are its VLAN's.

While an access port is in a VLAN, everything that it counts belongs there, frames that are dropped before their tag is
read included. When it leaves, or becomes a trunk, what it counted since it came is added to what the VLAN keeps. Frames
at a trunk are counted one by one, in the VLAN that the trunk carries them in, else in its native one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import TPID_8021AD, TPID_8021Q, VLAN_ID_MASK
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.switch.topology import Port


def vlan_of(port: Port, frame: bytes) -> int:
    """Return the VLAN in which a frame counts that enters or leaves at a port, as its bytes are there."""
    provider = frame[12:14] == TPID_8021AD
    if port.policy.trunk is None or not (provider or frame[12:14] == TPID_8021Q) or len(frame) < 16:
        return port.vlan
    vlan = int.from_bytes(frame[14:16], "big") & VLAN_ID_MASK
    return vlan if port.carries(vlan, provider) else port.vlan


class VlanCounters:
    """The VLANs of one switch. Ports are known by their slots; counters that are passed are copies."""

    def __init__(self) -> None:
        self.elsewhere: Callable[[], Iterable[tuple[int, Counters]]] = _nothing
        """Returns what somebody else counted for VLANs of trunks since the last time; asked when it is wanted."""
        self._kept: dict[int, Counters] = {}
        self._before: dict[int, Counters] = {}

    def leave(self, slot: int, vlan: int, counted: Counters) -> None:
        """Note that an access port leaves a VLAN with these counters, for another one or for good."""
        kept = self._kept.setdefault(vlan, Counters())
        _add(kept, counted, 1)
        if slot in self._before:
            _add(kept, self._before[slot], -1)
        self._before[slot] = counted

    def enter(self, slot: int, counted: Counters) -> None:
        """Note that a trunk becomes an access port; what it counted until now has been counted one by one."""
        self._before[slot] = counted

    def forget(self, slot: int) -> None:
        """Note that a port that has left is gone; its slot may be another port's."""
        self._before.pop(slot, None)

    def add(self, vlan: int, counted: Counters) -> None:
        """Add what somebody else has counted for a VLAN of a trunk."""
        _add(self._of(vlan), counted, 1)

    def received(self, trunk: Port, frames: Sequence[bytes]) -> None:
        """Count frames that came in at a trunk."""
        for vlan, part in _by_vlan(trunk, frames).items():
            self._of(vlan).received(part)

    def sent(self, trunk: Port, frames: Sequence[bytes]) -> None:
        """Count frames that left at a trunk."""
        for vlan, part in _by_vlan(trunk, frames).items():
            self._of(vlan).sent(part)

    def flooded(self, trunk: Port, frames: Sequence[bytes]) -> None:
        """Count frames that came in at a trunk and were flooded."""
        for vlan, part in _by_vlan(trunk, frames).items():
            self._of(vlan).flooded_frames += len(part)

    def dropped(self, trunk: Port, reason: DropReason, frames: Sequence[bytes]) -> None:
        """Count drops at a trunk."""
        for vlan, part in _by_vlan(trunk, frames).items():
            self._of(vlan).dropped(reason, len(part))

    def all(self, ports: Iterable[tuple[int, int, Counters]]) -> list[tuple[int, Counters]]:
        """Return the counters of every VLAN that has or had something, ordered.

        `ports` are the access ports that are there: slot, VLAN, counters.
        """
        for vlan, counted in self.elsewhere():
            self.add(vlan, counted)
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

    def _of(self, vlan: int) -> Counters:
        return self._kept.setdefault(vlan, Counters())


def _by_vlan(port: Port, frames: Sequence[bytes]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for frame in frames:
        found.setdefault(vlan_of(port, frame), []).append(frame)
    return found


def _add(total: Counters, part: Counters, sign: int) -> None:
    total.received_frames += sign * part.received_frames
    total.received_bytes += sign * part.received_bytes
    total.sent_frames += sign * part.sent_frames
    total.sent_bytes += sign * part.sent_bytes
    total.flooded_frames += sign * part.flooded_frames
    for reason, frames in part.drops_by_reason():
        total.drops[reason] = total.drops.get(reason, 0) + sign * frames


def _nothing() -> Iterable[tuple[int, Counters]]:
    """Returns what was counted elsewhere where nobody counts elsewhere."""
    return ()
