"""Teaming on every engine that has it: which uplink a frame takes, what counts at which uplink, who takes over."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.vswitch.conftest import SWITCH

from lamina_vswitch.domain.frames.rarp import announcement
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.uplink.teaming import Balancing, Team

BROADCAST = b"\xff" * 6
U1, U2, U3 = 11, 12, 13


def mac(number: int) -> bytes:
    """Return the address of a station."""
    return b"\x02\0\0\0\0" + bytes((number,))


def frame(dst: bytes, src: bytes, vlan: int = 0, body: bytes = b"\x88\xb5") -> bytes:
    """Return a frame of the least length, tagged when it has a VLAN."""
    tag = b"\x81\0" + vlan.to_bytes(2, "big") if vlan else b""
    return dst + src + tag + body.ljust(48, b"\0")


def udp(src: bytes, dst: bytes, port: int) -> bytes:
    """Return a UDP datagram from a port, without a sum."""
    ip = bytes.fromhex("4500001c00000000401100000a0000010a000002")
    return dst + src + b"\x08\x00" + ip + port.to_bytes(2, "big") + b"\0\x09\0\x08\0\0"


class Teamed:
    """Ports 1 to `guests` and uplinks in one switch."""

    def __init__(self, bench: Any, team: Team, *, guests: int = 8, vlan: int = 0) -> None:
        self.b = bench()
        if "teaming" not in self.b.engine.capabilities:
            pytest.skip("the engine has no uplinks")
        for slot in range(1, guests + 1):
            self.b.port(slot, vlan)
        for slot in (U1, U2, U3):
            self.b.port(slot)
            self.b.engine.set_policy(slot, 0, PolicyInForce(trunk=Trunk()), 0)
            self.b.engine.set_uplink(slot, True, 0)
        self.set(team)
        self.guests = tuple(range(1, guests + 1))

    def set(self, team: Team) -> None:
        """Share the uplinks in another way."""
        self.b.engine.set_teams(SWITCH, {"": team}, 0)

    def way(self, slot: int, sent: bytes) -> int:
        """Return the one uplink through which a frame leaves; it is there once."""
        came = {port: frames for port, frames in self.b.reached(slot, sent).items() if port in (U1, U2, U3)}
        ((uplink, frames),) = came.items()
        assert len(frames) == 1
        return int(uplink)

    def used(self) -> tuple[int, ...]:
        """Return which uplinks are in use."""
        found: tuple[int, ...] = self.b.engine.used_uplinks(SWITCH, "")
        return found


BOTH = Team(active=(U1, U2))


def test_frames_of_a_port_take_one_uplink(bench: Any) -> None:
    """PORT: whatever a port sends leaves through one uplink, once; ports are spread; guests hear it as ever."""
    t = Teamed(bench, BOTH)
    ways = {}
    for slot in t.guests:
        ways[slot] = t.way(slot, frame(BROADCAST, mac(slot)))
        assert all(t.way(slot, frame(dst, mac(slot))) == ways[slot] for dst in (mac(200), b"\x01\0\x5e\0\0\1"))
    assert {*ways.values()} == {U1, U2}
    assert {*t.b.reached(1, frame(BROADCAST, mac(1)))} == {2, 3, 4, 5, 6, 7, 8, ways[1]}


def test_a_source_takes_one_uplink(bench: Any) -> None:
    """SOURCE_MAC: two stations behind one port may take two uplinks, each always the same."""
    t = Teamed(bench, Team(Balancing.SOURCE_MAC, (U1, U2)))
    ways = [t.way(1, frame(BROADCAST, mac(number))) for number in range(16)]
    assert {*ways} == {U1, U2} and ways == [t.way(1, frame(mac(99), mac(number))) for number in range(16)]
    assert t.way(2, frame(BROADCAST, mac(3))) == ways[3]


def test_a_flow_takes_one_uplink(bench: Any) -> None:
    """FLOW: datagrams of one port of UDP take one uplink, also to a known station; ports are spread."""
    t = Teamed(bench, Team(Balancing.FLOW, (U1, U2)))
    t.b.reached(U1, frame(BROADCAST, mac(99)))
    ways = [t.way(1, udp(mac(1), mac(99), port)) for port in range(16)]
    assert {*ways} == {U1, U2} and ways == [t.way(1, udp(mac(1), mac(99), port)) for port in range(16)]
    batch = [udp(mac(1), mac(99), port) for port in range(16)]
    t.b.engine.transmit(1, batch, 0)
    assert [t.b.sinks[U1].take(), t.b.sinks[U2].take()] == [
        [sent for sent, way in zip(batch, ways, strict=True) if way == uplink] for uplink in (U1, U2)
    ]


def test_the_standby_takes_over_and_gives_back(bench: Any) -> None:
    """FAILOVER: the first that is up takes all; the standby one while none is; and back, unless told otherwise."""
    t = Teamed(bench, Team(Balancing.FAILOVER, (U1, U2), (U3,)))
    assert (t.used(), {t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests}) == ((U1,), {U1})
    t.b.engine.set_link(U1, False, 0)
    assert (t.used(), t.way(1, frame(BROADCAST, mac(1)))) == ((U2,), U2)
    t.b.engine.break_link(U2, True, 0)
    assert (t.used(), t.way(1, frame(BROADCAST, mac(1)))) == ((U3,), U3)
    t.b.engine.detach(U3, t.b.sinks[U3], 0)
    assert t.used() == ()
    assert {*t.b.reached(1, frame(BROADCAST, mac(1)))} == {2, 3, 4, 5, 6, 7, 8}
    t.b.engine.set_link(U1, True, 0)
    assert t.used() == (U1,)
    t.set(Team(Balancing.FAILOVER, (U1, U2), (U3,), no_failback=True))
    t.b.engine.break_link(U2, False, 0)
    t.b.engine.set_link(U1, False, 0)
    t.b.engine.set_link(U1, True, 0)
    assert (t.used(), t.way(1, frame(BROADCAST, mac(1)))) == ((U2,), U2)


def test_a_standby_uplink_fills_a_place(bench: Any) -> None:
    """With two active uplinks, one of which is down, the standby one joins the other; only the lost ports move."""
    t = Teamed(bench, Team(active=(U1, U2), standby=(U3,)))
    before = {slot: t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests}
    t.b.engine.set_link(U2, False, 0)
    assert t.used() == (U1, U3)
    after = {slot: t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests}
    assert U3 in after.values()
    t.b.engine.set_link(U2, True, 0)
    assert {slot: t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests} == before


def test_standby_uplinks_alone_take_nobodys_place(bench: Any) -> None:
    """With no active uplink listed none is used, and what is for the outside goes to guests alone."""
    t = Teamed(bench, Team(standby=(U1, U2)), guests=2)
    assert t.used() == ()
    assert {*t.b.reached(1, frame(BROADCAST, mac(1)))} == {2}


def test_a_flood_from_outside_counts_once(bench: Any) -> None:
    """What a physical switch floods to both links reaches each guest once; a link that nobody uses counts nothing."""
    t = Teamed(bench, BOTH)
    ways = {slot: t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests}
    for dst in (BROADCAST, mac(222)):
        for uplink in (U1, U2):
            heard = t.b.reached(uplink, frame(dst, mac(99)))
            assert {*heard} == {slot for slot in t.guests if ways[slot] == uplink}
    before = t.b.table()
    assert t.b.reached(U3, frame(BROADCAST, mac(98))) == {} == t.b.reached(U3, frame(mac(222), mac(98)))
    assert (t.b.drops(U3), t.b.table()) == ({"TEAMING_STANDBY": 2}, before)
    traced = t.b.engine.trace(U3, frame(BROADCAST, mac(98)), 0)
    assert [step.rule for step in traced.steps][-2:] == ["teaming.standby", "output.drop_teaming_standby"]
    assert t.b.reached(U3, frame(mac(1), mac(98))) == {1: [frame(mac(1), mac(98))]}


def test_a_frame_that_comes_back_moves_nobody(bench: Any) -> None:
    """A guest's broadcast that returns over the other link is dropped, and the guest stays known where it is."""
    t = Teamed(bench, BOTH)
    out = t.way(1, frame(BROADCAST, mac(1)))
    other = U2 if out == U1 else U1
    assert t.b.reached(other, frame(BROADCAST, mac(1))) == {}
    assert t.b.drops(other) == {"TEAMING_STANDBY": 1} and (0, mac(1), 1) in t.b.table()
    t.b.reached(out, frame(BROADCAST, mac(1)))
    assert (0, mac(1), out) in t.b.table(), "a guest that went to another host speaks where its frames count"


def test_a_guest_that_went_to_another_host_is_heard(bench: Any) -> None:
    """With SOURCE_MAC a guest speaks where nobody may hear floods; from there its announcement still moves it."""
    t = Teamed(bench, Team(Balancing.SOURCE_MAC, (U1, U2)), guests=1)
    (hears,) = (uplink for uplink in (U1, U2) if t.b.reached(uplink, frame(BROADCAST, mac(99))))
    ways = {number: t.way(1, frame(BROADCAST, mac(number))) for number in range(16)}
    gone, speaks = next((number, way) for number, way in ways.items() if way != hears)
    for uplink in (hears, speaks):
        t.b.reached(uplink, frame(BROADCAST, mac(gone)))
    assert (0, mac(gone), speaks) in t.b.table()


def test_nothing_passes_from_uplink_to_uplink(bench: Any) -> None:
    """Floods of an uplink stay inside; what is for a station behind another uplink is dropped; it stays where it is."""
    t = Teamed(bench, Team(Balancing.FLOW, (U1, U2)))
    assert {*t.b.reached(U1, frame(BROADCAST, mac(99)))} == {*t.guests}
    assert t.b.reached(U2, frame(mac(99), mac(98))) == {} and t.b.drops(U2) == {"SAME_PORT": 1}
    assert t.b.reached(U1, frame(mac(98), mac(97))) == {} and t.b.drops(U1) == {"SAME_PORT": 1}
    t.b.reached(U2, frame(BROADCAST, mac(99)))
    if "steady-uplinks" in t.b.engine.capabilities:
        assert (0, mac(99), U1) in t.b.table()


def test_isolated_ports_hear_uplinks(bench: Any) -> None:
    """Isolation is among guests: each of them reaches the outside and hears it."""
    t = Teamed(bench, Team(active=(U1,)), guests=2)
    for slot in t.guests:
        t.b.engine.set_policy(slot, 0, PolicyInForce(isolated=True), 0)
    assert {*t.b.reached(1, frame(BROADCAST, mac(1)))} == {U1}
    assert {*t.b.reached(U1, frame(BROADCAST, mac(99)))} == {1, 2}
    assert {*t.b.reached(2, frame(mac(99), mac(2)))} == {U1}


def test_who_hears_everything_hears_every_uplink(bench: Any) -> None:
    """Floods come to all links, so they count at one; what is for a known station comes once, wherever it may be."""
    t = Teamed(bench, BOTH, guests=2)
    t.b.engine.set_policy(2, 0, PolicyInForce(security=Security(promiscuous=True)), 0)
    t.way(1, frame(BROADCAST, mac(1)))
    for uplink in (U1, U2):
        assert {*t.b.reached(uplink, frame(mac(1), mac(99)))} == {1, 2}
    heard = [2 in t.b.reached(uplink, frame(BROADCAST, mac(99))) for uplink in (U1, U2)]
    outside = [2 in t.b.reached(uplink, frame(mac(99), mac(98))) for uplink in (U1, U2)]
    assert sorted(heard) == sorted(outside) == [False, True]
    assert {*t.b.reached(1, frame(mac(99), mac(1)))} == {2, t.way(1, frame(mac(99), mac(1)))}


def test_vlans_of_uplinks(bench: Any) -> None:
    """A guest's VLAN is tagged outside and untagged inside; uplinks without it are no way out of it."""
    t = Teamed(bench, BOTH, guests=2, vlan=5)
    t.b.engine.set_policy(U1, 0, PolicyInForce(trunk=Trunk(((6, 7),))), 0)
    assert t.b.reached(1, frame(BROADCAST, mac(1)))[U2] == [frame(BROADCAST, mac(1), 5)]
    came = frame(BROADCAST, mac(99), 5)
    assert t.b.reached(U2, came) == {slot: [came[:12] + came[16:]] for slot in (1, 2)}
    t.b.engine.set_policy(U2, 5, PolicyInForce(trunk=Trunk(native=5)), 0)
    assert t.b.reached(1, frame(BROADCAST, mac(1)))[U2] == [frame(BROADCAST, mac(1))]
    steps = [(step.stage, step.rule) for step in t.b.engine.trace(1, frame(BROADCAST, mac(1)), 0).steps]
    assert ("teaming", "teaming.port") in steps


def test_moves_are_announced(bench: Any) -> None:
    """Each address that leaves through another uplink is told there by a reverse ARP request, and only those."""
    t = Teamed(bench, Team(active=(U1, U2), announce=True))
    ways = {slot: t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests}
    t.b.engine.set_link(U1, False, 0)
    moved = [announcement(mac(slot)) for slot in t.guests if ways[slot] == U1]
    assert moved and t.b.sinks[U2].take() == moved
    t.b.engine.set_link(U1, True, 0)
    assert (t.b.sinks[U1].take(), t.b.sinks[U2].take()) == (moved, [])
    assert [each.rule for each in t.b.notices if each.event == "teaming.changed"][-2:] == ["teaming.used"] * 2


def test_a_change_of_teaming_announces_what_it_moves(bench: Any) -> None:
    """Another balancing, or a group's first policy: told are the addresses that leave elsewhere now, and only those."""
    t = Teamed(bench, Team(active=(U1, U2), announce=True))

    def ways() -> dict[int, int]:
        return {slot: t.way(slot, frame(BROADCAST, mac(slot))) for slot in t.guests}

    def told() -> dict[int, list[bytes]]:
        return {uplink: t.b.sinks[uplink].take() for uplink in (U1, U2, U3)}

    def moved(before: dict[int, int], after: dict[int, int]) -> dict[int, list[bytes]]:
        return {
            uplink: [announcement(mac(slot)) for slot in t.guests if after[slot] == uplink != before[slot]]
            for uplink in (U1, U2, U3)
        }

    by_port = ways()
    t.set(Team(Balancing.SOURCE_MAC, (U1, U2), announce=True))
    heard, by_source = told(), ways()
    assert heard == moved(by_port, by_source) and by_port != by_source
    for slot in t.guests:
        t.b.engine.join_team(slot, "g")
    t.b.engine.set_teams(SWITCH, {"": Team(Balancing.SOURCE_MAC, (U1, U2)), "g": Team(active=(U1,), announce=True)}, 0)
    assert told() == moved(by_source, ways())


@pytest.mark.parametrize("ending", ["reopened", "released"])
def test_every_change_of_links_is_told(bench: Any, ending: str) -> None:
    """Uplinks that are opened again, and wires that hold and let go, shift teams too: told, and announced, at once."""
    t = Teamed(bench, Team(Balancing.FAILOVER, (U1, U2), announce=True), guests=1)
    t.way(1, frame(BROADCAST, mac(1)))
    if ending == "reopened":
        guarded = Security(mac_limit=1, shut_at_mac_limit=True)
        t.b.engine.set_policy(U1, 0, PolicyInForce(trunk=Trunk(), security=guarded), 0)
        t.b.engine.transmit(U1, [frame(BROADCAST, mac(98)), frame(BROADCAST, mac(99))], 0)
    else:
        t.b.engine.detach(U1, t.b.sinks[U1], 0)
    assert (t.used(), t.b.sinks[U2].take()) == ((U2,), [announcement(mac(1))])
    t.b.notices.clear()
    if ending == "reopened":
        t.b.engine.reopen(U1, 0)
        assert (t.used(), t.b.sinks[U1].take()) == ((U1,), [announcement(mac(1))])
    else:
        t.b.engine.quiesce(U1, 10, 0)
        assert t.used() == (U1,)
        t.b.engine.release(U1, 0)
        assert (t.used(), t.b.sinks[U2].take()) == ((U2,), [announcement(mac(1))])
    told = [each.event for each in t.b.notices if each.event == "teaming.changed"]
    assert len(told) == (1 if ending == "reopened" else 2)


def test_uplinks_get_no_probes_and_groups_have_teams(bench: Any) -> None:
    """A port that joined a team takes that one's uplink; others take the default one's."""
    t = Teamed(bench, Team(active=(U1,)))
    t.b.engine.set_teams(SWITCH, {"": Team(active=(U1,)), "g": Team(active=(U2,))}, 0)
    t.b.engine.join_team(2, "g")
    assert [t.way(slot, frame(BROADCAST, mac(slot))) for slot in (1, 2)] == [U1, U2]
    assert {*t.b.reached(U2, frame(BROADCAST, mac(99)))} == {2}
    assert {*t.b.reached(U1, frame(BROADCAST, mac(99)))} == {1, 3, 4, 5, 6, 7, 8}
