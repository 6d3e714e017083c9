"""Backends at devices of the kernel, in a network namespace of their own: TAP, and interfaces by packet sockets."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.linux.hardware.network import Network, needs_network
from tests.offload_frames import packet

from lamina_kit.errors import FailedPrecondition, NotFound
from lamina_net.offload.headers import is_transport_sum_good, parse
from lamina_vswitch.domain.backend.definition import BackendState, Packet, Tap
from lamina_vswitch.domain.backend.vnet import to_kernel
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.metadata import Offload, laden, load_of
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import ALL, PLAIN
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.attachments.stream import Attachment
from lamina_vswitch.io.backends.backend import Backend
from lamina_vswitch.io.backends.device_state import DeviceState
from lamina_vswitch.io.backends.packet import PacketBackend
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.tap import TapBackend
from lamina_vswitch.plane.switching import Plane

_SOL_PACKET, _VNET_HEADER = 263, 15
A, B, BROADCAST = bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), b"\xff" * 6


def frame(dst: bytes, src: bytes, text: str) -> bytes:
    """Return a frame of the least length that the kernel does nothing with."""
    return (dst + src + b"\x88\xb5" + text.encode()).ljust(60, b"\0")


@pytest.fixture
def network() -> Iterator[Network]:
    """Return a pair of interfaces."""
    needs_network()
    made = Network(1500)
    made.do(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
    yield made
    made.close()


@pytest.fixture(params=["python", "plane"], autouse=True)
def way(request: pytest.FixtureRequest) -> None:
    """Have every test twice: before the plane is loaded, and by the plane."""
    Bench.is_quick = request.param == "plane"


class Bench:
    """A switch with a device at port 1 that takes everything, and a backend at port 2."""

    is_quick = False

    def __init__(self, open_backend: Callable[[PortEnd], Backend], mtu_bytes: int = 1500) -> None:
        self.engine = ModelEngine(lambda notice: None)
        self.engine.add_switch("s", SwitchDefinition("s", mtu_bytes=mtu_bytes))
        self.device = Attachment("p1", 4096)
        for slot in (1, 2):
            self.engine.add_port("s", slot, f"p{slot}", 0, True)
        self.engine.attach(1, self.device, 0, ALL)
        end = PortEnd(self.engine, 2, lambda: 1500, lambda: 0)
        self.backend = open_backend(end)
        self.engine.attach(2, self.backend, 0, self.backend.takes)
        self.backend.start()
        if self.is_quick and isinstance(self.backend, (PacketBackend, TapBackend)):
            self.backend.quicken(Plane(self.engine, 1))

    def send(self, *frames: bytes) -> None:
        """Send frames from the device."""
        self.engine.transmit(1, frames, 0)

    async def hear(self, count: int) -> list[bytes]:
        """Return the next frames to the device."""
        found: list[bytes] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                outgoing = await self.device.next()
                assert outgoing is not None
                found += [each for _, frames, _ in outgoing.batches for each in frames]
        return found

    def drops(self, slot: int) -> dict[str, int]:
        """Return the drops at a port by reason."""
        return {reason.name: count for reason, count in self.engine.counters(slot).drops_by_reason()}


async def taken(peer: socket.socket, count: int) -> list[bytes]:
    """Return what a plain packet socket heard, without what it sent."""
    found: list[bytes] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            data = await asyncio.get_running_loop().sock_recv(peer, 70_000)
            if data[12:14] != b"\x86\xdd":
                found.append(data)
    return found


async def test_frames_pass_between_a_tap_and_the_switch(network: Network) -> None:
    """The kernel sends by the interface what the switch hears, and hears by it what the switch sends."""
    bench = Bench(lambda end: network.do(lambda: TapBackend(end, Tap("tap7", up=True), 100)))
    with network.end("tap7") as peer:
        peer.send(frame(BROADCAST, A, "out of the kernel"))
        assert await bench.hear(1) == [frame(BROADCAST, A, "out of the kernel")]
        bench.send(frame(A, B, "into the kernel"))
        assert await taken(peer, 1) == [frame(A, B, "into the kernel")]
    assert bench.backend.state is BackendState.OPEN
    bench.backend.close()
    with pytest.raises(OSError):
        network.do(lambda: socket.if_nametoindex("tap7"))


async def test_long_tcp_passes_a_tap_as_it_is(network: Network) -> None:
    """The kernel takes a packet of 20,000 bytes with its header and cuts it where it has to: nothing is lost."""
    bench = Bench(lambda end: network.do(lambda: TapBackend(end, Tap("tap7", up=True), 100)))
    long = packet(4, 6, bytes(range(250)) * 80)
    headers = parse(long)
    offload = Offload(1, 1, headers.payload, 1446, headers.l4, 16)
    with network.end("tap7") as peer:
        bench.send(laden(long, offload, None))
        (whole,) = await taken(peer, 1)
        assert whole[parse(whole).payload :] == bytes(range(250)) * 80
    bench.backend.close()


async def test_a_tap_has_queues_and_a_carrier(network: Network, eventually: Any) -> None:
    """Several queues of one device, all of which the kernel serves; the port's link is its carrier."""
    bench = Bench(lambda end: network.do(lambda: TapBackend(end, Tap("tap7", queues=4, up=True), 100)))
    flows = [packet(4, 17, b"x")[:34] + struct.pack(">HHHH", port, 2, 9, 0) + b"x" for port in range(32)]
    with network.end("tap7") as peer:
        bench.send(*flows)
        assert sorted(await taken(peer, 32)) == sorted(flows)
        bench.engine.set_link(2, False, 0)
        await eventually(lambda: network.do(lambda: _carrier("tap7")) == 0, "the device has no carrier")
        bench.engine.set_link(2, True, 0)
        await eventually(lambda: network.do(lambda: _carrier("tap7")) == 1, "the device has a carrier")
    bench.backend.close()


def _carrier(name: str) -> int:
    """Return whether an interface has a carrier: IFF_RUNNING of its flags."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, 0x8913, struct.pack("16sH22x", name.encode(), 0))
    flags: int = struct.unpack_from("16xH", answer)[0]
    return int(bool(flags & 0x40))


async def test_a_device_that_goes_is_told(network: Network, eventually: Any) -> None:
    """A TAP device that somebody deletes leaves a failed backend that says why."""
    bench = Bench(lambda end: network.do(lambda: TapBackend(end, Tap("tap7", up=True), 100)))
    network.run("ip link del tap7")
    await eventually(lambda: bench.backend.state is BackendState.FAILED, "the backend has failed")
    assert "went away" in bench.backend.detail
    bench.backend.close()


async def test_an_interface_that_goes_is_told(network: Network, eventually: Any) -> None:
    """An interface that goes down may come up again; one that somebody deletes leaves a failed backend."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right"), 100)))
    network.run("ip link set right down")
    await eventually(lambda: "went down" in bench.backend.detail, "the backend knows")
    assert bench.backend.state.name == "OPEN"
    network.run("ip link del left")
    await eventually(lambda: bench.backend.state is BackendState.FAILED, "the backend has failed")
    assert "went away" in bench.backend.detail
    bench.backend.close()


async def test_frames_pass_between_an_interface_and_the_switch(network: Network) -> None:
    """What comes in by the interface enters the switch, tags and all; what leaves the port leaves by the interface."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right", ring_bytes=1 << 20), 100)))
    with network.end("left") as peer:
        tagged = BROADCAST + A + bytes.fromhex("81000000") + frame(BROADCAST, A, "")[12:]
        sent = [frame(BROADCAST, A, str(number)) for number in range(300)]
        for each in sent:
            peer.send(each)
        peer.send(tagged)
        assert await bench.hear(301) == [*sent, tagged[:12] + tagged[16:]]
        bench.send(frame(A, B, "out"))
        assert await taken(peer, 1) == [frame(A, B, "out")]
    bench.backend.close()


async def test_long_segments_of_the_kernel_come_in_whole(network: Network) -> None:
    """A UDP datagram whose sum the kernel left to hardware comes with its header; finished, its sum is right."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right"), 100)))
    network.run("ip addr add 10.9.0.1/24 dev left")
    network.run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev left")
    with network.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"hello", ("10.9.0.2", 7))
        (found,) = await bench.hear(1)
    offload, _ = load_of(found)
    assert offload is not None and offload.flags & 1
    bench.backend.close()
    (whole,) = finished([found], PLAIN)
    assert is_transport_sum_good(whole, parse(whole)) and whole.endswith(b"hello")


async def test_frames_longer_than_a_slot_come_in_their_order(network: Network) -> None:
    """Long TCP of the kernel waits whole in the socket's queue; between short frames it keeps its place."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right"), 100)))
    payload = packet(4, 6, bytes(range(250)) * 80)
    parsed = parse(payload)
    long = to_kernel(laden(payload, Offload(1, 1, parsed.payload, 1446, parsed.l4, 16), None)) + payload
    with network.end("left") as peer:
        peer.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
        for number in range(40):
            short = frame(BROADCAST, A, str(number))
            peer.send(to_kernel(short) + short if number % 3 else long)
        heard = await bench.hear(40)
    expected = [frame(BROADCAST, A, str(number)) if number % 3 else payload for number in range(40)]
    assert heard == expected
    offload, _ = load_of(heard[0])
    assert offload is not None and offload.segment_bytes == 1446
    bench.backend.close()


async def test_long_frames_of_an_interface_that_went_down_stay_in_order(network: Network, eventually: Any) -> None:
    """The socket tells of it in the place of a frame that waits; that frame comes all the same, and none is late."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right"), 100)), mtu_bytes=9000)
    network.run("ip link set left mtu 9000")
    network.run("ip link set right mtu 9000")
    longs = [frame(BROADCAST, A, str(number)) + bytes(number) * 2 + bytes(4000) for number in range(5)]
    with network.end("left") as peer:
        for each in longs[:3]:
            peer.send(each)
        network.run("ip link set right down")
        assert await bench.hear(3) == longs[:3]
        assert bench.backend.detail == "the interface went down"
        network.run("ip link set right up")
        carrier = network.do(lambda: DeviceState(socket.if_nametoindex("left")))
        await eventually(lambda: carrier.changed() or carrier.free, "the interface can send again")
        carrier.close()
        for each in longs[3:]:
            peer.send(each)
        assert await bench.hear(2) == longs[3:]
    assert bench.drops(2) == {}
    bench.backend.close()


async def test_what_the_ring_has_no_room_for_is_counted(network: Network, eventually: Any) -> None:
    """Of more frames than the ring has slots for, which come while nobody reads, each is switched or counted."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right", ring_bytes=64 << 10), 100)))
    with network.end("left") as peer:
        for number in range(100):
            peer.send(frame(BROADCAST, A, str(number)))
        heard = await bench.hear(32)
    assert heard == [frame(BROADCAST, A, str(number)) for number in range(32)]
    await eventually(lambda: bench.drops(2) == {"QUEUE_FULL": 68}, "what did not fit is counted")
    bench.backend.close()


async def test_a_defect_costs_the_frames_of_one_burst(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the switch fails at is not read from the ring again and again: the next frame is switched."""
    bench = Bench(lambda end: network.do(lambda: PacketBackend(end, Packet("right"), 100)))
    failed = asyncio.Event()

    def failing(*arguments: object) -> None:
        raise ValueError("a defect")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.set())
    with network.end("left") as peer, monkeypatch.context() as broken:
        for name in ("switch", "transmit"):
            broken.setattr(PortEnd, name, failing)
        peer.send(frame(BROADCAST, A, "lost"))
        async with asyncio.timeout(20):
            await failed.wait()
        broken.undo()
        peer.send(frame(BROADCAST, A, "heard"))
        assert await bench.hear(1) == [frame(BROADCAST, A, "heard")]
    bench.backend.close()


async def test_what_is_not_there_is_refused(network: Network) -> None:
    """An interface that does not exist, and a TAP device that somebody else has."""
    end = PortEnd(ModelEngine(lambda notice: None), 1, lambda: 1500, lambda: 0)
    with pytest.raises(NotFound) as missing:
        network.do(lambda: PacketBackend(end, Packet("nothing"), 1))
    assert missing.value.reason == "DEVICE_UNKNOWN"
    first = network.do(lambda: TapBackend(end, Tap("tap7"), 1))
    with pytest.raises(FailedPrecondition) as taken_already:
        network.do(lambda: TapBackend(end, Tap("tap7"), 1))
    assert taken_already.value.reason == "DEVICE_IN_USE"
    with pytest.raises(FailedPrecondition):
        network.do(lambda: TapBackend(end, Tap("left"), 1))
    first.close()
