"""A switch as one would write it on a napkin: a dict, one frame at a time, nothing cached. The engines' oracle."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaiveTrunk:
    """VLANs that travel tagged, the one that travels untagged, and whether 802.1ad tags are read."""

    tagged: set[int]
    provider: bool


@dataclass
class NaivePort:
    """A port and what came out of it; the VLAN of a trunk is its native one."""

    vlan: int
    link_up: bool = True
    attached: bool = False
    out: list[bytes] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)
    trunk: NaiveTrunk | None = None
    isolated: bool = False
    promiscuous: bool = False

    def carries(self, vlan: int, provider: bool = False) -> bool:
        """Return whether frames of a VLAN leave here."""
        if self.trunk is None:
            return vlan == self.vlan
        return (vlan == self.vlan or vlan in self.trunk.tagged) and (self.trunk.provider or not provider)

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
        tag = frame[12:14].hex()
        provider = port.trunk is not None and tag == "88a8"
        tags = 0
        if provider or tag == "8100":
            tags = 2 if provider and frame[16:18].hex() == "8100" else 1
        if len(frame) > self.mtu + 14 + 4 * tags:
            return "OVERSIZE"
        vlan, control = port.vlan, None
        if tags:
            if len(frame) < 18:
                return "VLAN_TRUNCATED"
            control = frame[14] * 256 + frame[15]
            vlan = control % 4096 or port.vlan
            if (control % 4096 or provider) and not port.carries(vlan, provider):
                return "VLAN_MISMATCH"
        dst, src = frame[:6], frame[6:12]
        if src[0] % 2 == 1 or src == bytes(6):
            return "SOURCE_INVALID"
        self._learn(vlan, src, slot, now)
        if dst[:5] == bytes.fromhex("0180c20000") and 1 <= dst[5] <= 15:
            return "LINK_LOCAL"
        others = [s for s, p in self.ports.items() if s != slot and p.up() and p.carries(vlan, provider)]
        allowed = [s for s in others if not (port.isolated and self.ports[s].isolated)]
        heard = [s for s in allowed if self.ports[s].promiscuous]
        known = None if dst[0] % 2 == 1 else self.table.get((vlan, dst))
        reason = None
        if known is None:
            heard = allowed
            reason = "ISOLATED" if others else "NO_DESTINATION"
        elif known[0] == slot:
            reason = "SAME_PORT"
        elif known[0] not in others:
            reason = "DESTINATION_DOWN"
        elif known[0] not in allowed:
            reason = "ISOLATED"
        elif known[0] not in heard:
            heard.append(known[0])
        for target in heard:
            self.ports[target].out.append(self._leaving(self.ports[target], frame, vlan, control, provider))
        return None if heard else reason

    def _leaving(self, port: NaivePort, frame: bytes, vlan: int, control: int | None, provider: bool) -> bytes:
        bare = frame if control is None else frame[:12] + frame[16:]
        if port.trunk is None:
            return bare
        if provider:
            return frame
        if vlan == port.vlan:
            return bare
        priority = 0 if control is None else control - control % 4096
        return bare[:12] + b"\x81\x00" + (priority + vlan).to_bytes(2, "big") + bare[12:]

    def _learn(self, vlan: int, src: bytes, slot: int, now: int) -> None:
        known = self.table.get((vlan, src))
        if known is not None and known[2]:
            return
        if known is not None or len(self.table) < self.limit:
            self.table[vlan, src] = (slot, now, False)
