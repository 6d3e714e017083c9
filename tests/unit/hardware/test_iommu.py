"""The IOMMU without a service: groups, limits, the IOTLB, what is logged, what waits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.unit.hardware.io_world import PAGE, World, descriptor

from lamina_hardware.domain.devices.dma import DmaOutcome, DmaRefused, PageNeeded
from lamina_hardware.domain.iommu.domains import DomainKind, DomainWish
from lamina_hardware.domain.iommu.faults import KEPT
from lamina_hardware.domain.iommu.iotlb import CAPACITY
from lamina_hardware.domain.iommu.tables import Mapping
from lamina_kit.bus.dma import DMA_BASE
from lamina_kit.errors import FailedPrecondition, LaminaError, ResourceExhausted
from lamina_kit.paging import EPT_PS, EPT_R, EPT_W

IOVA = 0x40_0000


def refused(world: World, device: str, iova: int, size: int = 1, *, write: bool = False) -> DmaRefused:
    """Returns how a transfer is refused."""
    with pytest.raises(DmaRefused) as caught:
        world.ports[device].dma.check(iova, size, write)
    return caught.value


def test_a_group_has_one_domain() -> None:
    """Attaching one attaches all of its group, detaching likewise; one that somebody drives holds back the rest."""
    world = World(groups=(5, 5, 6))
    e0, e1, e2 = world.devices.entries()
    one, two = world.domain(device="e0"), world.domain(device="e2")
    assert world.iommu.devices_of(one) == [e0, e1]
    with pytest.raises(FailedPrecondition, match="another domain") as caught:
        world.iommu.attach(two, e1, "")
    assert caught.value.reason == "DEVICE_ATTACHED"
    world.iommu.detach(e1)
    assert (e0.domain, e1.domain, e2.domain) == (0, 0, two.key)
    e1.driver = "h1/x"
    with pytest.raises(FailedPrecondition) as caught:
        world.iommu.attach(one, e0, "h1/y")
    assert caught.value.reason == "DEVICE_DRIVEN"
    assert world.iommu.attach(one, e0, "h1/x") == [e0, e1]


def test_domains_have_a_limit() -> None:
    """The one too many is refused, and one that is deleted makes room."""
    world = World(limit=3)
    made = [world.domain(kind=DomainKind.IDENTITY) for _ in range(3)]
    with pytest.raises(ResourceExhausted) as caught:
        world.domain(kind=DomainKind.IDENTITY)
    assert caught.value.reason == "TOO_MANY_DMA_DOMAINS"
    world.iommu.delete(made[1])
    assert world.domain(kind=DomainKind.IDENTITY).handle.generation == 2


def test_the_fault_log_forgets_the_oldest() -> None:
    """4096 entries are kept; what is forgotten is counted; positions go on."""
    world = World()
    for _ in range(KEPT + 3):
        refused(world, "e0", 7)
    refused(world, "e1", 8)
    log = world.iommu.faults
    assert (len(log.entries()), log.forgotten, log.entries()[0].sequence) == (KEPT, 4, 5)
    assert [(fault.device, fault.sequence) for fault in log.entries("e1")] == [("e1", KEPT + 4)]
    assert world.devices.get("e0").faults == KEPT + 3


def test_the_iotlb_is_finite() -> None:
    """It keeps the translations used last; each that had to go costs a walk again."""
    world = World(frames=400)
    pages = CAPACITY + 4
    domain = world.domain((IOVA, 0, pages * PAGE), device="e0")
    check = world.ports["e0"].dma.check
    for page in range(pages):
        check(IOVA + page * PAGE, 1, False)
    assert (domain.misses, domain.hits, len(domain.tlb)) == (pages, 0, CAPACITY)
    check(IOVA + 4 * PAGE, 1, False)
    check(IOVA, 1, False)
    assert (domain.misses, domain.hits) == (pages + 1, 1)
    check(IOVA + 4 * PAGE, 1, False)
    check(IOVA + 5 * PAGE, 1, False)
    assert (domain.misses, domain.hits) == (pages + 2, 2)


def test_one_large_page_is_one_translation() -> None:
    """A transfer over 2 MiB walks once; invalidating any page of it drops it."""
    world = World(frames=1024)
    domain = world.domain((4 << 20, 2 << 20, 2 << 20), device="e0")
    port = world.ports["e0"].dma
    port.check((4 << 20) + 5, 1 << 20, False)
    port.check((5 << 20) + 5, 1000, False)
    assert (domain.misses, domain.hits) == (1, 1)
    assert world.iommu.invalidate(domain, [(5 << 20, (5 << 20) + PAGE)]) == 1
    assert world.iommu.invalidate(domain, []) == 0


def test_a_large_page_that_RAM_does_not_have_whole() -> None:
    """Of an owner's 2 MiB entry at the end of RAM devices reach what exists, page by page."""
    world = World(frames=600)
    domain = world.domain(kind=DomainKind.OWNERS, device="e0")
    tables = [domain.wish.root, world.frames(), world.frames()]
    for above, below in pairwise(tables):
        world.memory.store64(above, below | EPT_R | EPT_W)
    world.memory.store64(tables[-1], 2 << 20 | EPT_R | EPT_W | EPT_PS)
    port = world.ports["e0"].dma
    port.check(0, 88 * PAGE, True)
    found = refused(world, "e0", 87 * PAGE, 2 * PAGE, write=True)
    assert (found.iova, found.outcome) == (88 * PAGE, DmaOutcome.MALFORMED_ENTRY)


def test_a_refused_transfer_moves_nothing() -> None:
    """Whatever piece is refused, no byte is written; what refuses first is told."""
    world = World()
    pa = world.frames(3)
    world.domain((IOVA, pa, PAGE), (IOVA + 2 * PAGE, pa + 2 * PAGE, PAGE), device="e0")
    with pytest.raises(DmaRefused) as caught:
        world.ports["e0"].dma.write(IOVA + 10, bytes([9]) * 2 * PAGE)
    assert caught.value.iova == IOVA + PAGE
    assert not any(world.memory.read(pa, 3 * PAGE))
    assert world.told[-1][1].size == 2 * PAGE


def test_an_injected_refusal_comes_before_all_else() -> None:
    """A fault refuses also a device without a domain, so often as it says."""
    world = World()
    world.devices.get("e0").refusals = 2
    outcomes = [refused(world, "e0", 7).outcome for _ in range(3)]
    assert outcomes == [DmaOutcome.NOT_PRESENT, DmaOutcome.NOT_PRESENT, DmaOutcome.NO_DOMAIN]


def test_buffers_in_use() -> None:
    """A buffer is in use as root, as table frame, as target, and by an identity domain of its owner with a device."""
    world = World()
    buffer = world.buffers.allocate(4 * PAGE, "o", "")
    world.iommu.check_unused(buffer)

    def reason() -> str:
        with pytest.raises(FailedPrecondition) as caught:
            world.iommu.check_unused(buffer)
        return caught.value.reason

    for kind in (DomainKind.MAPPED, DomainKind.OWNERS):
        domain = world.iommu.create(DomainWish(kind, buffer.address, "", False, "o"))
        assert reason() == "DMA_BUFFER_IN_USE"
        world.iommu.delete(domain)
    domain = world.domain(owner="o")
    world.iommu.add_frames(domain, [buffer.address + PAGE])
    assert reason() == "DMA_BUFFER_IN_USE"
    world.iommu.delete(domain)
    domain = world.domain(owner="o")
    world.iommu.map(domain, [Mapping(0, buffer.address + 3 * PAGE, PAGE, True, True)])
    assert reason() == "DMA_BUFFER_IN_USE"
    world.iommu.unmap(domain, [(0, PAGE)])
    world.iommu.check_unused(buffer)
    domain = world.domain(kind=DomainKind.IDENTITY, owner="o")
    world.iommu.check_unused(buffer)
    world.iommu.attach(domain, world.devices.get("e0"), "")
    assert reason() == "DMA_BUFFER_IN_USE"
    world.iommu.detach(world.devices.get("e0"))
    world.iommu.check_unused(buffer)


@pytest.mark.parametrize("pa", [256 * PAGE, 255 * PAGE + 1, DMA_BASE - PAGE, DMA_BASE, DMA_BASE + 64 * PAGE, 1 << 60])
def test_what_is_not_the_owners_cannot_be_mapped(pa: int) -> None:
    """Addresses outside RAM, or in DMA memory that is not the owner's, are refused as target and as table."""
    world = World()
    domain = world.domain(owner="o")
    with pytest.raises(LaminaError) as caught:
        world.iommu.map(domain, [Mapping(0, pa, PAGE, True, True)])
    assert caught.value.reason == "ADDRESS_OUTSIDE_RAM"
    with pytest.raises(LaminaError) as caught:
        world.iommu.add_frames(domain, [pa])
    assert caught.value.reason == "ADDRESS_OUTSIDE_RAM"


def test_an_engine_waits_for_its_pages() -> None:
    """Ring, source, target and the status' page are brought in one after another; the copy happens once, as a whole."""
    world = World()
    domain = world.domain(device="e0", page_requests=True)
    domain.requests.served = True
    pages = {0: world.frames(), IOVA: world.frames(), 2 * IOVA: world.frames()}
    world.memory.write(pages[0], descriptor(IOVA, 2 * IOVA, 64))
    world.memory.write(pages[IOVA], b"x" * 64)
    world.ring("e0", 0, 1)
    asked = []
    for _ in range(6):
        world.timers.advance(10_000)
        requests = domain.requests.take()
        for request in requests:
            _, iova, write = request.place
            asked.append((iova, write))
            world.iommu.map(domain, [Mapping(iova, pages[iova], PAGE, True, True)])
            domain.requests.answer(request.sequence, True)
    world.timers.advance(10_000)
    assert asked == [(0, False), (2 * IOVA, True), (IOVA, False)]
    assert world.memory.read(pages[2 * IOVA], 64) == b"x" * 64
    assert world.ports["e0"].heads == {0: 1}
    assert world.ports["e0"].interrupts == [0]


def test_a_reset_forgets_what_waits() -> None:
    """A request that is answered after the device was reset wakes nobody."""
    world = World()
    domain = world.domain(device="e0", page_requests=True)
    domain.requests.served = True
    world.ring("e0", 0, 1)
    world.timers.advance(10_000)
    (request,) = domain.requests.take()
    world.devices.get("e0").model.reset()
    domain.requests.answer(request.sequence, False)
    world.timers.advance(10_000)
    assert world.ports["e0"].events == []
    assert world.told == []


def test_a_second_transfer_joins_an_open_request() -> None:
    """Two transfers that lack the same page ask once; a page of another device, or for writing, is another question."""
    world = World()
    domain = world.domain(page_requests=True)
    domain.requests.served = True
    for device in ("e0", "e1"):
        world.iommu.attach(domain, world.devices.get(device), "")
    woken: list[str] = []
    for name, device, write in (("a", "e0", False), ("b", "e0", False), ("c", "e0", True), ("d", "e1", False)):
        with pytest.raises(PageNeeded) as caught:
            world.ports[device].dma.check(IOVA + 5, 1, write)
        caught.value.then(lambda name=name: woken.append(name))  # type: ignore[misc]
    asked = domain.requests.take()
    assert [request.place for request in asked] == [("e0", IOVA, False), ("e0", IOVA, True), ("e1", IOVA, False)]
    domain.requests.answer(asked[0].sequence, False)
    assert woken == ["a", "b"]
    world.timers.advance(10**9)
    assert woken == ["a", "b", "c", "d"]
    assert domain.requests.take() == []
