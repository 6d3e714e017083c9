"""Reading and writing the memory of a process through its page tables, as a kernel's copy_from_user does.

The walk of one byte's address (`paging.py` shows the indices):

    root ──[47:39]──▶ PML4 entry ──[38:30]──▶ PDPT entry ──[29:21]──▶ PD entry ──[20:12]──▶ PT entry ──▶ frame

Every entry on the way must be present and allow user access; a write also needs RW in each. For the time of a copy the
frame is pinned, and the entry is read again after pinning: had the page been taken away in between, the walk starts
over. A and D bits are set by compare-and-swap before the bytes move.

What is not mapped so raises `NeedFault(va, write)`: the caller yields its fault effect, and calls again with the same
arguments. A write may then have stored a part; storing it again changes nothing.
"""

from __future__ import annotations

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.effects import NeedFault
from lamina_kit.errors import DataLoss, InvalidArgument, OutOfRange, ResourceExhausted
from lamina_kit.paging import (
    ACCESSED,
    ADDR_MASK,
    DIRTY,
    LEVELS,
    PAGE_SHIFT,
    PAGE_SIZE,
    PRESENT,
    PS,
    RW,
    US,
    index,
    is_user,
    span,
)

__all__ = ["MAX_COPY", "NeedFault", "UserMemory"]

MAX_COPY = 64 << 20
"""Most bytes of one copy. A kernel that is asked for more does it in parts."""


class UserMemory:
    """Access to user addresses on one memory bus.

    `root` is the host physical address of a PML4 table. Addresses beyond the user half are `OutOfRange`
    `ADDRESS_NOT_USER`, sizes over 64 MiB `ResourceExhausted` `COPY_TOO_LARGE`, and an entry that points beyond RAM
    `DataLoss` `TABLE_CORRUPT`.
    """

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def read(self, root: int, va: int, n: int) -> bytes:
        """Returns `n` bytes at `va`; all of them or `NeedFault`."""
        self._check(va, n)
        parts: list[bytes] = []
        end = va + n
        while va < end:
            size = min(end - va, PAGE_SIZE - va % PAGE_SIZE)
            pa = self._pin(root, va, write=False)
            try:
                parts.append(self._bus.read(pa, size))
            finally:
                self._bus.unpin(pa >> PAGE_SHIFT)
            va += size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, root: int, va: int, data: bytes | bytearray | memoryview) -> None:
        """Stores `data` at `va`; on `NeedFault` the part below the fault's address may be stored already."""
        source = memoryview(data).cast("B")
        self._check(va, len(source))
        done = 0
        while done < len(source):
            size = min(len(source) - done, PAGE_SIZE - va % PAGE_SIZE)
            pa = self._pin(root, va, write=True)
            try:
                self._bus.write(pa, source[done : done + size])
            finally:
                self._bus.unpin(pa >> PAGE_SHIFT)
            va += size
            done += size

    def cstring(self, root: int, va: int, limit: int) -> bytes:
        """Returns the bytes at `va` up to a zero byte, which is left out.

        More than `limit` bytes without one is `InvalidArgument` `STRING_TOO_LONG` (a kernel answers ENAMETOOLONG).
        """
        found = bytearray()
        while len(found) <= limit:
            size = min(PAGE_SIZE - va % PAGE_SIZE, limit + 1 - len(found))
            part = self.read(root, va, size)
            end = part.find(0)
            if end >= 0:
                return bytes(found + part[:end])
            found += part
            va += size
        raise InvalidArgument(f"A string of more than {limit} bytes ends before {va:#x}.", reason="STRING_TOO_LONG")

    def translate(self, root: int, va: int, *, write: bool) -> int:
        """Returns the host physical address of `va`, setting A and, for a write, D; `NeedFault` when not mapped so."""
        self._check(va, 1)
        return self._walk(root, va, write)[0]

    def _pin(self, root: int, va: int, *, write: bool) -> int:
        """Walks to `va`, pins its frame and returns its address; the mapping still stood after the pin."""
        while True:
            pa, entry_address, entry = self._walk(root, va, write)
            self._bus.pin(pa >> PAGE_SHIFT)
            now = self._bus.load64(entry_address)
            if (now ^ entry) & (ADDR_MASK | PRESENT | RW | US) == 0:
                return pa
            self._bus.unpin(pa >> PAGE_SHIFT)

    def _walk(self, root: int, va: int, write: bool) -> tuple[int, int, int]:
        """Returns (host physical address of `va`, address of the leaf entry, the leaf entry with A and D set)."""
        need = PRESENT | US | RW if write else PRESENT | US
        table = root & ADDR_MASK
        for level in range(LEVELS, 0, -1):
            entry_address = table + 8 * index(va, level)
            while True:
                entry = self._load(entry_address)
                if entry & need != need:
                    raise NeedFault(va, write)
                leaf = level == 1 or (level < LEVELS and bool(entry & PS))
                wanted = entry | ACCESSED | (DIRTY if leaf and write else 0)
                if wanted == entry or self._bus.cas64(entry_address, entry, wanted) == entry:
                    break
            if leaf:
                base = wanted & ADDR_MASK & ~(span(level) - 1)
                pa = base + va % span(level)
                if pa >= self._bus.size:
                    raise self._corrupt(entry_address, entry)
                return pa, entry_address, wanted
            table = entry & ADDR_MASK
        raise AssertionError("level 1 is a leaf")

    def _load(self, address: int) -> int:
        try:
            return self._bus.load64(address)
        except OutOfRange:
            raise self._corrupt(address, 0) from None

    def _corrupt(self, address: int, entry: int) -> DataLoss:
        return DataLoss(
            f"A page table leads out of RAM: entry {entry:#x} at {address:#x}.",
            reason="TABLE_CORRUPT",
            next_step="Only the MMU writes these tables; report how the space was made.",
        )

    def _check(self, va: int, n: int) -> None:
        if n > MAX_COPY:
            raise ResourceExhausted(
                f"A copy of {n} bytes is over the limit of {MAX_COPY}.",
                reason="COPY_TOO_LARGE",
                next_step="Copy in parts.",
            )
        if not is_user(va, n):
            raise OutOfRange(
                f"{n} bytes at {va:#x} are not user addresses.", reason="ADDRESS_NOT_USER", address=f"{va:#x}", size=n
            )
