"""The devices of a host and their way to memory: table, IOMMU, DMA buffers, drivers.

Everything happens on the event loop of the machine. What changes what a device may reach is done when the call
returns; no transfer is under way between two steps of the loop (`domain/devices/device.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lamina_hardware.devices.drives import Drive
from lamina_hardware.devices.kernel import KernelDevice
from lamina_hardware.devices.ports import Ports
from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.devices.device import Device, DeviceKind, DeviceModel, DeviceState, DeviceTable
from lamina_hardware.domain.devices.dma import DmaPort, DmaRefused, PageNeeded, Transfer
from lamina_hardware.domain.devices.dma_buffers import DmaBuffer, DmaBuffers
from lamina_hardware.domain.devices.dma_engine import DmaEngine
from lamina_hardware.domain.devices.pci import PciIdentity, configuration
from lamina_hardware.domain.iommu.iommu import Iommu, check_driver
from lamina_hardware.domain.machine_events import DeviceNews
from lamina_hardware.io.physical import HostPhysical
from lamina_hardware.io.timers import Timers
from lamina_hardware.names import Names
from lamina_hardware.request_ids import Requests
from lamina_kit.bus.device_page import DevicePage, page_bytes
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.clock import Clock
from lamina_kit.errors import Aborted, AlreadyExists, FailedPrecondition, PermissionDenied, Unimplemented
from lamina_kit.telemetry import log
from lamina_kit.telemetry.events import EventRecord

Record = Callable[..., EventRecord]
Route = Callable[[Device, int], bool]
"""Takes an interrupt (device, vector) elsewhere than to the driver's stream; returns whether it did."""

DMA_ENGINE_PCI = (0x8086, 0x0B00, 0x088000)
"""Vendor, device, class of a DMA engine: those of Intel's, a system peripheral."""
_FIRST_GROUP = 1
_OWN = "(host)"
"""Owner of the device pages: no session can have this name."""


class HostDevices:
    """All of them. `stale` is awaited when DMA wrote to frames of translated code."""

    def __init__(
        self, bus: MemoryBus, clock: Clock, names: Names, record: Record, stale: Callable[[], Awaitable[None]]
    ) -> None:
        self.names = names
        self.requests = Requests()
        self._bus = bus
        self._record = record
        self._stale = stale
        self._dropping: asyncio.Task[None] | None = None
        self._log = log.logger("devices")
        self.timers = Timers(clock, self._note_failed)
        self.table = DeviceTable()
        self.buffers = DmaBuffers(bus.dma.base, bus.dma.size)
        self.memory = HostPhysical(bus, self._drop_stale)
        self.iommu = Iommu(self.memory, self.table, self.buffers, self.timers, self._note_refused)
        self.told: Callable[[Device, DeviceNews], None] = lambda device, news: None
        self.route: Route = lambda device, vector: False
        self._drives: dict[str, Drive] = {}
        self._pages: dict[str, DmaBuffer] = {}
        self._ports: dict[str, Ports] = {}
        self.keep_apart("0000", 0)

    def keep_apart(self, segment: str, first_group: int) -> None:
        """Puts the devices that are plugged from now on into a PCI segment and groups that the kernel has not."""
        self._segment, self._first_group = segment, first_group

    def own_pci(self, place: str, numbers: tuple[int, int, int]) -> PciIdentity:
        """Returns what Lamina's own device at a place (`00:03.0`) is: `numbers` are vendor, device and class."""
        return PciIdentity(f"{self._segment}:{place}", *numbers)

    def own_group(self, number: int) -> int:
        """Returns the IOMMU group of one of Lamina's own devices."""
        return self._first_group + number

    def plug_engines(self, count: int) -> None:
        """Puts DMA engines into the machine, `dma0` and on, each in an IOMMU group of its own."""
        for number in range(count):
            identity = self.own_pci(f"00:{0x10 + number // 8:02x}.{number % 8}", DMA_ENGINE_PCI)
            group = self.own_group(_FIRST_GROUP + number)
            self.plug(f"dma{number}", DeviceKind.DMA_ENGINE, identity, group, DmaEngine())

    def stop(self) -> None:
        """Ends all DMA. Idempotent."""
        for drive in list(self._drives.values()):
            drive.end(Aborted("The host stops.", reason="DEVICE_REMOVED", next_step="Open the device again later."))
        for device in self.table.entries():
            device.model.reset()
        self.timers.stop()

    # ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────

    def plug(self, id: str, kind: DeviceKind, pci: PciIdentity | None, group: int, model: DeviceModel) -> Device:
        """Puts a device into a free place and connects it."""
        device = self.table.plug(id, kind, pci, group, model)
        port = DmaPort(self.memory, lambda transfer: self.iommu.reach(device, transfer))
        self._ports[id] = Ports(self, device, port)
        model.connect(self._ports[id])
        model.reset()
        self.told(device, DeviceNews.ADDED)
        return device

    def unplug(self, device: Device) -> None:
        """Takes a device out of the machine; its driver's stream ends."""
        self.cut_off(device, "DEVICE_REMOVED", "is gone")
        device.model.reset()
        self.iommu.detach(device)
        self.table.unplug(device)
        del self._ports[device.id]
        self.told(device, DeviceNews.REMOVED)

    def fail(self, device: Device) -> None:
        """Makes a device fail; its driver's stream ends."""
        self.cut_off(device, "DEVICE_FAILED", "failed")
        device.state = DeviceState.FAILED
        self.told(device, DeviceNews.FAILED)

    def recover(self, device: Device) -> None:
        """Has a device that failed work again, as after power-on."""
        device.model.reset()
        device.state = DeviceState.IDLE
        self.told(device, DeviceNews.RECOVERED)

    def cut_off(self, device: Device, reason: str, what: str) -> None:
        """Ends the stream of a device's driver, with all that its end means, at once."""
        if (drive := self._drives.get(device.id)) is not None:
            drive.end(
                Aborted(
                    f"{device.id} {what}.",
                    reason=reason,
                    next_step="Look at the device and open it again when it is back.",
                )
            )
            self.close(drive)

    def find(self, name: str, field: str = "name") -> Device:
        """Returns a device by its resource name. Raises `NotFound` `DEVICE_UNKNOWN`."""
        return self.table.get(self.names.device(name, field))

    def configuration(self, device: Device) -> bytes:
        """Returns a device's PCI configuration space. Raises `Unimplemented` `DEVICE_NOT_PCI`, or as `KernelDevice`."""
        if device.pci is None:
            raise Unimplemented(
                f"{device.id} is not on the PCI bus.",
                reason="DEVICE_NOT_PCI",
                next_step="Only devices with a pci_address have a configuration space.",
            )
        if isinstance(device.model, KernelDevice):
            return device.model.configuration()
        return configuration(device.pci, device.model.vector_count, driven=device.state is DeviceState.DRIVEN)

    def dma_of(self, device: Device) -> DmaPort:
        """Returns the way of a device to memory."""
        return self._ports[device.id].dma

    def reset(self, device: Device, caller: str) -> None:
        """Brings a device into its state after power-on. Raises `FailedPrecondition` `DEVICE_DRIVEN`."""
        check_driver(device, caller)
        device.model.reset()
        if (drive := self._drives.get(device.id)) is not None:
            drive.clear()
        self._record(self.names.format_device(device.id), "device.reset")

    # ── drivers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, device: Device, owner: str) -> Drive:
        """Takes a device for a session's owner.

        Raises `AlreadyExists` `DEVICE_DRIVEN` or `Aborted` `DEVICE_FAILED`.
        """
        if device.state is DeviceState.FAILED:
            raise Aborted(f"{device.id} failed.", reason="DEVICE_FAILED", next_step="Wait until the fault is cleared.")
        if device.driver:
            raise AlreadyExists(
                f"{device.id} is driven by {device.driver}.",
                reason="DEVICE_DRIVEN",
                next_step="Wait until its stream ends.",
                driver=device.driver,
            )
        device.driver, device.state = owner, DeviceState.DRIVEN
        device.model.reset()
        drive = Drive(device, DevicePage(self._bus.dma, self.page(device).address, device.model.queue_limit))
        self._drives[device.id] = drive
        self._record(self.names.format_device(device.id), "device.opened", driver=owner)
        return drive

    def close(self, drive: Drive) -> None:
        """Gives a device back: it is reset and detached. Idempotent."""
        device = drive.device
        if self._drives.get(device.id) is not drive:
            return
        del self._drives[device.id]
        device.model.reset()
        self.iommu.detach(device)
        device.driver = ""
        if device.state is DeviceState.DRIVEN:
            device.state = DeviceState.IDLE
        self._record(self.names.format_device(device.id), "device.closed")

    def drive(self, device: Device) -> Drive | None:
        """Returns who drives a device."""
        return self._drives.get(device.id)

    def require_driver(self, device: Device, caller: str) -> None:
        """Raises `FailedPrecondition` `DEVICE_NOT_DRIVEN` unless the caller's session drives a device."""
        if not device.driver or device.driver != caller:
            raise FailedPrecondition(
                f"The caller does not drive {device.id}.",
                reason="DEVICE_NOT_DRIVEN",
                next_step="Open `Devices.Drive` for it, and name the same session in this call.",
                device=device.id,
            )

    def page(self, device: Device) -> DmaBuffer:
        """Returns the device page: a place on the bus keeps it until `free_page`."""
        known = self._pages.get(device.id)
        if known is None:
            size = page_bytes(device.model.queue_limit)
            known = self._pages[device.id] = self.buffers.allocate(size, _OWN, f"device page of {device.id}")
        return known

    def free_page(self, id: str) -> None:
        """Gives back the device page of a place that nothing comes back to."""
        page = self._pages.pop(id, None)
        if page is not None:
            self._give_back(page)

    def raise_vector(self, device: Device, vector: int, queue: int | None) -> None:
        """Takes an interrupt where its route says, or to the driver's stream."""
        if not self.route(device, vector) and (drive := self._drives.get(device.id)) is not None:
            drive.interrupt(vector, queue, self.timers.now_ns())

    # ── DMA buffers ──────────────────────────────────────────────────────────────────────────────────────────────

    def allocate(self, size: int, owner: str, label: str, request_id: str) -> DmaBuffer:
        """Returns zeroed DMA memory, the same for the same request. Raises `ResourceExhausted`."""
        known = self.requests.find("buffer", request_id)
        if isinstance(known, DmaBuffer) and known in self.buffers.entries():
            return known
        buffer = self.buffers.allocate(size, owner, label)
        self.requests.remember("buffer", request_id, buffer)
        return buffer

    def free(self, handle: Handle) -> None:
        """Takes DMA memory back and empties it. Raises `HANDLE_STALE` or `DMA_BUFFER_IN_USE`."""
        buffer = self.buffers.get(handle)
        self.iommu.check_unused(buffer)
        self._give_back(buffer)

    def _give_back(self, buffer: DmaBuffer) -> None:
        self.iommu.forget_buffer(buffer)
        self._bus.dma.empty(buffer.address, buffer.size)
        self.buffers.free(buffer)

    # ── DMA as a device ──────────────────────────────────────────────────────────────────────────────────────────

    async def read_as(self, device: Device, iova: int, size: int) -> bytes:
        """Reads as DMA of a device. Raises `PermissionDenied` `DMA_FAULT`."""
        return await self._transfer(device, lambda: self.dma_of(device).read(iova, size))

    async def write_as(self, device: Device, iova: int, data: bytes) -> None:
        """Writes as DMA of a device. Raises `PermissionDenied` `DMA_FAULT`; nothing is written then."""

        def store() -> bytes:
            self.dma_of(device).write(iova, data)
            return b""

        await self._transfer(device, store)
        await self._stale()

    async def _transfer(self, device: Device, attempt: Callable[[], bytes]) -> bytes:
        """Does a transfer, again when a page of it had to be brought in."""
        while True:
            try:
                return attempt()
            except PageNeeded as needed:
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                needed.then(lambda done=done: None if done.done() else done.set_result(None))  # type: ignore[misc]
                await done
            except DmaRefused as refused:
                raise PermissionDenied(
                    f"DMA of {device.id} at {refused.iova:#x} was refused: {refused.outcome.name}.",
                    reason="DMA_FAULT",
                    next_step="Look at `Iommu.TranslateDma` and `ListDmaFaults`.",
                    iova=f"{refused.iova:#x}",
                    outcome=refused.outcome.name,
                ) from None

    # ── owners ───────────────────────────────────────────────────────────────────────────────────────────────────

    def count_owned(self, owner: str) -> int:
        """Returns how many domains and buffers belong to a session's owner."""
        domains = sum(domain.wish.owner == owner for domain in self.iommu.domains())
        return domains + sum(buffer.owner == owner for buffer in self.buffers.entries())

    def stop_owned(self, owner: str) -> None:
        """Takes the devices of an owner whose session broke, at once."""
        for drive in list(self._drives.values()):
            if drive.device.driver == owner:
                self.cut_off(drive.device, "SESSION_EPOCH_STALE", f"was driven in a session of {owner} that ended")

    def free_owned(self, owner: str) -> None:
        """Frees what an owner that did not come back has left."""
        for domain in self.iommu.domains():
            if domain.wish.owner == owner:
                self.iommu.delete(domain)
                self._record(self.names.format_dma_domain(domain.key), "dma_domain.deleted", rule="session expired")
        for buffer in self.buffers.entries():
            if buffer.owner == owner and owner:
                self._give_back(buffer)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def record_device(self, device: Device, event: str, inputs: dict[str, object]) -> None:
        """Writes what happened to a device into the event log."""
        rule = str(inputs.pop("rule", ""))
        self._record(self.names.format_device(device.id), event, cause=device.cause, rule=rule, **inputs)

    def _note_refused(self, device: Device, transfer: Transfer, refused: DmaRefused) -> None:
        name = self.names.format_device(device.id)
        direction = "write" if refused.write else "read"
        self._record(
            name, "dma.refused", cause=device.cause, rule=refused.outcome.name, iova=hex(refused.iova),
            entry=hex(refused.entry), direction=direction, size=transfer.size, queue=transfer.queue,
        )  # fmt: skip
        if not device.refusals:
            device.cause = ""
        if (drive := self._drives.get(device.id)) is not None:
            drive.refuse(transfer.queue, refused.iova, refused.write)

    def _note_failed(self, error: BaseException) -> None:
        self._log.error("device.callback_failed", exc_info=error)
        self._record(self.names.format_host(), "device.defect", rule="its model raised", error=repr(error))

    def _drop_stale(self) -> None:
        """Has cores forget the code that DMA has overwritten, once for all writes of this step."""
        if self._dropping is None or self._dropping.done():
            self._dropping = asyncio.get_running_loop().create_task(self._drop())

    async def _drop(self) -> None:
        await self._stale()
