"""What the plane has to know where tags and uplinks count, by VLAN, made of the domain's own functions.

Each port where frames enter has an *entry* for each VLAN and kind of tag that came there: what holds for the VLAN, and
the uplinks of its team. Both are made when the first frame needs them, and forgotten when the switch changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.switch.admission import Tag
from lamina_vswitch.domain.switch.tagging import Form, form_at
from lamina_vswitch.domain.switch.topology import Port, Switch, usable
from lamina_vswitch.domain.uplink.teaming import Balancing, choose
from lamina_vswitch.plane import memory
from lamina_vswitch.plane.compiled import layout

MOST_WORDS = 1 << 20
"""Words of all that is kept for the VLANs of a switch, and a little more: eight megabytes."""
_BLOCK_WORDS = 1 << 12
"""Words that are taken at once: an array for each entry would take more than what is in it."""
_FORMS = {form: number for number, form in enumerate(Form, start=layout.AS_IT_CAME)}
_VLAN_MASK = layout.PROVIDER_KEY - 1
_HEAD = layout.TARGETS >> 3
_COUNTED = (layout.VLAN_FLOODED >> 3) + 1


def _sums() -> Any:
    """Return the table of CRC-32, by byte. Source: RFC 1952, section 8."""
    states = []
    for byte in range(256):
        state = byte
        for _ in range(8):
            state = state >> 1 ^ (0xEDB88320 if state & 1 else 0)
        states.append(state)
    return np.array(states, np.int64)


SUMS: Any = _sums()
"""Kept alive here: compiled code knows its address."""


class Vlans:
    """Entries of the ports of one switch, which is not kept alive here. `formed` tells of a slot whether the plane may
    decide and deliver there."""

    def __init__(self, formed: Callable[[int], bool]) -> None:
        self._formed = formed
        self._entries: dict[int, Any] = {}
        self._known: dict[tuple[int, int], Any] = {}
        self._blocks: list[Any] = []
        self._left = 0
        self._words = 0
        self._trunks: list[Port] = []
        self._access: dict[int, list[Port]] = {}
        self._nowhere: Any = np.zeros(0, np.int64)
        self._counts: Any = memory.words(_VLAN_MASK + 1, 1 << (layout.COUNTS_SHIFT - 3))
        self.counts: int = self._counts.ctypes.data

    def forget(self, switch: Switch) -> None:
        """Forget what was made of the switch's ports, policies and teams: they changed."""
        self._entries, self._known, self._blocks, self._left, self._words = {}, {}, [], 0, 0
        ports = switch.ports
        self._trunks, self._access = [], {}
        self._nowhere = np.zeros(max(ports) + 1, np.int64)
        for slot, port in sorted(ports.items()):
            self._nowhere[slot] = -DropReason.DESTINATION_DOWN
            if port.takes_part and port.policy.trunk is not None:
                self._trunks.append(port)
            elif port.takes_part:
                self._access.setdefault(port.vlan, []).append(port)

    def entries(self, switch: Switch, port: Port) -> int:
        """Return the address of the entries of a port."""
        found = self._entries.get(port.slot)
        if found is None:
            self._bound(switch)
            found = self._entries[port.slot] = np.zeros(layout.KEYS if port.policy.trunk is not None else 1, np.int64)
            self._words += len(found)
        address: int = found.ctypes.data
        return address

    def make(self, switch: Switch, port: Port, key: int) -> int:
        """Make the entry of a port for a key; return the address of its entries, which may have moved."""
        self._bound(switch)
        address = self.entries(switch, port)
        is_trunk = port.policy.trunk is not None
        vlan, provider = (key & _VLAN_MASK, key >= layout.PROVIDER_KEY) if is_trunk else (port.vlan, False)
        ways: tuple[int, ...] = ()
        balancing, here = 0, 0
        if port.carries(vlan, provider):
            here = self._vlan(switch, port, vlan, provider)
            balancing, ways = _ways(switch, port, vlan, provider)
        self._entries[port.slot][key] = self._keep([here, len(ways), balancing, *ways, *[0] * (not ways)])
        return address

    def take(self) -> Iterable[tuple[int, Counters]]:
        """Return what was counted for VLANs at trunks since the last time."""
        vlans = np.flatnonzero(self._counts[:, :_COUNTED].any(axis=1)).tolist()
        found = [(vlan, Counters(*self._counts[vlan, :_COUNTED].tolist())) for vlan in vlans]
        self._counts[vlans] = 0
        return found

    def _bound(self, switch: Switch) -> None:
        """Forget everything when that is too much."""
        if self._words > MOST_WORDS:
            self.forget(switch)

    def _keep(self, words: list[int]) -> int:
        """Keep words at the beginning of a cache line, as long as nothing is forgotten; return their address."""
        lines = max(1, -(-len(words) // 8))
        if lines > self._left:
            self._left = max(lines, _BLOCK_WORDS // 8)
            self._blocks.append(memory.words(self._left, 8))
            self._words += 8 * self._left
        kept = self._blocks[-1][-self._left :].reshape(-1)
        kept[: len(words)] = words
        self._left -= lines
        address: int = kept.ctypes.data
        return address

    def _vlan(self, switch: Switch, port: Port, vlan: int, provider: bool) -> int:
        """Return the address of what holds for a VLAN at ports like this one."""
        uplinks = switch.teams.uplinks
        kind = (port.slot if port.slot in uplinks else 0, vlan | provider * layout.PROVIDER_KEY)
        if kind not in self._known:
            self._known[kind] = self._made(switch, port, vlan, provider)
        address: int = self._known[kind]
        return address

    def _made(self, switch: Switch, port: Port, vlan: int, provider: bool) -> int:
        uplinks = switch.teams.uplinks
        carrying = sorted(
            [*self._access.get(vlan, ()), *(trunk for trunk in self._trunks if trunk.carries(vlan, provider))],
            key=lambda other: other.slot,
        )
        targets = self._nowhere.copy()
        for other in carrying:
            targets[other.slot] = self._target(other, vlan, other.slot in uplinks)
        if port.slot in uplinks:
            audience = switch.audience(port, vlan, provider)
            hearers, standby = list(audience.flood), audience.standby
        else:
            hearers, standby = [other.slot for other in carrying if other.slot not in uplinks], False
        heard = targets[hearers].tolist()
        head = [0] * _HEAD
        head[layout.HERE >> 3] = not any(other.policy.security.promiscuous for other in carrying)
        head[layout.FLOODS_HERE >> 3] = all(target > 0 for target in heard)
        head[layout.EXPOSES >> 3] = any(trunk.vlan == vlan for trunk in self._trunks)
        head[layout.STANDBY >> 3] = standby
        head[layout.HEARERS >> 3] = len(heard)
        head[layout.HEARD_BY >> 3] = self._keep(heard)
        return self._keep(head + targets.tolist())

    def _target(self, target: Port, vlan: int, is_uplink: bool) -> int:
        """Return what becomes of frames for a station at a port that carries the VLAN, as compiled code reads it."""
        if not self._formed(target.slot):
            return 0
        kinds = ((Tag.NONE, None), (Tag.CUSTOMER, vlan), (Tag.CUSTOMER, 0), (Tag.PROVIDER, vlan))
        found = target.slot | is_uplink * layout.UPLINK_TARGET | (target.policy.trunk is not None) * layout.TRUNK_TARGET
        for number, (tag, tag_vid) in enumerate(kinds):
            form = _FORMS[form_at(target, vlan, tag, tag_vid)]
            found |= form << (layout.TARGET_FORM_SHIFT + layout.FORM_BITS * number)
        return found


def _ways(switch: Switch, port: Port, vlan: int, provider: bool) -> tuple[int, tuple[int, ...]]:
    """Return what decides among the uplinks that frames from a port may take, and these."""
    if not switch.teams.uplinks or port.slot in switch.teams.uplinks:
        return 0, ()
    ways, balancing = usable(switch, port.slot, vlan, provider), switch.teams.team_of(port.slot).balancing
    if len(ways) > 1 and balancing not in (Balancing.SOURCE_MAC, Balancing.FLOW):
        ways = (choose(ways, port.slot),)
    return int(balancing), ways
