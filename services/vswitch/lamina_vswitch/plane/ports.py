"""Ports as compiled code sees them: one row each, copied from the switches whenever those say that they changed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from lamina_vswitch.domain.frames.header import HEADER_BYTES, TAG_BYTES
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane import memory
from lamina_vswitch.plane.compiled import layout
from lamina_vswitch.plane.kernel_ports import Wire
from lamina_vswitch.plane.memory_ring import RingSink
from lamina_vswitch.plane.vlans import Vlans

_WORDS = 1 << (layout.ROW_SHIFT - 3)
_STATE, _VLAN, _RING, _MASK, _SLOT_BYTES, _FLOOD, _FLOOD_SIZE, _RECORDS = range(8)
_WIRE = layout.WIRE >> 3


class RowCounters(Counters):
    """Counters of a port whose ring the plane writes: what it counted there is added when somebody looks."""

    __slots__ = ("_bytes", "_frames", "_rows", "_slot")

    def __init__(self, rows: Rows, slot: int, before: Counters) -> None:
        self._rows, self._slot = rows, slot
        self._frames = self._bytes = 0
        super().__init__(**{part.name: getattr(before, part.name) for part in fields(Counters)})

    @property
    def sent_frames(self) -> int:
        """Frames that were put in the port's queue."""
        self._take()
        return self._frames

    @sent_frames.setter
    def sent_frames(self, value: int) -> None:
        self._frames = value

    @property
    def sent_bytes(self) -> int:
        """Their bytes."""
        self._take()
        return self._bytes

    @sent_bytes.setter
    def sent_bytes(self, value: int) -> None:
        self._bytes = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Counters:
        parts = {part.name: getattr(self, part.name) for part in fields(Counters)}
        return Counters(**{**parts, "drops": dict(self.drops)})

    def _take(self) -> None:
        frames, size = self._rows.take_counts(self._slot)
        self._frames += frames
        self._bytes += size


class Rows:
    """The rows of the ports of a host, by slot. `address` is where they lie; it changes when there are more."""

    def __init__(self, engine: ModelEngine) -> None:
        self._engine = engine
        self._table: Any = memory.words(64, _WORDS)
        self._address: int = self._table.ctypes.data
        self._revisions: dict[str, tuple[ReferenceType[Switch], int]] = {}
        self._floods: dict[str, list[Any]] = {}
        self._simple: dict[tuple[bool, int], bool] = {}
        self.wires: dict[int, Wire] = {}
        self._vlans: dict[str, Vlans] = {}

    @property
    def address(self) -> int:
        """Address of row 0."""
        return self._address

    def __len__(self) -> int:
        return len(self._table)

    def refresh(self, switch: Switch) -> None:
        """Copy the ports of a switch if they changed."""
        known = self._revisions.get(switch.name)
        if known is not None and known[0]() is switch and known[1] == switch.revision:
            return
        highest = max(switch.ports)
        if highest >= len(self._table):
            table: Any = memory.words(2 * highest, _WORDS)
            table[: len(self._table)] = self._table
            self._table, self._address = table, table.ctypes.data
        if known is None or known[0]() is not switch:
            self._forget_gone()
            self._vlans[switch.name] = vlans = Vlans(self.formed_here)
            self._engine.count_trunks_by(switch, vlans.take)
        self._revisions[switch.name] = (ref(switch), switch.revision)
        self._vlans[switch.name].forget(switch)
        self._simple.clear()
        self._floods[switch.name] = []
        lists: dict[int, list[int]] = {}
        for slot in sorted(switch.ports):
            port = switch.ports[slot]
            if port.takes_part:
                lists.setdefault(port.vlan, []).append(slot)
        floods = {vlan: self._flood(switch, slots) for vlan, slots in lists.items()}
        for port in switch.ports.values():
            self._fill(switch, port, *floods.get(port.vlan, (0, 0, False)))

    def decided_here(self, slot: int) -> bool:
        """Return whether the plane may decide about frames that enter at a port, whose switch was refreshed."""
        return bool(self._table[slot, _STATE] & layout.PLAIN)

    def vlans(self, switch: Switch, slot: int) -> Vlans | None:
        """Return by what the plane decides about frames that enter at a port and may have tags, or take uplinks.

        None: it does not. The switch was refreshed.
        """
        return self._vlans[switch.name] if self.formed_here(slot) else None

    def formed_here(self, slot: int) -> bool:
        """Return whether the plane may decide at a port where tags and uplinks count. The switch was refreshed."""
        return bool(self._table[slot, _STATE] & layout.FORMED)

    def forget(self, slot: int) -> None:
        """Forget the wire of a port at once: its memory goes."""
        if slot < len(self) and not self._table[slot, _RING]:
            self._table[slot, _WIRE] = 0

    def _forget_gone(self) -> None:
        """Forget switches that are no more."""
        for name in [name for name, (switch, _) in self._revisions.items() if switch() is None]:
            del self._revisions[name], self._floods[name], self._vlans[name]

    def take_counts(self, slot: int) -> tuple[int, int]:
        """Return how many frames and bytes went into the ring of a port since the last time."""
        row = self._table[slot]
        frames, size = row[layout.SENT >> 3 :].tolist()
        row[layout.SENT >> 3 :] = 0
        return frames, size

    def _flood(self, switch: Switch, slots: list[int]) -> tuple[int, int, bool]:
        """Return address and length of a list of ports, and whether the plane may deliver to all of them."""
        kept: Any = np.array(slots, np.int64)
        self._floods[switch.name].append(kept)
        return kept.ctypes.data, len(slots), all(self._plain(switch, switch.ports[slot]) for slot in slots)

    def _plain(self, switch: Switch, port: Port) -> bool:
        """Tell whether nothing but the pipeline has a say in what enters or leaves at a port."""
        kind = (port.plain, port.vlan)  # that is all of a port that `simple` looks at, and it looks at all ports
        if kind not in self._simple:
            self._simple[kind] = switch.simple(port) and not switch.leads_out(port.vlan)
        return self._simple[kind] and port.takes_part and not port.held and self._engine.direct(port.slot)

    def _formed(self, switch: Switch, port: Port) -> bool:
        """Tell whether nothing but the pipeline, tags and teams have a say in what enters or leaves at a port."""
        policy = port.policy
        free = switch.loop is None and switch.decider is None and port.shut is None and not port.held
        plain = port.plain or policy == PolicyInForce(mac=policy.mac, trunk=policy.trunk)
        has_native = policy.trunk is None or policy.trunk.native == port.vlan
        return free and plain and has_native and port.takes_part and self._engine.direct(port.slot)

    def _fill(self, switch: Switch, port: Port, flood: int, flood_size: int, floods: bool) -> None:
        row = self._table[port.slot]
        plain = self._plain(switch, port)
        row[: layout.USED >> 3] = 0
        if not isinstance(port.counters, RowCounters):
            row[:] = 0  # what was counted for an earlier port with this slot is nobody's
            port.counters = RowCounters(self, port.slot, port.counters)
        formed, is_uplink = self._formed(switch, port), port.slot in switch.teams.uplinks
        row[_STATE] = port.takes_part * layout.UP | plain * layout.PLAIN | floods * layout.FLOODS
        row[_STATE] |= is_uplink * layout.UPLINK | formed * layout.FORMED
        row[_VLAN], row[_FLOOD], row[_FLOOD_SIZE] = port.vlan, flood, flood_size
        sink = self._engine.sink_at(port.slot)
        written = plain or (formed and self._engine.direct(port.slot, tags=True))
        if written and isinstance(sink, RingSink):
            sizes = sink.ring.geometry
            if sizes.frame_bytes >= switch.mtu_bytes + HEADER_BYTES + (0 if plain else 2 * TAG_BYTES):
                row[_RECORDS] = sink.ring.records
                row[_RING], row[_MASK], row[_SLOT_BYTES] = sink.ring.address, sizes.slots - 1, sizes.slot_bytes
        elif written and port.slot in self.wires and sink is not None:
            row[_WIRE] = self.wires[port.slot].address
