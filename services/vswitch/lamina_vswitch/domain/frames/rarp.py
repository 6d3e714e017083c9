"""Announcing where an address is now: reverse ARP requests, as QEMU and VMware send them after a migration.

Source: RFC 903; QEMU net/announce.c.
"""

from __future__ import annotations

import struct

ETHERTYPE_RARP = 0x8035
_REQUEST_REVERSE = 3
_LAYOUT = struct.Struct(">6s6sHHHBBH6s4s6s4s")
_LEAST = 60


def announcement(mac: bytes) -> bytes:
    """Return the broadcast by which every switch on the way learns where `mac` is."""
    packet = _LAYOUT.pack(
        b"\xff" * 6, mac, ETHERTYPE_RARP, 1, 0x0800, 6, 4, _REQUEST_REVERSE, mac, bytes(4), mac, bytes(4)
    )
    return packet.ljust(_LEAST, b"\0")
