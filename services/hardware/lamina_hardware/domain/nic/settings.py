"""What a driver sets in a NIC, and which frames it then receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from lamina_hardware.domain.nic.spreading import Spreading
from lamina_net.offload.headers import ETHERNET_BYTES, ETHERTYPE_VLAN, TAG_BYTES

LEAST_MTU, MOST_MTU = 68, 9000
LEAST_FRAME = 60
"""What Ethernet pads a shorter frame to, without its frame check sequence."""
MOST_ADDRESSES = 128
BROADCAST = b"\xff" * 6


class Drop(IntEnum):
    """Why a frame was not received; the numbers are those of the contract's `NicDropReason`."""

    NO_DESCRIPTOR = 1
    TOO_LONG = 2
    TOO_SHORT = 3
    FILTERED = 4
    DMA_FAULT = 5
    LINK_DOWN = 6
    NOT_DRIVEN = 7
    DAMAGED = 8


@dataclass(frozen=True, slots=True)
class Offloads:
    """What a NIC does for its driver."""

    receive_checksum: bool = False
    transmit_checksum: bool = False
    segmentation: bool = False
    receive_coalescing: bool = False
    vlan_strip: bool = False
    vlan_insert: bool = False


ALL_OFFLOADS = Offloads(True, True, True, True, True, True)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a NIC; a change is a new object. Addresses are 6 bytes; `vlans` empty means all."""

    mac: bytes
    mtu: int = 1500
    addresses: frozenset[bytes] = frozenset()
    promiscuous: bool = False
    all_multicast: bool = False
    vlans: frozenset[int] = frozenset()
    offloads: Offloads = Offloads()
    spreading: Spreading = field(default_factory=Spreading)
    admin_up: bool = True

    def refuse(self, frame: bytes) -> Drop | None:
        """Returns why a frame is not received; None when it is."""
        if len(frame) < ETHERNET_BYTES:
            return Drop.TOO_SHORT
        is_tagged = int.from_bytes(frame[12:14], "big") == ETHERTYPE_VLAN and len(frame) >= ETHERNET_BYTES + TAG_BYTES
        if len(frame) > self.mtu + ETHERNET_BYTES + (TAG_BYTES if is_tagged else 0):
            return Drop.TOO_LONG
        if self.vlans and is_tagged and int.from_bytes(frame[14:16], "big") & 0xFFF not in self.vlans:
            return Drop.FILTERED
        target = frame[:6]
        if self.promiscuous or target in (self.mac, BROADCAST) or target in self.addresses:
            return None
        return None if self.all_multicast and target[0] & 1 else Drop.FILTERED
