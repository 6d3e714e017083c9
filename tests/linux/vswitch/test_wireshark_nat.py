"""Wireshark on both sides of a translator, and at a guest whose flows end in sockets of this machine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vswitch.conftest import Device, Starter
from tests.integration.vswitch.nat_bench import ALIAS, LOOPBACK, NatBench
from tests.integration.vswitch.network_bench import SWITCH
from tests.integration.vswitch.test_captures import Reader
from tests.linux.vswitch import wireshark
from tests.linux.vswitch.test_wireshark import GOOD, START_NS, UNVERIFIED, written
from tests.unit.vswitch.test_nat_uplink import GUEST, OUTSIDE, PEER, Nat

from lamina_kit.clock import RealClock
from lamina_net.packets import icmp, ipv4, udp
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_vswitch.domain.capture.capture import Capture
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.capture.selection import Selection

DATA = random.Random(5).randbytes(150_000)
ETHER = bytes.fromhex("0200000000010200000000020800")
INSIDE, OUTWARD = "s/ports/inside", "s/ports/outside"
INSIDE_TEXT, OUTSIDE_TEXT = "10.0.2.", "198.51.100.1"
SUMS = ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status")


@pytest.fixture(autouse=True)
def judge() -> None:
    """Skips all of it without Wireshark."""
    wireshark.needs_wireshark()


class Sides:
    """A translator with a capture of both of its sides, and what came out where."""

    def __init__(self) -> None:
        self.nat = Nat()
        self.now_ns = START_NS
        self.capture = Capture(Selection("s", buffer_bytes=8 << 20), START_NS, lambda: None)
        self.to_peer: list[bytes] = []
        self.to_guest: list[bytes] = []

    def send(self, packet: bytes, *, out: bool) -> None:
        """Sends a packet of the guest out, or one of the peer in."""
        self.now_ns += 100_000
        self._see(packet, inside=out)
        outcome = self.nat.out(packet) if out else self.nat.back(packet)
        assert not outcome.drops and not outcome.own
        for each in (*outcome.inside, *outcome.outside):
            self._see(each, inside=not out)
            (self.to_peer if out else self.to_guest).append(each)

    def _see(self, packet: bytes, *, inside: bool) -> None:
        port = INSIDE if inside else OUTWARD
        self.capture.see(port, Direction.INGRESS, [ETHER + packet], self.now_ns)

    def datagrams(self) -> None:
        """Lets datagrams, one in fragments, echoes and errors pass, each with its answer."""
        for size in (20, 3000):
            body = udp.build(GUEST, PEER, udp.Datagram(5000, 7, DATA[:size]))
            whole = ipv4.Packet(GUEST, PEER, ipv4.UDP, body, identification=size)
            parts = ipv4.fragment(whole, 1500)
            assert isinstance(parts, list)
            for part in parts:
                self.send(ipv4.build(part), out=True)
            seen = ipv4.parse(self.to_peer[-len(parts)])
            assert isinstance(seen, ipv4.Packet)
            port = int.from_bytes(seen.payload[:2], "big")
            back = udp.build(PEER, OUTSIDE, udp.Datagram(7, port, b"answer"))
            self.send(ipv4.build(ipv4.Packet(PEER, OUTSIDE, ipv4.UDP, back)), out=False)
        exceeded = icmp.build(icmp.error(icmp.TIME_EXCEEDED, 0, self.to_peer[0]))
        self.send(ipv4.build(ipv4.Packet(PEER, OUTSIDE, ipv4.ICMP, exceeded)), out=False)
        unreachable = icmp.build(icmp.error(icmp.UNREACHABLE, 3, self.to_guest[0]))
        self.send(ipv4.build(ipv4.Packet(GUEST, PEER, ipv4.ICMP, unreachable)), out=True)
        echo = icmp.build(icmp.echo_request(77, 1, DATA[:1000]))
        self.send(ipv4.build(ipv4.Packet(GUEST, PEER, ipv4.ICMP, echo)), out=True)
        request = icmp.parse(self.to_peer[-1][20:])
        assert isinstance(request, icmp.Message)
        reply = icmp.build(icmp.echo_reply(request))
        self.send(ipv4.build(ipv4.Packet(PEER, OUTSIDE, ipv4.ICMP, reply)), out=False)

    def stream(self, data: bytes) -> bytes:
        """Sends bytes from the guest to the peer over TCP, and the end; returns what arrived."""
        guest, peer = TcpLayer(TcpConfig(), b"guest"), TcpLayer(TcpConfig(), b"peer")
        listener = peer.listen(Endpoint(0, 80))
        sender = guest.connect(GUEST, Endpoint(PEER, 80), self.now_ns)
        assert isinstance(listener, int) and isinstance(sender, int)
        sent, server, came = 0, None, bytearray()
        for _ in range(10_000):
            self._carry(guest, peer)
            if isinstance(taken := guest.send(sender, data[sent : sent + 65536], self.now_ns), int) and sent < len(
                data
            ):
                sent += taken
                if sent == len(data):
                    guest.shutdown(sender, self.now_ns)
            if server is None and isinstance(accepted := peer.accept(listener), int):
                server = accepted
            while server is not None and not isinstance(piece := peer.recv(server, 65536, self.now_ns), Refused):
                if not piece:
                    peer.shutdown(server, self.now_ns)
                    self._carry(guest, peer)
                    return bytes(came)
                came += piece
        raise AssertionError(f"{len(came)} bytes came")

    def _carry(self, guest: TcpLayer, peer: TcpLayer) -> None:
        self.now_ns += 1_000_000
        for layer, other, out in ((guest, peer, True), (peer, guest, False)):
            layer.timer(self.now_ns)
            for each in layer.drain().packets:
                self.send(ipv4.build(ipv4.Packet(each.src, each.dst, ipv4.TCP, each.data)), out=out)
                made = ipv4.parse((self.to_peer if out else self.to_guest)[-1])
                assert isinstance(made, ipv4.Packet)
                other.segment(made.src, made.dst, made.payload, self.now_ns)


def test_both_sides_of_a_translator_are_clean(tmp_path: Path) -> None:
    """Datagrams, fragments, echoes, errors with quotes and a stream: good sums, whole, and nothing inside seen."""
    sides = Sides()
    sides.datagrams()
    assert sides.stream(DATA) == DATA
    path = written(sides.capture, tmp_path / "nat.pcapng", sides.now_ns)
    assert wireshark.problems(path) == {}
    fields = ("frame.interface_name", "ip.src", "ip.dst", "tcp.len", "tcp.payload", "udp.payload", *SUMS)
    rows = wireshark.read(path, *fields)
    outside = [row for row in rows if row[0] == OUTWARD]
    inside = [row for row in rows if row[0] == INSIDE]
    assert len(inside) == len(outside) > 100
    assert not any(INSIDE_TEXT in row[1] + row[2] for row in outside), "quotes in errors included"
    assert not any(OUTSIDE_TEXT in row[1] + row[2] for row in inside)
    for side, source in ((inside, "10.0.2.15"), (outside, OUTSIDE_TEXT)):
        sent = [row for row in side if row[1] == source and row[3] not in ("", "0")]
        assert bytes.fromhex("".join(row[4] for row in sent)) == DATA
        assert DATA[:3000].hex() in {row[5] for row in side}, "the datagram was put together"
    statuses = {each for row in rows for column in row[6:] for each in column.split(",") if each}
    assert GOOD in statuses and statuses <= {GOOD, UNVERIFIED}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[NatBench]:
    """Returns a service on the machine's clock with a NAT network to host sockets."""
    starter = Starter("local", tmp_path, RealClock())
    opened = NatBench(await starter(), Device)
    await opened.open()
    yield await opened.nat()
    opened.stop()
    for running in starter.running:
        await running.stop()


async def test_a_page_through_sockets_is_clean(bench: NatBench, tmp_path: Path) -> None:
    """What the gateway's own TCP says to a guest: no warning, good sums, and the page as it was served."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(DATA)
        writer.close()

    served = await asyncio.start_server(serve, LOOPBACK, 0)
    guest = await bench.tcp_guest()
    reader: Any = Reader(bench.running, ports=[f"{SWITCH}/ports/p1"])
    await reader.more()
    handle = await guest.connect(ALIAS, served.sockets[0].getsockname()[1])
    assert await guest.exchange(handle, b"GET / HTTP/1.0\r\n\r\n") == DATA
    while reader.data.count(DATA[-64:]) == 0:
        assert await reader.more()
    reader.call.cancel()
    served.close()
    path = tmp_path / "page.pcapng"
    path.write_bytes(reader.data)
    assert wireshark.problems(path) == {}
    rows = wireshark.read(path, "ip.src", "tcp.seq", "tcp.payload", "ip.checksum.status", "tcp.checksum.status")
    assert {row[3:] for row in rows if row[3]} == {(GOOD, GOOD)}
    came = bytearray(len(DATA))
    for _, seq, payload, *_ in (row for row in rows if row[0] == "10.0.2.200" and row[2]):
        piece = bytes.fromhex(payload)  # one that a slow machine had sent again lies where it lay
        came[int(seq) - 1 : int(seq) - 1 + len(piece)] = piece
    assert came == DATA
