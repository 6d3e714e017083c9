"""Bursts through the switches of an engine: the compiled pipeline where it can decide, the engine where it cannot.

The first burst into a switch moves its MAC table into flat memory (`FlatFdb`), where both see it; a stack without
bursts never imports this module. Ports are copied into rows whenever the switch says that it changed. The rest is a
loop: run the pipeline, report what it noted, let the engine switch the frame at which it stopped, go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.domain.switch.decision import Decision, decide
from lamina_vswitch.domain.switch.fdb import Learned
from lamina_vswitch.domain.switch.topology import Switch
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane import memory, outcome
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.compiled import burst as compiled
from lamina_vswitch.plane.compiled import layout, tagged_burst
from lamina_vswitch.plane.flat_fdb import FlatFdb
from lamina_vswitch.plane.kernel_ports import Wire
from lamina_vswitch.plane.memory_ring import RingSink
from lamina_vswitch.plane.ports import Rows
from lamina_vswitch.plane.vlans import SUMS

OUTBOX = 1 << 14
_WORD = 8
_OUTCOMES = tuple(Learned)


class Plane:
    """Switches bursts for one engine. One writer, as the engine is.

    `secret` is a number of 64 bits that strangers do not know: it decides where addresses lie in the tables.
    """

    def __init__(self, engine: ModelEngine, secret: int) -> None:
        self._engine = engine
        self._secret = secret
        self._rows = Rows(engine)
        self._job: Any = memory.words(1, layout.JOB_BYTES // _WORD)[0]
        self._decisions: dict[DropReason, Decision] = {}
        self._touched: Any = np.zeros((0, 4), np.int64)
        self._outbox_size = OUTBOX
        self._looks: Any = memory.words(layout.LOOKS_KEPT, 1 << (layout.LOOK_SHIFT - 3))
        self._outbox: Any = np.zeros((OUTBOX, 4), np.int64)
        self._touched_at: int = self._touched.ctypes.data
        self._outbox_at: int = self._outbox.ctypes.data
        self._address: int = self._job.ctypes.data
        self._words = memoryview(self._job.data)
        self._words[layout.LOOKS >> 3] = self._looks.ctypes.data

    def connect(self, slot: int, wire: Wire) -> None:
        """Send frames that leave by a port into a wire from now on, where nothing but the plane has a say in them."""
        self._rows.wires[slot] = wire
        self._engine.switch_at(slot).changed()

    def disconnect(self, slot: int, wire: Wire) -> None:
        """Forget a wire. Idempotent; the port may be gone."""
        if self._rows.wires.get(slot) is wire:
            del self._rows.wires[slot]
            self._rows.forget(slot)

    def transmit(self, slot: int, burst: Burst, now_ns: int) -> int:
        """Switch a burst that entered at a port; return how many were dropped there. As the engine's `transmit`."""
        switch = self._engine.switch_at(slot)
        if not len(burst):
            return 0
        run = self._ready(switch, slot)
        if run is None:
            return self._slowly(switch, slot, burst.frames(), now_ns)
        fdb = self._flat(switch, now_ns)
        fdb.reach(slot, now_ns)
        first = dropped = 0
        if now_ns >= switch.ports[slot].record_due_ns:
            self._engine.record(slot, (burst.frame(number) for number in range(len(burst))), now_ns)
        self._begin(switch, fdb, slot, burst, now_ns, first)
        while True:
            ended = run(self._address)
            if ended == layout.LARGER_TABLE:
                fdb.grow()
                continue
            if ended == layout.NEW_KEY:
                self._make_entry(switch, slot)
                continue
            if ended == layout.FIRST_DROP:
                self._explain(switch, slot, burst, now_ns)
                continue
            reached = self._words[layout.FIRST >> 3]
            dropped += self._conclude(switch, slot, burst, first, now_ns)
            first = reached
            if ended == layout.SLOW:
                slow = _alike(burst, first)
                dropped += self._slowly(switch, slot, list(map(burst.frame, slow)), now_ns)
                first = slow.stop
            if ended == layout.DONE or first == len(burst):
                return dropped
            run = self._ready(switch, slot)
            if run is None:
                return dropped + self._slowly(switch, slot, burst.frames()[first:], now_ns)
            self._begin(switch, fdb, slot, burst, now_ns, first)

    def _slowly(self, switch: Switch, slot: int, frames: list[bytes], now_ns: int) -> int:
        """Let the engine switch frames; return how many were dropped at their port."""
        good, bad = admitted(frames, switch.mtu_bytes)
        self._engine.turned_away(slot, DropReason.OFFLOAD_INVALID, bad, now_ns)
        return len(bad) + self._engine.transmit(slot, good, now_ns)

    def _explain(self, switch: Switch, slot: int, burst: Burst, now_ns: int) -> None:
        """Keep the reference's decision about the frame that was dropped last: it has been learned from already."""
        frame = burst.frame(self._words[layout.FIRST >> 3] - 1)
        decision = decide(switch, switch.ports[slot], frame, now_ns)
        if decision.learned is not None:
            decision = decision._replace(learned=_OUTCOMES[self._words[layout.LAST_LEARNED >> 3]])
        if decision.drop is not None:
            self._decisions[decision.drop] = decision

    def _ready(self, switch: Switch, slot: int) -> Callable[[int], int] | None:
        """Refresh the rows of a switch; return what runs frames from a port, None when they are not for the plane."""
        self._rows.refresh(switch)
        if self._engine.observer is not None:
            return None
        if self._rows.decided_here(slot):
            return compiled.run
        return tagged_burst.run if self._rows.vlans(switch, slot) is not None else None

    def _make_entry(self, switch: Switch, slot: int) -> None:
        """Make the entry of a port for which a run waits."""
        vlans = self._rows.vlans(switch, slot)
        assert vlans is not None  # nothing has changed since the run began
        self._words[layout.ENTRIES >> 3] = vlans.make(switch, switch.ports[slot], self._words[layout.WANTED >> 3])

    def _flat(self, switch: Switch, now_ns: int) -> FlatFdb:
        """Return the MAC table of a switch in flat memory, and move it there at the first time."""
        if not isinstance(switch.fdb, FlatFdb):
            switch.fdb = FlatFdb.of(switch.fdb, now_ns, self._secret)
        return switch.fdb

    def _begin(self, switch: Switch, fdb: FlatFdb, slot: int, burst: Burst, now_ns: int, first: int) -> None:
        """Fill in a job that goes on at frame `first`."""
        if len(self._touched) < len(self._rows):
            self._touched = np.zeros((len(self._rows), 1 << (layout.REPORT_SHIFT - 3)), np.int64)
            self._touched_at = self._touched.ctypes.data
        if self._outbox_size < 2 * len(self._rows):
            self._outbox_size = 2 * len(self._rows)
            self._outbox = np.zeros((self._outbox_size, 4), np.int64)
            self._outbox_at = self._outbox.ctypes.data
        words = self._words
        words[layout.HEAD >> 3], words[layout.PORTS >> 3] = fdb.head, self._rows.address
        words[layout.SLOT >> 3], words[layout.VLAN >> 3] = slot, switch.ports[slot].vlan
        words[layout.MTU >> 3], words[layout.NOW >> 3] = switch.mtu_bytes, now_ns
        words[layout.BURST >> 3], words[layout.COUNT >> 3] = burst.address, len(burst)
        words[layout.FIRST >> 3], words[layout.LOOKED >> 3] = first, first
        words[layout.TOUCHED >> 3], words[layout.OUTBOX >> 3] = self._touched_at, self._outbox_at
        words[layout.OUTBOX_SIZE >> 3], words[layout.PRIVATE >> 3] = self._outbox_size, burst.private
        vlans = self._rows.vlans(switch, slot)
        if vlans is not None and not self._rows.decided_here(slot):
            port = switch.ports[slot]
            is_trunk, is_uplink = port.policy.trunk is not None, slot in switch.teams.uplinks
            words[layout.KIND >> 3] = is_trunk * layout.TRUNK_PORT | is_uplink * layout.UPLINK_PORT
            words[layout.ENTRIES >> 3], words[layout.COUNTS >> 3] = vlans.entries(switch, port), vlans.counts
            words[layout.SUMS >> 3] = SUMS.ctypes.data

    def _conclude(self, switch: Switch, slot: int, burst: Burst, first: int, now_ns: int) -> int:
        """Count, deliver and report what a run did with the frames from `first` on; return how many it dropped."""
        words = self._words
        port = switch.ports[slot]
        counters = port.counters
        counters.received_frames += words[layout.FIRST >> 3] - first
        counters.received_bytes += words[layout.RECEIVED_BYTES >> 3]
        counters.flooded_frames += words[layout.FLOODED >> 3]
        words[layout.FLOODED >> 3] = words[layout.RECEIVED_BYTES >> 3] = 0
        if not port.first_mac:
            port.first_mac = outcome.first_station(switch, port, burst, range(first, words[layout.FIRST >> 3]), now_ns)
        if words[layout.TOUCHES >> 3]:
            self._rings(switch, burst, now_ns)
        if not words[layout.NOTED >> 3] and not words[layout.POSTED >> 3]:
            return 0
        result, lost = outcome.told(self._job, self._outbox, port, burst, self._decisions)
        self._decisions = {}
        self._job[layout.NOTED >> 3 :] = 0
        words[layout.POSTED >> 3] = 0
        for reason, frames in result.drops.items():
            counters.dropped(reason, len(frames))
        switch.mac_moves += len(result.moves)
        switch.mac_refusals += len(result.refused)
        self._engine.conclude(slot, result, now_ns)
        for target in sorted(lost):
            self._engine.overflowed(target, lost[target], now_ns)
        return sum(len(frames) for frames in result.drops.values())

    def _rings(self, switch: Switch, burst: Burst, now_ns: int) -> None:
        """Report what became of rings that were full, are broken, or have a consumer who sleeps, by slot."""
        reports: list[list[int]] = self._touched[: self._words[layout.TOUCHES >> 3]].tolist()
        self._words[layout.TOUCHES >> 3] = 0
        reports.sort()
        for target, full, first_full, status in reports:
            if status & layout.LEFT:
                self._left(switch, target, now_ns)
                continue
            if full:
                self._engine.overflowed(target, [outcome.untagged_frame(burst.frame(first_full))] * full, now_ns)
            sink = self._engine.sink_at(target) if status else None
            if isinstance(sink, RingSink):
                (sink.corrupt if status & layout.BROKE else sink.wake)()

    def _left(self, switch: Switch, target: int, now_ns: int) -> None:
        """See to what the kernel did not take at a port with a wire: it waits, if it has room, or is lost."""
        left, failed = self._rows.wires[target].settle()
        if failed:
            self._engine.overflowed(target, failed, now_ns)
        if left:
            self._engine.put(switch.ports[target], left, now_ns)


def _alike(burst: Burst, first: int) -> range:
    """Return the numbers of the frames from one on that are not for the plane: they go to the reference together."""
    lengths = burst.places[first:, 1]
    plain = np.flatnonzero(lengths < layout.LADEN)
    return range(first, max(first + 1, first + int(plain[0]) if len(plain) else len(burst)))
