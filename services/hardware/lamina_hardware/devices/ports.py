"""What a device model is connected to in this process: `domain/devices/device.py` has the interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lamina_hardware.devices.drives import Drive
from lamina_hardware.domain.devices.device import Device, Timer
from lamina_hardware.domain.devices.dma import DmaPort
from lamina_hardware.io.timers import Timers


class Bay(Protocol):
    """What the ports need of the host's devices."""

    timers: Timers

    def drive(self, device: Device) -> Drive | None:
        """Returns who drives a device."""
        ...

    def raise_vector(self, device: Device, vector: int, queue: int | None) -> None:
        """Takes an interrupt where it belongs."""
        ...

    def record_device(self, device: Device, event: str, inputs: dict[str, object]) -> None:
        """Writes into the event log."""
        ...


class Ports:
    """The ports of one device."""

    def __init__(self, bay: Bay, device: Device, dma: DmaPort) -> None:
        self._bay = bay
        self._device = device
        self.dma = dma

    def interrupt(self, vector: int, queue: int | None = None) -> None:
        """See `DevicePorts.interrupt`."""
        self._bay.raise_vector(self._device, vector, queue)

    def now_ns(self) -> int:
        """See `DevicePorts.now_ns`."""
        return self._bay.timers.now_ns()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """See `DevicePorts.call_at`."""
        return self._bay.timers.call_at(when_ns, callback)

    def record(self, event: str, **inputs: object) -> None:
        """See `DevicePorts.record`."""
        self._bay.record_device(self._device, event, inputs)

    def tail(self, queue: int) -> int:
        """See `DevicePorts.tail`."""
        drive = self._bay.drive(self._device)
        return drive.tail(queue) if drive is not None else 0

    def set_head(self, queue: int, head: int) -> None:
        """See `DevicePorts.set_head`."""
        if (drive := self._bay.drive(self._device)) is not None:
            drive.page.set_head(queue, head)

    def sleep(self, queue: int) -> bool:
        """See `DevicePorts.sleep`."""
        drive = self._bay.drive(self._device)
        return drive is not None and drive.sleep(queue)

    def ring(self, queue: int) -> tuple[int, int]:
        """See `DevicePorts.ring`."""
        drive = self._bay.drive(self._device)
        return drive.page.ring(queue) if drive is not None else (0, 0)

    def set_link(self, up: bool, rate_bits_per_second: int) -> None:
        """See `DevicePorts.set_link`."""
        if (drive := self._bay.drive(self._device)) is not None:
            drive.link(up, rate_bits_per_second)

    def set_queues(self, count: int) -> None:
        """See `DevicePorts.set_queues`."""
        if (drive := self._bay.drive(self._device)) is not None:
            drive.page.set_queues(count)
