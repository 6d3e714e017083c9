"""Parsers with a state: machines to which a sequence of frames comes, mended so that their sums are right.

Bytes become a sequence: two bytes of length before each piece, of which the top bit says that sums are left as they
are, and the next one where the piece comes in. Else a search never gets behind a checksum.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.property.net.test_stack_fuzz import busy_host
from tests.property.vswitch.test_nat_oracle import GUESTS, everything
from tests.property.vswitch.test_overlay_oracle import Host, address
from tests.property.vswitch.test_router_fuzz import DISCOVER, SECOND_NS, check, made
from tests.unit.vswitch.played_host import PlayedHost

from lamina_container_runtime.io.images.blobs import BlobStore
from lamina_container_runtime.io.images.unpack import unpack
from lamina_kit.errors import InvalidArgument
from lamina_kit.rng import Rng
from lamina_net.ip.reassembly import MAX_BYTES, MAX_DATAGRAMS
from lamina_net.offload import headers
from lamina_net.packets import ethernet, ipv4, udp
from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.forwards import Forwards
from lamina_vswitch.domain.nat.flows.ports import SharedPorts
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.nat.sockets.gateway import SocketGateway
from lamina_vswitch.domain.nat.sockets.reach import Reach
from lamina_vswitch.domain.network.definition import NatSettings
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.end import Learning
from lamina_vswitch.domain.policy.settings import LoopDetection, PolicyInForce, Security, StormControl
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.port.ring_layout import FIRST_SLOT, Geometry
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane.memory_ring import MemoryRing

__all__ = ["DISCOVER"]
_AS_IT_IS, _ELSEWHERE = 0x8000, 0x4000
_MOST_PIECES = 32


def joined(pieces: Iterable[bytes]) -> tuple[bytes, ...]:
    """Returns a sequence as bytes: all pieces once, and the same from elsewhere, as the only two seeds."""
    whole = list(pieces)
    return tuple(b"".join((len(each) | bit).to_bytes(2, "big") + each for each in whole) for bit in (0, _ELSEWHERE))


def pieces(data: bytes) -> Iterator[tuple[bool, bool, bytes]]:
    """Yields whether a piece comes from elsewhere, whether its sums are to be mended, and the piece."""
    at = 0
    for _ in range(_MOST_PIECES):
        if at + 2 > len(data):
            return
        word = int.from_bytes(data[at : at + 2], "big")
        size = word & 0x0FFF
        yield bool(word & _ELSEWHERE), not word & _AS_IT_IS, data[at + 2 : at + 2 + size]
        at += 2 + size


def mended(frame: bytes) -> bytes:
    """Returns a frame whose sums of IPv4, TCP and UDP are right, as far as its headers can be found."""
    if len(frame) < 34 or frame[12:14] != b"\x08\0":
        return frame
    buffer = bytearray(frame)
    size = (buffer[14] & 15) * 4
    if size >= 20 and 14 + size <= len(buffer):
        headers.fill_ipv4_sum(buffer, 14, size)
    found = headers.parse(buffer)
    if found.l4 and found.protocol in (6, 17) and found.payload <= len(buffer):
        headers.fill_transport_sum(buffer, found)
    return bytes(buffer)


def mended_packet(packet: bytes) -> bytes:
    """Returns a packet whose sums are right."""
    return mended(bytes(12) + b"\x08\0" + packet)[14:]


def check_stack(data: bytes) -> None:
    """A host with open ports takes any frames; what it holds of datagrams is bounded."""
    lan, host = busy_host()
    for slow, mend, piece in pieces(data):
        lan.inject(host, mended(piece) if mend else piece)
        lan.run(SECOND_NS if slow else 1000)
        reassembly = host.stack.internet.reassembly
        assert len(reassembly) <= MAX_DATAGRAMS and reassembly.held_bytes <= MAX_BYTES
    lan.run(60 * SECOND_NS)


class Sink:
    """A device that takes all."""

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames."""
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """Nothing to do."""

    def removed(self) -> None:
        """Nothing to do."""


def check_switch(data: bytes) -> None:
    """A switch with every guard counts each frame it takes once, and its table is bounded."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch("s", SwitchDefinition("s", mac_limit=8))
    guards = Security(dhcp_guard=True, router_guard=True, source_guard=True, reject_mac_changes=True)
    policies = (
        PolicyInForce(security=guards, storm_control=StormControl(broadcast=50)),
        PolicyInForce(trunk=Trunk(((1, 2000),), 0, provider_tags=True)),
    )
    for slot, policy in enumerate(policies, 1):
        engine.add_port("s", slot, f"p{slot}", 0, True)
        engine.attach(slot, Sink(), 0)
        engine.set_policy(slot, 0, policy, 0)
    engine.set_loop_detection("s", LoopDetection(), Rng(1), 0)
    for number, (elsewhere, _, piece) in enumerate(pieces(data)):
        slot = 2 if elsewhere else 1
        before = engine.counters(slot)
        dropped = engine.transmit(slot, [piece], number * 1_000_000)
        after = engine.counters(slot)
        assert after.received_frames == before.received_frames + 1
        assert sum(after.drops.values()) == sum(before.drops.values()) + dropped
    assert len(engine.mac_entries("s", 1 << 30)) <= 8


def check_router(data: bytes) -> None:
    """A router with DHCP, DNS and TCP sends whole packets of its own, whatever comes."""
    router, now_ns = made([]), SECOND_NS
    for slow, mend, piece in pieces(data):
        check(router, router.receive(mended(piece) if mend else piece, now_ns))
        now_ns += 10 * SECOND_NS if slow else 1000
        check(router, router.tick(now_ns))


def check_translator(data: bytes) -> None:
    """Translation to an uplink and to virtual servers: bounded, and no packet longer than what came."""
    nat, balancer, table = everything()
    for number, (elsewhere, mend, piece) in enumerate(pieces(data)):
        packet = mended_packet(piece) if mend else piece
        works = (nat.entering, balancer.to_gateway) if elsewhere else (nat.leaving, balancer.to_server)
        for work in works:
            outcome = work(packet, number * SECOND_NS)
            assert isinstance(outcome, Outcome) and len(table) <= 16
            assert all(20 <= len(each) <= max(len(packet), 40) for each in (*outcome.inside, *outcome.outside)) or (
                len(outcome.inside) + len(outcome.outside) > 1  # fragments that had waited
            )


def check_gateway(data: bytes) -> None:
    """Flows that end in sockets: bounded, and whatever goes inside is a packet."""
    host, rng = PlayedHost(), Rng("fuzz")

    def gone(entry: Entry) -> None:
        gateway.ended(entry)

    table = Table(16, 16, gone)
    reach = Reach(NatSettings(allowed_destinations=(Subnet(0, 0),)))
    ports = SharedPorts(40000, 40005, rng.randrange)
    gateway = SocketGateway(GUESTS[0], 1500, table, ports, Forwards(), host, reach, rng)
    for number, (elsewhere, mend, piece) in enumerate(pieces(data)):
        packet = mended_packet(piece) if mend else piece
        outcome = (gateway.to_gateway if elsewhere else gateway.leaving)(packet, number * SECOND_NS)
        gateway.tick(number * SECOND_NS)
        assert len(table) <= 16
        assert all(isinstance(ipv4.parse(each), ipv4.Packet) for each in (*outcome.inside, *gateway.take()))


def _tunnelled(inner: bytes) -> bytes:
    datagram = udp.build(address(1), address(0), udp.Datagram(50_000, vxlan.PORT, vxlan.build(7, inner)))
    packet = ipv4.build(ipv4.Packet(address(1), address(0), ipv4.UDP, datagram))
    return ethernet.build(b"\x06\0\0\0\0\0", b"\x06\0\0\0\0\1", ethernet.IPV4, packet)


TUNNELLED = (_tunnelled(b"\xff" * 6 + b"\x02\0\0\0\0\1" + bytes(48)), _tunnelled(bytes(14)))


def check_tunnel(data: bytes) -> None:
    """A tunnel drops with a reason or delivers; addresses behind other ends are bounded."""
    host = Host(0, frozenset({1}), Learning())
    for number, (_, mend, piece) in enumerate(pieces(data)):
        host.tunnel.receive(mended(piece) if mend else piece, number)
        host.tunnel.tick(number)
    assert all(isinstance(each, DropReason) for each in host.drops)
    assert all(14 <= len(each) <= 1514 + 4 for each in host.got)


def check_ring(data: bytes) -> None:
    """A ring whose every byte the device writes is corrupt, or gives frames that lie within it."""
    sizes = Geometry(1, 64, 2048)
    memory: Any = np.zeros(sizes.ring_bytes, np.uint8)
    at = min(len(data), 4)
    ends, slots = np.frombuffer(data[:at], np.uint8), np.frombuffer(data[at : at + 4096], np.uint8)
    memory[: ends.size] = ends
    memory[64 : 64 + ends.size] = ends[::-1]
    memory[FIRST_SLOT : FIRST_SLOT + slots.size] = slots
    ring = MemoryRing(memory, 0, sizes)
    waiting = ring.waiting()
    assert waiting is None or waiting <= sizes.slots
    burst = ring.peek(sizes.slots)
    assert burst is None or len(burst) <= sizes.slots


@cache
def _blobs() -> BlobStore:
    return BlobStore(Path(tempfile.mkdtemp(prefix="lamina-fuzz-")))


def tar() -> bytes:
    """Returns a layer of one file, one folder and a link."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as made_tar:
        for name, kind in (("a", tarfile.REGTYPE), ("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "a" if kind == tarfile.SYMTYPE else ""
            entry.size = 3 if kind == tarfile.REGTYPE else 0
            made_tar.addfile(entry, io.BytesIO(b"abc"))
    return raw.getvalue()


def check_layer(data: bytes) -> None:
    """A layer of an image is unpacked, or refused by a reason."""
    try:
        unpack(io.BytesIO(data), _blobs(), "it", 1 << 20)
    except InvalidArgument as error:
        assert error.reason
