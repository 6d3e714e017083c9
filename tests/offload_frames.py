"""Frames of TCP and UDP packets as a sender leaves them that has its checksums done: with that of the pseudo header."""

from __future__ import annotations

import struct

from lamina_net.offload.headers import ones_sum

ADDRESSES = bytes.fromhex("020000000002020000000001")


def packet(version: int, protocol: int, payload: bytes, flags: int = 0x18, tag: bytes = b"") -> bytes:
    """Return a frame; `protocol` is 6 or 17, `flags` those of TCP, `tag` four bytes or none."""
    transport = struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, flags, 64, 0, 0) if protocol == 6 else b""
    transport = transport or struct.pack(">HHHH", 1, 2, 8 + len(payload), 0)
    length = len(transport) + len(payload)
    if version == 4:
        addresses = bytes((10, 0, 0, 1, 10, 0, 0, 2))
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 7, 0, 64, protocol, 0) + addresses
        ip = ip[:10] + (0xFFFF ^ ones_sum(ip)).to_bytes(2, "big") + ip[12:]
    else:
        addresses = bytes(range(32))
        ip = struct.pack(">IHBB", 6 << 28, length, protocol, 64) + addresses
    at = 16 if protocol == 6 else 6
    seed = ones_sum(addresses, protocol + length).to_bytes(2, "big")
    kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
    return ADDRESSES + tag + kind + ip + transport[:at] + seed + transport[at + 2 :] + payload
