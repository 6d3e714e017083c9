"""Floods as no guest should send them: every frame is counted by its reason, memory is bounded, others are served."""

from __future__ import annotations

from collections import Counter

from tests.frame_sinks import Keeper
from tests.property.vswitch.test_router_fuzz import GUEST, MAC, OWN, SECOND_NS, SUBNET, Forgetful, framed, made
from tests.unit.vswitch.test_nat_uplink import PEER, Nat, tcp_packet

from lamina_kit.rng import Rng
from lamina_net.packets import arp, ethernet, ipv4, udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC
from lamina_net.tcp.segment import SYN
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.network.definition import DhcpSettings
from lamina_vswitch.domain.network.dhcp import message as dhcp
from lamina_vswitch.domain.network.dhcp.lease import Pool
from lamina_vswitch.domain.network.dhcp.lease_book import LeaseBook
from lamina_vswitch.domain.network.dhcp.server import Advice, DhcpServer
from lamina_vswitch.domain.network.router.neighbours import MAX_NEIGHBOURS
from lamina_vswitch.domain.network.router.services import DhcpService
from lamina_vswitch.domain.policy.settings import LoopDetection
from lamina_vswitch.engines.model.engine import ModelEngine

assert SUBNET is not None
NETWORK = SUBNET.network
QUEUE = 64
CABLES = 3


def mac(number: int) -> bytes:
    """Returns one of many addresses of stations."""
    return b"\x02\x01" + number.to_bytes(4, "big")


def test_an_arp_storm_at_a_router_is_bounded() -> None:
    """Requests, announcements and answers of 30,000 stations: one answer each at most, and a table within its bound."""
    router, answers = made([]), 0
    for number in range(10_000):
        sender = NETWORK + 2 + number % 250
        for packet in (
            arp.request(mac(number), sender, OWN),
            arp.announcement(mac(number + 10_000), sender),
            arp.build(arp.ArpPacket(arp.REPLY, mac(number + 20_000), sender, MAC, OWN)),
        ):
            sent = router.receive(ethernet.build(BROADCAST_MAC, packet[8:14], ethernet.ARP, packet), SECOND_NS + number)
            assert len(sent) <= 1
            answers += len(sent)
    assert answers >= 10_000
    assert len(router.neighbours.neighbours(2 * SECOND_NS)) <= min(250, MAX_NEIGHBOURS)


def test_a_dhcp_flood_takes_no_more_than_its_port_may() -> None:
    """Two ports that invent 2,000 devices each: what they cannot have is counted, and a third port gets an address."""
    drops: list[DropReason] = []
    router = made(drops)
    assert SUBNET is not None
    book = LeaseBook(Pool(OWN, OWN + 253, OWN, OWN + 253, (OWN,), 4), Forgetful())
    server = DhcpServer(DhcpSettings(), Advice(SUBNET, OWN, (OWN,), "lab", lambda: 1500), book)

    def port_of(station: bytes, now_ns: int) -> str:
        return f"p{station[5] % 2}" if station[1] == 1 else "honest"

    def dropped(reason: DropReason, frame: bytes, now_ns: int) -> None:
        drops.append(reason)

    router.services[67] = DhcpService(router, server, port_of, dropped)

    def discover(station: bytes) -> int:
        asked = dhcp.build(dhcp.Message(dhcp.BOOTREQUEST, 7, station, {53: b"\1"}))
        body = udp.build(0, BROADCAST, udp.Datagram(68, 67, asked))
        packet = ipv4.build(ipv4.Packet(0, BROADCAST, ipv4.UDP, body))
        return len(router.receive(ethernet.build(BROADCAST_MAC, station, ethernet.IPV4, packet), SECOND_NS))

    offers = sum(discover(mac(number)) for number in range(4000))
    assert offers == 2 * 4 and Counter(drops) == {DropReason.DHCP_EXHAUSTED: 4000 - 8}
    assert book.count(SECOND_NS) == 0, "an offer is no lease"
    assert discover(b"\x02\x02\0\0\0\1") == 1


def test_flows_take_no_more_than_all_ports_and_one_guest_no_more_than_its_share() -> None:
    """Three guests who open connections for ever: each stops at its share, all at the ports; who has one keeps it."""
    share, ports = 2000, 5000
    nat = Nat(8192, share, ports)
    drops: Counter[DropReason] = Counter()
    for guest in range(3):
        for number in range(share + 50):
            outcome = nat.out(tcp_packet(GUEST + guest, 1000 + number, PEER, 80, SYN))
            drops.update(reason for reason, _ in outcome.drops)
    assert drops == {DropReason.NAT_ADDRESS_LIMIT: 2 * 50, DropReason.NAT_PORTS_EXHAUSTED: 3 * share + 50 - ports}
    assert len(nat.table) == ports
    assert nat.out(tcp_packet(GUEST, 1000, PEER, 80, SYN)).outside


class Looped:
    """Two switches joined by three cables, in one VLAN."""

    def __init__(self) -> None:
        self.engine = ModelEngine(lambda notice: None)
        self.ends: dict[int, Keeper] = {}
        for side, switch in enumerate(("a", "b")):
            self.engine.add_switch(switch, SwitchDefinition(switch))
            for number in range(CABLES):
                slot = 1 + side * CABLES + number
                self.engine.add_port(switch, slot, f"{switch}/ports/p{slot}", 5, True)
                self.ends[slot] = Keeper(QUEUE)
                self.engine.attach(slot, self.ends[slot], 0)
        self.now_ns = 0

    def turn(self) -> int:
        """Let what is in the cables arrive; return how many frames that were."""
        arriving = {slot: end.frames for slot, end in self.ends.items()}
        for end in self.ends.values():
            end.frames = []
        for slot, frames in arriving.items():
            other = slot + CABLES if slot <= CABLES else slot - CABLES
            self.engine.transmit(other, frames, self.now_ns)
            assert all(len(end.frames) <= QUEUE for end in self.ends.values())
        self.now_ns += SECOND_NS // 10
        self.engine.advance(self.now_ns)
        return sum(map(len, arriving.values()))

    def drops(self) -> Counter[str]:
        """Return all drops by reason."""
        return Counter(
            {
                reason.name: sum(
                    dict(self.engine.counters(slot).drops_by_reason()).get(reason, 0) for slot in self.ends
                )
                for reason in DropReason
            }
        )


def test_a_loop_of_a_vlan_is_bounded_by_queues_and_ended_by_loop_detection() -> None:
    """A broadcast multiplies until queues are full, and what does not fit is counted; a probe shuts enough ports."""
    looped = Looped()
    looped.engine.transmit(1, [framed(b"once", 0x88B5, BROADCAST_MAC)], 0)
    carried = [looped.turn() for _ in range(20)]
    assert max(carried) >= CABLES * QUEUE and looped.drops()["QUEUE_FULL"] > 0
    for switch in ("a", "b"):
        looped.engine.set_loop_detection(switch, LoopDetection(), Rng(switch), looped.now_ns)
    for _ in range(20):
        looped.turn()
    left = [looped.turn() for _ in range(20)]
    assert max(left) <= 2 * CABLES and left.count(0) > 10, "what is left are probes, once a second"
    assert sum(looped.engine.shut(slot) is not None for slot in looped.ends) == CABLES - 1
