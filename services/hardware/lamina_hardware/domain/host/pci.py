"""The machine's PCI devices and IOMMU groups, as the kernel shows them. Pure.

Source: Documentation/ABI/testing/sysfs-bus-pci, sysfs-kernel-iommu_groups of Linux 6.18; PCI Local Bus Specification
3.0, 6.2.4, 6.8.1.3 (MSI) and 6.8.2.3 (MSI-X).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamina_hardware.domain.devices.pci import PciIdentity
from lamina_hardware.domain.host.tree import Tree, number

MOST_DEVICES = 4096
NO_GROUP = -1
FOLDER = "sys/bus/pci/devices"
GROUPS = "sys/kernel/iommu_groups"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_CAP_MSI, _CAP_MSIX = 0x05, 0x11
_MOST_CAPABILITIES = 48
"""As many as fit into 256 bytes: a list that is longer goes in circles."""
_MOST_VECTORS = 256


@dataclass(frozen=True, slots=True)
class HostPci:
    """A PCI device of the machine. `driver` is the kernel's, empty for none; `group` is -1 without an IOMMU."""

    identity: PciIdentity
    group: int
    driver: str

    @property
    def id(self) -> str:
        """Returns the last part of its name: `pci-0000-00-03-0`."""
        return "pci-" + re.sub(r"[:.]", "-", self.identity.address)


def devices(tree: Tree) -> list[HostPci]:
    """Returns the devices in the order of their addresses."""
    found: list[HostPci] = []
    for address in tree.names(FOLDER):
        if _ADDRESS.fullmatch(address) and len(found) < MOST_DEVICES:
            found.append(_device(tree, address))
    return found


def _device(tree: Tree, address: str) -> HostPci:
    folder = f"{FOLDER}/{address}"
    vendor, device, class_code, revision = (
        (number(tree.text(f"{folder}/{name}"), 16) or 0) & mask
        for name, mask in (("vendor", 0xFFFF), ("device", 0xFFFF), ("class", 0xFFFFFF), ("revision", 0xFF))
    )
    group = number(tree.target(f"{folder}/iommu_group"))
    driver = tree.target(f"{folder}/driver")
    return HostPci(
        PciIdentity(address, vendor, device, class_code, revision),
        NO_GROUP if group is None or group >= 1 << 31 else group,
        driver if _NAME.fullmatch(driver) else "",
    )


def groups(tree: Tree) -> list[int]:
    """Returns the numbers of the machine's IOMMU groups, ascending."""
    found = [number(name) for name in tree.names(GROUPS)]
    return sorted(dict.fromkeys(value for value in found if value is not None and value < 1 << 30))


def vectors(configuration: bytes) -> int:
    """Returns how many interrupt vectors a configuration space offers, 0 to 256: MSI-X, else MSI, else its pin."""
    if len(configuration) < 64:
        return 0
    found = {_CAP_MSIX: 0, _CAP_MSI: 0}
    place = configuration[0x34] & 0xFC
    for _ in range(_MOST_CAPABILITIES):
        if place < 0x40 or place + 4 > len(configuration):
            break
        kind, control = configuration[place], int.from_bytes(configuration[place + 2 : place + 4], "little")
        if kind == _CAP_MSIX:
            found[kind] = (control & 0x7FF) + 1
        elif kind == _CAP_MSI:
            found[kind] = 1 << min(control >> 1 & 7, 5)
        place = configuration[place + 1] & 0xFC
    return min(found[_CAP_MSIX] or found[_CAP_MSI] or int(configuration[0x3D] != 0), _MOST_VECTORS)
