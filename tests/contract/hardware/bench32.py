"""A guest outside 64-bit mode: 4 MiB of memory behind an EPT, with descriptor tables of 8-byte gates."""

from __future__ import annotations

import struct
from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.programs_32 import CODE

from lamina_kit.bus.run_page import DIRTY_ALL, ExitRecord, RunPage, Segment

GDT, IDT, TSS, DATA, STACK, USER_STACK, TEXT, USER_TEXT = (
    0x1000, 0x2000, 0x3000, 0x8000, 0x7000, 0x7800, 0x10000, 0x11000,
)  # fmt: skip
CODE_SELECTOR, DATA_SELECTOR, LONG_SELECTOR, USER_CODE, USER_DATA, TSS_SELECTOR = 0x08, 0x10, 0x18, 0x23, 0x2B, 0x38
PE, PG, WP = 1, 1 << 31, 1 << 16
PSE, PAE = 1 << 4, 1 << 5
P, RW, US, A, D, PS = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7
FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093


def descriptor(base: int, limit: int, attributes: int) -> int:
    """Returns a segment descriptor; `limit` in the unit that bit 15 of `attributes` says."""
    low = limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | (attributes & 0xFF) << 40
    return low | (limit >> 16 & 15) << 48 | (attributes >> 8 & 0xF0) << 48 | base >> 24 << 56


class Guest32:
    """A ring-0 context in protected mode without paging, with flat segments; nothing it raises exits."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        start = bench.frames(1024 + 512)
        self.base = (start + (2 << 20) - 1) & ~((2 << 20) - 1)
        self.ept = bench.tables()
        for half in (0, 2 << 20):
            self.ept.map(half, self.base + half, 7 | PS, level=2, make=7)

    async def start(self, program: str, **wish: Any) -> Guest32:
        """Makes the context, fills its tables and puts a program at TEXT."""
        wish.setdefault("intercepts", pb.Intercepts(exceptions=0, cpuid=True, syscall=False))
        self.context = await self.bench.create(eptp=self.ept.root, **wish)
        self.page = page = RunPage(self.bench.bus.run_page(self.context.run_page))
        page.cr0, page.cr3, page.cr4, page.efer = PE | 0x10, 0, 0, 0
        page.set_segment("cs", Segment(CODE_SELECTOR, 0, 0xFFFF_FFFF, FLAT_CODE))
        for name in ("ss", "ds", "es", "fs", "gs"):
            page.set_segment(name, Segment(DATA_SELECTOR, 0, 0xFFFF_FFFF, FLAT_DATA))
        page.set_segment("tr", Segment(TSS_SELECTOR, TSS, 0x67, 0x8B))
        page.gdtr_base, page.gdtr_limit, page.idtr_base, page.idtr_limit = GDT, 0x47, IDT, 0x7FF
        flat = 0xF_FFFF
        self.put(GDT, struct.pack(
            "<9Q", 0, descriptor(0, flat, FLAT_CODE), descriptor(0, flat, FLAT_DATA), descriptor(0, flat, 0xA09B),
            descriptor(0, flat, 0xC0FB), descriptor(0, flat, 0xC0F3), 0, descriptor(TSS, 0x67, 0x8B), 0,
        ))  # fmt: skip
        self.put(TSS + 4, struct.pack("<II", STACK, DATA_SELECTOR))
        page.rsp = STACK
        self.load(program)
        return self

    def load(self, program: str, place: int = TEXT) -> None:
        """Puts a program somewhere; one at TEXT is what runs next."""
        self.put(place, CODE[program])
        if place == TEXT:
            self.at(TEXT)

    def at(self, rip: int) -> None:
        """Goes on at another address."""
        self.page.rip = rip
        self.page.dirty = DIRTY_ALL

    def put(self, gpa: int, data: bytes) -> None:
        """Writes guest memory."""
        self.bench.bus.write(self.base + gpa, data)

    def get(self, gpa: int) -> int:
        """Returns four bytes of guest memory."""
        return int(self.bench.bus.load64(self.base + (gpa & ~7))) >> 8 * (gpa & 4) & 0xFFFF_FFFF

    def store(self, gpa: int, *words: int) -> None:
        """Writes words of four bytes."""
        self.put(gpa, struct.pack(f"<{len(words)}I", *words))

    def gate(self, vector: int, program: str, place: int, level: int = 0, kind: int = 0xE) -> None:
        """Puts a handler somewhere, and a gate for it into the IDT."""
        self.put(place, CODE[program])
        low = place & 0xFFFF | CODE_SELECTOR << 16 | (0x80 | level << 5 | kind) << 40 | place >> 16 << 48
        self.put(IDT + 8 * vector, struct.pack("<Q", low))

    def two_levels(self, directory: int = 0x40000, table: int = 0x41000, bits: int = P | RW | US) -> None:
        """Turns on 32-bit paging: the first 4 MiB are mapped to themselves, page by page."""
        self.store(directory, table | P | RW | US)
        self.store(table, *(n << 12 | bits for n in range(1024)))
        self.page.cr3, self.page.cr0 = directory, self.page.cr0 | PG | WP

    def pae(self, pointers: int = 0x42020, directory: int = 0x43000) -> None:
        """Turns on PAE paging: the first 4 MiB are mapped to themselves in pages of 2 MiB."""
        self.put(pointers, struct.pack("<4Q", directory | P, 0, 0, 0))
        self.put(directory, struct.pack("<2Q", P | RW | US | PS, 2 << 20 | P | RW | US | PS))
        self.page.cr3, self.page.cr0, self.page.cr4 = pointers, self.page.cr0 | PG | WP, PAE

    async def run(self, budget: int = 0) -> ExitRecord:
        """Runs until the next exit; returns its record."""
        response = await self.bench.run(self.context, budget)
        record = self.page.load_exit()
        assert (record.reason, record.rip) == (response.reason, self.page.rip)
        return record
