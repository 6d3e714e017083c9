"""DMA domains as the contract offers them: by handle, by name and once for a request id; with their events."""

from __future__ import annotations

from lamina_hardware.devices.devices import HostDevices, Record
from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.devices.device import Device
from lamina_hardware.domain.iommu.domains import DmaDomain, DomainKind, DomainWish
from lamina_hardware.domain.iommu.iommu import check_driver
from lamina_kit.checks import Checks
from lamina_kit.errors import AlreadyExists, NotFound
from lamina_kit.paging import PAGE_SIZE


class HostDomains:
    """The domains of one host's IOMMU."""

    def __init__(self, devices: HostDevices, record: Record) -> None:
        self._devices = devices
        self._iommu = devices.iommu
        self._names = devices.names
        self._record = record

    def create(self, wish: DomainWish, request_id: str) -> DmaDomain:
        """Makes a domain, once for a request id. Raises as `Iommu.create`, and `InvalidArgument` for a root in use."""
        known = self._devices.requests.find("domain", request_id)
        if isinstance(known, DmaDomain) and self._iommu.find(known.key) is known:
            return known
        memory = self._devices.memory
        if wish.kind is DomainKind.MAPPED and memory.contains(wish.root, PAGE_SIZE):
            with Checks() as check:
                empty = not any(memory.read(wish.root, PAGE_SIZE))
                check.that(empty, "dma_domain.root_address", "is not zeroed; a table that is filled is of KIND_OWNERS")
        made = self._iommu.create(wish)
        self._devices.requests.remember("domain", request_id, made)
        self._record(
            self._names.format_dma_domain(made.key), "dma_domain.created", kind=wish.kind.name, root=hex(wish.root),
            label=wish.label,
        )  # fmt: skip
        return made

    def find(self, handle: Handle | None, name: str) -> DmaDomain:
        """Returns a domain by handle, or by name without one.

        Raises `FailedPrecondition` `HANDLE_STALE` or `NotFound` `DMA_DOMAIN_UNKNOWN`.
        """
        if handle is not None:
            return self._iommu.get(handle)
        text = self._names.dma_domain(name)
        number = text.removeprefix("d-")
        key = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
        found = self._iommu.find(key)
        if found is None or text != f"d-{key}":
            raise NotFound(
                f"There is no DMA domain {name}.",
                reason="DMA_DOMAIN_UNKNOWN",
                next_step="List them with `Iommu.ListDmaDomains`.",
            )
        return found

    def delete(self, handle: Handle) -> None:
        """Deletes a domain. Raises `FailedPrecondition` `HANDLE_STALE`."""
        found = self._iommu.get(handle)
        self._iommu.delete(found)
        self._record(
            self._names.format_dma_domain(found.key), "dma_domain.deleted", hits=found.hits, misses=found.misses,
            faults=found.faults,
        )  # fmt: skip

    def attach(self, handle: Handle, device: str, caller: str) -> list[Device]:
        """Attaches a device with its group. Raises as `Iommu.attach`."""
        domain = self._iommu.get(handle)
        found = self._devices.find(device, "device")
        fresh = found.domain != domain.key
        group = self._iommu.attach(domain, found, caller)
        if fresh:
            for member in group:
                name = self._names.format_dma_domain(domain.key)
                self._record(self._names.format_device(member.id), "device.attached", dma_domain=name)
        return group

    def detach(self, device: str, caller: str) -> None:
        """Detaches a device with its group. Raises `FailedPrecondition` `DEVICE_DRIVEN`."""
        found = self._devices.find(device, "device")
        group = self._devices.table.group(found.group)
        for member in group:
            check_driver(member, caller)
        attached = found.domain
        self._iommu.detach(found)
        if attached:
            for member in group:
                self._record(self._names.format_device(member.id), "device.detached")

    def serve_pages(self, handle: Handle) -> DmaDomain:
        """Takes the page requests of a domain.

        Raises `FailedPrecondition` `HANDLE_STALE` or `AlreadyExists` `PAGE_REQUESTS_SERVED`.
        """
        domain = self._iommu.get(handle)
        if domain.requests.served:
            raise AlreadyExists(
                f"Somebody serves the page requests of d-{domain.key} already.",
                reason="PAGE_REQUESTS_SERVED",
                next_step="Wait until that stream ends.",
            )
        domain.requests.served = True
        return domain
