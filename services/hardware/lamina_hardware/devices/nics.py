"""The NICs of a host."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from lamina_hardware.devices.devices import HostDevices
from lamina_hardware.devices.nic import NicDevice
from lamina_hardware.domain.devices.device import Device, DeviceKind
from lamina_hardware.domain.nic.ring import Ring
from lamina_kit.errors import FailedPrecondition, NotFound

NIC_PCI = (0x8086, 0x10FB, 0x020000)
"""Vendor, device, class: Intel's 82599, an Ethernet controller."""
_FIRST_GROUP = 64


class HostNics:
    """All NICs of one host, `nic0` and on, each in an IOMMU group of its own. `changed` hears of links."""

    def __init__(self, host: str, devices: HostDevices, changed: Callable[[Device, bool], None]) -> None:
        self._host = host
        self._devices = devices
        self._changed = changed
        self._nics: dict[str, NicDevice] = {}

    def plug(self, count: int) -> None:
        """Puts NICs into the machine."""
        for number in range(count):
            name = f"nic{number}"
            identity = self._devices.own_pci(f"01:{number // 8:02x}.{number % 8}", NIC_PCI)
            group = self._devices.own_group(_FIRST_GROUP + number)
            model = NicDevice(address(self._host, name))
            plugged = self._devices.plug(name, DeviceKind.NIC, identity, group, model)
            model.link_changed = lambda up, plugged=plugged: self._changed(plugged, up)  # type: ignore[misc]
            self._nics[name] = model

    def names(self) -> list[str]:
        """Returns the names of the NICs in order."""
        return sorted(self._nics)

    def get(self, name: str) -> NicDevice:
        """Returns a NIC. Raises `NotFound` `NIC_UNKNOWN`."""
        found = self._nics.get(name)
        if found is None:
            raise NotFound(
                f"This host has no NIC {name}.", reason="NIC_UNKNOWN", next_step="List them with `Nics.ListNics`."
            )
        return found

    def configure(self, name: str, rings: Sequence[Ring]) -> NicDevice:
        """Replaces the rings of a NIC. Raises `FailedPrecondition` `NO_DMA_DOMAIN`."""
        if rings and not self.device(name).domain:
            raise FailedPrecondition(
                f"NIC {name} is in no DMA domain: its rings could not be read.",
                reason="NO_DMA_DOMAIN",
                next_step="Attach its device with `Iommu.AttachDevice`.",
            )
        nic = self.get(name)
        nic.configure(rings)
        return nic

    def device(self, name: str) -> Device:
        """Returns a NIC's device. Raises `NotFound` `NIC_UNKNOWN`."""
        self.get(name)
        return self._devices.table.get(name)


def address(host: str, nic: str) -> bytes:
    """Returns the address of a NIC: locally administered, the same at every start, another one on every host."""
    return b"\x02" + hashlib.blake2s(f"{host}/{nic}".encode(), digest_size=5).digest()
