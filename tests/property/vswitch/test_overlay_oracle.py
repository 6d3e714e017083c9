"""Overlay ends on one network below, against a naive reading of who must get which frame; and any bytes at a tunnel."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lamina_net.packets import arp, ethernet, ipv4
from lamina_net.packets.address import BROADCAST_MAC, parse_subnet
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.end import Learning, OverlayEnd, TunnelledEnd, Way
from lamina_vswitch.domain.overlay.remote_ends import RemoteEnds
from lamina_vswitch.domain.overlay.tunnel import Tunnel

SUBNET = parse_subnet("192.0.2.0/24")
assert SUBNET is not None
AGEING_NS = 10_000_000_000
HOSTS, VNI = 3, 7
STATIONS = [b"\x02\0\0\0\0" + bytes([number]) for number in range(1, 5)]
GROUP = b"\x01\0\x5e\0\0\1"


def address(host: int) -> int:
    """Return the address of a host's tunnels."""
    assert SUBNET is not None
    return SUBNET.network + 10 + host


class Host:
    """One overlay end with its tunnel; notes what comes into its VLAN and what it drops."""

    def __init__(self, host: int, told: frozenset[int], learning: Learning) -> None:
        assert SUBNET is not None
        self.got: list[bytes] = []
        self.drops: list[DropReason] = []
        self.remotes = RemoteEnds(AGEING_NS, 100)
        for other in sorted(told):
            self.remotes.tell(address(other), (), 0)
        end = OverlayEnd(VNI, self.remotes, learning, lambda: 1500, self._dropped)
        self.tunnel = Tunnel(b"\x06\0\0\0\0" + bytes([host]), address(host), self._dropped)
        self.end = TunnelledEnd(end, Way(SUBNET), self.got.append)
        self.tunnel.join(self.end)

    def _dropped(self, reason: DropReason, frame: bytes, now_ns: int) -> None:
        self.drops.append(reason)


class Wire:
    """The network below: everybody hears everything."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts

    def send(self, host: int, frame: bytes, now_ns: int) -> None:
        """Send a frame of a host's VLAN, and let all questions be answered."""
        waiting = [(host, each) for each in self.hosts[host].tunnel.send(self.hosts[host].end, frame, now_ns)]
        while waiting:
            sender, below = waiting.pop(0)
            for number, other in enumerate(self.hosts):
                if number != sender:
                    waiting += [(number, each) for each in other.tunnel.receive(below, now_ns)]


@dataclass
class Naive:
    """What one end knows, as a reader of the contract would note it."""

    told: frozenset[int]
    learning: Learning
    ends: dict[int, int] = field(default_factory=dict)
    macs: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def chosen(self, dst: bytes, now_ns: int) -> set[int]:
        """Return the hosts that get a frame."""
        behind, seen_ns = self.macs.get(dst, (0, -AGEING_NS))
        if now_ns - seen_ns < AGEING_NS:
            return {behind}
        return {*self.told, *(end for end, seen_ns in self.ends.items() if now_ns - seen_ns < AGEING_NS)}

    def take(self, src: bytes, sender: int, now_ns: int) -> bool:
        """Tell whether a frame comes in, and learn."""
        if sender not in self.told and not self.learning.accept_unknown:
            return False
        if not self.learning.nothing:
            self.ends[sender] = now_ns
            self.macs[src] = (sender, now_ns)
        return True


learnings = st.builds(Learning, nothing=st.booleans(), accept_unknown=st.booleans())
steps = st.lists(
    st.tuples(
        st.integers(0, HOSTS - 1),
        st.sampled_from(STATIONS),
        st.sampled_from([*STATIONS, BROADCAST_MAC, GROUP]),
        st.integers(0, AGEING_NS),
    ),
    max_size=25,
)


@given(
    st.tuples(*(st.sets(st.sampled_from([each for each in range(HOSTS) if each != host])) for host in range(HOSTS))),
    st.tuples(*(learnings for _ in range(HOSTS))),
    steps,
)
def test_every_frame_reaches_exactly_who_it_must(
    told: tuple[set[int], ...], learning: tuple[Learning, ...], played: list[tuple[int, bytes, bytes, int]]
) -> None:
    """Whatever is told and learned, each end gets the frames that the naive reading gives it, each once and whole."""
    hosts = [Host(host, frozenset(told[host]), learning[host]) for host in range(HOSTS)]
    naive = [Naive(frozenset(told[host]), learning[host]) for host in range(HOSTS)]
    wire, now_ns = Wire(hosts), 0
    for number, (sender, src, dst, after_ns) in enumerate(played):
        now_ns += after_ns
        frame = ethernet.build(dst, src, 0x88B5, number.to_bytes(2, "big"))
        chosen = naive[sender].chosen(dst, now_ns)
        expected = [host for host in sorted(chosen) if naive[host].take(src, sender, now_ns)]
        for host in hosts:
            host.got.clear()
            host.drops.clear()
        wire.send(sender, frame, now_ns)
        assert [number for number, host in enumerate(hosts) for _ in host.got] == expected
        assert all(host.got in ([], [frame]) for host in hosts)
        refused = sum(host.drops.count(DropReason.TUNNEL_PEER_UNKNOWN) for host in hosts)
        assert refused == len(chosen) - len(expected)
        assert hosts[sender].drops.count(DropReason.NO_DESTINATION) == (not chosen)
    for host, model in zip(hosts, naive, strict=True):
        alive = {mac: end for mac, (end, seen_ns) in model.macs.items() if now_ns - seen_ns < AGEING_NS}
        assert [(each.mac, each.address) for each in host.remotes.macs(now_ns)] == [
            (mac, address(alive[mac])) for mac in sorted(alive)
        ]


def tunnel_packet() -> bytes:
    """Return a right tunnel packet from host 1 to host 0, as a frame."""
    inner = ethernet.build(STATIONS[0], STATIONS[1], 0x0800, bytes(40))
    sender = Host(1, frozenset({0}), Learning())
    assert SUBNET is not None
    request = sender.tunnel.send(sender.end, inner, 0)
    answer = Host(0, frozenset({1}), Learning()).tunnel.receive(request[0], 0)
    return sender.tunnel.receive(answer[0], 0)[0]


@given(st.data())
def test_a_tunnel_takes_any_bytes(data: st.DataObject) -> None:
    """Neither noise nor a right packet with changed or missing bytes raises; what comes is delivered or counted."""
    host = Host(0, frozenset({1}), Learning())
    right = bytearray(tunnel_packet())
    for place in data.draw(st.lists(st.integers(14, len(right) - 1), max_size=4)):
        right[place] = data.draw(st.integers(0, 255))
    changed = bytes(right[: data.draw(st.integers(0, len(right)))])
    noise = data.draw(st.binary(max_size=120))
    for frame in (changed, noise, host.tunnel.mac + STATIONS[0] + b"\x08\0" + noise):
        host.tunnel.receive(frame, 0)
    header = ethernet.parse(changed)
    assert len(host.got) <= 1
    if isinstance(header, ethernet.Frame) and header.ethertype == ethernet.IPV4 and not host.got:
        packet = ipv4.parse(header.payload)
        elsewhere = isinstance(packet, ipv4.Packet) and (packet.dst != address(0) or packet.protocol == ipv4.ICMP)
        assert host.drops or elsewhere


@given(st.binary(max_size=64))
def test_the_codec_reads_what_it_builds(frame: bytes) -> None:
    """Any frame of any network comes back; the source port is in the range that RFC 7348 recommends."""
    assert vxlan.parse(vxlan.build(VNI, frame)) == (VNI, frame)
    vxlan.parse(frame)
    assert 49152 <= vxlan.source_port(frame) <= 65535


def test_who_asks_for_the_tunnels_address_is_answered() -> None:
    """A request for the address is answered with the tunnel's MAC address."""
    host = Host(0, frozenset(), Learning())
    asked = ethernet.build(BROADCAST_MAC, STATIONS[0], ethernet.ARP, arp.request(STATIONS[0], address(1), address(0)))
    answer = ethernet.parse(host.tunnel.receive(asked, 0)[0])
    assert isinstance(answer, ethernet.Frame)
    found = arp.parse(answer.payload)
    assert isinstance(found, arp.ArpPacket)
    assert (found.operation, found.sender_mac, found.sender) == (arp.REPLY, host.tunnel.mac, address(0))
