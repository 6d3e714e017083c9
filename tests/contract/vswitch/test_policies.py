"""What an engine owes to policies: trunks, security, isolation; each drop under its reason, foretold by the trace."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter

SECOND_NS = 1_000_000_000
A, B, C = (bytes([2, 0, 0, 0, 0, number]) for number in (10, 11, 12))
ALL = b"\xff" * 6
BODY = b"\x08\x00" + bytes(46)


def tag(vlan: int, kind: int = 0x8100, priority: int = 0) -> bytes:
    """Return four bytes of tag."""
    return kind.to_bytes(2, "big") + (priority << 13 | vlan).to_bytes(2, "big")


def frame(dst: bytes, src: bytes, tags: bytes = b"", body: bytes = BODY) -> bytes:
    """Return a frame."""
    return dst + src + tags + body


def let(made: Any, slot: int, vlan: int = 0, now_ns: int = 0, **parts: Any) -> None:
    """Let a policy hold for a port."""
    made.engine.set_policy(slot, vlan, PolicyInForce(**parts), now_ns)


@pytest.fixture(autouse=True)
def capable(bench: Any) -> None:
    """Skips engines that have no policies."""
    if "policies" not in bench().engine.capabilities:
        pytest.skip("the engine has no policies")


def test_a_trunk_keeps_tags_and_takes_its_native_vlan_untagged(bench: Any) -> None:
    """Frames leave each port in its own form, and come in by their tags; the priority of a tag stays."""
    made = bench()
    made.port(1, 10)
    made.port(2, 20)
    made.port(3)
    made.port(4)
    let(made, 3, 20, trunk=Trunk(((10, 20),), 20))
    let(made, 4, 0, trunk=Trunk())
    assert made.reached(1, frame(ALL, A)) == {3: [frame(ALL, A, tag(10))], 4: [frame(ALL, A, tag(10))]}
    assert made.reached(2, frame(ALL, B)) == {3: [frame(ALL, B)], 4: [frame(ALL, B, tag(20))]}
    back = frame(A, C, tag(10, priority=5))
    assert made.reached(4, back) == {1: [frame(A, C)]}
    assert made.reached(1, frame(C, A)) == {4: [frame(C, A, tag(10))]}
    assert made.reached(4, frame(ALL, C, tag(10, priority=5))) == {
        1: [frame(ALL, C)],
        3: [frame(ALL, C, tag(10, priority=5))],
    }
    assert made.reached(3, frame(B, C)) == {2: [frame(B, C)]}
    assert made.reached(3, frame(B, C, tag(0, priority=3))) == {2: [frame(B, C)]}


def test_a_trunk_refuses_what_it_does_not_carry(bench: Any) -> None:
    """VLANs outside the ranges, VLAN 4095 and provider tags do not come in, nor does VLAN 0 beside a native one."""
    made = bench()
    made.port(1, 30)
    made.port(2)
    made.port(3, 0)
    let(made, 2, 10, trunk=Trunk(((10, 20), (25, 25)), 10))
    for refused in (tag(30), tag(4095), tag(10, 0x88A8), tag(0, 0x88A8)):
        assert made.reached(2, frame(ALL, A, refused)) == {}
    assert made.drops(2) == {"VLAN_MISMATCH": 4}
    assert made.reached(1, frame(ALL, A)) == {} == made.reached(3, frame(ALL, B))
    assert made.drops(1) == made.drops(3) == {"NO_DESTINATION": 1}


def test_provider_tags_pass_by_the_outer_one(bench: Any) -> None:
    """With provider tags, a frame is in the VLAN of its 802.1ad tag; the inner one is payload to the end."""
    made = bench(mtu_bytes=1500)
    made.port(1)
    made.port(2)
    made.port(3, 7)
    made.port(4)
    let(made, 1, 7, trunk=Trunk((), 7, provider_tags=True))
    let(made, 2, 0, trunk=Trunk((), 0, provider_tags=True))
    let(made, 4, 0, trunk=Trunk())
    double = frame(ALL, A, tag(7, 0x88A8) + tag(99), b"\x08\x00" + bytes(1500))
    assert made.reached(2, double) == {1: [double], 3: [frame(ALL, A, tag(99), b"\x08\x00" + bytes(1500))]}
    assert made.table() == [(7, A, 2)]
    assert made.reached(1, double + b"\0") == {}
    assert made.reached(1, double[:17]) == {}
    assert made.drops(1) == {"OVERSIZE": 1, "VLAN_TRUNCATED": 1}


def test_isolated_ports_hear_others_but_not_each_other(bench: Any) -> None:
    """Between isolated ports nothing passes, known or flooded; everybody else is reached."""
    made = bench()
    for slot in (1, 2, 3):
        made.port(slot)
    for slot in (1, 2):
        let(made, slot, isolated=True)
    assert list(made.reached(1, frame(ALL, A))) == [3]
    assert list(made.reached(3, frame(ALL, C))) == [1, 2]
    assert list(made.reached(2, frame(ALL, B))) == [3]
    told = made.engine.trace(1, frame(B, A), 0)
    assert (told.steps[-1].rule, made.reached(1, frame(B, A))) == ("output.drop_isolated", {})
    assert list(made.reached(1, frame(C, A))) == [3]
    made.engine.set_link(3, False, 0)
    assert made.reached(1, frame(ALL, A)) == {}
    assert made.drops(1) == {"ISOLATED": 2}


def test_a_promiscuous_port_hears_everything_of_its_vlan(bench: Any) -> None:
    """Also what is between two known stations, in long batches as in single frames, and what would have gone back."""
    made = bench()
    for slot in (1, 2, 3, 4):
        made.port(slot, 9 if slot < 4 else 8)
    made.reached(1, frame(ALL, A))
    made.reached(2, frame(A, B))
    assert list(made.reached(1, frame(B, A))) == [2]
    let(made, 3, 9, security=Security(promiscuous=True))
    let(made, 4, 8, security=Security(promiscuous=True))
    assert list(made.reached(1, frame(B, A))) == [2, 3]
    made.engine.transmit(1, [frame(B, A)] * 5, 0)
    assert [len(made.sinks[slot].take()) for slot in (2, 3, 4)] == [5, 5, 0]
    made.reached(1, frame(ALL, C))
    assert list(made.reached(1, frame(C, A))) == [3]
    assert made.drops(1) == {}


def test_forged_sources_are_dropped(bench: Any) -> None:
    """Only the address that the port was given, that its device told, or that it used first may send."""
    made = bench()
    made.port(1)
    made.port(2)
    let(made, 1, security=Security(reject_forged_transmits=True))
    assert list(made.reached(1, frame(ALL, A))) == [2]
    assert made.reached(1, frame(ALL, B)) == {}
    let(made, 1, security=Security(reject_forged_transmits=True), mac=B)
    assert made.reached(1, frame(ALL, A)) == {}
    assert list(made.reached(1, frame(ALL, B))) == [2]
    made.engine.listen(1, ReceiveFilter(C))
    assert made.reached(1, frame(ALL, B)) == {}
    told = made.engine.trace(1, frame(ALL, B), 0)
    assert "is not 02:00:00:00:00:0c" in told.steps[-2].detail
    assert list(made.reached(1, frame(ALL, C))) == [2]
    assert made.drops(1) == {"FORGED_TRANSMIT": 3}


def test_a_device_with_a_changed_address_gets_nothing(bench: Any) -> None:
    """It is stopped at its own port, copy by copy, until it changes back."""
    made = bench()
    made.port(1)
    made.port(2)
    let(made, 2, security=Security(reject_mac_changes=True), mac=B)
    made.engine.listen(2, ReceiveFilter(C))
    told = made.engine.trace(1, frame(ALL, A), 0)
    assert (told.decision.drop.name, told.outputs, told.steps[-1].rule) == (
        "MAC_CHANGED",
        (),
        "output.drop_mac_changed",
    )
    assert made.reached(1, frame(ALL, A)) == {}
    assert (made.drops(1), made.drops(2)) == ({}, {"MAC_CHANGED": 1})
    made.engine.listen(2, ReceiveFilter(B))
    assert list(made.reached(1, frame(ALL, A))) == [2]


def test_the_limit_of_addresses_drops_or_shuts(bench: Any) -> None:
    """A further address is dropped while the others live; where that shuts the port, all of them are forgotten."""
    made = bench(ageing_seconds=2)
    made.needs("given-time")
    made.port(1)
    made.port(2)
    let(made, 1, security=Security(mac_limit=2))
    for source in (A, B, A):
        assert list(made.reached(1, frame(ALL, source))) == [2]
    assert made.reached(1, frame(ALL, C), SECOND_NS) == {}
    assert list(made.reached(1, frame(ALL, C), 2 * SECOND_NS)) == [2]
    assert made.drops(1) == {"MAC_LIMIT": 1}
    let(made, 1, security=Security(mac_limit=1, shut_at_mac_limit=True), now_ns=2 * SECOND_NS)
    made.engine.transmit(1, [frame(ALL, C), frame(ALL, A), frame(ALL, C)], 2 * SECOND_NS)
    assert made.drops(1) == {"MAC_LIMIT": 2, "PORT_SHUT": 1}
    assert (made.engine.shut(1).reason.name, made.table(2 * SECOND_NS)) == ("MAC_LIMIT", [])
    made.sinks[2].take()
    assert made.reached(2, frame(ALL, B), 2 * SECOND_NS) == {}
    assert "more addresses" in made.engine.trace(1, frame(ALL, C), 2 * SECOND_NS).steps[0].detail
    assert made.engine.reopen(1, 2 * SECOND_NS).reason.name == "MAC_LIMIT"
    assert made.engine.reopen(1, 2 * SECOND_NS) is None
    assert list(made.reached(1, frame(ALL, C), 2 * SECOND_NS)) == [2]
    assert [n.event for n in made.notices if n.event.startswith("port.")] == ["port.shut", "port.reopened"]


def test_a_vlan_that_a_port_leaves_is_forgotten(bench: Any) -> None:
    """Entries of VLANs that a trunk still carries stay, the others go."""
    made = bench()
    made.port(1)
    made.port(2)
    let(made, 1, trunk=Trunk(((10, 20),)))
    for vlan in (10, 15, 20):
        made.reached(1, frame(ALL, A, tag(vlan)))
    let(made, 1, trunk=Trunk(((14, 16),)))
    assert made.table() == [(15, A, 1)]
    let(made, 1)
    assert made.table() == []
