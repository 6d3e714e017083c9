"""Wires: made, changed, cut, captured; fabrics, datagrams, and time."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import wires_pb2 as pb
from tests.contract.hardware.device_bench import reason, variant  # noqa: F401 (variant is a fixture)
from tests.contract.hardware.nic_bench import NIC0, NIC1, WIRE, address_of, driven, make_wire, mask, wire_stub
from tests.unit.hardware.nic_world import packet
from tests.virtual_time import clock_of_loop

pytestmark = pytest.mark.inside  # wires of a machine that nobody used before, and its clock

_MS = 1_000_000


async def create(bench: Any, wire_id: str = "w", **wish: Any) -> pb.Wire:
    """Makes a wire."""
    made: pb.Wire = await wire_stub(bench).CreateWire(pb.CreateWireRequest(wire_id=wire_id, wire=pb.Wire(**wish)))
    return made


async def test_wires_are_made_and_listed(bench: Any) -> None:
    """A wire has its settings and defaults; names are unique; a request id makes it once; deleted it is gone."""
    stub = wire_stub(bench)
    request = pb.CreateWireRequest(wire_id="w", wire=pb.Wire(rate_bits_per_second=10**9, delay_ns=5), request_id="r")
    made = await stub.CreateWire(request)
    assert (made.name, made.fabric.fabric, made.queue_bytes, made.cut) == (WIRE, "w", 1 << 20, False)
    assert await stub.CreateWire(request) == made
    request.request_id = ""
    assert await reason(stub.CreateWire(request)) == ("ALREADY_EXISTS", "WIRE_EXISTS")
    await create(bench, "a")
    names = [wire.name for wire in (await stub.ListWires(pb.ListWiresRequest())).wires]
    assert names == ["hosts/h1/wires/a", WIRE]
    await stub.DeleteWire(pb.DeleteWireRequest(name=WIRE))
    assert await reason(stub.GetWire(pb.GetWireRequest(name=WIRE))) == ("NOT_FOUND", "WIRE_UNKNOWN")


@pytest.mark.parametrize(
    "wish",
    [
        {"rate_bits_per_second": 999},
        {"delay_ns": -1},
        {"jitter_ns": 10_000_000_001},
        {"loss_ppm": 1_000_001},
        {"queue_bytes": 1499},
        {"udp": pb.UdpMedium()},
        {"udp": pb.UdpMedium(remote="nowhere:1")},
        {"udp": pb.UdpMedium(remote="127.0.0.1:70000")},
        {"udp": pb.UdpMedium(remote="127.0.0.1:0")},
        {"udp": pb.UdpMedium(local="127.0.0.1:0", remote="[::1]:9")},
        {"unix": pb.UnixMedium(local="x" * 108, remote="y")},
        {"unix": pb.UnixMedium(local="x")},
        {"tap": pb.TapMedium(interface="a/b")},
        {"packet": pb.PacketMedium()},
        {"fabric": pb.FabricMedium(fabric="Not A Name")},
    ],
)
async def test_wires_that_cannot_be(bench: Any, wish: dict[str, Any]) -> None:
    """A value out of range is refused before anything is opened."""
    assert await reason(create(bench, **wish)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert not (await wire_stub(bench).ListWires(pb.ListWiresRequest())).wires


async def test_only_quality_changes(bench: Any) -> None:
    """Fields of the mask change, others stay; the medium cannot change."""
    await create(bench, delay_ns=5)
    stub = wire_stub(bench)
    wish = pb.Wire(name=WIRE, loss_ppm=7, delay_ns=9)
    changed = await stub.UpdateWire(pb.UpdateWireRequest(wire=wish, update_mask=mask("loss_ppm")))
    assert (changed.loss_ppm, changed.delay_ns) == (7, 5)
    for paths in ((), ("udp",), ("name",)):
        refused = stub.UpdateWire(pb.UpdateWireRequest(wire=wish, update_mask=mask(*paths)))
        assert await reason(refused) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_a_new_rate_is_told(bench: Any) -> None:
    """The driver hears of another rate while its link stays up."""
    await make_wire(bench, NIC0, rate_bits_per_second=10**9)
    async with driven(bench, NIC0) as nic:
        slower = pb.Wire(name=WIRE, rate_bits_per_second=10**8)
        await wire_stub(bench).UpdateWire(pb.UpdateWireRequest(wire=slower, update_mask=mask("rate_bits_per_second")))
        told = await nic.news("link")
        while told.rate_bits_per_second != 10**8:
            told = await nic.news("link")
        assert told.up


async def test_a_nic_is_on_one_wire(bench: Any) -> None:
    """Connecting again changes nothing, another wire is refused, disconnecting twice is as once."""
    await make_wire(bench, NIC0)
    await create(bench, "other")
    stub = wire_stub(bench)
    await stub.ConnectNic(pb.ConnectNicRequest(nic=NIC0, wire=WIRE))
    elsewhere = stub.ConnectNic(pb.ConnectNicRequest(nic=NIC0, wire="hosts/h1/wires/other"))
    assert await reason(elsewhere) == ("FAILED_PRECONDITION", "NIC_CONNECTED")
    unknown = stub.ConnectNic(pb.ConnectNicRequest(nic="hosts/h1/nics/nic9", wire=WIRE))
    assert await reason(unknown) == ("NOT_FOUND", "NIC_UNKNOWN")
    assert list((await stub.GetWire(pb.GetWireRequest(name=WIRE))).nics) == [NIC0]
    for _ in range(2):
        await stub.DisconnectNic(pb.DisconnectNicRequest(nic=NIC0))
    assert not (await stub.GetWire(pb.GetWireRequest(name=WIRE))).nics


async def test_a_capture_sees_frames_with_their_times(bench: Any) -> None:
    """Frames come in order, cut to the snapshot length, and the stream ends with the wire."""
    await make_wire(bench, NIC0, NIC1)
    stub = wire_stub(bench)
    async with driven(bench, NIC0) as first, driven(bench, NIC1):
        capture = stub.CaptureWire(pb.CaptureWireRequest(wire=WIRE, snap_bytes=60))
        reading = asyncio.ensure_future(capture.read())
        sent: list[bytes] = []
        while not reading.done():  # the capture begins when the call has arrived
            sent.append(packet(bytes([len(sent) % 256]) * 80, target=await address_of(bench, NIC1)))
            await first.send(sent[-1])
            await first.news("interrupts")
        batch = await reading
        begin = [frame[:60] for frame in sent].index(batch.frames[0])
        assert list(batch.frames) == [frame[:60] for frame in sent[begin : begin + len(batch.frames)]]
        assert set(batch.lengths) == {len(sent[0])}
        assert list(batch.times_ns) == sorted(batch.times_ns)
        assert len(batch.times_ns) == len(batch.lengths) == len(batch.frames)
        await stub.DeleteWire(pb.DeleteWireRequest(name=WIRE))
        rest: list[bytes] = []
        while (more := await capture.read()) is not grpc.aio.EOF:
            rest += more.frames
        assert [*batch.frames, *rest] == [frame[:60] for frame in sent[begin:]]


async def test_a_wire_has_delay_and_loss(bench: Any) -> None:
    """A frame needs the wire's time; one that is lost never comes, and is counted."""
    await make_wire(bench, NIC0, NIC1, delay_ns=20 * _MS, rate_bits_per_second=10**9)
    stub, clock = wire_stub(bench), clock_of_loop()
    async with driven(bench, NIC0) as first, driven(bench, NIC1) as second:
        frame = packet(bytes(100), target=await address_of(bench, NIC1))
        before = clock.now_ns()
        await first.send(frame)
        await second.news("interrupts")
        assert clock.now_ns() - before >= 20 * _MS
        lossy = pb.Wire(name=WIRE, loss_ppm=1_000_000)
        await stub.UpdateWire(pb.UpdateWireRequest(wire=lossy, update_mask=mask("loss_ppm")))
        await first.send(frame, frame)
        while (await stub.GetWire(pb.GetWireRequest(name=WIRE))).lost_frames < 2:
            pass
        shown = await stub.GetWire(pb.GetWireRequest(name=WIRE))
        assert (shown.frames, shown.lost_frames) == (1, 2)


async def test_fabrics_join_wires(bench: Any) -> None:
    """Wires of one fabric are one medium."""
    await make_wire(bench, NIC0, wire_id="left", fabric=pb.FabricMedium(fabric="both"))
    await make_wire(bench, NIC1, wire_id="right", fabric=pb.FabricMedium(fabric="both"))
    async with driven(bench, NIC0) as first, driven(bench, NIC1) as second:
        frame = packet(bytes(70), target=await address_of(bench, NIC1))
        await first.send(frame)
        await second.news("interrupts")
        assert [data for _, data in second.fetch()] == [frame]


def is_virtual() -> bool:
    """Returns whether the test runs in virtual time."""
    return getattr(clock_of_loop(), "mode", "real") == "virtual"


async def test_udp_carries_a_wire(bench: Any) -> None:
    """Frames leave as datagrams and come in as such, one each; on a virtual clock such a wire is refused."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    peer.setblocking(False)
    remote = f"127.0.0.1:{peer.getsockname()[1]}"
    wish = pb.UdpMedium(local="127.0.0.1:0", remote=remote)
    if is_virtual():
        assert await reason(create(bench, udp=wish)) == ("FAILED_PRECONDITION", "CLOCK_VIRTUAL")
        peer.close()
        return
    made = await make_wire(bench, NIC0, udp=wish)
    host, port = made.udp.local.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    async with driven(bench, NIC0) as nic:
        frame = packet(bytes(80))
        await nic.send(frame)
        assert await asyncio.wait_for(loop.sock_recv(peer, 4096), 30) == frame
        incoming = packet(b"back" * 20, target=await address_of(bench, NIC0))
        await loop.sock_sendto(peer, incoming, (host, int(port)))
        await nic.news("interrupts")
        while not (found := nic.fetch()):
            await nic.news("interrupts")
        assert [data for _, data in found] == [incoming]
    taken = create(bench, "second", udp=pb.UdpMedium(local=made.udp.local, remote=remote))
    assert await reason(taken) == ("UNAVAILABLE", "WIRE_ADDRESS_IN_USE")
    peer.close()


async def test_unix_datagrams_carry_a_wire(bench: Any, short_dir: Path) -> None:
    """Frames pass over two paths as QEMU's dgram netdev has them; a path left by a dead process is taken over."""
    here, there = short_dir / "here", short_dir / "there"
    wish = pb.UnixMedium(local=str(here), remote=str(there))
    if is_virtual():
        assert await reason(create(bench, unix=wish)) == ("FAILED_PRECONDITION", "CLOCK_VIRTUAL")
        return
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(here))
    dead.close()
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.bind(str(there))
    peer.setblocking(False)
    await make_wire(bench, NIC0, unix=wish)
    loop = asyncio.get_running_loop()
    async with driven(bench, NIC0) as nic:
        frame = packet(bytes(80))
        await nic.send(frame)
        assert await asyncio.wait_for(loop.sock_recv(peer, 4096), 30) == frame
        incoming = packet(b"back" * 20, target=await address_of(bench, NIC0))
        peer.sendto(incoming, str(here))
        found: list[tuple[bytes, bytes]] = []
        while not found:
            await nic.news("interrupts")
            found = nic.fetch()
        assert [data for _, data in found] == [incoming]
    await wire_stub(bench).DeleteWire(pb.DeleteWireRequest(name=WIRE))
    assert not here.exists()
    peer.close()
