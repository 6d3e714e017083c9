"""Backends of datagrams, byte streams and capture files through the service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import backends_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.plugging import FAILED, OPEN, WAITING, backends, plug, state, until_state
from tests.integration.vswitch.ring_device import SWITCH, counters, make_ports
from tests.integration.vswitch.test_attach import BROADCAST, A, B, frame, reason_of

from lamina_vswitch.domain.backend.deframer import Deframer, framed

real_time = pytest.mark.real_time("sockets of the machine")


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Return a list whose sockets are closed at the end."""
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


def end(sockets: list[socket.socket], family: int, kind: int, address: Any = None) -> socket.socket:
    """Return a socket, bound to an address if one is given."""
    made = socket.socket(family, kind)
    made.setblocking(False)
    sockets.append(made)
    if address is not None:
        made.bind(address)
    return made


async def receive(peer: socket.socket, count: int = 1) -> list[bytes]:
    """Return the next datagrams."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        return [await loop.sock_recv(peer, 70_000) for _ in range(count)]


# Datagrams


@real_time
async def test_udp_datagrams_are_frames(start: Any, device: Any, manual_clock: Any, sockets: list[Any]) -> None:
    """What a peer sends enters the switch, what leaves by the port reaches the peer that sent last."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b")
    made = await plug(running, ports[0], datagram=backends_pb2.DatagramBackend(local_address="udp:127.0.0.1:0"))
    assert (made.name, made.state) == (f"{SWITCH}/ports/a/backend", OPEN)
    number = int(made.datagram.local_address.rpartition(":")[2])
    assert number > 0
    b = await device(running.ports, ports[1].handle, completions=True).plug_in()
    b.send([frame(BROADCAST, B, "nobody there yet")])
    assert (await b.next()).completion.frames == 1
    peer = end(sockets, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    peer.sendto(frame(BROADCAST, A), ("127.0.0.1", number))
    assert await b.receive(1) == [frame(BROADCAST, A)]
    b.send([frame(A, B, "answer")])
    assert await receive(peer) == [frame(A, B, "answer")]
    peer.sendto(b"short", ("127.0.0.1", number))
    peer.sendto(bytes(60_000), ("127.0.0.1", number))
    peer.sendto(frame(BROADCAST, A, "last"), ("127.0.0.1", number))
    assert await b.receive(1) == [frame(BROADCAST, A, "last")]
    _, drops = await counters(running, ports[0])
    assert drops == {"QUEUE_FULL": 1, "RUNT": 1, "OVERSIZE": 1}
    assert (await state(running, ports[0])).state == OPEN


@real_time
async def test_only_the_peer_is_heard(start: Any, device: Any, manual_clock: Any, sockets: list[Any]) -> None:
    """With an address of the peer, datagrams of others go nowhere, and the backend says how many there were."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b")
    peer = end(sockets, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    stranger = end(sockets, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    wanted = backends_pb2.DatagramBackend(
        local_address="udp:127.0.0.1:0", remote_address=f"udp:127.0.0.1:{peer.getsockname()[1]}"
    )
    made = await plug(running, ports[0], datagram=wanted)
    to = ("127.0.0.1", int(made.datagram.local_address.rpartition(":")[2]))
    b = await device(running.ports, ports[1].handle).plug_in()
    b.send([frame(BROADCAST, B)])
    assert await receive(peer) == [frame(BROADCAST, B)]
    stranger.sendto(frame(BROADCAST, A, "stranger"), to)
    peer.sendto(frame(BROADCAST, A, "peer"), to)
    assert await b.receive(1) == [frame(BROADCAST, A, "peer")]
    assert "1 datagrams of others" in (await state(running, ports[0])).state_detail


@real_time
async def test_unix_datagrams_wait_for_a_slow_peer(
    start: Any, device: Any, manual_clock: Any, sockets: list[Any], tmp_path: Path
) -> None:
    """More than the kernel's queue holds waits in the backend's, up to its length; the path goes with the backend."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b")
    peer = end(sockets, socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "peer"))
    wanted = backends_pb2.DatagramBackend(local_address=f"unix:{tmp_path}/own", remote_address=f"unix:{tmp_path}/peer")
    await plug(running, ports[0], datagram=wanted, queue_frames=2000)
    b = await device(running.ports, ports[1].handle).plug_in()
    sent = [frame(BROADCAST, B, str(number)) for number in range(2000)]
    b.send(sent)
    assert await receive(peer, 2000) == sent
    peer.sendto(frame(BROADCAST, A), str(tmp_path / "own"))
    assert await b.receive(1) == [frame(BROADCAST, A)]
    await backends(running).DeleteBackend(backends_pb2.DeleteBackendRequest(name=f"{ports[0].name}/backend"))
    assert not (tmp_path / "own").exists()
    b.send([frame(BROADCAST, B)])
    again = await plug(running, ports[0], datagram=wanted)
    assert again.state == OPEN


# Streams


class Peer:
    """The other end of a byte stream."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self._deframer, self._frames = end, Deframer(), list[bytes]()

    async def receive(self, count: int) -> list[bytes]:
        """Return the next frames."""
        async with asyncio.timeout(20):
            while len(self._frames) < count:
                data = await asyncio.get_running_loop().sock_recv(self.end, 1 << 20)
                assert data, "the stream has ended"
                self._frames += self._deframer.feed(data)[0]
        found, self._frames = self._frames[:count], self._frames[count:]
        return found


@real_time
@pytest.mark.parametrize("family", ["unix", "tcp"])
async def test_a_stream_that_listens(
    start: Any, device: Any, manual_clock: Any, sockets: list[Any], tmp_path: Path, family: str
) -> None:
    """One peer after the other is served; what is announced too long is counted and passed over."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b")
    address = f"unix:{tmp_path}/own" if family == "unix" else "tcp:127.0.0.1:0"
    made = await plug(running, ports[0], stream=backends_pb2.StreamBackend(address=address, listen=True))
    assert made.state == WAITING
    b = await device(running.ports, ports[1].handle).plug_in()
    to: Any = str(tmp_path / "own")
    if family == "tcp":
        to = ("127.0.0.1", int(made.stream.address.rpartition(":")[2]))
    for turn in ("first", "second"):
        raw = end(sockets, socket.AF_UNIX if family == "unix" else socket.AF_INET, socket.SOCK_STREAM)
        await asyncio.get_running_loop().sock_connect(raw, to)
        peer = Peer(raw)
        too_long = (70_000).to_bytes(4, "big") + bytes(70_000)
        data = framed([frame(BROADCAST, A, turn)]) + too_long + framed([frame(BROADCAST, A, "after")])
        await asyncio.get_running_loop().sock_sendall(raw, data)
        assert await b.receive(2) == [frame(BROADCAST, A, turn), frame(BROADCAST, A, "after")]
        assert (await state(running, ports[0])).state == OPEN
        b.send([frame(A, B, str(number)) for number in range(1000)])
        assert await peer.receive(1000) == [frame(A, B, str(number)) for number in range(1000)]
        raw.close()
        await until_state(running, ports[0], WAITING)
    assert (await counters(running, ports[0]))[1]["OVERSIZE"] == 2


@real_time
async def test_a_stream_that_connects_tries_again_each_second(
    start: Any, device: Any, manual_clock: Any, sockets: list[Any], tmp_path: Path
) -> None:
    """Without its peer it waits and says why; a second later it tries again, also after the peer went."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b")
    b = await device(running.ports, ports[1].handle).plug_in()
    await plug(running, ports[0], stream=backends_pb2.StreamBackend(address=f"unix:{tmp_path}/peer"))
    found = await until_state(running, ports[0], WAITING)
    async with asyncio.timeout(20):
        while not found.state_detail:
            await asyncio.sleep(0)
            found = await state(running, ports[0])
    assert "failed" in found.state_detail
    listener = end(sockets, socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "peer"))
    listener.listen(1)
    for turn in range(2):
        accepting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(listener))
        async with asyncio.timeout(20):
            while not accepting.done():
                await manual_clock.advance(1_000_000_000)
                await asyncio.sleep(0)
        raw = accepting.result()[0]
        sockets.append(raw)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(raw, framed([frame(BROADCAST, A, str(turn))]))
        assert await b.receive(1) == [frame(BROADCAST, A, str(turn))]
        raw.close()
        await until_state(running, ports[0], WAITING)


@real_time
async def test_a_stream_with_a_slow_peer_is_bounded(
    start: Any, device: Any, manual_clock: Any, sockets: list[Any], tmp_path: Path
) -> None:
    """What a peer does not read waits up to the length of the queue; the rest is dropped at the port."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b")
    wanted = backends_pb2.StreamBackend(address=f"unix:{tmp_path}/own", listen=True)
    await plug(running, ports[0], stream=wanted, queue_frames=50)
    raw = end(sockets, socket.AF_UNIX, socket.SOCK_STREAM)
    await asyncio.get_running_loop().sock_connect(raw, str(tmp_path / "own"))
    await until_state(running, ports[0], OPEN)
    b = await device(running.ports, ports[1].handle, completions=True).plug_in()
    for turn in range(4):
        b.send([frame(BROADCAST, B, str(turn)) + bytes(1400)] * 500)
        await b.next()
    sent, drops = await counters(running, ports[0])
    assert sent + drops["QUEUE_FULL"] == 2000 and drops["QUEUE_FULL"] > 0
    assert len(await Peer(raw).receive(sent)) == sent


# Definitions and errors


@real_time
async def test_backends_survive_a_restart(start: Any, manual_clock: Any, sockets: list[Any], tmp_path: Path) -> None:
    """They are open again afterwards, with the same address; one that cannot be opened is there, and says why."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a", "b", "c")
    await plug(running, ports[0], datagram=backends_pb2.DatagramBackend(local_address=f"unix:{tmp_path}/a"))
    await plug(running, ports[1], datagram=backends_pb2.DatagramBackend(local_address=f"unix:{tmp_path}/b"))
    await running.stop()
    start.running.clear()
    end(sockets, socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "b"))
    running = await start()
    found = await backends(running).ListBackends(backends_pb2.ListBackendsRequest(parent=SWITCH))
    assert [(each.name, each.state) for each in found.backends] == [
        (f"{ports[0].name}/backend", OPEN),
        (f"{ports[1].name}/backend", FAILED),
    ]
    assert "cannot be had" in found.backends[1].state_detail
    await backends(running).DeleteBackend(backends_pb2.DeleteBackendRequest(name=found.backends[1].name))
    assert (tmp_path / "b").exists(), "what is somebody else's stays"
    await running.ports.DeletePort(pb.DeletePortRequest(name=ports[0].name))
    assert not (tmp_path / "a").exists()
    assert not (await backends(running).ListBackends(backends_pb2.ListBackendsRequest(parent=SWITCH))).backends


async def test_a_backend_is_the_only_thing_at_its_port(start: Any, device: Any) -> None:
    """Whoever is first has the port; the same request again returns what it made."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    file = backends_pb2.FileBackend()
    made = await plug(running, ports[0], "r1", file=file)
    assert await plug(running, ports[0], "r1", file=file) == made
    precondition, exists = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert await reason_of(plug(running, ports[1], "r1", file=file)) == (invalid, "REQUEST_ID_REUSED")
    assert await reason_of(plug(running, ports[0], file=file)) == (exists, "BACKEND_EXISTS")
    second = device(running.ports, ports[0].handle)
    assert await reason_of(second.call.read()) == (precondition, "PORT_ATTACHED")
    await device(running.ports, ports[1].handle).plug_in()
    assert await reason_of(plug(running, ports[1], file=file)) == (precondition, "PORT_ATTACHED")
    name = f"{ports[0].name}/backend"
    await backends(running).DeleteBackend(backends_pb2.DeleteBackendRequest(name=name))
    await device(running.ports, ports[0].handle).plug_in()


async def test_backends_are_listed_in_pages(start: Any) -> None:
    """By port, and a page names the next."""
    running = await start()
    ports = await make_ports(running, "c", "a", "b")
    for port in ports:
        await plug(running, port, file=backends_pb2.FileBackend())
    first = await backends(running).ListBackends(backends_pb2.ListBackendsRequest(parent=SWITCH, page_size=2))
    rest = backends_pb2.ListBackendsRequest(parent=SWITCH, page_token=first.next_page_token)
    second = await backends(running).ListBackends(rest)
    names = [each.name for each in [*first.backends, *second.backends]]
    assert names == [f"{SWITCH}/ports/{port}/backend" for port in "abc"] and not second.next_page_token


async def test_only_files_are_in_the_time_of_the_stack(start: Any) -> None:
    """On a clock that is not the machine's, sockets and devices are refused."""
    running = await start()
    (port,) = await make_ports(running, "a")
    refused = (grpc.StatusCode.FAILED_PRECONDITION, "CLOCK_VIRTUAL")
    for kind in (
        {"tap": backends_pb2.TapBackend(interface="tap0")},
        {"packet": backends_pb2.PacketBackend(interface="lo")},
        {"datagram": backends_pb2.DatagramBackend(local_address="udp:127.0.0.1:0")},
        {"stream": backends_pb2.StreamBackend(address="tcp:127.0.0.1:1")},
    ):
        assert await reason_of(plug(running, port, **kind)) == refused
    assert (await plug(running, port, file=backends_pb2.FileBackend())).state == OPEN


D, S, T, P, F = (
    backends_pb2.DatagramBackend, backends_pb2.StreamBackend, backends_pb2.TapBackend, backends_pb2.PacketBackend,
    backends_pb2.FileBackend,
)  # fmt: skip


BAD: tuple[dict[str, Any], ...] = (
    {},
    {"tap": T()},
    {"tap": T(interface="a" * 16)},
    {"tap": T(interface="a/b")},
    {"tap": T(interface="a%d")},
    {"tap": T(interface="tap0", queues=17)},
    {"packet": P(interface="lo", ring_bytes=1000)},
    {"packet": P(interface="lo", ring_bytes=128 << 20)},
    {"datagram": D()},
    {"datagram": D(local_address="tcp:127.0.0.1:1")},
    {"datagram": D(local_address="udp:192.0.2.1:1")},
    {"datagram": D(local_address="udp:127.0.0.1:1", remote_address="udp:192.0.2.1:1")},
    {"datagram": D(local_address="udp:127.0.0.1:1", remote_address="unix:/a")},
    {"stream": S(address="udp:127.0.0.1:1")},
    {"stream": S(address="tcp:0.0.0.0:1", listen=True)},
    {"file": F(input_path="relative")},
    {"file": F(input_path="/tmp/x", output_path="/tmp/x")},
    {"file": F(), "queue_frames": 65537},
    {"file": F(), "queue_frames": -1},
)


async def test_bad_fields_are_refused(start: Any) -> None:
    """Each kind has its ranges, and an address beyond the machine has to be allowed."""
    running = await start()
    (port,) = await make_ports(running, "a")
    for kind in BAD:
        refused = await reason_of(plug(running, port, **kind))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"), kind


async def test_names_and_ports_have_to_be_there(start: Any) -> None:
    """Unknown and malformed names have their reasons."""
    running = await start()
    (port,) = await make_ports(running, "a")
    missing, invalid = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
    nowhere = pb.Port(name=f"{SWITCH}/ports/none")
    assert await reason_of(plug(running, nowhere, file=F())) == (missing, "PORT_UNKNOWN")
    assert await reason_of(plug(running, pb.Port(name="x"), file=F())) == (invalid, "NAME_MALFORMED")
    assert await reason_of(state(running, port)) == (missing, "BACKEND_UNKNOWN")
    assert await reason_of(state(running, pb.Port(name="x"))) == (invalid, "NAME_MALFORMED")
    delete = backends_pb2.DeleteBackendRequest(name=f"{port.name}/backend")
    assert await reason_of(backends(running).DeleteBackend(delete)) == (missing, "BACKEND_UNKNOWN")
    listing = backends_pb2.ListBackendsRequest(parent="hosts/h1/switches/none")
    assert await reason_of(backends(running).ListBackends(listing)) == (missing, "SWITCH_UNKNOWN")
    unknown = plug(running, port, file=F(input_path="/nowhere/at/all.pcap"))
    assert await reason_of(unknown) == (missing, "DEVICE_UNKNOWN")


@real_time
async def test_addresses_that_cannot_be_had(start: Any, manual_clock: Any, sockets: list[Any], tmp_path: Path) -> None:
    """One that is taken, one in a folder that is not there; a path that a dead process left is taken over."""
    manual_clock.mode = "real"
    running = await start()
    ports = await make_ports(running, "a")
    taken = end(sockets, socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "taken"))
    in_use = plug(running, ports[0], datagram=D(local_address=f"unix:{tmp_path}/taken"))
    assert await reason_of(in_use) == (grpc.StatusCode.FAILED_PRECONDITION, "DEVICE_IN_USE")
    nowhere = plug(running, ports[0], datagram=D(local_address=f"unix:{tmp_path}/none/own"))
    assert await reason_of(nowhere) == (grpc.StatusCode.NOT_FOUND, "DEVICE_UNKNOWN")
    taken.close()
    made = await plug(running, ports[0], datagram=D(local_address=f"unix:{tmp_path}/taken"))
    assert made.state == OPEN


# Devices of the kernel


async def test_the_model_has_no_devices_of_the_kernel(start: Any, manual_clock: Any) -> None:
    """A veth needs an engine whose switches are the kernel's; its interface is checked before."""
    manual_clock.mode = "real"
    running = await start()
    (port,) = await make_ports(running, "a")
    for interface, expected in (("dev0", ("UNIMPLEMENTED", "ENGINE_LACKS_BACKEND")), ("a/b", ("INVALID_ARGUMENT", ""))):
        code, reason = await reason_of(plug(running, port, veth=backends_pb2.VethBackend(interface=interface)))
        assert (code.name, reason if expected[1] else "") == expected
