"""A switch as one would write it on a napkin: a dict, one frame at a time, nothing cached. The engines' oracle."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaivePort:
    """A port and what came out of it."""

    vlan: int
    link_up: bool = True
    attached: bool = False
    out: list[bytes] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)

    def up(self) -> bool:
        """Return whether frames may pass."""
        return self.link_up and self.attached


class NaiveSwitch:
    """Learning, VLANs, ageing, limit, static entries and moves, in the most obvious way."""

    def __init__(self, mtu: int, ageing_ns: int, limit: int) -> None:
        self.mtu, self.ageing_ns, self.limit = mtu, ageing_ns, limit
        self.ports: dict[int, NaivePort] = {}
        self.table: dict[tuple[int, bytes], tuple[int, int, bool]] = {}

    def age(self, now: int) -> None:
        """Remove every entry whose time has come."""
        self.table = {
            key: (port, seen, static)
            for key, (port, seen, static) in self.table.items()
            if static or now - seen < self.ageing_ns
        }

    def forget(self, slot: int) -> None:
        """Remove the dynamic entries of a port."""
        self.table = {key: value for key, value in self.table.items() if value[0] != slot or value[2]}

    def send(self, slot: int, frame: bytes, now: int) -> None:
        """Switch one frame."""
        reason = self._send(slot, frame, now)
        if reason is not None:
            drops = self.ports[slot].drops
            drops[reason] = drops.get(reason, 0) + 1

    def _send(self, slot: int, frame: bytes, now: int) -> str | None:
        self.age(now)
        port = self.ports[slot]
        if not port.up():
            return "LINK_DOWN"
        if len(frame) < 14:
            return "RUNT"
        tagged = frame[12] == 0x81 and frame[13] == 0
        if len(frame) > self.mtu + (18 if tagged else 14):
            return "OVERSIZE"
        if tagged:
            if len(frame) < 18:
                return "VLAN_TRUNCATED"
            vid = (frame[14] % 16) * 256 + frame[15]
            if vid != 0 and vid != port.vlan:
                return "VLAN_MISMATCH"
            frame = frame[:12] + frame[16:]
        dst, src = frame[:6], frame[6:12]
        if src[0] % 2 == 1 or src == bytes(6):
            return "SOURCE_INVALID"
        self._learn(port.vlan, src, slot, now)
        if dst[:5] == bytes.fromhex("0180c20000") and 1 <= dst[5] <= 15:
            return "LINK_LOCAL"
        known = None if dst[0] % 2 == 1 else self.table.get((port.vlan, dst))
        if known is None:
            return self._flood(slot, frame)
        if known[0] == slot:
            return "SAME_PORT"
        target = self.ports[known[0]]
        if not target.up() or target.vlan != port.vlan:
            return "DESTINATION_DOWN"
        target.out.append(frame)
        return None

    def _learn(self, vlan: int, src: bytes, slot: int, now: int) -> None:
        known = self.table.get((vlan, src))
        if known is not None and known[2]:
            return
        if known is not None or len(self.table) < self.limit:
            self.table[vlan, src] = (slot, now, False)

    def _flood(self, slot: int, frame: bytes) -> str | None:
        vlan = self.ports[slot].vlan
        targets = [p for s, p in self.ports.items() if s != slot and p.vlan == vlan and p.up()]
        for target in targets:
            target.out.append(frame)
        return None if targets else "NO_DESTINATION"
