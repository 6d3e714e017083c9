"""Engines against the naive switch: random topologies, frames, time, links, VLAN moves, flushes and static entries."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.frame_sinks import Keeper
from tests.property.vswitch import oracle

from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.engines.model.engine import ModelEngine

SWITCH = "hosts/h1/switches/s1"
PORTS = 5
AGEING_S = 2
NS = 1_000_000_000

STATIONS = [bytes.fromhex(f"0200000000{n:02x}") for n in range(1, 5)]
ODD = [bytes.fromhex(mac) for mac in ("ffffffffffff", "01005e000001", "0180c2000000", "0180c200000e", "000000000000")]
MAC = st.sampled_from(STATIONS * 3 + ODD)
TAG = st.sampled_from(["", "", "", "81000000", "8100e00a", "81000014", "88a8000a", "88a8000a81000014"]).map(
    bytes.fromhex
)
PAYLOAD = st.sampled_from([b"\x08\x00" + bytes(46), b"\x86\xdd", b"\x08\x00" + bytes(562), b"\x08\x00" + bytes(577)])
WELL_FORMED = st.tuples(MAC, MAC, TAG, PAYLOAD).map(b"".join)
GARBAGE = st.binary(max_size=24)
CUT = st.tuples(WELL_FORMED, st.integers(0, 20)).map(lambda pair: pair[0][: pair[1]])
PLAIN = st.builds(
    lambda dst, src, size: dst + src + b"\x08\x00" + bytes(size),
    st.sampled_from(STATIONS[:3]),
    st.sampled_from(STATIONS[:3]),
    st.sampled_from([0, 46, 576, 577]),
)
FRAME = st.one_of(PLAIN, WELL_FORMED, PLAIN, PLAIN, WELL_FORMED, GARBAGE, CUT)
SLOT = st.integers(1, PORTS)
VLAN = st.sampled_from([0, 10, 20])


class SwitchAgainstOracle(RuleBasedStateMachine):
    """Does the same to both and compares what came out, what was dropped, and what was learned."""

    @initialize(vlans=st.lists(VLAN, min_size=PORTS, max_size=PORTS), limit=st.integers(1, 6))
    def build(self, vlans: list[int], limit: int) -> None:
        """Make five ports, attached."""
        self.now = 0
        self.engine = ModelEngine(lambda notice: None)
        self.engine.add_switch(SWITCH, SwitchDefinition("s1", 576, AGEING_S, limit))
        self.naive = oracle.NaiveSwitch(576, AGEING_S * NS, limit)
        self.sinks = {slot: Keeper() for slot in range(1, PORTS + 1)}
        for slot, vlan in enumerate(vlans, start=1):
            self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", vlan, True)
            self.engine.attach(slot, self.sinks[slot], 0)
            self.naive.ports[slot] = oracle.NaivePort(vlan, attached=True)

    @rule(slot=SLOT, frames=st.lists(FRAME, max_size=12))
    def send(self, slot: int, frames: list[bytes]) -> None:
        """Send a batch."""
        self.engine.transmit(slot, frames, self.now)
        for frame in frames:
            self.naive.send(slot, frame, self.now)

    @rule(slot=SLOT, kinds=st.lists(FRAME, min_size=1, max_size=3), picks=st.lists(st.integers(0, 2), max_size=20))
    def burst(self, slot: int, kinds: list[bytes], picks: list[int]) -> None:
        """Send few kinds of frames many times in a batch, which is where a flow cache would go wrong."""
        self.send(slot, [kinds[pick % len(kinds)] for pick in picks])

    @rule(
        slots=st.permutations(range(1, PORTS + 1)),
        pair=st.permutations(STATIONS),
        pause=st.sampled_from([0, 0, 1, NS, 2 * NS - 1, 2 * NS]),
        variants=st.lists(st.tuples(TAG, st.sampled_from([46, 576, 577]), st.sampled_from([10**4, 12, 13, 14, 17]))),
        one_port=st.booleans(),
    )
    def converse(
        self,
        slots: list[int],
        pair: list[bytes],
        pause: int,
        variants: list[tuple[bytes, int, int]],
        one_port: bool,
    ) -> None:
        """Let two stations meet, wait, and talk in every form; both may be behind one port. Short cuts live here."""
        near, far = slots[0], slots[0 if one_port else 1]
        self.send(near, [b"\xff" * 6 + pair[0] + b"\x08\x00"])
        self.send(far, [pair[0] + pair[1] + b"\x08\x00"])
        self.now += pause
        heads = [pair[1] + pair[0], pair[0] + pair[1]]
        frames = [
            (heads[one_port and turn % 2] + tag + b"\x08\x00" + bytes(size))[:cut]
            for turn, (tag, size, cut) in enumerate(variants)
        ]
        self.send(near, frames)

    @rule(step=st.sampled_from([1, NS - 1, NS, 2 * NS - 1, 2 * NS]))
    def wait(self, step: int) -> None:
        """Let time pass; 2 s is the ageing time."""
        self.now += step

    @rule(slot=SLOT, up=st.booleans())
    def set_link(self, slot: int, up: bool) -> None:
        """Pull or plug a cable."""
        self.engine.set_link(slot, up, self.now)
        self.naive.ports[slot].link_up = up
        if not up:
            self.naive.forget(slot)

    @rule(slot=SLOT)
    def toggle_carrier(self, slot: int) -> None:
        """Detach what is attached, or the other way round."""
        port = self.naive.ports[slot]
        port.attached = not port.attached
        if port.attached:
            self.engine.attach(slot, self.sinks[slot], self.now)
        else:
            self.engine.detach(slot, self.sinks[slot], self.now)
            self.naive.forget(slot)

    @rule(slot=SLOT, vlan=VLAN)
    def move(self, slot: int, vlan: int) -> None:
        """Move a port to another VLAN."""
        if self.naive.ports[slot].vlan != vlan:
            self.naive.forget(slot)
        self.naive.ports[slot].vlan = vlan
        self.engine.set_vlan(slot, vlan, self.now)

    @rule(slot=SLOT, mac=st.sampled_from(STATIONS))
    def fix(self, slot: int, mac: bytes) -> None:
        """Make a static entry if there is room."""
        self.naive.age(self.now)
        vlan = self.naive.ports[slot].vlan
        if (vlan, mac) in self.naive.table or len(self.naive.table) < self.naive.limit:
            self.naive.table[vlan, mac] = (slot, 0, True)
            self.engine.add_static(SWITCH, vlan, mac, slot, self.now)

    @rule(vlan=st.one_of(st.none(), VLAN), slot=st.one_of(st.none(), SLOT))
    def flush(self, vlan: int | None, slot: int | None) -> None:
        """Forget, and agree on how much there was."""
        self.naive.age(self.now)
        doomed = [
            key
            for key, (port, _, static) in self.naive.table.items()
            if not static and vlan in (None, key[0]) and slot in (None, port)
        ]
        for key in doomed:
            del self.naive.table[key]
        assert self.engine.flush(SWITCH, vlan, slot, self.now) == len(doomed)

    @rule(slot=SLOT, frame=FRAME)
    def trace(self, slot: int, frame: bytes) -> None:
        """A trace foretells what sending the frame then does, and changes nothing itself."""
        before = self.engine.mac_entries(SWITCH, self.now)
        told = self.engine.trace(slot, frame, self.now)
        assert self.engine.mac_entries(SWITCH, self.now) == before
        sizes = {port: len(sink.frames) for port, sink in self.sinks.items()}
        self.send(slot, [frame])
        reached = [port for port, sink in self.sinks.items() if len(sink.frames) > sizes[port]]
        assert list(told.decision.outputs) == reached
        assert told.frame == (self.sinks[reached[0]].frames[-1] if reached else b"")
        assert (told.decision.drop is None) == bool(reached)

    @invariant()
    def outputs_agree(self) -> None:
        """The same frames came out of every port in the same order, and the same were dropped for the same reasons."""
        for slot, port in getattr(self, "naive", oracle.NaiveSwitch(0, 0, 0)).ports.items():
            assert self.sinks[slot].frames == port.out
            counters = self.engine.counters(slot)
            assert {reason.name: count for reason, count in counters.drops_by_reason()} == port.drops
            assert counters.sent_frames == len(port.out)
            assert counters.sent_bytes == sum(map(len, port.out))
            assert DropReason.QUEUE_FULL not in counters.drops

    @invariant()
    def tables_agree(self) -> None:
        """Both learned the same."""
        if not hasattr(self, "naive"):
            return
        self.naive.age(self.now)
        wanted = [
            (vlan, mac, port, static, 0 if static else self.now - seen)
            for (vlan, mac), (port, seen, static) in sorted(self.naive.table.items())
        ]
        found = [(e.vlan, e.mac, e.slot, e.static, e.age_ns) for e in self.engine.mac_entries(SWITCH, self.now)]
        assert found == wanted
        assert self.engine.tally(SWITCH, self.now).mac_entries == len(wanted)


TestSwitchAgainstOracle = SwitchAgainstOracle.TestCase
TestSwitchAgainstOracle.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_known_stations_in_every_form() -> None:
    """Between two known stations, every tag, length and cut of a frame meets the naive switch's fate, in one batch."""
    machine = SwitchAgainstOracle()
    machine.build([10, 10, 10, 20, 20], 6)
    machine.send(1, [b"\xff" * 6 + STATIONS[0] + b"\x08\x00"])
    machine.send(2, [STATIONS[0] + STATIONS[1] + b"\x08\x00"])
    head = STATIONS[1] + STATIONS[0]
    tags = [bytes.fromhex(tag) for tag in ("", "81000000", "8100e00a", "81000014", "88a8000a")]
    whole = [head + tag + b"\x08\x00" + bytes(size) for tag in tags for size in (0, 46, 572, 576, 577, 580, 581)]
    cut = [head[:12] + tag[:length] for tag in tags for length in range(len(tag) + 1)]
    machine.send(1, whole + cut + [head[:length] for length in range(12)] + whole)
    machine.outputs_agree()
    machine.tables_agree()
