"""A router with everything that it serves takes any bytes, and right packets with any byte changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC, parse_subnet
from lamina_net.tcp.segment import Segment, build
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.network.definition import DhcpSettings, DnsSettings, Mode, NetworkDefinition
from lamina_vswitch.domain.network.dhcp import message as dhcp
from lamina_vswitch.domain.network.dhcp.lease import Lease, Pool
from lamina_vswitch.domain.network.dhcp.lease_book import LeaseBook
from lamina_vswitch.domain.network.dhcp.server import Advice, DhcpServer
from lamina_vswitch.domain.network.dns.lease_names import NamesOfLeases
from lamina_vswitch.domain.network.dns.responder import Responder
from lamina_vswitch.domain.network.dns.zone import Zone
from lamina_vswitch.domain.network.router.dns_stream import DnsStream
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.domain.network.router.services import DhcpService, DnsService

SUBNET = parse_subnet("10.0.2.0/24")
assert SUBNET is not None
OWN, GUEST = SUBNET.network + 1, SUBNET.network + 2
MAC, GUEST_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
SECOND_NS = 1_000_000_000


class Forgetful:
    """A keeper that keeps nothing."""

    def put(self, lease: Lease, instead_of: int | None = None) -> None:
        """Nothing."""

    def remove(self, address: int) -> None:
        """Nothing."""


def made(drops: list[DropReason]) -> Router:
    """Return a router that serves DHCP and DNS and notes its drops."""
    dns = DnsSettings(("lab",))
    definition = NetworkDefinition(
        *("lan", Mode.HOST_ONLY, "s1", 0, SUBNET, OWN, OWN), DhcpSettings(), dns, mac=MAC, port="router.lan"
    )

    def dropped(reason: DropReason, frame: bytes, now_ns: int) -> None:
        drops.append(reason)

    router = Router(definition, lambda: 1500, dropped)
    book = LeaseBook(Pool(OWN, OWN + 253, OWN, OWN + 253, (OWN,), 4), Forgetful())
    advice = Advice(definition.inside, OWN, (OWN,), "lab", lambda: 1500)
    server = DhcpServer(DhcpSettings(), advice, book)
    router.services[67] = DhcpService(router, server, lambda mac, now_ns: "p1", dropped)
    router.stream = DnsStream(b"seed")
    responder = Responder(dns, Zone(), NamesOfLeases(book, "lab"))
    service = DnsService(router, responder, lambda question, answered: None)
    router.services[53], router.stream.answer = service, service.answer
    return router


def framed(payload: bytes, kind: int = ethernet.IPV4, dst: bytes = MAC) -> bytes:
    """Return a frame of the guest."""
    return ethernet.build(dst, GUEST_MAC, kind, payload)


def packet(protocol: int, payload: bytes, dst: int = OWN, src: int = GUEST) -> bytes:
    """Return a packet of the guest."""
    return ipv4.build(ipv4.Packet(src, dst, protocol, payload))


DISCOVER = dhcp.build(dhcp.Message(1, 7, GUEST_MAC, {53: b"\1", 12: b"alice"}))
QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0\5alice\3lab\0\0\1\0\1"
SYN = build(GUEST, OWN, Segment(40000, 53, 1, 0, 2, 65535))
RIGHT = [
    framed(arp.request(GUEST_MAC, GUEST, OWN), ethernet.ARP, BROADCAST_MAC),
    framed(packet(ipv4.UDP, udp.build(0, BROADCAST, udp.Datagram(68, 67, DISCOVER)), BROADCAST, 0), dst=BROADCAST_MAC),
    framed(packet(ipv4.UDP, udp.build(GUEST, OWN, udp.Datagram(5000, 53, QUESTION)))),
    framed(packet(ipv4.UDP, udp.build(GUEST, OWN, udp.Datagram(5000, 9, b"x")))),
    framed(packet(ipv4.ICMP, icmp.build(icmp.echo_request(1, 1, b"ping")))),
    framed(packet(ipv4.ICMP, icmp.build(icmp.echo_request(1, 1)), 0x08080808)),
    framed(packet(ipv4.TCP, SYN)),
    framed(ipv4.build(ipv4.Packet(GUEST, OWN, ipv4.UDP, bytes(16), more=True, identification=9))),
]


def check(router: Router, frames: list[bytes]) -> None:
    """Check that what a router sends is whole, and from itself."""
    for data in frames:
        frame = ethernet.parse(data)
        assert isinstance(frame, ethernet.Frame) and frame.src == MAC
        if frame.ethertype == ethernet.IPV4:
            sent = ipv4.parse(frame.payload)
            assert isinstance(sent, ipv4.Packet) and len(frame.payload) <= 1500


def test_the_right_frames_are_answered() -> None:
    """Each of the frames that the next test breaks has an answer when it is whole, or waits."""
    drops: list[DropReason] = []
    router = made(drops)
    answered = [len(router.receive(frame, SECOND_NS)) for frame in RIGHT]
    assert answered == [1, 1, 2, 1, 1, 1, 1, 0], "the third brings a question about the stale neighbour along"
    assert drops == [DropReason.HOST_ONLY]


CHANGED = st.tuples(st.sampled_from(RIGHT), st.integers(0, 400), st.binary(min_size=1, max_size=4)).map(
    lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + len(made[2]) :]
)
CUT = st.tuples(st.sampled_from(RIGHT), st.integers(0, 400)).map(lambda made: made[0][: made[1]])
ANY = st.binary(max_size=200).map(lambda data: MAC + GUEST_MAC + b"\x08\x00" + data)


@given(st.lists(st.one_of(CHANGED, CUT, ANY, st.binary(max_size=80), st.sampled_from(RIGHT)), max_size=20))
def test_no_frame_breaks_a_router(frames: list[bytes]) -> None:
    """Nothing raises, every answer is whole, and after a minute the router waits for nothing but what has an end."""
    drops: list[DropReason] = []
    router = made(drops)
    now = SECOND_NS
    for frame in frames:
        answers = router.receive(frame, now)
        assert len(answers) <= 20
        check(router, answers)
        now += SECOND_NS // 100
    for _ in range(10):
        check(router, router.tick(now))
        now += 60 * SECOND_NS
    assert len(router.neighbours.neighbours(now)) <= len(frames)
