"""Scapy on both sides of a translator: what it should not send breaks nothing, and sums that came right leave right."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from scapy.layers import inet
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from tests.property.vswitch.scapy_frames import adversarial, rebuilt
from tests.unit.vswitch.played_host import PlayedHost

from lamina_kit.rng import Rng
from lamina_net.packets import ipv4
from lamina_net.packets.address import parse_address
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition, Forwards
from lamina_vswitch.domain.nat.flows.fragments import DATAGRAMS, DATAGRAMS_PER_ADDRESS, WAIT_NS
from lamina_vswitch.domain.nat.flows.ports import PortPool, SharedPorts
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.outside.uplink import UplinkNat
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.nat.sockets.gateway import SocketGateway
from lamina_vswitch.domain.nat.sockets.reach import Reach
from lamina_vswitch.domain.network.definition import NatSettings

PACKETS = 600
SEEDS = (1, 2)
LIMIT, PER_ADDRESS, PORTS = 24, 12, 16
GUEST, OTHER, OUTSIDE, PEER = "10.0.2.15", "10.0.2.16", "198.51.100.1", "203.0.113.7"
STEP_NS = 20_000_000
SCAPY: Any = inet  # parts of it have no types
ETHER = bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02", type=0x0800))


def address(text: str) -> int:
    """Returns an address as a number."""
    found = parse_address(text)
    assert found is not None
    return found


class World:
    """A translator to one outside address, with a forwarded port and little room, and the account of what came."""

    def __init__(self) -> None:
        self.table = Table(LIMIT, PER_ADDRESS, self._gone)
        self.forwards = Forwards()
        pool = PortPool(40000, 39999 + PORTS, 3)
        self.nat = UplinkNat(address(OUTSIDE), Rewriter(self.table), pool, self.forwards)
        inside = (address(GUEST), 80)
        self.forwards.add(ForwardDefinition("n", "f", ipv4.TCP, (address(OUTSIDE), 8080), inside))
        self.now_ns, self.came, self.went = 0, 0, 0
        self.drops: Counter[DropReason] = Counter()
        self.passed: list[bytes] = []

    def _gone(self, entry: Entry) -> None:
        self.nat.ended(entry)

    def send(self, packet: bytes, *, out: bool) -> Outcome:
        """Sends a packet out, or lets one come in."""
        outcome = (self.nat.leaving if out else self.nat.entering)(packet, self.now_ns)
        assert not outcome.own, "beyond the translator nobody takes what no entry translates"
        made = outcome.inside + outcome.outside
        self.came += 1
        self.went += len(made) + len(outcome.drops)
        self.drops.update(reason for reason, _ in outcome.drops)
        assert len(self.table) <= LIMIT
        if len(made) == 1 and is_sound(packet):
            assert is_sound(made[0]), (packet.hex(), made[0].hex())
        if made and packet[8] == made[0][8]:
            self.passed += made
        self.now_ns += STEP_NS
        return outcome


def is_sound(packet: bytes) -> bool:
    """Tells whether scapy would have built a packet so, and, in an ICMP error, the whole packet that it quotes."""
    if rebuilt(ETHER + packet) != ETHER + packet:
        return False
    read: Any = IP(packet)
    quoted = bytes(read[ICMP].payload) if ICMP in read and read[ICMP].type in (3, 4, 11, 12) else b""
    is_whole = len(quoted) >= 28 and int.from_bytes(quoted[2:4], "big") == len(quoted)
    return not is_whole or rebuilt(ETHER + quoted) == ETHER + quoted


def packet(*layers: Any) -> bytes:
    """Returns what scapy builds of layers."""
    whole = layers[0]
    for layer in layers[1:]:
        whole = whole / layer
    return bytes(whole)


def rude(rng: random.Random, src: str, dst: str, seen: list[bytes]) -> bytes:
    """Returns a packet that lies, of a kind for which a translator has to look closely; `seen` are some that passed."""
    ports: dict[str, Any] = {
        "sport": rng.choice((0, 80, 5000, 40003)),
        "dport": rng.choice((0, 53, 80, 8080, 40003, 40007)),
    }
    fields: dict[str, Any] = {"src": src, "dst": dst, "ttl": rng.choice((0, 1, 64)), "id": rng.randrange(6)}
    body = rng.choice((UDP(**ports), TCP(**ports, flags=rng.choice(("S", "SA", "A", "F", "R", "SF", "")))))
    data = Raw(rng.randbytes(rng.choice((0, 8, 100))))
    kind = rng.randrange(7)
    if kind == 0:  # tiny fragments, and such that overlap
        part = bytes(body / data)
        at = rng.choice((0, 0, 1, 2))
        head = IP(**fields, flags=rng.choice(("MF", "")), frag=at, proto=rng.choice((6, 17)))
        return packet(head, Raw(part[: rng.choice((1, 8, 16, 40))]))
    if kind == 1 and seen:  # errors about flows that there are, from anybody, about all or little of a packet
        quoted = bytearray(rng.choice(seen))
        quoted[12:20] = quoted[16:20] + quoted[12:16] if rng.random() < 0.3 else quoted[12:20]
        cut = bytes(quoted[: rng.choice((len(quoted), 28, 27, 20, 3))])
        return packet(IP(**fields), ICMP(type=rng.choice((3, 4, 5, 11, 12, 13)), code=rng.randrange(20)), Raw(cut))
    if kind == 2:  # options
        options = rng.choice((b"\x07\x07\x04\0\0\0\0\0", b"\x83\x03\x04\0", b"\x44\x28", b"\xff" * 40))
        whole = bytearray(packet(IP(**fields, options=[]), body, data))
        whole[0] = 0x45 + len(options) // 4
        return bytes(whole[:20]) + options[: len(options) // 4 * 4] + bytes(whole[20:])
    if kind == 3:  # wrong sums, that a translator must not make right
        whole = bytearray(packet(IP(**fields), body, data))
        whole[rng.choice((10, 11, 26, 27, 36, 37)) % len(whole)] ^= rng.randrange(1, 256)
        return bytes(whole)
    if kind == 4:  # somebody else's address
        fields["src"] = rng.choice((OUTSIDE, GUEST, PEER, "127.0.0.1", "255.255.255.255", "0.0.0.0", "224.0.0.1"))
        return packet(IP(**fields), body, data)
    if kind == 5:
        return packet(IP(**fields), ICMP(type=rng.choice((0, 8)), id=rng.choice((0, 7, 40003))), data)
    return adversarial(rng, Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02"), src, dst)[14:]


@pytest.mark.parametrize("seed", SEEDS)
def test_rude_packets_on_both_sides_are_counted(seed: int) -> None:
    """Each packet is translated, waits, or is dropped with its reason; tables keep their bounds; good flows pass."""
    rng, world = random.Random(seed), World()
    for _ in range(PACKETS):
        out = rng.random() < 0.5
        src, dst = (rng.choice((GUEST, OTHER)), PEER) if out else (PEER, OUTSIDE)
        if out and rng.random() < 0.1:
            dst = OUTSIDE
        world.send(rude(rng, src, dst, world.passed[-20:]), out=out)
    expected = {"IP_MALFORMED", "PROTOCOL_UNSUPPORTED", "NAT_NO_ENTRY", "NAT_STATE", "FRAGMENT_OVERLAP"}
    assert {reason.name for reason in world.drops} >= expected
    assert len(world.passed) > PACKETS // 20
    world.now_ns += 8000 * 1_000_000_000  # every entry has ended
    world.send(packet(IP(src=PEER, dst=OUTSIDE, frag=5, proto=17), Raw(bytes(8))), out=False)
    assert world.came - world.went == 1, "only the last waits: the others were dropped when their time was over"
    good = packet(IP(src=GUEST, dst=PEER), UDP(sport=5000, dport=53), Raw(b"question"))
    (left,) = world.send(good, out=True).outside
    read: Any = IP(left)
    assert (read.src, read.dst, read[UDP].dport) == (OUTSIDE, PEER, 53)
    answer = packet(IP(src=PEER, dst=OUTSIDE), UDP(sport=53, dport=read[UDP].sport), Raw(b"answer"))
    (back,) = world.send(answer, out=False).inside
    assert bytes(IP(back)[UDP].payload) == b"answer" and IP(back).dst == GUEST


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_pieces_are_put_together_by_scapy_with_a_right_sum(order: str) -> None:
    """A datagram in the smallest pieces, in any order, leaves in pieces that make the datagram from outside."""
    world = World()
    whole = IP(src=GUEST, dst=PEER, id=77) / UDP(sport=5000, dport=53) / Raw(bytes(range(200)))
    pieces = [bytes(each) for each in SCAPY.fragment(whole, fragsize=8)]
    assert len(pieces) == 26
    for each in pieces if order == "forwards" else reversed(pieces):
        world.send(each, out=True)
    assert len(world.passed) == len(pieces) and not world.drops
    (joined,) = SCAPY.defragment([IP(each) for each in world.passed])
    assert is_sound(bytes(IP(bytes(joined)))) and IP(bytes(joined)).src == OUTSIDE
    assert bytes(joined[UDP].payload) == bytes(range(200))


def test_firsts_that_never_come_are_bounded() -> None:
    """Pieces of ever new datagrams wait within the bound of a source and of all, and go when their time is over."""
    world = World()
    for number in range(2 * DATAGRAMS):
        source = f"203.0.{number % 50}.9"
        world.send(packet(IP(src=source, dst=OUTSIDE, id=number, frag=5, proto=17), Raw(bytes(8))), out=False)
        world.now_ns -= STEP_NS
    waiting = world.came - world.went
    assert waiting == DATAGRAMS < 50 * DATAGRAMS_PER_ADDRESS
    world.now_ns += WAIT_NS
    world.send(packet(IP(src=PEER, dst=OUTSIDE, frag=5, proto=17), Raw(bytes(8))), out=False)
    assert world.came - world.went == 1 and set(world.drops) == {DropReason.FRAGMENT_TIMEOUT}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gateway_to_sockets_outlives_them(seed: int) -> None:
    """What guests may send to it: nothing is raised, the table is bounded, and its own packets are scapy's."""
    rng, host, forwards = random.Random(seed), PlayedHost(), Forwards()

    def gone(entry: Entry) -> None:
        gateway.ended(entry)

    table = Table(LIMIT, PER_ADDRESS, gone)
    ports = SharedPorts(40000, 40015, Rng("rude").randrange)
    gateway = SocketGateway(address("10.0.2.1"), 1500, table, ports, forwards, host, Reach(NatSettings()), Rng("rude"))
    drops: Counter[DropReason] = Counter()
    sent: list[bytes] = []
    for number in range(PACKETS):
        now_ns = number * STEP_NS
        made = rude(rng, rng.choice((GUEST, OTHER)), rng.choice((PEER, PEER, "10.0.2.1")), sent[-20:])
        outcome = gateway.leaving(made, now_ns)
        drops.update(reason for reason, _ in outcome.drops)
        gateway.tick(now_ns)
        answers = [*outcome.inside, *gateway.take()]
        assert all(is_sound(each) for each in answers)
        sent += [*answers, made] if made[:1] == b"\x45" else answers
        assert len(table) <= LIMIT
    expected = {"IP_MALFORMED", "CHECKSUM_BAD", "NAT_STATE", "NAT_TABLE_FULL", "FRAGMENT_OVERLAP"}
    assert {reason.name for reason in drops} >= expected
    assert host.sockets
