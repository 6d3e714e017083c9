"""The neighbour table: its states, its questions, what strangers cannot do to it, its bounds."""

from __future__ import annotations

from lamina_net.ip.neighbours import (
    LOCK_NS,
    MAX_WAITING,
    MAX_WAITING_TOTAL,
    REACHABLE_NS,
    SECOND,
    Neighbour,
    NeighbourState,
    NeighbourTable,
    Outcome,
    Question,
)
from lamina_net.packets import arp
from lamina_net.packets.address import BROADCAST_MAC
from lamina_net.packets.arp import ArpPacket

ME, PEER, OTHER = 0x0A000001, 0x0A000002, 0x0A000003
MY_MAC, PEER_MAC, EVIL_MAC = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 0xEE))

Table = NeighbourTable[str]


def reply(mac: bytes = PEER_MAC, sender: int = PEER) -> ArpPacket:
    """Return an answer to us."""
    return ArpPacket(arp.REPLY, mac, sender, MY_MAC, ME)


def question(mac: bytes = PEER_MAC, sender: int = PEER, target: int = ME) -> ArpPacket:
    """Return a question of a peer."""
    return ArpPacket(arp.REQUEST, mac, sender, bytes(6), target)


def only(table: Table, now_ns: int) -> Neighbour:
    """Return the only entry of a table."""
    (found,) = table.neighbours(now_ns)
    return found


def reachable_table() -> Table:
    """Return a table whose peer answered at 0."""
    table = Table()
    table.send(PEER, "first", ME, 0)
    assert table.heard(reply(), True, 0).ready == [(PEER_MAC, "first")]
    return table


def test_a_packet_waits_for_the_answer() -> None:
    """The first packet asks everybody, later ones wait silently, and all go in their order when the peer answers."""
    table = Table()
    assert table.send(PEER, "one", ME, 5) == Outcome([Question(PEER, ME, BROADCAST_MAC)])
    assert table.send(PEER, "two", ME, 6) == Outcome()
    assert only(table, 6) == Neighbour(PEER, None, NeighbourState.INCOMPLETE, 0)
    assert table.heard(reply(), True, 7) == Outcome(ready=[(PEER_MAC, "one"), (PEER_MAC, "two")])
    assert only(table, 9) == Neighbour(PEER, PEER_MAC, NeighbourState.REACHABLE, 2)
    assert (table.lookup(PEER, 9), table.next_wakeup_ns) == (PEER_MAC, None)
    assert table.send(PEER, "three", ME, 9) == Outcome(ready=[(PEER_MAC, "three")])


def test_three_questions_without_an_answer() -> None:
    """It is asked at 0, 1 and 2 s; at 3 s it has failed and what waited cannot go. The next packet asks anew."""
    table = Table()
    table.send(PEER, "lost", ME, 0)
    for second in (1, 2):
        assert table.next_wakeup_ns == second * SECOND
        assert table.timer(second * SECOND - 1) == Outcome()
        assert table.timer(second * SECOND) == Outcome([Question(PEER, ME, BROADCAST_MAC)])
    assert table.timer(3 * SECOND) == Outcome(unreachable=["lost"])
    assert only(table, 3 * SECOND).state is NeighbourState.FAILED
    assert table.next_wakeup_ns is None
    assert table.send(PEER, "again", ME, 4 * SECOND).questions == [Question(PEER, ME, BROADCAST_MAC)]


def test_a_stale_neighbour_is_used_and_asked() -> None:
    """After 30 s the packet goes, and a question to the neighbour's own address with it."""
    table = reachable_table()
    assert only(table, REACHABLE_NS - 1).state is NeighbourState.REACHABLE
    assert only(table, REACHABLE_NS) == Neighbour(PEER, PEER_MAC, NeighbourState.STALE, REACHABLE_NS)
    assert table.lookup(PEER, REACHABLE_NS) is None
    outcome = table.send(PEER, "x", ME, REACHABLE_NS)
    assert outcome == Outcome([Question(PEER, ME, PEER_MAC)], [(PEER_MAC, "x")])
    assert table.send(PEER, "y", ME, REACHABLE_NS) == Outcome(ready=[(PEER_MAC, "y")])
    table.heard(reply(), True, REACHABLE_NS + 1)
    assert only(table, REACHABLE_NS + 1).state is NeighbourState.REACHABLE


def test_a_stale_neighbour_that_is_gone_fails() -> None:
    """Three questions to its own address without an answer, and it is asked for by everybody the next time."""
    table = reachable_table()
    table.send(PEER, "x", ME, REACHABLE_NS)
    for second in (1, 2):
        assert table.timer(REACHABLE_NS + second * SECOND).questions == [Question(PEER, ME, PEER_MAC)]
    table.timer(REACHABLE_NS + 3 * SECOND)
    assert only(table, REACHABLE_NS + 3 * SECOND).state is NeighbourState.FAILED
    assert table.send(PEER, "y", ME, REACHABLE_NS + 3 * SECOND).questions == [Question(PEER, ME, BROADCAST_MAC)]


def test_who_asks_us_is_known_but_not_confirmed() -> None:
    """A question to us makes a stale entry, so that the answer can go; questions to others and probes make none."""
    table = Table()
    table.heard(question(target=OTHER), False, 0)
    table.heard(question(sender=0), True, 0)
    assert len(table) == 0
    table.heard(question(), True, 0)
    assert only(table, 0) == Neighbour(PEER, PEER_MAC, NeighbourState.STALE, 0)


def test_nobody_gets_an_entry_unasked() -> None:
    """Replies and announcements that nobody asked for make no entries."""
    table = Table()
    table.heard(reply(), True, 0)
    table.heard(question(target=PEER), False, 0)
    assert len(table) == 0


def test_an_answer_keeps_its_place_for_a_second() -> None:
    """Whoever else claims a neighbour's address right after it answered is not believed."""
    table = reachable_table()
    table.heard(reply(EVIL_MAC), True, LOCK_NS - 1)
    assert table.lookup(PEER, LOCK_NS) == PEER_MAC


def test_a_neighbour_may_change_its_mac_address() -> None:
    """An announcement changes an entry that is there; the new address is used, and has to be confirmed."""
    table = reachable_table()
    table.heard(question(EVIL_MAC, PEER, PEER), False, LOCK_NS)
    assert only(table, LOCK_NS) == Neighbour(PEER, EVIL_MAC, NeighbourState.STALE, 0)
    outcome = table.send(PEER, "x", ME, LOCK_NS)
    assert outcome == Outcome([Question(PEER, ME, EVIL_MAC)], [(EVIL_MAC, "x")])


def test_whatever_tells_the_address_releases_what_waits() -> None:
    """A question of the very neighbour that we ask for is as good as its answer, though no confirmation."""
    table = Table()
    table.send(PEER, "x", ME, 0)
    assert table.heard(question(target=OTHER), False, 1).ready == [(PEER_MAC, "x")]
    assert only(table, 1).state is NeighbourState.STALE
    assert table.next_wakeup_ns is None


def test_sixteen_packets_wait() -> None:
    """Of more packets for one neighbour the oldest cannot go."""
    table = Table()
    lost = [name for n in range(MAX_WAITING + 2) for name in table.send(PEER, str(n), ME, 0).unreachable]
    assert lost == ["0", "1"]
    assert [name for _, name in table.heard(reply(), True, 0).ready] == [str(n) for n in range(2, MAX_WAITING + 2)]


def test_packets_that_wait_are_bounded_in_all() -> None:
    """However many neighbours are asked for, no more than 256 packets wait; the count goes down with them."""
    table = Table(limit=10_000)
    lost = [name for n in range(MAX_WAITING_TOTAL + 5) for name in table.send(1000 + n, str(n), ME, 0).unreachable]
    assert lost == [str(MAX_WAITING_TOTAL + n) for n in range(5)]
    for second in (1, 2, 3):
        outcome = table.timer(second * SECOND)
    assert len(outcome.unreachable) == MAX_WAITING_TOTAL
    assert table.send(PEER, "room again", ME, 4 * SECOND).unreachable == []


def test_forgotten_neighbours_let_their_packets_go() -> None:
    """Removing an entry tells what waited for it."""
    table = Table()
    table.send(PEER, "x", ME, 0)
    assert table.forget(PEER) == Outcome(unreachable=["x"])
    assert (len(table), table.next_wakeup_ns, table.forget(PEER)) == (0, None, Outcome())


def test_a_storm_of_strangers_pushes_no_neighbour_out() -> None:
    """100,000 senders that ask us fill the table to its bound; who answered within 30 s stays."""
    table = Table(limit=256)
    table.send(PEER, "x", ME, 0)
    table.heard(reply(), True, 0)
    for n in range(100_000):
        table.heard(question(EVIL_MAC, 0x0B000000 + n), True, 1 + n)
    assert len(table) == 256
    assert table.lookup(PEER, 100_000) == PEER_MAC


def test_a_scan_of_dead_addresses_is_bounded() -> None:
    """Asking for 20,000 addresses keeps the bound, gives up the oldest questions, and keeps who answered."""
    table = Table(limit=256)
    table.send(PEER, "x", ME, 0)
    table.heard(reply(), True, 0)
    lost = sum(len(table.send(0x0B000000 + n, str(n), ME, 1).unreachable) for n in range(20_000))
    assert (len(table), lost) == (256, 20_000 - 255)
    assert table.lookup(PEER, 2) == PEER_MAC


def test_a_table_full_of_neighbours_refuses_more() -> None:
    """When all answer, a further one cannot be asked for; after they have grown stale it can."""
    table = Table(limit=4)
    for n in range(4):
        table.send(100 + n, "x", ME, 0)
        table.heard(reply(sender=100 + n), True, 0)
    assert table.send(PEER, "y", ME, 1).unreachable == ["y"]
    assert table.send(PEER, "y", ME, REACHABLE_NS).unreachable == []
    assert len(table) == 4
