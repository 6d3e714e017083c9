"""The IOMMU: translates and confines what devices address. Pure.

    transfer ─► device's domain ─► IOTLB ── hit ─────────────► physical address
                     │               └─ miss ─► walk of the table in RAM ─► kept in the IOTLB
                     └─ none: refused

A device without a domain reaches nothing. Everything that changes what a device reaches (unmap, detach, invalidate,
delete) drops kept translations in the same step; as a transfer is one step too (`devices/device.py`), none that used an
old translation is under way when the step is done. What a refusal leaves: an entry of the fault log, counters, and a
call of `told`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.devices.device import Device, DeviceTable, Timer
from lamina_hardware.domain.devices.dma import PIECES, DmaOutcome, DmaRefused, PageNeeded, Physical, Transfer
from lamina_hardware.domain.devices.dma_buffers import DmaBuffer, DmaBuffers
from lamina_hardware.domain.iommu.domains import DmaDomain, DomainKind, DomainWish
from lamina_hardware.domain.iommu.faults import DmaFault, DmaFaultLog
from lamina_hardware.domain.iommu.iotlb import Kept
from lamina_hardware.domain.iommu.page_requests import TIMEOUT_NS, PageRequest
from lamina_hardware.domain.iommu.second_stage import IOVA_BITS, DmaWalk, walk
from lamina_hardware.domain.iommu.tables import DmaTables, Mapping, Unmapped
from lamina_hardware.domain.slots import Slots
from lamina_kit.errors import AlreadyExists, FailedPrecondition, OutOfRange, ResourceExhausted
from lamina_kit.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, page_down, span

MAX_DOMAINS = 65_536
_ASKED_FOR = (DmaOutcome.NOT_PRESENT, DmaOutcome.NO_RIGHT)


class Timers(Protocol):
    """The stack's time."""

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Has `callback` called once it is `when_ns`."""
        ...


class Iommu:
    """All domains of a host. `told` is called with each transfer that was refused, and why."""

    def __init__(
        self,
        memory: Physical,
        devices: DeviceTable,
        buffers: DmaBuffers,
        timers: Timers,
        told: Callable[[Device, Transfer, DmaRefused], None],
        limit: int = MAX_DOMAINS,
    ) -> None:
        self._memory = memory
        self._devices = devices
        self._buffers = buffers
        self._timers = timers
        self._told = told
        self._limit = limit
        self._slots: Slots[DmaDomain] = Slots("DMA domain")
        self._domains: dict[int, DmaDomain] = {}
        self._frames: dict[int, int] = {}
        self._next_key = 1
        self.faults = DmaFaultLog()

    # ── domains ──────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, wish: DomainWish) -> DmaDomain:
        """Makes a domain.

        Raises `OutOfRange` `ADDRESS_OUTSIDE_RAM`, `AlreadyExists` `FRAME_IN_TABLE` for a root that is a table already,
        or `ResourceExhausted` `TOO_MANY_DMA_DOMAINS`.
        """
        if len(self._domains) >= self._limit:
            raise ResourceExhausted(
                f"The IOMMU has {self._limit} domains already.",
                reason="TOO_MANY_DMA_DOMAINS",
                next_step="Delete domains that nobody needs.",
            )
        tables = None
        if wish.kind is not DomainKind.IDENTITY:
            self._check_memory(wish.root, PAGE_SIZE, wish.owner)
        if wish.kind is DomainKind.MAPPED:
            self._check_frames([wish.root])
            tables = DmaTables(self._memory, wish.root)
            self._frames[wish.root] = self._next_key
        handle = self._slots.claim()
        domain = DmaDomain(self._next_key, handle, wish, tables)
        self._slots.put(handle, domain)
        self._domains[domain.key] = domain
        self._next_key += 1
        return domain

    def get(self, handle: Handle) -> DmaDomain:
        """Returns a domain. Raises `FailedPrecondition` `HANDLE_STALE`."""
        return self._slots.get(handle)

    def find(self, key: int) -> DmaDomain | None:
        """Returns the domain of a key, if there is one."""
        return self._domains.get(key)

    def domains(self) -> list[DmaDomain]:
        """Returns all domains in the order of their creation."""
        return list(self._domains.values())

    def delete(self, domain: DmaDomain) -> None:
        """Detaches the devices of a domain and forgets it; its frames are their giver's again."""
        for device in self.devices_of(domain):
            self._leave(device)
        domain.tlb.clear()
        domain.requests.resolve_all()
        for frame in [frame for frame, key in self._frames.items() if key == domain.key]:
            del self._frames[frame]
        self._slots.remove(domain.handle)
        del self._domains[domain.key]
        domain.requests.changed()

    def devices_of(self, domain: DmaDomain) -> list[Device]:
        """Returns the devices that are attached, in the order of their names."""
        return [device for device in self._devices.entries() if device.domain == domain.key]

    # ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────

    def attach(self, domain: DmaDomain, device: Device, caller: str) -> list[Device]:
        """Attaches a device with its group; returns the group.

        Raises `FailedPrecondition` `DEVICE_DRIVEN` when somebody else drives one of them, `DEVICE_ATTACHED` when one is
        in another domain.
        """
        group = self._devices.group(device.group)
        for member in group:
            check_driver(member, caller)
            if member.domain not in (0, domain.key):
                raise FailedPrecondition(
                    f"{member.id}, which the IOMMU does not tell apart from {device.id}, is in another domain.",
                    reason="DEVICE_ATTACHED",
                    next_step="Detach it first.",
                    device=member.id,
                )
        for member in group:
            member.domain = domain.key
        return group

    def detach(self, device: Device) -> None:
        """Takes a device and its group out of their domain; they reach nothing then. Idempotent."""
        for member in self._devices.group(device.group):
            self._leave(member)

    def _leave(self, device: Device) -> None:
        domain = self._domains.get(device.domain)
        device.domain = 0
        if domain is not None:
            domain.requests.resolve_all(device.id)

    # ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────

    def add_frames(self, domain: DmaDomain, frames: Sequence[int]) -> None:
        """Takes frames (physical addresses) for the domain's tables.

        Raises `FailedPrecondition` `TABLE_IS_OWNERS`, `OutOfRange` `ADDRESS_OUTSIDE_RAM` or `AlreadyExists`
        `FRAME_IN_TABLE`; none is taken then.
        """
        tables = self._tables(domain)
        for frame in frames:
            self._check_memory(frame, PAGE_SIZE, domain.wish.owner)
        self._check_frames(frames)
        for frame in frames:
            self._frames[frame] = domain.key
            tables.spare.append(frame)

    def map(self, domain: DmaDomain, mappings: Sequence[Mapping]) -> None:
        """Maps DMA addresses, all or nothing. Raises `OutOfRange` `ADDRESS_OUTSIDE_RAM`, or as `DmaTables.map` does."""
        tables = self._tables(domain)
        for mapping in mappings:
            self._check_memory(mapping.pa, mapping.size, domain.wish.owner)
        tables.map(mappings)

    def unmap(self, domain: DmaDomain, ranges: Sequence[tuple[int, int]]) -> Unmapped:
        """Unmaps DMA addresses (start, end) and drops what is kept of them."""
        found = self._tables(domain).unmap(ranges)
        self.invalidate(domain, ranges)
        return found

    def invalidate(self, domain: DmaDomain, ranges: Sequence[tuple[int, int]]) -> int:
        """Drops kept translations of ranges (start, end), or all without any; returns how many."""
        if not ranges:
            return domain.tlb.clear()
        return sum(domain.tlb.drop(start, end) for start, end in ranges)

    def check_unused(self, buffer: DmaBuffer) -> None:
        """Raises `FailedPrecondition` `DMA_BUFFER_IN_USE` while a domain maps a buffer, or keeps tables in it."""
        for domain in self._domains.values():
            if self._uses(domain, buffer):
                raise FailedPrecondition(
                    f"The DMA buffer at {buffer.address:#x} is in use by the DMA domain d-{domain.key}.",
                    reason="DMA_BUFFER_IN_USE",
                    next_step="Unmap it, or delete the domain, first.",
                    dma_domain=f"d-{domain.key}",
                )

    def forget_buffer(self, buffer: DmaBuffer) -> None:
        """Drops what tables of owners led to in a buffer that is given back."""
        for domain in self._domains.values():
            if domain.wish.kind is DomainKind.OWNERS:
                domain.tlb.clear()

    # ── translation ──────────────────────────────────────────────────────────────────────────────────────────────

    def reach(self, device: Device, transfer: Transfer) -> PIECES:
        """Translates a whole transfer. Raises `DmaRefused`, which is logged, or `PageNeeded`."""
        domain = self._domains.get(device.domain)
        try:
            pieces = self._pieces(device, domain, transfer)
        except DmaRefused as refused:
            self._note(device, domain, transfer, refused)
            raise
        device.transfers += 1
        return pieces

    def look(self, domain: DmaDomain | None, iova: int, write: bool) -> DmaWalk:
        """Walks as a transfer would, without side effects, and keeps every entry visited."""
        if domain is None:
            return DmaWalk(DmaOutcome.NO_DOMAIN)
        if domain.wish.kind is DomainKind.IDENTITY:
            found = self._buffers.holds(domain.wish.owner, iova, 1)
            outcome = DmaOutcome.TRANSLATED if found else DmaOutcome.NOT_PRESENT
            return DmaWalk(outcome, iova, 1 if found else 0, found, found)
        reachable = self._reachable(domain)
        return walk(self._memory, domain.wish.root, iova, write, effect=False, keep_steps=True, reachable=reachable)

    def _pieces(self, device: Device, domain: DmaDomain | None, transfer: Transfer) -> PIECES:
        iova, end, write = transfer.iova, transfer.iova + transfer.size, transfer.write
        if device.refusals:
            device.refusals -= 1
            raise DmaRefused(iova, write, DmaOutcome.NOT_PRESENT)
        if domain is None:
            raise DmaRefused(iova, write, DmaOutcome.NO_DOMAIN)
        if end > 1 << IOVA_BITS:
            raise DmaRefused(max(iova, 1 << IOVA_BITS), write, DmaOutcome.ADDRESS_TOO_WIDE)
        if domain.wish.kind is DomainKind.IDENTITY:
            return self._identical(domain, transfer)
        pieces: PIECES = []
        while iova < end:
            kept = self._translate(device, domain, iova, write)
            offset = iova & (kept.size - 1)
            size = min(kept.size - offset, end - iova)
            pieces.append((kept.page + offset, size))
            iova += size
        return pieces

    def _identical(self, domain: DmaDomain, transfer: Transfer) -> PIECES:
        at, end = transfer.iova, transfer.iova + transfer.size
        while at < end:
            size = min(end - at, PAGE_SIZE - (at & PAGE_MASK))
            if not self._buffers.holds(domain.wish.owner, at, size):
                raise DmaRefused(at, transfer.write, DmaOutcome.NOT_PRESENT)
            at += size
        return [(transfer.iova, transfer.size)]

    def _translate(self, device: Device, domain: DmaDomain, iova: int, write: bool) -> Kept:
        """Returns the translation of the page that holds an address."""
        answered = None
        if domain.wish.page_requests:
            answered = domain.requests.take_resolved((device.id, page_down(iova), write))
            if answered is False:
                raise DmaRefused(iova, write, DmaOutcome.PAGE_REQUEST_FAILED)
        kept = domain.tlb.find(iova, write)
        if kept is not None:
            domain.hits += 1
            return kept
        domain.misses += 1
        reachable = self._reachable(domain)
        found = walk(self._memory, domain.wish.root, iova, write, effect=True, reachable=reachable)
        if found.outcome is not DmaOutcome.TRANSLATED:
            if domain.wish.page_requests and found.outcome in _ASKED_FOR:
                if answered is None and domain.requests.served:
                    raise self._need(domain, device, iova, write)
                raise DmaRefused(iova, write, DmaOutcome.PAGE_REQUEST_FAILED, found.entry)
            raise DmaRefused(iova, write, found.outcome, found.entry)
        level = 1 if self._memory.is_dma(found.pa) or not self._is_whole(found) else found.level
        size = span(level)
        kept = Kept(found.pa & ~(size - 1), level, size, found.readable, found.writable, found.dirty)
        domain.tlb.keep(iova, kept)
        return kept

    def _is_whole(self, found: DmaWalk) -> bool:
        """Returns whether all of a large page exists: one at the end of RAM may not."""
        size = span(found.level)
        return self._memory.contains(found.pa & ~(size - 1), size)

    def _reachable(self, domain: DmaDomain) -> Callable[[int], bool]:
        """Returns what says whether a page is RAM or the owner's: who fills a table himself may name any address."""

        def is_allowed(pa: int) -> bool:
            if not self._memory.contains(pa, PAGE_SIZE):
                return False
            return not self._memory.is_dma(pa) or self._buffers.holds(domain.wish.owner, pa, PAGE_SIZE)

        return is_allowed

    def _need(self, domain: DmaDomain, device: Device, iova: int, write: bool) -> PageNeeded:
        place = (device.id, page_down(iova), write)
        request = domain.requests.find(place)
        if request is None:
            request = domain.requests.ask(place)
            request.timer = self._timers.call_at(self._timers.now_ns() + TIMEOUT_NS, _expiry(domain, request))
        return PageNeeded(iova, write, request.waiters.append)

    def _note(self, device: Device, domain: DmaDomain | None, transfer: Transfer, refused: DmaRefused) -> None:
        device.faults += 1
        if domain is not None:
            domain.faults += 1
        self.faults.add(
            DmaFault(
                self.faults.next_sequence(), self._timers.now_ns(), device.id, domain.key if domain else 0,
                refused.iova, transfer.size, transfer.write, refused.outcome, refused.entry,
            )
        )  # fmt: skip
        self._told(device, transfer, refused)

    # ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _tables(self, domain: DmaDomain) -> DmaTables:
        if domain.tables is None:
            raise FailedPrecondition(
                f"The table of the DMA domain d-{domain.key} is its owner's.",
                reason="TABLE_IS_OWNERS",
                next_step="Change it in RAM and call InvalidateDma, or make a domain of KIND_MAPPED.",
            )
        return domain.tables

    def _check_memory(self, pa: int, size: int, owner: str) -> None:
        """Raises unless `size` bytes at `pa` are RAM, or in DMA buffers of the owner."""
        inside = self._memory.contains(pa, size)
        if not inside or (self._memory.is_dma(pa) and not self._buffers.holds(owner, pa, size)):
            raise OutOfRange(
                f"{size} bytes at {pa:#x} are neither RAM nor DMA buffers of the domain's owner.",
                reason="ADDRESS_OUTSIDE_RAM",
                next_step="Check the address against memory_bytes of GetHost and the buffers' addresses.",
                address=f"{pa:#x}",
            )

    def _check_frames(self, frames: Sequence[int]) -> None:
        seen: dict[int, None] = {}
        for frame in frames:
            if frame in self._frames or frame in seen:
                raise AlreadyExists(
                    f"The frame {frame >> PAGE_SHIFT:#x} is in the table of a domain already.",
                    reason="FRAME_IN_TABLE",
                    next_step="Give frames that no domain has.",
                    frame=frame >> PAGE_SHIFT,
                )
            seen[frame] = None

    def _uses(self, domain: DmaDomain, buffer: DmaBuffer) -> bool:
        if domain.wish.kind is DomainKind.IDENTITY:
            return domain.wish.owner == buffer.owner and bool(self.devices_of(domain))
        if buffer.address <= domain.wish.root < buffer.end:
            return True
        if domain.tables is None:
            return False
        frames = (*domain.tables.frames, *domain.tables.spare)
        return any(buffer.address <= frame < buffer.end for frame in frames) or any(
            mapping.pa < buffer.end and mapping.pa + mapping.size > buffer.address
            for mapping in domain.tables.mappings()
        )


def check_driver(device: Device, caller: str) -> None:
    """Raises `FailedPrecondition` `DEVICE_DRIVEN` when somebody else drives a device."""
    if device.driver and device.driver != caller:
        raise FailedPrecondition(
            f"{device.id} is driven by {device.driver}.",
            reason="DEVICE_DRIVEN",
            next_step="Wait until its stream ends, or call in its session.",
            device=device.id,
        )


def _expiry(domain: DmaDomain, request: PageRequest) -> Callable[[], None]:
    return lambda: domain.requests.resolve(request)
