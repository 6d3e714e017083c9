"""What a walker core's TLB holds: the emulator's own table, read while the core does not run.

    f[mode] ─► mask, table ─► entries of 64 bytes: address for reads | writes | fetches | physical address | …

One table for each of three modes (ring 0 under SMAP, ring 3, ring 0); an address of all ones, or with the bit of an
invalid entry, is none. The eight victims that the emulator keeps beside each table are not shown.
"""

from __future__ import annotations

import ctypes
import struct

from lamina_hardware.domain.paging.tlb import TlbSlot
from lamina_hardware.io.emulator.state import unicorn_layout as at

_NONE = (1 << 64) - 1
_INVALID = 1 << 11
_PAGE = ~0xFFF


def read_tables(env: int) -> list[TlbSlot]:
    """Returns the valid entries of all modes of the core whose register file is at `env`, by address."""
    found: list[TlbSlot] = []
    for mode in range(at.TLB_MODES):
        mask, table = struct.unpack("<2Q", ctypes.string_at(env + at.TLB_TABLES + 16 * mode, 16))
        entries = ctypes.string_at(table, mask + at.TLB_ENTRY_BYTES)
        for place in range(0, len(entries), at.TLB_ENTRY_BYTES):
            read, write, fetch, physical = struct.unpack_from("<4Q", entries, place)
            valid = [address for address in (read, write, fetch) if address != _NONE and not address & _INVALID]
            if valid:
                writable, executable = write in valid, fetch in valid
                user = mode == at.TLB_USER_MODE
                found.append(TlbSlot(valid[0] & _PAGE, user, physical & _PAGE, writable, executable))
    return sorted(found)
