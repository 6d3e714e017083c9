"""What breaks of a disk: all of it, writing, room, sectors, and the power in the middle of a write."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2
from lamina.hardware.v1 import disks_pb2 as pb
from tests.contract.hardware.device_bench import reason, variant  # noqa: F401 (variant is a fixture)
from tests.contract.hardware.disk_bench import DISK, DONE, FLUSH, READ, SECTOR, WRITE, Transfers, make, mask, stub

pytestmark = pytest.mark.inside  # disks of a machine that nobody used before

RESULT = pb.TransferResponse


async def break_it(bench: Any, kind: str, **parameters: int) -> Any:
    """Injects a fault of the disk; returns what clears it."""
    faults = faults_pb2_grpc.FaultsStub(bench.channel)
    given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
    fault = faults_pb2.Fault(kind=kind, object=DISK, parameters=given)
    made = await faults.InjectFault(faults_pb2.InjectFaultRequest(fault=fault))

    async def clear() -> None:
        await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))

    return clear


@pytest.mark.parametrize(
    ("kind", "operation", "result", "state"),
    [
        ("disk-failed", READ, RESULT.RESULT_DISK_FAILED, pb.Disk.STATE_FAILED),
        ("disk-failed", FLUSH, RESULT.RESULT_DISK_FAILED, pb.Disk.STATE_FAILED),
        ("disk-read-only", WRITE, RESULT.RESULT_READ_ONLY, pb.Disk.STATE_READ_ONLY),
        ("disk-read-only", READ, RESULT.RESULT_DONE, pb.Disk.STATE_READ_ONLY),
        ("disk-full", WRITE, RESULT.RESULT_SPACE_EXHAUSTED, pb.Disk.STATE_WORKING),
    ],
)
async def test_a_broken_disk_says_so(bench: Any, kind: str, operation: int, result: int, state: int) -> None:
    """Transfers end with the failure, the state tells it, and when the fault is cleared the disk works again."""
    await make(bench)
    clear = await break_it(bench, kind)
    transfers = Transfers(bench)
    given: dict[str, Any] = {"inline": pb.InlineData(data=bytes(SECTOR))} if operation == WRITE else {}
    assert (await transfers.do(operation, **given)).result == result
    assert (await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))).state == state
    await clear()
    assert (await transfers.write(b"\1" * SECTOR)).result == DONE
    assert (await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))).state == pb.Disk.STATE_WORKING


async def test_a_failure_ends_what_is_under_way(bench: Any) -> None:
    """Transfers that wait or are under way when the disk fails end with the failure."""
    await make(bench, latency_ns=10**9)
    transfers = Transfers(bench)
    for _ in range(40):
        await transfers.begin(READ)
    while (await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))).counters.peak_queue < 40:
        pass
    clear = await break_it(bench, "disk-failed")
    assert {(await transfers.end()).result for _ in range(40)} == {RESULT.RESULT_DISK_FAILED}
    await clear()


async def test_bad_sectors(bench: Any) -> None:
    """Only what touches them fails, and the first byte that failed is named."""
    await make(bench)
    clear = await break_it(bench, "disk-error", offset=3 * SECTOR + 100, size=10)
    transfers = Transfers(bench)
    failed = await transfers.do(READ, SECTOR, 4 * SECTOR)
    assert (failed.result, failed.failed_offset) == (RESULT.RESULT_MEDIUM_ERROR, 3 * SECTOR + 100)
    assert not failed.data
    assert await transfers.read(SECTOR, 2 * SECTOR) == bytes(2 * SECTOR)
    await clear()
    assert await transfers.read(SECTOR, 4 * SECTOR) == bytes(4 * SECTOR)


async def test_a_torn_write_and_no_power(bench: Any) -> None:
    """The first sectors of the write are there, what was flushed is there, of the rest each sector is old or new."""
    await make(bench, write_cache=True)
    transfers = Transfers(bench)
    await transfers.write(b"\1" * 8 * SECTOR)
    await transfers.do(FLUSH)
    await transfers.write(b"\2" * 4 * SECTOR, 4 * SECTOR)
    clear = await break_it(bench, "torn-write", sectors=2)
    torn = await transfers.write(b"\3" * 4 * SECTOR)
    assert (torn.result, torn.failed_offset) == (RESULT.RESULT_DISK_FAILED, 2 * SECTOR)
    assert (await transfers.do(READ)).result == RESULT.RESULT_DISK_FAILED
    await clear()
    found = await transfers.read(0, 8 * SECTOR)
    sectors = [found[at : at + SECTOR] for at in range(0, len(found), SECTOR)]
    assert sectors[:4] == [b"\3" * SECTOR] * 2 + [b"\1" * SECTOR] * 2
    assert all(sector in (b"\1" * SECTOR, b"\2" * SECTOR) for sector in sectors[4:])


async def test_an_unknown_disk_cannot_break(bench: Any) -> None:
    """A fault of a disk that is not there is refused."""
    assert await reason(break_it(bench, "disk-failed")) == ("NOT_FOUND", "DISK_UNKNOWN")


async def test_faults_of_a_disk_end_by_themselves(bench: Any) -> None:
    """The end of one fault leaves the other: an armed torn write stays armed, a disk that failed stays so."""
    await make(bench)
    transfers = Transfers(bench)
    mend, untear = await break_it(bench, "disk-failed"), await break_it(bench, "torn-write", sectors=0)
    await mend()
    assert (await transfers.write(b"\1" * SECTOR)).result == RESULT.RESULT_DISK_FAILED
    assert (await transfers.do(READ)).result == RESULT.RESULT_DISK_FAILED
    mend = await break_it(bench, "disk-failed")
    await untear()
    assert (await transfers.do(READ)).result == RESULT.RESULT_DISK_FAILED
    await mend()
    assert await transfers.read() == bytes(SECTOR)


@pytest.mark.parametrize(
    ("kind", "operation", "result"),
    [
        ("disk-failed", READ, RESULT.RESULT_DISK_FAILED),
        ("disk-read-only", WRITE, RESULT.RESULT_READ_ONLY),
        ("disk-read-only", READ, RESULT.RESULT_DONE),
        ("disk-full", WRITE, RESULT.RESULT_SPACE_EXHAUSTED),
    ],
)
async def test_a_metered_transfer_meets_the_faults(bench: Any, kind: str, operation: int, result: int) -> None:
    """A transfer whose bytes lie elsewhere fails where the whole disk does."""
    await make(bench)
    await break_it(bench, kind)
    assert (await Transfers(bench).do(operation, metered=pb.Metered())).result == result


async def test_a_cache_that_cannot_be_flushed_stays_on(bench: Any) -> None:
    """The cache of a broken disk is not switched off: the call says why, and nothing is lost."""
    await make(bench, write_cache=True)
    transfers = Transfers(bench)
    await transfers.write(b"\1" * SECTOR)
    mend = await break_it(bench, "disk-failed")
    off = pb.UpdateDiskRequest(disk=pb.Disk(name=DISK), update_mask=mask("write_cache"))
    assert await reason(stub(bench).UpdateDisk(off)) == ("FAILED_PRECONDITION", "DISK_BROKEN")
    assert (await stub(bench).GetDisk(pb.GetDiskRequest(name=DISK))).write_cache
    await mend()
    assert not (await stub(bench).UpdateDisk(off)).write_cache
    assert await transfers.read() == b"\1" * SECTOR
