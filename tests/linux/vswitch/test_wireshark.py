"""Wireshark reads our captures: every kind of block, comments, tags, long segments, and what guests say."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vswitch.conftest import Device, Starter
from tests.integration.vswitch.network_bench import SWITCH, NetworkBench
from tests.integration.vswitch.test_captures import Reader
from tests.linux.vswitch import wireshark
from tests.offload_frames import packet
from tests.unit.net.lan import Host, Lan
from tests.unit.net.test_stack import opened
from tests.unit.net.test_stack_tcp import connecting, listening, transfer

from lamina_net.tcp.interface import Endpoint
from lamina_vswitch.domain.capture.capture import Capture
from lamina_vswitch.domain.capture.hub import Hub
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.capture.selection import Selection
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.metadata import Offload, laden
from lamina_vswitch.domain.offload.features import ALL, PLAIN, Takes
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.attachments.stream import Attachment

A, B, BROADCAST = bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), b"\xff" * 6
START_NS = 1_764_000_000_123_456_789
GOOD, UNVERIFIED = "1", "2"
"""Status of a checksum."""
TRACE = bytes(range(16)) + bytes(8) + b"\x01" + bytes(7)
FIELDS = (
    "frame.interface_name", "frame.packet_flags_direction", "frame.len", "frame.cap_len", "vlan.id", "frame.comment",
)  # fmt: skip


@pytest.fixture(autouse=True)
def judge() -> None:
    """Skips all of it without Wireshark."""
    wireshark.needs_wireshark()


def frame(dst: bytes, src: bytes, size: int = 60, vlan: int | None = None) -> bytes:
    """Returns a frame of a protocol that nobody dissects."""
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    return (dst + src + tag + b"\x88\xb5").ljust(size, b"\x5a")


def written(capture: Capture, path: Path, now_ns: int) -> Path:
    """Ends a capture and returns its file."""
    capture.end(now_ns)
    pieces = []
    while (piece := capture.take(now_ns)) is not None:
        pieces.append(piece.data)
    path.write_bytes(b"".join(pieces))
    return path


class Watched:
    """A switch whose port 1 sends and takes anything, port 2 is plain, port 3 a trunk; and a capture of it all."""

    def __init__(self, **options: Any) -> None:
        self.engine = ModelEngine(lambda notice: None)
        self.engine.add_switch("s", SwitchDefinition("s"))
        hub = Hub(self.engine.copy, lambda hub, attended: None)
        self.engine.observer = hub
        for slot, takes in ((1, ALL), (2, PLAIN), (3, PLAIN)):
            self.port(slot, takes)
        trunk = PolicyInForce(trunk=Trunk(ranges=((5, 9),), native=0))
        self.engine.set_policy(3, 0, trunk, 0)
        self.capture = Capture(Selection("s", drops=True, **options), START_NS, lambda: None)
        hub.open(self.capture)

    def port(self, slot: int, takes: Takes) -> None:
        """Makes a port with a device at it."""
        self.engine.add_port("s", slot, f"s/ports/p{slot}", 0, True)
        self.engine.attach(slot, Attachment(f"p{slot}", 4096), 0, takes)


def test_every_kind_of_block_is_read_as_it_was_meant(tmp_path: Path) -> None:
    """Ports, directions, lengths, tags, comments of drops and traces, and the time to the nanosecond."""
    bench = Watched(filter="not ip", snap_bytes=64)
    send = bench.engine.transmit
    send(1, [frame(BROADCAST, A), frame(BROADCAST, A, 100)], 5)
    send(3, [frame(BROADCAST, B, vlan=7), frame(BROADCAST, B, vlan=10), b"\x02" * 13], 6)
    send(1, [laden(frame(B, A), None, TRACE)], 7)
    path = written(bench.capture, tmp_path / "blocks.pcapng", 9)
    p1, p2, p3 = (f"s/ports/p{slot}" for slot in (1, 2, 3))
    found = wireshark.read(path, *FIELDS)
    inbound, outbound = "0x00000001", "0x00000002"
    expected = [
        *((port, way, *lengths, "", "") for port, way in ((p1, inbound), (p2, outbound), (p3, outbound))
          for lengths in (("60", "60"), ("100", "64"))),
        (p3, inbound, "60", "60", "7", "drop: NO_DESTINATION"),
        (p3, inbound, "60", "60", "10", "drop: VLAN_MISMATCH"),
        (p3, inbound, "13", "13", "", "drop: RUNT"),
    ]  # fmt: skip
    assert sorted(found[:9]) == sorted(expected)
    traced = f"trace: {TRACE[:16].hex()}"  # told where it came in; a plain device is not given it
    assert found[9:] == [
        (p1, inbound, "60", "60", "", traced),
        (p2, outbound, "60", "60", "", ""),
        (p3, outbound, "60", "60", "", ""),
    ]
    times = [row[0] for row in wireshark.read(path, "frame.time_epoch")]
    assert times == sorted(times) and times[0] == "1764000000.123456794"
    said = wireshark.counts(path)
    assert said["Number of packets"] == "12" and said["File encapsulation"] == "ether"
    (runt,) = wireshark.problems(path)
    assert found[runt - 1][2] == "13"


@pytest.mark.parametrize("version", [4, 6])
def test_long_segments_are_right_where_they_left_in_pieces(version: int, tmp_path: Path) -> None:
    """A packet of 20,000 bytes comes in whole; the pieces for a plain device and a trunk are good in every sum."""
    bench = Watched()
    long = packet(version, 6, bytes(range(250)) * 80)
    head = 34 if version == 4 else 54
    bench.engine.transmit(1, [laden(long, Offload(1, 1 if version == 4 else 4, head + 20, 1400, head, 16), None)], 0)
    path = written(bench.capture, tmp_path / "long.pcapng", 9)
    fields = ("frame.interface_name", "frame.len", "tcp.len", "tcp.checksum.status")
    found = [row for row in wireshark.read(path, *fields) if row[0] != "s/ports/p1"]
    assert len(found) == 2 * 15 and {row[3] for row in found} == {GOOD}
    assert sum(int(row[2]) for row in found) == 2 * 20_000


@pytest.fixture
async def bench(tmp_path: Path, manual_clock: Any) -> AsyncIterator[NetworkBench]:
    """Returns a service with a switch."""
    starter = Starter("local", tmp_path, manual_clock)
    yield await NetworkBench(await starter(), Device).open()
    for running in starter.running:
        await running.stop()


async def test_a_captured_network_of_guests_is_clean(bench: NetworkBench, tmp_path: Path) -> None:
    """DHCP, ARP, DNS, echo with fragments and ICMP errors of a guest and its router: nothing that Wireshark minds."""
    await bench.create()
    guest = await bench.guest(1)
    reader = Reader(bench.running, ports=[f"{SWITCH}/ports/p1"], drops=True)
    await reader.more()
    await guest.get_address(host_name=b"alice")
    await guest.ask("alice.lab", 1)
    await guest.ask("nobody.lab", 28, size=1232)
    guest.ping(guest.router, data=bytes(1000))
    await guest.icmp()
    guest.ping(0x0A090909)
    await guest.icmp()
    while not any(each.data[34:35] == b"\x03" for each in reader.file().packets):  # "destination unreachable"
        assert await reader.more()
    reader.call.cancel()
    path = tmp_path / "guests.pcapng"
    path.write_bytes(reader.data)
    assert wireshark.problems(path) == {}
    protocols = {row[0].rpartition(":")[2] for row in wireshark.read(path, "frame.protocols")}
    assert {"dhcp", "arp", "dns"} <= protocols
    assert wireshark.counts(path)["Number of packets"] == str(len(reader.file().packets))
    answers = wireshark.read(path, "dns.flags.rcode", "dns.a", "dns.qry.name")
    assert ("0", "10.0.2.2", "alice.lab") in answers and any(row[::2] == ("3", "nobody.lab") for row in answers)
    for field in ("ip.checksum.status", "udp.checksum.status", "icmp.checksum.status"):
        statuses = {each for (row,) in wireshark.read(path, field) for each in row.split(",") if each}
        assert GOOD in statuses and statuses <= {GOOD, UNVERIFIED}, field  # quotes in ICMP errors are not verified


class Tapped(list[bytes]):
    """What a host sends, which a capture sees."""

    def __init__(self, lan: Lan, host: Host, capture: Capture) -> None:
        super().__init__()
        self._lan, self._capture, self._port = lan, capture, f"s/ports/h{host.number}"

    def append(self, sent: bytes) -> None:
        """Show a frame."""
        self._capture.see(self._port, Direction.INGRESS, [sent], self._lan.now_ns)


def test_a_connection_of_our_tcp_is_clean_and_whole(tmp_path: Path) -> None:
    """Wireshark's analysis of sequence numbers finds no fault, every sum is good, and the stream is what was sent."""
    lan = Lan(delay_ns=100_000)
    a, b = lan.hosts
    capture = Capture(Selection("s", buffer_bytes=8 << 20), START_NS, lambda: None)
    for host in lan.hosts:
        host.sent = Tapped(lan, host, capture)
    listener = listening(b, Endpoint(0, 8000))
    client = connecting(lan, a, Endpoint(b.address, 8000))
    lan.run()
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    data = random.Random(7).randbytes(300_000)
    assert transfer(lan, (a, client), (b, server), data) == data
    assert transfer(lan, (b, server), (a, client), data[:5000]) == data[:5000]
    lan.run()
    path = written(capture, tmp_path / "tcp.pcapng", lan.now_ns)
    assert wireshark.problems(path) == {}
    rows = wireshark.read(path, "ip.src", "tcp.checksum.status", "tcp.len", "tcp.analysis.flags", "tcp.payload")
    segments = [row for row in rows if row[1]]
    assert {row[1] for row in segments} == {GOOD} and {row[3] for row in segments} == {""}
    assert bytes.fromhex("".join(row[4] for row in segments if row[0] == "10.0.0.1")) == data
    assert wireshark.read(path, "tcp.completeness")[-1] == ("31",)
