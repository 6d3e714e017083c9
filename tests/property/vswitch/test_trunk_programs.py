"""The kernel's programs for tags beside the rules of the switch: any frame, from any port to any other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.property.vswitch.bpf_machine import CUSTOMER, PROVIDER, Machine, Packet

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.switch.admission import Admission, admit
from lamina_vswitch.domain.switch.tagging import form_at, in_form
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.ebpf.assembler import assemble
from lamina_vswitch.engines.linux.bpf.access import GO_ON, closed_gate, detour_gate, returner, stripper
from lamina_vswitch.engines.linux.bpf.trunk import DROP, PASS, REASON_AT, VLANS, joiner, labeller, splitter, tags_of

LEGS, REFUSED, COUNTS = 5, 6, 7
VLAN_NUMBERS = st.sampled_from([0, 7, 10, 11, 20])
"""VLANs that meet often."""
TAGS = st.lists(
    st.tuples(st.sampled_from([CUSTOMER, PROVIDER]), st.integers(0, 15), VLAN_NUMBERS | st.integers(0, 4095)),
    max_size=2,
)
HEAD, BODY = bytes.fromhex("ffffffffffff020000000001"), b"\x08\x00" + bytes(46)


@st.composite
def ports(draw: st.DrawFn, slot: int) -> Port:
    """Return a port that is up: in a VLAN, or a trunk that names its VLANs."""
    port = Port(slot, f"p{slot}", draw(VLAN_NUMBERS), attached=True)
    if draw(st.booleans()):
        ranges = draw(st.sampled_from([((10, 11),), ((7, 7), (20, 20)), ((1, 4094),)]))
        port.policy = PolicyInForce(trunk=Trunk(ranges, port.vlan, draw(st.booleans())))
    return port


def provider_tags(port: Port) -> bool:
    """Return whether provider tags count at a port."""
    return port.policy.trunk is not None and port.policy.trunk.provider_tags


def let_in(machine: Machine, entry: Port, packet: Packet) -> int | None:
    """Return the VLAN in which a frame comes in; None: it was refused. A bridge gets it without a look if it may."""
    if entry.policy.trunk is None:
        verdict = machine.run(assemble(stripper(entry.vlan, REFUSED, 55)), packet).verdict if packet.tags else PASS
        assert verdict in (PASS, DROP)
        return entry.vlan if verdict == PASS else None
    into = machine.run(assemble(splitter(tags_of(entry.vlan, entry.policy.trunk), LEGS, REFUSED, COUNTS, 55)), packet)
    if into.sent is None:
        assert into.verdict == DROP
        return None
    assert into.sent[1] == 1
    return into.sent[0] - 1000


def leaves_trunk(machine: Machine, port: Port, vlan: int, packet: Packet) -> bool:
    """Return whether a frame leaves a trunk by its leg."""
    out = machine.run(assemble(joiner(tags_of(port.vlan, port.policy.trunk), vlan, 77, COUNTS)), packet)
    assert packet.mark == 0
    assert out.verdict == DROP if out.sent is None else out.sent == (77, 0)
    return out.sent is not None


def through_kernel(
    machine: Machine, refused: list[int], entry: Port, port: Port, tags: list[tuple[int, int]]
) -> object:
    """Return the tags of a frame as it leaves `port`; None when it does not get there."""
    packet = Packet(list(tags), size=len(HEAD + BODY))
    vlan = let_in(machine, entry, packet)
    if vlan is None:
        assert refused == [1]
        ((watch, copied),) = machine.copies
        assert watch == 55
        assert machine.run(assemble(labeller()), copied).verdict == PASS
        assert copied.tags == [(CUSTOMER, DropReason.VLAN_MISMATCH), *tags]
        return None
    assert (refused, machine.copies) == ([0], [])
    check_label(tags, machine, Packet(list(packet.tags), packet.mark))
    if not port.carries(vlan):
        return None
    if port.policy.trunk is not None and not leaves_trunk(machine, port, vlan, packet):
        return None
    came, left = ([1, size_of(each)] for each in (tags, packet.tags))
    counted = [*(came if entry.policy.trunk else [0, 0]), *(left if port.policy.trunk else [0, 0])]
    assert machine.maps[COUNTS][vlan * 4 : vlan * 4 + 4] == counted
    return packet.tags


def size_of(tags: list[tuple[int, int]]) -> int:
    """Return the bytes of a frame with these tags."""
    return len(HEAD + BODY) + 4 * len(tags)


def check_label(tags: list[tuple[int, int]], machine: Machine, copied: Packet) -> None:
    """Check that whoever watches reads why a frame was dropped, and the tags that it came with."""
    copied.mark |= 19 << REASON_AT | 1 << 31
    assert machine.run(assemble(labeller()), copied).verdict == PASS
    assert copied.tags == [(CUSTOMER, 19), *tags]


def through_rules(switch: Switch, entry: Port, port: Port, tags: list[tuple[int, int]]) -> object:
    """Return the same by the rules of the switch."""
    raw = b"".join(kind.to_bytes(2, "big") + control.to_bytes(2, "big") for kind, control in tags)
    frame = HEAD + raw + BODY
    admitted = admit(switch, entry, frame, 0, acts=False)
    if not isinstance(admitted, Admission):
        return None
    header, vlan, tag = admitted
    if not port.carries(vlan, tag.value == "provider"):
        return None
    left = in_form(frame, form_at(port, vlan, tag, header.tag_vid), vlan)[12:]
    found = []
    while left != BODY:
        found.append((int.from_bytes(left[:2], "big"), int.from_bytes(left[2:4], "big")))
        left = left[4:]
    return found


@given(ports(1), ports(2), TAGS)
def test_tags_are_put_on_and_taken_off_as_the_rules_say(
    entry: Port, port: Port, drawn: list[tuple[int, int, int]]
) -> None:
    """What is refused is counted, and what passes has the tags that the switch of the model would give it."""
    # Two frames are set apart: one with a provider's tag at a port to which such tags mean nothing is refused; the
    # model has it pass an access port as data. And a provider's tag that names no VLAN comes out with the native one's.
    tags = [(kind, control << 12 | vlan) for kind, control, vlan in drawn]
    if tags and tags[0][0] == PROVIDER and (not provider_tags(entry) or not tags[0][1] & 0xFFF):
        return
    switch = Switch("s", 1500, 300 * 10**9, 100)
    for each in (entry, port):
        switch.add_port(each)
    legs, refused = [1000 + vlan if entry.carries(vlan) else 0 for vlan in range(VLANS)], [0]
    machine = Machine({LEGS: legs, REFUSED: refused, COUNTS: [0] * 4 * VLANS}, wide=frozenset({COUNTS}))
    expected = through_rules(switch, entry, port, tags)
    assert through_kernel(machine, refused, entry, port, tags) == expected


@given(TAGS)
def test_a_gate_sends_frames_by_the_detour_once(drawn: list[tuple[int, int, int]]) -> None:
    """What comes back has its tags, and a mark as if it had gone straight; a closed gate lets nothing in."""
    tags = [(kind, control << 12 | vlan) for kind, control, vlan in drawn]
    packet, machine = Packet(list(tags)), Machine({})
    assert machine.run(assemble(detour_gate(55)), packet).sent == (55, 0)
    assert machine.run(assemble(returner(77)), packet).sent == (77, 1)
    back = machine.run(assemble(detour_gate(55)), packet)
    assert (back.sent, back.verdict & 0xFFFF_FFFF, packet.mark, packet.tags) == (None, GO_ON & 0xFFFF_FFFF, 0, tags)
    assert machine.run(assemble(closed_gate()), Packet(tags)).verdict == DROP
