"""ELF files made by hand, well formed or not."""

from __future__ import annotations

import struct
from dataclasses import dataclass

LOAD, INTERP, STACK = 1, 3, 0x6474E551
R, W, X = 4, 2, 1


@dataclass(frozen=True)
class Part:
    """One program header."""

    kind: int = LOAD
    flags: int = R | X
    offset: int = 0
    vaddr: int = 0x400000
    file_size: int = 0x200
    mem_size: int = 0x200
    align: int = 0x1000


def program(*parts: Part, size: int = 0x4000, kind: int = 2, entry: int = 0x400100, **header: int) -> bytes:
    """Returns an ELF file with these program headers, padded to `size`."""
    identity = (header.get("bits", 2), header.get("order", 1), 1, header.get("abi", 0))
    ident = struct.pack("<4sBBBBB7x", b"\x7fELF", *identity, 0)
    machine, count = header.get("machine", 62), header.get("count", len(parts))
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, kind, machine, 1, entry, 64, 0, 0, 64, 56, count, 0, 0, 0)
    body = b"".join(
        struct.pack("<IIQQQQQQ", p.kind, p.flags, p.offset, p.vaddr, p.vaddr, p.file_size, p.mem_size, p.align)
        for p in parts
    )
    return (head + body).ljust(size, b"\x90")[:size]
