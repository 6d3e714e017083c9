"""What a device is to software that looks at its PCI configuration space. Pure.

     0   vendor, device        0x08  revision, class (24 bits)    0x10  six base addresses
     4   command, status       0x0E  header type 0                0x34  first capability ─► MSI-X ─► PCI Express

Source: PCI Local Bus Specification 3.0, 6.1 and 6.8.2 (MSI-X); PCI Express Base Specification 4.0, 7.5.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CONFIGURATION_BYTES = 256
_COMMAND_BUS_MASTER = 1 << 2
_COMMAND_NO_INTX = 1 << 10
_STATUS_CAPABILITIES = 1 << 4
_MSIX_PLACE, _EXPRESS_PLACE = 0x40, 0x60
_CAP_MSIX, _CAP_EXPRESS = 0x11, 0x10


@dataclass(frozen=True, slots=True)
class PciIdentity:
    """Address (`0000:00:03.0`), vendor and device (16 bits), class (24 bits), revision (8 bits)."""

    address: str
    vendor: int
    device: int
    class_code: int
    revision: int = 1


def configuration(identity: PciIdentity, vectors: int, *, driven: bool) -> bytes:
    """Returns the configuration space: 256 bytes, little-endian. A device masters the bus while somebody drives it."""
    space = bytearray(CONFIGURATION_BYTES)
    command = _COMMAND_NO_INTX | (_COMMAND_BUS_MASTER if driven else 0)
    struct.pack_into("<HHHH", space, 0, identity.vendor, identity.device, command, _STATUS_CAPABILITIES)
    struct.pack_into("<I", space, 8, identity.class_code << 8 | identity.revision)
    struct.pack_into("<HH", space, 0x2C, identity.vendor, identity.device)
    express = _EXPRESS_PLACE
    space[0x34] = express
    if vectors:
        space[0x34] = _MSIX_PLACE
        control = (vectors - 1) | (1 << 15 if driven else 0)
        struct.pack_into("<BBH", space, _MSIX_PLACE, _CAP_MSIX, express, control)
    struct.pack_into("<BBH", space, express, _CAP_EXPRESS, 0, 2)  # an endpoint, version 2
    return bytes(space)
