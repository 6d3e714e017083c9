"""Domains of the IOMMU: tables, mapping, attachment, and what devices reach through them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.common.v1 import access_pb2, handle_pb2
from lamina.hardware.v1 import devices_pb2, devices_pb2_grpc
from lamina.hardware.v1 import iommu_pb2 as pb
from tests.contract.hardware.device_bench import (  # noqa: F401 (variant is a fixture)
    DMA0,
    DMA1,
    PAGE,
    Driver,
    Owner,
    Tables,
    reason,
    refusal,
    variant,
)

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before

MIB = 1 << 20
IOVA = 0x7000_0000
STALE = handle_pb2.Handle(id=77, generation=1)


@pytest.fixture
async def owner(bench: Any) -> AsyncIterator[Owner]:
    """Returns a session."""
    async with Owner(bench) as made:
        yield made


@pytest.fixture
def tables(bench: Any, owner: Owner) -> Tables:
    """Returns the domains of the machine."""
    return Tables(bench, owner)


async def test_a_mapped_page_is_reached(bench: Any, tables: Tables, owner: Owner) -> None:
    """DMA reads and writes what is mapped, across pages; everything is counted; D is told when it is unmapped."""
    one, two = bench.frames(), bench.frames(3)
    domain = await tables.mapped((IOVA, one, PAGE), (IOVA + PAGE, two + PAGE, PAGE))
    async with Driver(bench, owner):
        await tables.write(IOVA + PAGE - 3, b"abcdef")
        assert bench.bus.read(one + PAGE - 3, 3) == b"abc"
        assert bench.bus.read(two + PAGE, 3) == b"def"
        assert (await tables.read(IOVA + PAGE - 3, 6)).data == b"abcdef"
        device = await devices_pb2_grpc.DevicesStub(bench.channel).GetDevice(devices_pb2.GetDeviceRequest(name=DMA0))
        assert (device.dma_transfers, device.dma_faults, device.dma_domain) == (2, 0, domain.name)
        now = await tables.get(domain)
        assert (now.tlb_misses, now.tlb_hits, list(now.devices)) == (2, 2, [DMA0])
        assert (now.mapped_bytes, now.table_frames, now.spare_table_frames) == (2 * PAGE, 4, 5)
        found = await tables.unmap(domain, IOVA, 4 * PAGE)
        assert (found.unmapped_bytes, list(found.dirty_pages)) == (2 * PAGE, [IOVA, IOVA + PAGE])
        assert (await refusal(tables.read(IOVA, 1))).reason == "DMA_FAULT"
        assert (await tables.get(domain)).spare_table_frames == 8


async def test_a_read_leaves_a_page_clean(bench: Any, tables: Tables, owner: Owner) -> None:
    """Only a write sets D, also when the translation of a read is kept already."""
    domain = await tables.mapped((IOVA, bench.frames(2), 2 * PAGE))
    async with Driver(bench, owner):
        await tables.read(IOVA, 2 * PAGE)
        await tables.write(IOVA + PAGE, b"x")
        assert list((await tables.unmap(domain, IOVA, 2 * PAGE)).dirty_pages) == [IOVA + PAGE]


async def test_large_pages_are_used_and_split(bench: Any, tables: Tables, owner: Owner) -> None:
    """An aligned range takes 2 MiB entries; unmapping a page of it splits one, for which a frame must be there."""
    domain = await tables.create()
    await tables.give(domain, 2)
    await tables.map(domain, (4 * MIB, 8 * MIB, 4 * MIB))
    assert (await tables.get(domain)).table_frames == 3
    request = pb.TranslateDmaRequest(handle=domain.handle, iova=5 * MIB + 7)
    walked = await tables.stub.TranslateDma(request)
    assert (walked.physical_address, walked.page_size_bytes, len(walked.steps)) == (9 * MIB + 7, 2 * MIB, 3)
    error = await refusal(tables.unmap(domain, 5 * MIB))
    assert (error.reason, error.metadata["missing"]) == ("TABLE_FRAMES_EXHAUSTED", "1")
    await tables.give(domain, 1)
    assert (await tables.unmap(domain, 5 * MIB)).unmapped_bytes == PAGE
    walked = await tables.stub.TranslateDma(request)
    assert (walked.outcome, len(walked.steps)) == (pb.DMA_OUTCOME_NOT_PRESENT, 4)
    request.iova = 5 * MIB - 1
    walked = await tables.stub.TranslateDma(request)
    assert (walked.physical_address, walked.page_size_bytes) == (9 * MIB - 1, PAGE)


async def test_mapping_is_all_or_nothing(bench: Any, tables: Tables) -> None:
    """One mapping that cannot be made leaves none of the call; the frames that are missing are named."""
    domain = await tables.create()
    pa = bench.frames(4)
    error = await refusal(tables.map(domain, (IOVA, pa, PAGE)))
    assert (error.code, error.reason, error.metadata["missing"]) == (
        "RESOURCE_EXHAUSTED",
        "TABLE_FRAMES_EXHAUSTED",
        "3",
    )
    await tables.give(domain, 3)
    await tables.map(domain, (IOVA, pa, PAGE))
    await tables.map(domain, (IOVA, pa, PAGE))
    call = tables.map(domain, (IOVA + PAGE, pa, PAGE), (IOVA, pa + PAGE, PAGE))
    assert await reason(call) == ("ALREADY_EXISTS", "IOVA_IN_USE")
    call = tables.map(domain, (IOVA + PAGE, pa, PAGE), (IOVA + 2 * PAGE, 1 << 40, PAGE))
    assert await reason(call) == ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")
    assert (await tables.get(domain)).mapped_bytes == PAGE


def mapping(**changed: Any) -> pb.DmaMapping:
    """Returns a mapping that is right but for what is given."""
    wanted: dict[str, Any] = {"iova": IOVA, "address": PAGE, "size_bytes": PAGE, "read": True}
    return pb.DmaMapping(**(wanted | changed))


@pytest.mark.parametrize(
    "mappings",
    [
        [],
        [mapping()] * 4097,
        [mapping(iova=IOVA + 1)],
        [mapping(address=1)],
        [mapping(size_bytes=1)],
        [mapping(size_bytes=0)],
        [mapping(size_bytes=-PAGE)],
        [mapping(size_bytes=(1 << 40) + PAGE)],
        [mapping(iova=1 << 48)],
        [mapping(read=False)],
        [mapping(), mapping(iova=IOVA - PAGE, size_bytes=2 * PAGE)],
    ],
)
async def test_mappings_that_are_wrong(tables: Tables, mappings: list[pb.DmaMapping]) -> None:
    """None, too many, unaligned, empty, too large, too wide, without a right, overlapping: INVALID_ARGUMENT."""
    domain = await tables.create()
    call = tables.stub.MapDma(pb.MapDmaRequest(handle=domain.handle, mappings=mappings))
    assert await reason(call) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_ranges_that_are_wrong(tables: Tables) -> None:
    """Unaligned, empty or too many ranges are refused by UnmapDma and InvalidateDma."""
    domain = await tables.create()
    wrong = (
        [pb.DmaRange(iova=1, size_bytes=PAGE)],
        [pb.DmaRange(iova=0, size_bytes=0)],
        [pb.DmaRange(iova=0, size_bytes=7)],
        [pb.DmaRange(size_bytes=PAGE)] * 4097,
    )
    for ranges in wrong:
        unmap = tables.stub.UnmapDma(pb.UnmapDmaRequest(handle=domain.handle, ranges=ranges))
        assert (await reason(unmap))[0] == "INVALID_ARGUMENT"
        invalidate = tables.stub.InvalidateDma(pb.InvalidateDmaRequest(handle=domain.handle, ranges=ranges))
        assert (await reason(invalidate))[0] == "INVALID_ARGUMENT"
    call = tables.stub.UnmapDma(pb.UnmapDmaRequest(handle=domain.handle))
    assert (await reason(call))[0] == "INVALID_ARGUMENT"
    far = [pb.DmaRange(iova=(1 << 64) - PAGE, size_bytes=PAGE)]
    response = await tables.stub.UnmapDma(pb.UnmapDmaRequest(handle=domain.handle, ranges=far))
    assert response.unmapped_bytes == 0


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"root_address": PAGE + 8}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"root_address": 1 << 40}, ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")),
        ({"root_address": 1 << 45}, ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")),
        ({"kind": 9, "root_address": PAGE}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"label": "x" * 128}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"kind": 3, "root_address": PAGE}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"kind": 3, "page_requests": True}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
    ],
)
async def test_domains_that_are_wrong(tables: Tables, wish: dict[str, Any], expected: tuple[str, str]) -> None:
    """What a domain cannot be is refused with the reason that the contract names."""
    assert await reason(tables.create(**wish)) == expected


async def test_a_root_is_zeroed_and_of_one_domain(bench: Any, tables: Tables) -> None:
    """A root with bytes in it, or one that is a table already, is refused."""
    dirty = bench.frames()
    bench.bus.write(dirty + 8, b"\1")
    assert await reason(tables.create(root_address=dirty)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    domain = await tables.create()
    again = tables.create(root_address=domain.root_address)
    assert await reason(again) == ("ALREADY_EXISTS", "FRAME_IN_TABLE")


async def test_table_frames_belong_to_one_domain(bench: Any, tables: Tables) -> None:
    """A frame that a domain has, twice the same, or none that exists: none of the call is taken."""
    one, two = await tables.create(), await tables.create()
    frames = await tables.give(one, 2)
    fresh = bench.frames() >> 12
    for given, expected in (
        ([fresh, frames[1]], ("ALREADY_EXISTS", "FRAME_IN_TABLE")),
        ([fresh, fresh], ("ALREADY_EXISTS", "FRAME_IN_TABLE")),
        ([fresh, two.root_address >> 12], ("ALREADY_EXISTS", "FRAME_IN_TABLE")),
        ([fresh, 1 << 40], ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")),
        ([], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([fresh] * 4097, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
    ):
        call = tables.stub.AddTableFrames(pb.AddTableFramesRequest(handle=two.handle, frames=given))
        assert await reason(call) == expected
    assert (await tables.get(two)).spare_table_frames == 0
    await tables.stub.DeleteDmaDomain(pb.DeleteDmaDomainRequest(handle=one.handle))
    await tables.stub.AddTableFrames(pb.AddTableFramesRequest(handle=two.handle, frames=frames))
    assert (await tables.get(two)).spare_table_frames == 2


async def test_domains_are_listed_and_deleted(bench: Any, tables: Tables) -> None:
    """They have pages in the order of creation, names and handles; what is gone is gone by both; ids repeat calls."""
    made = [await tables.create(label=f"d{n}") for n in range(3)]
    first = await tables.stub.ListDmaDomains(pb.ListDmaDomainsRequest(page_size=2))
    second = await tables.stub.ListDmaDomains(pb.ListDmaDomainsRequest(page_size=2, page_token=first.next_page_token))
    assert [entry.label for page in (first, second) for entry in page.dma_domains] == ["d0", "d1", "d2"]
    call = tables.stub.ListDmaDomains(pb.ListDmaDomainsRequest(page_token="/"))
    assert await reason(call) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    by_name = await tables.stub.GetDmaDomain(pb.GetDmaDomainRequest(name=made[1].name))
    assert by_name == made[1]
    await tables.stub.DeleteDmaDomain(pb.DeleteDmaDomainRequest(handle=made[1].handle))
    for request in (pb.DeleteDmaDomainRequest(handle=made[1].handle), pb.DeleteDmaDomainRequest(handle=STALE)):
        assert await reason(tables.stub.DeleteDmaDomain(request)) == ("FAILED_PRECONDITION", "HANDLE_STALE")
    assert await reason(tables.get(made[1])) == ("FAILED_PRECONDITION", "HANDLE_STALE")
    for name in (made[1].name, "hosts/h1/dmaDomains/d-01", "hosts/h2/dmaDomains/d-1"):
        get = tables.stub.GetDmaDomain(pb.GetDmaDomainRequest(name=name))
        assert await reason(get) == ("NOT_FOUND", "DMA_DOMAIN_UNKNOWN")
    wish = pb.DmaDomain(root_address=bench.frames())
    once = pb.CreateDmaDomainRequest(dma_domain=wish, request_id="once")
    assert await tables.stub.CreateDmaDomain(once) == await tables.stub.CreateDmaDomain(once)


async def test_every_call_refuses_a_stale_handle(tables: Tables) -> None:
    """HANDLE_STALE wherever a domain is named by handle."""
    page = [pb.DmaRange(iova=0, size_bytes=PAGE)]
    stub = tables.stub
    calls = (
        stub.AttachDevice(pb.AttachDeviceRequest(handle=STALE, device=DMA0)),
        stub.AddTableFrames(pb.AddTableFramesRequest(handle=STALE, frames=[9])),
        stub.MapDma(pb.MapDmaRequest(handle=STALE, mappings=[mapping()])),
        stub.UnmapDma(pb.UnmapDmaRequest(handle=STALE, ranges=page)),
        stub.InvalidateDma(pb.InvalidateDmaRequest(handle=STALE)),
        stub.TranslateDma(pb.TranslateDmaRequest(handle=STALE)),
    )
    for call in calls:
        assert await reason(call) == ("FAILED_PRECONDITION", "HANDLE_STALE")


async def test_attaching_and_detaching(bench: Any, tables: Tables, owner: Owner) -> None:
    """A device is in one domain; others' devices are left alone; detached, it reaches nothing."""
    one = await tables.mapped((IOVA, bench.frames(), PAGE))
    two = await tables.create()
    assert await tables.attach(one) == [DMA0]
    assert await reason(tables.attach(two)) == ("FAILED_PRECONDITION", "DEVICE_ATTACHED")
    assert await reason(tables.attach(two, "hosts/h1/devices/x")) == ("NOT_FOUND", "DEVICE_UNKNOWN")
    async with Owner(bench, "h1/other") as other, Driver(bench, owner):
        others = Tables(bench, other)
        assert await reason(others.attach(one)) == ("FAILED_PRECONDITION", "DEVICE_DRIVEN")
        assert await reason(others.detach()) == ("FAILED_PRECONDITION", "DEVICE_DRIVEN")
        assert await reason(others.read(IOVA, 1)) == ("FAILED_PRECONDITION", "DEVICE_NOT_DRIVEN")
        assert await reason(others.write(IOVA, b"x")) == ("FAILED_PRECONDITION", "DEVICE_NOT_DRIVEN")
        await tables.read(IOVA, 1)
        await tables.detach()
        await tables.detach()
        error = await refusal(tables.read(IOVA, 1))
        assert (error.code, error.reason, error.metadata["outcome"]) == ("PERMISSION_DENIED", "DMA_FAULT", "NO_DOMAIN")
    assert await reason(tables.detach("hosts/h1/devices/x")) == ("NOT_FOUND", "DEVICE_UNKNOWN")
    assert await reason(tables.read(0, 1, "hosts/h1/devices/x")) == ("NOT_FOUND", "DEVICE_UNKNOWN")


async def test_the_end_of_driving_detaches(bench: Any, tables: Tables, owner: Owner, eventually: Any) -> None:
    """When a driver's stream ends, its device is in no domain any more."""
    domain = await tables.mapped((IOVA, bench.frames(), PAGE))
    async with Driver(bench, owner):
        assert list((await tables.get(domain)).devices) == [DMA0]
    await eventually(lambda: bench.environment.layer.events.counts.get("device.closed"), "the end of the driving")
    assert not (await tables.get(domain)).devices


async def test_deleting_a_domain_detaches(bench: Any, tables: Tables, owner: Owner) -> None:
    """Its devices reach nothing from then on."""
    domain = await tables.mapped((IOVA, bench.frames(), PAGE))
    async with Driver(bench, owner):
        await tables.read(IOVA, 1)
        await tables.stub.DeleteDmaDomain(pb.DeleteDmaDomainRequest(handle=domain.handle))
        assert (await refusal(tables.read(IOVA, 1))).metadata["outcome"] == "NO_DOMAIN"


async def test_transfers_have_bounds(tables: Tables, bench: Any, owner: Owner) -> None:
    """Nothing and more than 1 MiB are INVALID_ARGUMENT."""
    async with Driver(bench, owner):
        for size in (0, -1, MIB + 1):
            assert (await reason(tables.read(IOVA, size)))[0] == "INVALID_ARGUMENT"
        for data in (b"", bytes(MIB + 1)):
            assert (await reason(tables.write(IOVA, data)))[0] == "INVALID_ARGUMENT"


async def test_a_transfer_is_all_or_nothing(bench: Any, tables: Tables, owner: Owner) -> None:
    """A write that ends in a page that is not mapped stores nothing; the fault names the first such address."""
    pa = bench.frames()
    domain = await tables.mapped((IOVA, pa, PAGE))
    async with Driver(bench, owner):
        error = await refusal(tables.write(IOVA + PAGE - 4, bytes([1] * 8)))
        assert error.metadata["iova"] == f"{IOVA + PAGE:#x}"
        assert bench.bus.read(pa, PAGE) == bytes(PAGE)
        error = await refusal(tables.read((1 << 48) - 2, 4))
        assert error.metadata["outcome"] == "ADDRESS_TOO_WIDE"
        first, second = await tables.faults()
    assert (first.sequence, first.device, first.dma_domain) == (1, DMA0, domain.name)
    assert (first.iova, first.size_bytes, first.write, first.entry) == (IOVA + PAGE, 8, True, 0)
    assert first.outcome == pb.DMA_OUTCOME_NOT_PRESENT
    assert (second.sequence, second.iova, second.write) == (2, 1 << 48, False)
    assert (await tables.get(domain)).faults == 2


async def test_the_fault_log_has_pages(bench: Any, tables: Tables, owner: Owner) -> None:
    """It lists refused transfers oldest first, of one device or of all, page by page."""
    async with Driver(bench, owner), Driver(bench, owner, DMA1):
        for at in range(4):
            await reason(tables.read(at, 1))
        await reason(tables.read(5, 1, DMA1))
    listed = await tables.stub.ListDmaFaults(pb.ListDmaFaultsRequest(page_size=3))
    assert ([fault.iova for fault in listed.faults], listed.forgotten) == ([0, 1, 2], 0)
    token = listed.next_page_token
    listed = await tables.stub.ListDmaFaults(pb.ListDmaFaultsRequest(page_size=3, page_token=token))
    assert [fault.sequence for fault in listed.faults] == [4, 5]
    assert [(fault.sequence, fault.iova) for fault in await tables.faults(DMA1)] == [(5, 5)]
    call = tables.stub.ListDmaFaults(pb.ListDmaFaultsRequest(page_token="/"))
    assert await reason(call) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_walk_has_no_side_effects(bench: Any, tables: Tables) -> None:
    """TranslateDma shows every entry, for a domain or a device, and sets no bit; refusals are no errors."""
    pa = bench.frames()
    domain = await tables.mapped((IOVA, pa, PAGE))
    write = access_pb2.ACCESS_WRITE
    request = pb.TranslateDmaRequest(device=DMA0, iova=IOVA + 9, access=write)
    walked = await tables.stub.TranslateDma(request)
    assert (walked.outcome, walked.physical_address) == (pb.DMA_OUTCOME_TRANSLATED, pa + 9)
    assert [step.level for step in walked.steps] == [4, 3, 2, 1]
    assert [step.table for step in walked.steps] == ["SS PML4", "SS PDPT", "SS PD", "SS PT"]
    assert list(walked.steps[-1].bits) == ["R", "W"]
    assert walked.steps[0].entry_address == domain.root_address
    again = await tables.stub.TranslateDma(request)
    assert again == walked
    assert (await tables.get(domain)).tlb_misses == 0
    request = pb.TranslateDmaRequest(device=DMA1, iova=IOVA)
    assert (await tables.stub.TranslateDma(request)).outcome == pb.DMA_OUTCOME_NO_DOMAIN
    request = pb.TranslateDmaRequest(handle=domain.handle, iova=1 << 48)
    assert (await tables.stub.TranslateDma(request)).outcome == pb.DMA_OUTCOME_ADDRESS_TOO_WIDE
    for wrong in (pb.TranslateDmaRequest(), pb.TranslateDmaRequest(device=DMA0, access=access_pb2.ACCESS_EXECUTE)):
        assert await reason(tables.stub.TranslateDma(wrong)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    call = tables.stub.TranslateDma(pb.TranslateDmaRequest(device="hosts/h1/devices/x"))
    assert await reason(call) == ("NOT_FOUND", "DEVICE_UNKNOWN")
