"""Between contract and domain, for the IOMMU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import iommu_pb2 as pb

from lamina_hardware.convert.cpu import walk_steps
from lamina_hardware.convert.devices import handle
from lamina_hardware.domain.devices.device import Device
from lamina_hardware.domain.devices.dma import MAX_TRANSFER, DmaOutcome
from lamina_hardware.domain.iommu.domains import DmaDomain, DomainKind, DomainWish
from lamina_hardware.domain.iommu.faults import DmaFault
from lamina_hardware.domain.iommu.page_requests import MAX_IN_MESSAGE, PageRequest
from lamina_hardware.domain.iommu.second_stage import IOVA_BITS, DmaWalk
from lamina_hardware.domain.iommu.tables import Mapping, Unmapped
from lamina_hardware.names import Names
from lamina_kit.checks import Checks
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, span

MAX_ENTRIES = 4096
MAX_MAPPING = 1 << 40
_MAX_LABEL = 127
_MAX_DEVICES = 1024
_IOVA_END = 1 << IOVA_BITS


def domain_wish(message: pb.DmaDomain, owner: str) -> DomainWish:
    """Returns what a caller wants of a domain. Raises `InvalidArgument` that names each wrong field."""
    kind = message.kind or pb.DmaDomain.KIND_MAPPED
    with Checks() as check:
        check.one_of("dma_domain.kind", kind, tuple(int(known) for known in DomainKind))
        check.max_bytes("dma_domain.label", message.label, _MAX_LABEL)
        check.aligned("dma_domain.root_address", message.root_address, PAGE_SIZE)
        identity = kind == pb.DmaDomain.KIND_IDENTITY
        check.that(
            not (identity and message.root_address), "dma_domain.root_address", "is given, but nothing is walked"
        )
        absent = "is given, but nothing is ever absent in an identity domain"
        check.that(not (identity and message.page_requests), "dma_domain.page_requests", absent)
    return DomainWish(DomainKind(kind), message.root_address, message.label, message.page_requests, owner)


def domain(found: DmaDomain, devices: Iterable[Device], names: Names) -> pb.DmaDomain:
    """Returns a domain as a message."""
    tables, wish = found.tables, found.wish
    return pb.DmaDomain(
        name=names.format_dma_domain(found.key),
        handle=handle(found.handle),
        label=wish.label,
        root_address=wish.root,
        kind=int(wish.kind),  # type: ignore[arg-type]
        page_requests=wish.page_requests,
        devices=[names.format_device(device.id) for device in devices][:_MAX_DEVICES],
        mapped_bytes=tables.mapped_bytes if tables is not None else 0,
        table_frames=len(tables.frames) if tables is not None else 0,
        spare_table_frames=len(tables.spare) if tables is not None else 0,
        tlb_hits=found.hits,
        tlb_misses=found.misses,
        faults=found.faults,
    )


def frames(numbers: Sequence[int]) -> list[int]:
    """Returns the addresses of frames. Raises `InvalidArgument` for none, or more than 4096."""
    with Checks() as check:
        _count(check, "frames", numbers)
    return [number << PAGE_SHIFT for number in numbers]


def mappings(given: Sequence[pb.DmaMapping]) -> list[Mapping]:
    """Returns mappings. Raises `InvalidArgument` for what is out of range, unaligned, without a right, or overlaps."""
    with Checks() as check:
        if _count(check, "mappings", given):
            for entry in given:
                _check_mapping(check, entry)
        check.raise_violations()
        ordered = sorted((entry.iova, entry.iova + entry.size_bytes) for entry in given)
        apart = all(before[1] <= after[0] for before, after in pairwise(ordered))
        check.that(apart, "mappings", "overlap each other")
    return [Mapping(entry.iova, entry.address, entry.size_bytes, entry.read, entry.write) for entry in given]


def ranges(given: Sequence[pb.DmaRange], *, at_least: int = 1) -> list[tuple[int, int]]:
    """Returns ranges (start, end). Raises `InvalidArgument` for what is unaligned or empty, and for too many."""
    with Checks() as check:
        if check.that(at_least <= len(given) <= MAX_ENTRIES, "ranges", f"has not {at_least} to {MAX_ENTRIES} entries"):
            for entry in given:
                check.aligned("ranges.iova", entry.iova, PAGE_SIZE)
                check.aligned("ranges.size_bytes", entry.size_bytes, PAGE_SIZE)
                check.range("ranges.size_bytes", entry.size_bytes, PAGE_SIZE, 1 << 62)
    return [(min(entry.iova, _IOVA_END), min(entry.iova + entry.size_bytes, _IOVA_END)) for entry in given]


def is_write(access: int) -> bool:
    """Returns whether an access is a write. Raises `InvalidArgument` for one that devices do not have."""
    known = (access_pb2.ACCESS_UNSPECIFIED, access_pb2.ACCESS_READ, access_pb2.ACCESS_WRITE)
    with Checks() as check:
        check.one_of("access", access, known)
    return access == access_pb2.ACCESS_WRITE


def check_transfer(size: int, field: str) -> None:
    """Raises `InvalidArgument` for a transfer of nothing, or of more than 1 MiB."""
    with Checks() as check:
        check.range(field, size, 1, MAX_TRANSFER)


def answers(message: pb.PageAnswers) -> list[tuple[int, bool]]:
    """Returns (sequence, present) of each answer. Raises `InvalidArgument` for more than 1024."""
    with Checks() as check:
        check.that(len(message.answers) <= MAX_IN_MESSAGE, "answers", f"has more than {MAX_IN_MESSAGE} entries")
    return [(answer.sequence, answer.present) for answer in message.answers]


def unmapped(found: Unmapped) -> pb.UnmapDmaResponse:
    """Returns what unmapping found, as a message."""
    return pb.UnmapDmaResponse(unmapped_bytes=found.size, dirty_pages=found.dirty, all_dirty=found.all_dirty)


def walk(found: DmaWalk) -> pb.TranslateDmaResponse:
    """Returns a walk as a message."""
    translated = found.outcome is DmaOutcome.TRANSLATED
    return pb.TranslateDmaResponse(
        outcome=int(found.outcome),  # type: ignore[arg-type]
        physical_address=found.pa if translated else 0,
        page_size_bytes=span(found.level) if translated else 0,
        steps=walk_steps(found.steps),
    )


def fault(found: DmaFault, names: Names) -> pb.DmaFault:
    """Returns a refused transfer as a message."""
    return pb.DmaFault(
        sequence=found.sequence,
        time_ns=found.time_ns,
        device=names.format_device(found.device),
        dma_domain=names.format_dma_domain(found.domain),
        iova=found.iova,
        size_bytes=found.size,
        write=found.write,
        outcome=int(found.outcome),  # type: ignore[arg-type]
        entry=found.entry,
    )


def page_requests(found: Sequence[PageRequest], names: Names) -> pb.ServePageRequestsResponse:
    """Returns page requests as a message."""
    message = pb.ServePageRequestsResponse()
    for request in found:
        device, iova, write = request.place
        message.requests.add(
            sequence=request.sequence,
            iova=iova,
            write=write,
            device=names.format_device(device),
            traceparent=request.traceparent,
        )
    return message


def _count(check: Checks, field: str, given: Sequence[object]) -> bool:
    return check.that(1 <= len(given) <= MAX_ENTRIES, field, f"has not 1 to {MAX_ENTRIES} entries")


def _check_mapping(check: Checks, entry: pb.DmaMapping) -> None:
    check.aligned("mappings.iova", entry.iova, PAGE_SIZE)
    check.aligned("mappings.address", entry.address, PAGE_SIZE)
    check.aligned("mappings.size_bytes", entry.size_bytes, PAGE_SIZE)
    check.range("mappings.size_bytes", entry.size_bytes, PAGE_SIZE, MAX_MAPPING)
    check.that(entry.iova + entry.size_bytes <= _IOVA_END, "mappings.iova", f"reaches beyond {IOVA_BITS} bits")
    check.that(entry.read or entry.write, "mappings.read", "and write are both false")
