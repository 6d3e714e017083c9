"""A device that the kernel of the machine below has: it is shown, and nobody drives it through Lamina."""

from __future__ import annotations

from collections.abc import Callable

from lamina_hardware.domain.devices.device import Device, DevicePorts
from lamina_hardware.domain.host.pci import vectors
from lamina_kit.errors import Aborted, PermissionDenied, Unimplemented

_CONFIGURATION = (256, 4096)


class KernelDevice:
    """A `DeviceModel` that does nothing. `read` returns its configuration space as the kernel shows it now."""

    queue_limit = 0
    queue_count = 0

    def __init__(self, address: str, read: Callable[[], bytes]) -> None:
        self._address = address
        self._read = read
        self.vector_count = vectors(read())

    def connect(self, ports: DevicePorts) -> None:
        """See `DeviceModel.connect`: what it does to memory the kernel arranges."""

    def reset(self) -> None:
        """See `DeviceModel.reset`: the kernel's."""

    def doorbell(self, queue: int, tail: int) -> None:
        """See `DeviceModel.doorbell`: it has no queue that could be rung."""

    def configuration(self) -> bytes:
        """Returns the configuration space.

        Raises `Aborted` `DEVICE_REMOVED` or `PermissionDenied` `CONFIGURATION_NEEDS_PRIVILEGE`.
        """
        data = self._read()
        if not data:
            raise Aborted(
                f"The kernel shows no configuration space of {self._address} any more.",
                reason="DEVICE_REMOVED",
                next_step="Look at the machine's /sys/bus/pci/devices.",
            )
        if len(data) not in _CONFIGURATION:
            raise PermissionDenied(
                f"The kernel shows {len(data)} bytes of the configuration space of {self._address}.",
                reason="CONFIGURATION_NEEDS_PRIVILEGE",
                next_step="Give the process CAP_SYS_ADMIN.",
            )
        return data


def refuse_fault(device: Device) -> None:
    """Raises `Unimplemented` `DEVICE_NOT_MODELLED` for a fault in a device that is the kernel's."""
    if isinstance(device.model, KernelDevice):
        raise Unimplemented(
            f"{device.id} is a device of the kernel: Lamina cannot break it.",
            reason="DEVICE_NOT_MODELLED",
            next_step="Break one of the modelled devices.",
        )
