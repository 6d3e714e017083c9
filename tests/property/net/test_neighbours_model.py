"""The neighbour table under any sends, answers, strangers and time: no packet vanishes, no bound is passed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_net.ip.neighbours import MAX_WAITING, REACHABLE_NS, SECOND, NeighbourState, NeighbourTable, Outcome
from lamina_net.packets import arp
from lamina_net.packets.address import BROADCAST_MAC
from lamina_net.packets.arp import ArpPacket

ME, LIMIT = 1, 3
MY_MAC = b"\x02" + bytes(5)


@dataclass
class Ledger:
    """What the user of a table knows: packets that were given and not yet returned, questions and answers."""

    waiting: dict[int, int] = field(default_factory=dict)  # packet to address
    asked: dict[int, int] = field(default_factory=dict)  # address to questions since it last answered
    answered: dict[int, tuple[bytes, int]] = field(default_factory=dict)  # address to what it said, and when
    told: dict[int, set[bytes]] = field(default_factory=dict)  # address to all that was ever said of it

    def take(self, outcome: Outcome[int]) -> None:
        """Check an outcome, and cross out what it returns."""
        for mac, packet in outcome.ready:
            assert mac in self.told[self.waiting.pop(packet)]
        for packet in outcome.unreachable:
            del self.waiting[packet]
        for question in outcome.questions:
            assert question.source == ME
            assert question.mac == BROADCAST_MAC or question.mac in self.told[question.target]
            self.asked[question.target] = self.asked.get(question.target, 0) + 1


addresses = st.integers(2, 7)
macs = st.sampled_from([bytes([2, 0, 0, 0, 0, last]) for last in (1, 2)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), addresses),
        st.tuples(st.sampled_from(["reply", "request", "announce", "probe"]), addresses, macs),
        st.tuples(st.just("wait"), st.sampled_from([1, SECOND, 2 * SECOND, REACHABLE_NS - 1, REACHABLE_NS])),
        st.tuples(st.just("forget"), addresses),
    ),
    max_size=60,
)


def heard(kind: str, address: int, mac: bytes) -> tuple[ArpPacket, bool]:
    """Return a packet of a neighbour, and whether it is to us."""
    if kind == "reply":
        return ArpPacket(arp.REPLY, mac, address, MY_MAC, ME), True
    if kind == "announce":
        return ArpPacket(arp.REQUEST, mac, address, bytes(6), address), False
    return ArpPacket(arp.REQUEST, mac, 0 if kind == "probe" else address, bytes(6), ME), True


@given(steps)
@settings(max_examples=150)
def test_nothing_vanishes_and_nothing_grows(drawn: list[tuple[str, int] | tuple[str, int, bytes]]) -> None:
    """Every packet comes out once, to an address that somebody told; questions come a second apart, three in a row."""
    table: NeighbourTable[int] = NeighbourTable(LIMIT)
    ledger, now_ns, number = Ledger(), 0, 0
    for step in drawn:
        kind, argument = step[0], step[1]
        if kind == "send":
            number += 1
            ledger.waiting[number] = argument
            ledger.take(table.send(argument, number, ME, now_ns))
        elif kind == "forget":
            ledger.take(table.forget(argument))
        elif kind == "wait":
            end_ns = now_ns + argument
            while (at_ns := table.next_wakeup_ns) is not None and at_ns <= end_ns:
                assert at_ns > now_ns
                now_ns = at_ns
                ledger.take(table.timer(now_ns))
            now_ns = end_ns
        else:
            assert len(step) == 3
            packet, to_us = heard(kind, argument, step[2])
            if packet.sender:
                ledger.told.setdefault(packet.sender, set()).add(packet.sender_mac)
                if kind == "reply":
                    ledger.answered[packet.sender] = (packet.sender_mac, now_ns)
            ledger.take(table.heard(packet, to_us, now_ns))
        expect_sound(table, ledger, now_ns)
    for _ in range(4):  # questions without answers come to an end, and with them all waiting
        if (at_ns := table.next_wakeup_ns) is not None:
            now_ns = max(now_ns, at_ns)
        ledger.take(table.timer(now_ns := now_ns + SECOND))
    assert (ledger.waiting, table.next_wakeup_ns) == ({}, None)


def expect_sound(table: NeighbourTable[int], ledger: Ledger, now_ns: int) -> None:
    """What the table says agrees with what was done to it."""
    found = {entry.address: entry for entry in table.neighbours(now_ns)}
    assert len(found) == len(table) <= LIMIT
    for address, entry in found.items():
        waiting = sum(other == address for other in ledger.waiting.values())
        assert waiting <= MAX_WAITING
        assert (entry.mac is None) == (entry.state in (NeighbourState.INCOMPLETE, NeighbourState.FAILED))
        if entry.state is NeighbourState.INCOMPLETE:
            assert waiting
            assert table.next_wakeup_ns is not None
        else:
            assert not waiting
        if entry.state is NeighbourState.REACHABLE:
            assert address in ledger.asked
            assert ledger.answered[address][1] >= now_ns - REACHABLE_NS
        assert table.lookup(address, now_ns) == (entry.mac if entry.state is NeighbourState.REACHABLE else None)
    assert all(address in found for address in ledger.waiting.values())
