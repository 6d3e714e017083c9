"""Disks: made, kept, changed; blocks moved, in their time and in the shares of groups."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import devices_pb2, devices_pb2_grpc
from lamina.hardware.v1 import disks_pb2 as pb
from tests.contract.hardware.device_bench import Driver, Owner, reason, variant  # noqa: F401 (variant is a fixture)
from tests.contract.hardware.disk_bench import (
    DISCARD,
    DISK,
    DONE,
    FLUSH,
    MIB,
    READ,
    SECTOR,
    WRITE,
    ZEROES,
    Transfers,
    make,
    mask,
    stub,
)

from lamina_kit.engines import engines_of
from lamina_kit.errors import FailedPrecondition

pytestmark = pytest.mark.inside  # disks, groups and counters of a machine that nobody used before

_MS = 1_000_000


async def test_what_is_written_is_read(bench: Any) -> None:
    """Bytes come back as they were written; what was never written, discarded or zeroed reads as zero."""
    await make(bench)
    transfers = Transfers(bench)
    assert (await transfers.write(b"\1" * 3 * SECTOR, SECTOR)).result == DONE
    assert await transfers.read(0, 5 * SECTOR) == bytes(SECTOR) + b"\1" * 3 * SECTOR + bytes(SECTOR)
    assert (await transfers.do(DISCARD, SECTOR)).result == DONE
    assert (await transfers.do(ZEROES, 3 * SECTOR)).result == DONE
    assert (await transfers.do(FLUSH)).result == DONE
    assert await transfers.read(0, 5 * SECTOR) == bytes(2 * SECTOR) + b"\1" * SECTOR + bytes(2 * SECTOR)
    shown = await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))
    counters = shown.counters
    assert (counters.reads, counters.writes, counters.flushes, counters.discarded_bytes) == (2, 2, 1, SECTOR)
    assert (counters.read_bytes, counters.written_bytes, counters.failures) == (10 * SECTOR, 4 * SECTOR, 0)


async def test_memory_is_reached_directly(bench: Any) -> None:
    """A disk without a domain moves bytes between itself and physical memory; what is no memory is a DMA fault."""
    await make(bench)
    transfers = Transfers(bench)
    first, second = bench.frames(), bench.frames()
    bench.bus.write(first, b"\5" * 4096)
    bench.bus.write(second, b"\6" * 4096)

    def pieces(*places: tuple[int, int]) -> pb.ScatterList:
        return pb.ScatterList(pieces=[pb.ScatterList.Piece(address=at, size_bytes=size) for at, size in places])

    written = await transfers.do(WRITE, 0, 2 * SECTOR, memory=pieces((second, 4096), (first, 4096)))
    assert written.result == DONE
    assert await transfers.read(0, 2 * SECTOR) == b"\6" * 4096 + b"\5" * 4096
    assert (await transfers.do(READ, SECTOR, SECTOR, memory=pieces((second + 8, 4088), (first, 8)))).result == DONE
    assert bench.bus.read(second, 4096) == b"\6" * 8 + b"\5" * 4088
    outside = await transfers.do(READ, 0, SECTOR, memory=pieces((first, 4088), (1 << 50, 8)))
    assert outside.result == pb.TransferResponse.RESULT_DMA_FAULT
    assert bench.bus.read(first, 4096) == b"\5" * 4096


async def test_a_disk_is_a_device(bench: Any) -> None:
    """It is listed with its kind, a group of its own and no driver, and goes with the disk."""
    await make(bench)
    devices = devices_pb2_grpc.DevicesStub(bench.channel)
    listed = devices_pb2.ListDevicesRequest(kind=devices_pb2.Device.KIND_DISK)
    [device] = (await devices.ListDevices(listed)).devices
    assert (device.name, device.class_code, device.driver) == ("hosts/h1/devices/d", 0x010802, "")
    assert device.iommu_group
    await stub(bench).DeleteDisk(pb.DeleteDiskRequest(name=DISK))
    assert not (await devices.ListDevices(listed)).devices


async def test_disks_outlive_the_machine(power: Any) -> None:
    """After a restart the disk is there with its bytes and its settings; a deleted one is not."""
    service, bench = await power()
    await make(bench, sector_bytes=512, queue_depth=4, write_cache=True)
    await make(bench, "gone")
    assert (await Transfers(bench).write(b"x" * 512, 512)).result == DONE
    await stub(bench).DeleteDisk(pb.DeleteDiskRequest(name="hosts/h1/disks/gone"))
    await service.stop()
    service, bench = await power()
    [kept] = (await stub(bench).ListDisks(pb.ListDisksRequest())).disks
    assert (kept.name, kept.size_bytes, kept.sector_bytes, kept.queue_depth) == (DISK, MIB, 512, 4)
    assert kept.write_cache
    assert await Transfers(bench).read(0, 1536) == bytes(512) + b"x" * 512 + bytes(512)
    await service.stop()


async def test_making_a_disk_again(bench: Any) -> None:
    """The same request id returns the first disk; another request for the name is refused."""
    disks = stub(bench)
    request = pb.CreateDiskRequest(disk_id="d", disk=pb.Disk(size_bytes=MIB), request_id="once")
    assert await disks.CreateDisk(request) == await disks.CreateDisk(request)
    request.request_id = ""
    assert await reason(disks.CreateDisk(request)) == ("ALREADY_EXISTS", "DISK_EXISTS")


async def test_changing_a_disk(bench: Any) -> None:
    """It grows with its bytes kept, never shrinks, and only the fields of the mask change."""
    await make(bench)
    transfers, disks = Transfers(bench), stub(bench)
    await transfers.write(b"\7" * SECTOR)
    wish = pb.Disk(name=DISK, size_bytes=2 * MIB, queue_depth=7)
    changed = await disks.UpdateDisk(pb.UpdateDiskRequest(disk=wish, update_mask=mask("size_bytes")))
    assert (changed.size_bytes, changed.queue_depth) == (2 * MIB, 32)
    assert await transfers.read() == b"\7" * SECTOR
    assert await transfers.read(2 * MIB - SECTOR) == bytes(SECTOR)
    wish.size_bytes = MIB
    shrinks = disks.UpdateDisk(pb.UpdateDiskRequest(disk=wish, update_mask=mask("size_bytes")))
    assert await reason(shrinks) == ("FAILED_PRECONDITION", "DISK_SHRINKS")
    for paths in ((), ("sector_bytes",)):
        wrong = disks.UpdateDisk(pb.UpdateDiskRequest(disk=wish, update_mask=mask(*paths)))
        assert await reason(wrong) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


@pytest.mark.parametrize(
    "disk",
    [
        pb.Disk(size_bytes=MIB - 1),
        pb.Disk(size_bytes=(64 << 40) + 4096),
        pb.Disk(size_bytes=MIB + 512),
        pb.Disk(size_bytes=MIB, sector_bytes=1024),
        pb.Disk(size_bytes=MIB, latency_ns=-1),
        pb.Disk(size_bytes=MIB, rate_bytes_per_second=5),
        pb.Disk(size_bytes=MIB, queue_depth=1025),
    ],
)
async def test_disks_that_cannot_be(bench: Any, disk: pb.Disk) -> None:
    """A value out of range is refused before anything is made."""
    made = stub(bench).CreateDisk(pb.CreateDiskRequest(disk_id="d", disk=disk))
    assert await reason(made) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert not (await stub(bench).ListDisks(pb.ListDisksRequest())).disks


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation": 0},
        {"operation": 77},
        {"offset": 1},
        {"offset": -SECTOR},
        {"size": 100},
        {"size": 0},
        {"size": 17 * MIB},
        {"inline": pb.InlineData(data=b"short"), "operation": WRITE},
        {"inline": pb.InlineData(data=b"read"), "operation": READ},
        {"memory": pb.ScatterList()},
        {"memory": pb.ScatterList(pieces=[pb.ScatterList.Piece(address=0, size_bytes=8)])},
        {"operation": DISCARD, "inline": pb.InlineData()},
    ],
)
async def test_a_malformed_transfer_ends_the_stream(bench: Any, wrong: dict[str, Any]) -> None:
    """It is refused with the field's name; another stream works on."""
    await make(bench)
    transfers = Transfers(bench)
    fields = {"operation": READ, **wrong}
    await transfers.begin(fields.pop("operation"), **fields)
    assert await reason(transfers.stream.read()) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert await Transfers(bench).read() == bytes(SECTOR)


async def test_a_sequence_is_used_once_at_a_time(bench: Any) -> None:
    """A sequence that is open is refused; one that ended may be used again."""
    await make(bench, latency_ns=50 * _MS)
    transfers = Transfers(bench)
    for _ in range(2):
        await transfers.begin(FLUSH, sequence=9)
        assert (await transfers.end()).result == DONE
    await transfers.begin(READ, sequence=9)
    await transfers.begin(READ, sequence=9)
    assert await reason(transfers.stream.read()) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"disk": "hosts/h1/disks/none"}, pb.TransferResponse.RESULT_NOT_FOUND),
        ({"disk": "hosts/h2/disks/d"}, pb.TransferResponse.RESULT_NOT_FOUND),
        ({"io_group": "hosts/h1/ioGroups/none"}, pb.TransferResponse.RESULT_NOT_FOUND),
        ({"offset": MIB}, pb.TransferResponse.RESULT_BEYOND_END),
        ({"offset": MIB - SECTOR, "size": 2 * SECTOR}, pb.TransferResponse.RESULT_BEYOND_END),
    ],
)
async def test_a_transfer_that_fails_is_a_response(bench: Any, fields: dict[str, Any], result: int) -> None:
    """The stream goes on after it."""
    await make(bench)
    transfers = Transfers(bench)
    assert (await transfers.do(READ, **fields)).result == result
    assert await transfers.read() == bytes(SECTOR)


async def test_a_metered_transfer_takes_time_only(bench: Any) -> None:
    """It is counted and takes the disk's time; content stays as it is."""
    await make(bench, latency_ns=_MS)
    transfers = Transfers(bench)
    await transfers.write(b"\3" * SECTOR)
    metered = await transfers.do(WRITE, metered=pb.Metered())
    assert metered.result == DONE
    assert metered.service_ns >= _MS
    assert await transfers.read() == b"\3" * SECTOR
    assert (await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))).counters.writes == 2


async def test_a_disk_in_use_stays(bench: Any) -> None:
    """While a transfer is under way its disk cannot be deleted."""
    await make(bench, latency_ns=100 * _MS)
    transfers = Transfers(bench)
    await transfers.begin(READ)
    answered = await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))
    while not answered.counters.peak_queue:
        answered = await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))
    delete = pb.DeleteDiskRequest(name=DISK)
    assert await reason(stub(bench).DeleteDisk(delete)) == ("FAILED_PRECONDITION", "DISK_IN_USE")
    assert (await transfers.end()).result == DONE
    await stub(bench).DeleteDisk(delete)
    assert await reason(stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))) == ("NOT_FOUND", "DISK_UNKNOWN")


async def test_latency_and_places(bench: Any) -> None:
    """With one place and 100 ms each, transfers end in order, and the third waits for the two before."""
    await make(bench, latency_ns=100 * _MS, queue_depth=1)
    transfers = Transfers(bench)
    for _ in range(3):
        await transfers.begin(READ)
    ends = [await transfers.end() for _ in range(3)]
    assert [end.sequence for end in ends] == [1, 2, 3]
    assert all(end.service_ns >= 100 * _MS for end in ends)
    assert ends[2].wait_ns > 50 * _MS


async def test_groups_limit_and_count(bench: Any) -> None:
    """A group's limit spaces its transfers, its use is told with its parent's, and a group in use stays."""
    await make(bench)
    disks = stub(bench)
    limit = pb.IoGroup.IoLimit(disk=DISK, reads_per_second=4)
    parent = pb.CreateIoGroupRequest(io_group_id="p", io_group=pb.IoGroup(limits=[limit]))
    assert (await disks.CreateIoGroup(parent)).weight == 100
    child = pb.IoGroup(parent="hosts/h1/ioGroups/p", weight=300)
    await disks.CreateIoGroup(pb.CreateIoGroupRequest(io_group_id="c", io_group=child))
    transfers = Transfers(bench, io_group="hosts/h1/ioGroups/c")
    for _ in range(3):
        await transfers.begin(READ)
    waits = [(await transfers.end()).wait_ns for _ in range(3)]
    assert waits[2] > 100 * _MS
    [above] = [await disks.GetIoGroup(pb.GetIoGroupRequest(name="hosts/h1/ioGroups/p"))]
    [usage] = above.usage
    assert (usage.disk, usage.counters.reads) == (DISK, 3)
    assert usage.throttled_ns > 100 * _MS
    assert above.pressure.some_ns > 100 * _MS
    delete = disks.DeleteIoGroup(pb.DeleteIoGroupRequest(name="hosts/h1/ioGroups/p"))
    assert await reason(delete) == ("FAILED_PRECONDITION", "IO_GROUP_IN_USE")
    for name in ("c", "p"):
        await disks.DeleteIoGroup(pb.DeleteIoGroupRequest(name=f"hosts/h1/ioGroups/{name}"))
    assert not (await disks.ListIoGroups(pb.ListIoGroupsRequest())).io_groups


async def test_a_lifted_limit_lets_go(bench: Any) -> None:
    """Changing a group's limits frees what they held up."""
    await make(bench)
    disks, name = stub(bench), "hosts/h1/ioGroups/g"
    slow = pb.IoGroup(limits=[pb.IoGroup.IoLimit(reads_per_second=1)])
    await disks.CreateIoGroup(pb.CreateIoGroupRequest(io_group_id="g", io_group=slow))
    transfers = Transfers(bench, io_group=name)
    await transfers.read()
    for _ in range(20):
        await transfers.begin(READ)
    wish = pb.UpdateIoGroupRequest(io_group=pb.IoGroup(name=name, weight=7), update_mask=mask("limits", "weight"))
    changed = await disks.UpdateIoGroup(wish)
    assert (changed.weight, list(changed.limits)) == (7, [])
    waits = [(await transfers.end()).wait_ns for _ in range(20)]
    assert sum(waits) < 20 * 10**9


async def test_what_groups_refuse(bench: Any) -> None:
    """Unknown parents, disks and groups, doubled names, wrong values, and the root: each has its reason."""
    disks = stub(bench)

    def create(**fields: Any) -> Any:
        return disks.CreateIoGroup(pb.CreateIoGroupRequest(io_group_id="g", io_group=pb.IoGroup(**fields)))

    assert await reason(create(parent="hosts/h1/ioGroups/none")) == ("NOT_FOUND", "IO_GROUP_UNKNOWN")
    unknown = [pb.IoGroup.IoLimit(disk="hosts/h1/disks/none")]
    assert await reason(create(limits=unknown)) == ("NOT_FOUND", "DISK_UNKNOWN")
    assert await reason(create(weight=10_001)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    negative = [pb.IoGroup.IoLimit(reads_per_second=-1)]
    assert await reason(create(limits=negative)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    await create()
    assert await reason(create()) == ("ALREADY_EXISTS", "IO_GROUP_EXISTS")
    root = pb.UpdateIoGroupRequest(io_group=pb.IoGroup(weight=5), update_mask=mask("weight"))
    assert await reason(disks.UpdateIoGroup(root)) == ("FAILED_PRECONDITION", "IO_GROUP_IS_ROOT")
    gone = disks.GetIoGroup(pb.GetIoGroupRequest(name="hosts/h1/ioGroups/none"))
    assert await reason(gone) == ("NOT_FOUND", "IO_GROUP_UNKNOWN")


async def test_groups_go_with_their_session(
    power: Any,
    manual_clock: Any,
    variant: Any,  # noqa: F811 (a fixture)
) -> None:
    """Groups of a session that ended are freed after its grace, and disks stay."""
    try:
        service, bench = await power(manual_clock)
    except FailedPrecondition as refused:
        assert refused.reason == "ENGINE_NEEDS_REAL_TIME"
        assert engines_of("hardware")[variant[0]].real_time_only
        return
    await make(bench)
    disks = stub(bench)
    async with Owner(bench) as owner:
        for name, parent in (("a", ""), ("b", "hosts/h1/ioGroups/a")):
            request = pb.CreateIoGroupRequest(io_group_id=name, io_group=pb.IoGroup(parent=parent))
            await disks.CreateIoGroup(request, metadata=owner.metadata)
    for _ in range(200):
        await manual_clock.advance(10**9)
        if not (await disks.ListIoGroups(pb.ListIoGroupsRequest())).io_groups:
            break
    assert not (await disks.ListIoGroups(pb.ListIoGroupsRequest())).io_groups
    assert len((await disks.ListDisks(pb.ListDisksRequest())).disks) == 1
    await service.stop()


async def test_a_deleted_disk_gives_its_device_page_back(power: Any) -> None:
    """Disks that are made, driven and deleted for ever take no more DMA memory than one does."""
    service, bench = await power()
    used = []
    async with Owner(bench) as owner:
        for name in ("a", "b", "a"):
            await make(bench, name)
            async with Driver(bench, owner, f"hosts/h1/devices/{name}"):
                pass
            await stub(bench).DeleteDisk(pb.DeleteDiskRequest(name=f"hosts/h1/disks/{name}"))
            used.append([(buffer.address, buffer.size) for buffer in service.machine.devices.buffers.entries()])
    assert used == [[], [], []]
    await service.stop()
