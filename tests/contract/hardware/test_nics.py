"""NICs: frames by DMA through rings, offloads, queues, links, and drivers that are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc
from lamina.hardware.v1 import nics_pb2 as pb
from lamina.hardware.v1 import wires_pb2 as wires
from tests.contract.hardware.device_bench import PAGE, Driver, Owner, reason, variant  # noqa: F401 (a fixture)
from tests.contract.hardware.nic_bench import (
    NIC0,
    NIC1,
    OFFLOADS,
    RX_BUFFERS,
    TX_BUFFERS,
    WIRE,
    NicDriver,
    address_of,
    driven,
    make_wire,
    mask,
    nics,
    wire_stub,
)
from tests.unit.hardware.nic_world import packet

from lamina_hardware.domain.nic.descriptors import TransmitContext
from lamina_net.offload.headers import is_transport_sum_good, parse, pseudo_sum

pytestmark = pytest.mark.inside  # NICs and wires of a machine that nobody used before

Pair = tuple[NicDriver, NicDriver]


@pytest.fixture
async def pair(bench: Any) -> AsyncIterator[Pair]:
    """Returns the drivers of two NICs on one wire."""
    await make_wire(bench, NIC0, NIC1)
    async with driven(bench, NIC0) as first, driven(bench, NIC1) as second:
        yield first, second


async def frame_to(driver: NicDriver, payload: bytes = b"payload", **fields: Any) -> bytes:
    """Returns a frame to a NIC."""
    return packet(payload, target=await address_of(driver.bench, driver.name), **fields)


async def test_a_frame_goes_from_ram_to_ram(pair: Pair) -> None:
    """What one driver puts into its ring the other finds in its own, with an interrupt on each side."""
    first, second = pair
    frame = await frame_to(second, bytes(100))
    await first.send(frame)
    told = await second.news("interrupts")
    assert list(told.vectors) == [0]
    assert [data for _, data in second.fetch()] == [frame]
    assert list((await first.news("interrupts")).vectors) == [0]
    sent, received = await first.counters(), await second.counters()
    assert (sent.sent_frames, sent.sent_bytes, sent.interrupts) == (1, len(frame), 1)
    assert (received.received_frames, received.received_bytes, list(received.drops)) == (1, len(frame), [])
    assert (await first.queue(1)).head == 1
    assert (await second.queue(0)).head == 1


async def test_what_dma_may_not_reach_stops_the_queue(pair: Pair) -> None:
    """A receive buffer that is no longer mapped is not written; the queue stops, the log and the stream tell it."""
    first, second = pair
    before = second.bench.bus.read(second.received, PAGE)
    await second.tables.unmap(second.domain, RX_BUFFERS)
    await first.send(await frame_to(second))
    fault = await second.news("fault")
    assert (fault.queue, fault.iova, fault.write) == (0, RX_BUFFERS, True)
    assert second.bench.bus.read(second.received, PAGE) == before
    assert (await second.queue(0)).stop_reason == "RING_DMA_FAULT"
    [logged] = await second.tables.faults("hosts/h1/devices/nic1")
    assert (logged.iova, logged.write) == (RX_BUFFERS, True)
    drops = (await second.counters()).drops
    assert [(drop.reason, drop.count) for drop in drops] == [(pb.NIC_DROP_REASON_DMA_FAULT, 1)]
    await second.tables.map(second.domain, (RX_BUFFERS, second.received, PAGE))
    await second.configure()
    await first.send(frame := await frame_to(second, b"again" * 9))
    await second.news("interrupts")
    assert [data for _, data in second.fetch()] == [frame]


async def test_sending_reads_only_its_own_memory(pair: Pair) -> None:
    """A driver that names memory of another's domain sends nothing of it."""
    first, second = pair
    await first.tables.unmap(first.domain, TX_BUFFERS)
    await first.send(await frame_to(second))
    fault = await first.news("fault")
    assert (fault.queue, fault.iova, fault.write) == (1, TX_BUFFERS, False)
    assert (await first.queue(1)).stop_reason == "RING_DMA_FAULT"
    assert second.fetch() == []


async def test_a_segment_is_cut_and_joined(pair: Pair) -> None:
    """One send of 60 kB leaves as 42 frames, and LRO hands them over as one or a few, with the same bytes."""
    first, second = pair
    await first.update(offloads=OFFLOADS)
    await second.update(offloads=OFFLOADS)
    await second.configure(moderation_ns=50_000)
    payload = bytes(n % 251 for n in range(60_000))
    whole = bytearray(await frame_to(second, payload))
    headers = parse(whole)
    seed = pseudo_sum(whole, headers, 0)
    whole[headers.l4 + 16 : headers.l4 + 18] = seed.to_bytes(2, "big")
    context = TransmitContext(14, 20, 20, 1460, 0, is_ipv4=True, l4_type=1)
    await first.send(bytes(whole), context=context, segment=True, ip_sum=True, l4_sum=True, payload_bytes=60_000)
    found = b""
    while len(found) < len(payload):
        await second.news("interrupts")
        for _, data in second.fetch():
            parsed = parse(data)
            assert is_transport_sum_good(data, parsed)
            found += data[parsed.payload : parsed.end]
    assert found == payload
    assert (await first.counters()).segmented_sends == 1
    counted = await second.counters()
    assert counted.received_frames + counted.coalesced_frames == 42
    assert counted.coalesced_frames > 30


async def test_tags_are_put_in_and_taken_off(pair: Pair) -> None:
    """The tag travels in descriptors on both sides, and on the wire in the frame."""
    first, second = pair
    for nic in pair:
        await nic.update(offloads=OFFLOADS)
    context = TransmitContext(14, 20, 20, 0, 0x2064, is_ipv4=True, l4_type=1)
    await first.send(frame := await frame_to(second, bytes(60)), context=context, insert_vlan=True)
    await second.news("interrupts")
    [(written, data)] = second.fetch()
    assert data == frame
    assert int.from_bytes(written[14:16], "little") == 0x2064


async def test_queues_share_the_flows(bench: Any) -> None:
    """With RSS flows go to four queues, each with its own vector, and frames of a flow stay together."""
    await make_wire(bench, NIC0, NIC1)
    async with driven(bench, NIC0) as first, driven(bench, NIC1, queues=4) as second:
        spreading = pb.ReceiveSideScaling(
            enabled=True, key=bytes(range(40)), table=[n % 4 for n in range(128)], hash_ports=True
        )
        await second.update(receive_side_scaling=spreading)
        frames = [await frame_to(second, ports=(port, 80)) for port in range(3000, 3040)]
        await first.send(*frames)
        found: list[list[bytes]] = [[] for _ in range(4)]
        while sum(map(len, found)) < len(frames):
            for vector in (await second.news("interrupts")).vectors:
                found[vector] += [data for _, data in second.fetch(vector)]
        assert all(found)
        assert sorted(frame for queue in found for frame in queue) == sorted(frames)


async def test_a_link_is_told(bench: Any) -> None:
    """Connecting, cutting, a fault, the driver's wish and disconnecting show on the stream and in the NIC."""
    wire = await make_wire(bench, rate_bits_per_second=10**9)
    stub = wire_stub(bench)
    async with driven(bench, NIC0) as nic:

        async def is_up(told: bool = True) -> bool:
            up = bool((await nics(bench).GetNic(pb.GetNicRequest(name=NIC0))).link == pb.Nic.LINK_STATE_UP)
            if told:
                message = await nic.news("link")
                assert (message.up, message.rate_bits_per_second) == (up, 10**9 if up else 0)
            return up

        assert not await is_up(told=False)
        await stub.ConnectNic(wires.ConnectNicRequest(nic=NIC0, wire=wire.name))
        assert await is_up()
        cut = wires.Wire(name=wire.name, cut=True)
        await stub.UpdateWire(wires.UpdateWireRequest(wire=cut, update_mask=mask("cut")))
        assert not await is_up()
        cut.cut = False
        await stub.UpdateWire(wires.UpdateWireRequest(wire=cut, update_mask=mask("cut")))
        assert await is_up()
        faults = faults_pb2_grpc.FaultsStub(bench.channel)
        asked = faults_pb2.InjectFaultRequest(fault=faults_pb2.Fault(kind="link-flap", object=NIC0))
        made = await faults.InjectFault(asked)
        assert not await is_up()
        await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))
        assert await is_up()
        await nic.update("admin_up")
        assert not await is_up()
        await nic.update(admin_up=True)
        assert await is_up()
        await stub.DisconnectNic(wires.DisconnectNicRequest(nic=NIC0))
        assert not await is_up()


async def test_moderation_merges_interrupts(pair: Pair) -> None:
    """Interrupts are never nearer to each other than the interval; those that a batch of frames wanted are counted."""
    first, second = pair
    await second.configure(moderation_ns=10_000_000)
    clock = asyncio.get_running_loop().time
    begun = clock()
    for _ in range(20):
        await first.send(await frame_to(second))
    found = 0
    while found < 20:
        await second.news("interrupts")
        found += len(second.fetch())
    counted = await second.counters()
    assert 1 <= counted.interrupts <= 1 + int((clock() - begun) / 0.01 + 0.001)
    assert counted.interrupts + counted.moderated_interrupts <= 20  # frames that are taken together want one


async def test_settings_change_what_is_received(pair: Pair) -> None:
    """Further addresses, VLANs and the MTU take effect for frames that come after."""
    first, second = pair
    other = "02:00:00:00:00:77"
    changed = await second.update(receive_addresses=[other], vlan_filter=[7, 9], mtu_bytes=600)
    assert (list(changed.receive_addresses), list(changed.vlan_filter), changed.mtu_bytes) == ([other], [7, 9], 600)
    address = bytes.fromhex(other.replace(":", ""))
    wanted = packet(target=address, vlan=7)
    await first.send(packet(target=address, vlan=8), packet(bytes(700), target=address), wanted)
    await second.news("interrupts")
    assert [data for _, data in second.fetch()] == [wanted.ljust(60, b"\0")]
    drops = {drop.reason: drop.count for drop in (await second.counters()).drops}
    assert drops == {pb.NIC_DROP_REASON_TOO_LONG: 1, pb.NIC_DROP_REASON_FILTERED: 1}


async def test_a_reset_forgets_rings_and_settings(pair: Pair) -> None:
    """When the driver's stream ends the NIC is as after power-on; frames are then nobody's."""
    first, second = pair
    await second.update(mtu_bytes=9000, promiscuous=True)
    second.driver.stream.cancel()
    name = pb.GetNicRequest(name=NIC1)
    while (await nics(second.bench).GetNic(name)).mtu_bytes != 1500:
        pass
    assert not (await second.stub.ListQueues(pb.ListQueuesRequest(nic=NIC1))).queues
    await first.send(await frame_to(second))
    while not (drops := (await second.counters()).drops):
        pass
    assert [(drop.reason, drop.count) for drop in drops] == [(pb.NIC_DROP_REASON_NOT_DRIVEN, 1)]


@pytest.mark.parametrize(
    ("paths", "fields"),
    [
        ((), {}),
        (("link",), {}),
        (("mtu_bytes",), {"mtu_bytes": 9001}),
        (("mtu_bytes",), {"mtu_bytes": 67}),
        (("mac_address",), {"mac_address": "02:00"}),
        (("mac_address",), {"mac_address": "01:00:00:00:00:01"}),
        (("receive_addresses",), {"receive_addresses": ["x"]}),
        (("receive_addresses",), {"receive_addresses": ["02:00:00:00:00:  "]}),
        (("vlan_filter",), {"vlan_filter": [4095]}),
        (("receive_side_scaling",), {"receive_side_scaling": pb.ReceiveSideScaling(enabled=True, key=b"short")}),
        (
            ("receive_side_scaling",),
            {"receive_side_scaling": pb.ReceiveSideScaling(enabled=True, key=bytes(40), table=[128] * 128)},
        ),
    ],
)
async def test_settings_that_cannot_be(bench: Any, paths: tuple[str, ...], fields: dict[str, Any]) -> None:
    """A wrong value is refused with the field's name, and nothing changes."""
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(Owner(bench))
        await stack.enter_async_context(Driver(bench, owner, "hosts/h1/devices/nic0"))
        before = await nics(bench).GetNic(pb.GetNicRequest(name=NIC0))
        request = pb.UpdateNicRequest(nic=pb.Nic(name=NIC0, **fields), update_mask=mask(*paths))
        refused = nics(bench).UpdateNic(request, metadata=owner.metadata)
        assert await reason(refused) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
        assert await nics(bench).GetNic(pb.GetNicRequest(name=NIC0)) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 256},
        {"ring_iova": 64},
        {"descriptors": 4},
        {"descriptors": 12},
        {"descriptors": 32776},
        {"buffer_bytes": 0},
        {"buffer_bytes": 1500},
        {"buffer_bytes": 17408},
        {"vector": 256},
        {"moderation_ns": 10_000_001},
        {"moderation_frames": 65536},
        {"number": 1},
    ],
)
async def test_rings_that_cannot_be(bench: Any, wrong: dict[str, int]) -> None:
    """A ring with a field out of range is refused, and rings that were there stay."""
    async with driven(bench, NIC0) as nic:
        fields: dict[str, Any] = {"number": 0, "descriptors": 8, "buffer_bytes": 1024, **wrong}
        queue = pb.Queue(**fields)
        request = pb.ConfigureQueuesRequest(nic=NIC0, queues=[queue])
        refused = nic.stub.ConfigureQueues(request, metadata=nic.owner.metadata)
        assert await reason(refused) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
        assert len((await nic.stub.ListQueues(pb.ListQueuesRequest(nic=NIC0))).queues) == 2


async def test_who_may_configure(bench: Any) -> None:
    """Only the driver may, with a domain, and only a NIC that is there."""
    stub = nics(bench)
    update = pb.UpdateNicRequest(nic=pb.Nic(name=NIC0, mtu_bytes=1500), update_mask=mask("mtu_bytes"))
    assert await reason(stub.UpdateNic(update)) == ("FAILED_PRECONDITION", "DEVICE_NOT_DRIVEN")
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(Owner(bench))
        await stack.enter_async_context(Driver(bench, owner, "hosts/h1/devices/nic0"))
        queue = pb.Queue(number=0, descriptors=8, buffer_bytes=1024)
        configure = pb.ConfigureQueuesRequest(nic=NIC0, queues=[queue])
        refused = stub.ConfigureQueues(configure, metadata=owner.metadata)
        assert await reason(refused) == ("FAILED_PRECONDITION", "NO_DMA_DOMAIN")
        other = stub.ConfigureQueues(pb.ConfigureQueuesRequest(nic=NIC1), metadata=owner.metadata)
        assert await reason(other) == ("FAILED_PRECONDITION", "DEVICE_NOT_DRIVEN")
    for name in ("hosts/h1/nics/nic7", "hosts/h2/nics/nic0"):
        assert await reason(stub.GetNic(pb.GetNicRequest(name=name))) == ("NOT_FOUND", "NIC_UNKNOWN")


async def test_a_machine_has_nics(bench: Any) -> None:
    """Two NICs are there from the start, each with an address, on no wire, with all offloads offered and off."""
    listed = (await nics(bench).ListNics(pb.ListNicsRequest())).nics
    assert [nic.name for nic in listed] == [NIC0, NIC1]
    assert len({nic.mac_address for nic in listed}) == 2
    first = listed[0]
    assert (first.offered, first.offloads) == (OFFLOADS, pb.Offloads())
    assert (first.link, first.wire, first.admin_up, first.mtu_bytes) == (pb.Nic.LINK_STATE_DOWN, "", True, 1500)
    assert WIRE not in (first.wire, listed[1].wire)
