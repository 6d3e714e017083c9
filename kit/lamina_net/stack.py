"""A host's TCP/IP: frames, timers and calls go in, each with its instant; frames and events come out. Pure.

    stack = Stack(seed=b"host a")
    stack.internet.add_interface("eth0", mac, 1500); stack.internet.add_address("eth0", address, 24)
    stack.internet.routes.add(Route(Subnet(0, 0), "eth0", via=router))
    stack.frame("eth0", data, now_ns)                # what came in at an interface
    stack.sockets.send(handle, b"...", now_ns)       # a call
    stack.timer(now_ns)                              # once now_ns >= stack.next_wakeup_ns
    frames, events = stack.drain()                   # what leaves, and what sockets are told

Nothing happens on its own: between two inputs the stack is as it was. The same seed and the same inputs give the same
outputs, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lamina_kit.rng import Rng
from lamina_net.icmp_errors import IcmpLayer, Report
from lamina_net.ip.internet import LOOPBACK_NAME, Delivery, Internet
from lamina_net.offload.long_packets import LongFrame, cut_packet
from lamina_net.offload.merging import Run, merged
from lamina_net.packets import icmp, ipv4
from lamina_net.packets.ipv4 import Packet
from lamina_net.sockets.api import Sockets
from lamina_net.sockets.ping import PingLayer
from lamina_net.sockets.tcp import TcpSockets
from lamina_net.sockets.udp import UdpLayer
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Errno, Event, IcmpKind
from lamina_net.tcp.interface import Packet as Segment
from lamina_net.tcp.layer import TcpLayer
from lamina_net.tcp.processing.calls import LEAST_PATH_MTU

_IDENTIFIERS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Bounds of a stack: sockets of all kinds, ICMP errors sent in a second, and what TCP has."""

    tcp: TcpConfig = field(default_factory=TcpConfig)
    max_sockets: int = 65_536
    errors_per_second: int = 100


class StackOutput(NamedTuple):
    """What came about since the last `drain`: frames with the names of their interfaces, events with socket handles."""

    frames: list[tuple[str, bytes]]
    events: list[Event]


class Stack:
    """The TCP/IP of one host. `seed`: bytes that strangers do not know."""

    def __init__(self, seed: bytes, config: StackConfig | None = None) -> None:
        config = config or StackConfig()
        rng = Rng(seed.hex())
        self._events: list[Event] = []
        self.internet = Internet(rng.child("identification").getrandbits(16))
        self.tcp = TcpLayer(config.tcp, seed)
        ephemeral = range(config.tcp.first_ephemeral_port, config.tcp.last_ephemeral_port + 1)
        self.udp = UdpLayer(self.internet, rng.child("udp"), self._events, ephemeral)
        ping = PingLayer(self.internet, rng.child("ping"), self._events, _IDENTIFIERS)
        self.icmp = IcmpLayer(self.internet, ping, config.errors_per_second)
        tcp_sockets = TcpSockets(self.tcp, self.internet, rng.child("tcp"), ephemeral)
        self.sockets = Sockets(self.udp, ping, tcp_sockets, self._settle, config.max_sockets)
        self._ping = ping

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `timer` is due, None if never; it may be early and find nothing to do."""
        times = [self.tcp.next_wakeup_ns, self.internet.reassembly.next_wakeup_ns]
        times += [interface.neighbours.next_wakeup_ns for interface in self.internet.interfaces.values()]
        return min((at for at in times if at is not None), default=None)

    def frame(self, interface: str, data: bytes, now_ns: int) -> None:
        """Take a frame, any bytes, that came in at an interface; raises KeyError for one that is not there.

        A `LongFrame` (`lamina_net.offload.long_packets`) is one whose TCP checksum was left out.
        """
        self._end_fragments(now_ns)
        self._take(interface, data, now_ns)
        self._settle(now_ns)

    def frames(self, interface: str, batch: Iterable[bytes], now_ns: int) -> None:
        """Take frames that came in together, and answer them together: TCP acknowledges what is in order once.

        Raises KeyError as `frame` does; what came before is answered all the same.
        """
        self._end_fragments(now_ns)
        self.tcp.hold()
        try:
            if self.internet.interfaces[interface].mac is None:
                for data in batch:
                    self._take(interface, data, now_ns)
                return
            for each in merged(list(batch)):
                if isinstance(each, Run):
                    self._take_run(interface, each, now_ns)
                else:
                    self._take(interface, each, now_ns)
        finally:
            self.tcp.release(now_ns)
            self._settle(now_ns)

    def _take(self, interface: str, data: bytes, now_ns: int) -> None:
        delivery = self.internet.receive(interface, data, now_ns)
        if delivery is not None:
            self._deliver(delivery, now_ns, verify=not isinstance(data, LongFrame))

    def _take_run(self, interface: str, run: Run, now_ns: int) -> None:
        """Take segments that go on where the one before ends: as one, or else one by one."""
        first, *others = run.frames
        delivery = self.internet.receive(interface, first, now_ns)
        if delivery is not None:
            packet = delivery.packet
            if packet.protocol == ipv4.TCP and self.tcp.run(packet, run.payload, len(run.frames), now_ns):
                return
            self._deliver(delivery, now_ns)
        for data in others:
            self._take(interface, data, now_ns)

    def timer(self, now_ns: int) -> None:
        """Do what is due at `now_ns`."""
        for interface in self.internet.interfaces.values():
            interface.timer(now_ns)
        self._end_fragments(now_ns)
        self.tcp.timer(now_ns)
        self._settle(now_ns)

    def drain(self) -> StackOutput:
        """Return and forget what came about since the last time."""
        output = StackOutput(self.internet.out[:], self._events[:])
        self.internet.out.clear()
        self._events.clear()
        return output

    def _end_fragments(self, now_ns: int) -> None:
        """Tell senders whose fragments waited too long; before each frame too, which may come before a late timer."""
        for first in self.internet.reassembly.expired(now_ns):
            to_group = self.internet.is_group(first.dst)
            self.icmp.tell(icmp.TIME_EXCEEDED, icmp.REASSEMBLY_EXCEEDED, first, now_ns, to_group=to_group)

    def _settle(self, now_ns: int) -> None:
        """Send what TCP has, and bring round what goes to ourselves, until nothing is left to do."""
        looped, unreachable = self.internet.looped, self.internet.unreachable
        while True:
            packets, events = self.tcp.drain()
            self._events.extend(event for found in events if (event := self.sockets.translated(found)) is not None)
            for each in packets:
                self._send_segment(each, now_ns)
            while looped:
                self._deliver(looped.popleft(), now_ns)
            if unreachable:
                failed = unreachable[:]
                unreachable.clear()
                for packet in failed:
                    self._unreachable(packet, now_ns)
            elif not packets and not events and not looped:
                return

    def _deliver(self, delivery: Delivery, now_ns: int, *, verify: bool = True) -> None:
        packet, interface, to_group = delivery
        if packet.protocol == ipv4.TCP:
            if not to_group:  # a connection has two ends (RFC 9293, MUST-57)
                verify = verify and interface.name != LOOPBACK_NAME  # what never left us cannot have changed
                self.tcp.segment(
                    packet.src, packet.dst, packet.payload, now_ns, interface.mtu, verify=verify, tos=packet.tos
                )
        elif packet.protocol == ipv4.UDP:
            if not self.udp.receive(delivery):
                self.icmp.tell(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, packet, now_ns, to_group=to_group)
        elif packet.protocol == ipv4.ICMP:
            report = self.icmp.receive(delivery, now_ns)
            if report is not None:
                self._report(report, now_ns)
        else:
            self.icmp.tell(icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE, packet, now_ns, to_group=to_group)

    def _send_segment(self, segment: Segment, now_ns: int) -> None:
        src, dst, data = segment[:3]
        packet = Packet(src, dst, ipv4.TCP, data, segment.ttl, dont_fragment=True, tos=segment.tos)
        if segment.segment_bytes:
            errno = self.internet.send_long(packet, segment.segment_bytes, now_ns)
        else:
            errno = self.internet.send(packet, now_ns)
        if errno is Errno.NETUNREACH:
            self.tcp.icmp_error(src, dst, data, IcmpKind.NETWORK_UNREACHABLE, now_ns)
        elif errno is Errno.MSGSIZE:
            mtu = self.internet.mtu_for(dst)
            if mtu < LEAST_PATH_MTU:  # TCP does not follow there, so its packets are fragmented
                for whole in cut_packet(packet, segment.segment_bytes):
                    self.internet.send(whole._replace(dont_fragment=False), now_ns)
            else:
                self.tcp.icmp_error(src, dst, data, IcmpKind.TOO_BIG, now_ns, mtu)

    def _unreachable(self, data: bytes, now_ns: int) -> None:
        """Tell the sender of a packet, who is one of ours, that its neighbour does not answer."""
        packet = ipv4.parse(data, quoted=True)
        if isinstance(packet, Packet) and not packet.offset:
            self._report(Report(icmp.UNREACHABLE, icmp.HOST_UNREACHABLE, packet), now_ns)

    def _report(self, report: Report, now_ns: int) -> None:
        """Tell whose packet met with an error."""
        packet, errno = report.packet, report.errno
        head = packet.payload[:8]
        if errno is None or len(head) < 8:
            return
        if packet.protocol == ipv4.TCP and report.tcp_kind is not None:
            kind, mtu = report.tcp_kind, report.mtu
            self.tcp.icmp_error(packet.src, packet.dst, packet.payload, kind, now_ns, mtu)
        elif packet.protocol == ipv4.UDP:
            local = Endpoint(packet.src, head[0] << 8 | head[1])
            remote = Endpoint(packet.dst, head[2] << 8 | head[3])
            self.udp.failed(local, remote, errno, report.is_hard)
        elif packet.protocol == ipv4.ICMP and head[0] == icmp.ECHO_REQUEST:
            local = Endpoint(packet.src, head[4] << 8 | head[5])
            self._ping.failed(local, Endpoint(packet.dst, 0), errno, report.is_hard)
