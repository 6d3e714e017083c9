"""The memory bus: the RAM of a host as one sparse file that every service on the host maps.

Host physical address `pa` is byte `ram_offset + pa` of the file (`bus/file.py` shows the
parts). No guest address can reach the other parts: every
method takes addresses within RAM and checks them (`OutOfRange` `ADDRESS_OUTSIDE_RAM`).

The state word of a frame tells its several writers about each other:

    bit 0      EXEC     code of this frame may be translated in a core
    bit 1      WRITE    a core may hold a writable mapping of it
    bit 2      DIRTY    written since `collect_dirty` last asked (device and swap writes too)
    bit 3      QUEUED   already in the ring of stale code
    bit 4      FAILED   memory that failed uncorrected: a core that translates to it stops with a machine check
    bits 8–23           pins: copies and DMA in flight; a pinned frame is neither evicted nor freed

A write stores the bytes first and then marks the frame, so a core that drains the ring afterwards translates the new
bytes. Cores set EXEC themselves when they fetch from a frame; they drain the ring before each run. When the ring
overflows the drainer is told to drop `ALL` translated code. One process, the hardware service, drains.

Entries of page tables change by `cas64` alone; see `atomics.py` for why. Writes, swaps and pins are machine code of
`bus/machine_code.py` in a process that has no numba; what else is atomic loads it (0.3 s, 55 MB) when it is first done.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import sys
from functools import cached_property
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Literal

from lamina_kit.bus import machine_code
from lamina_kit.bus.dma import DmaArea
from lamina_kit.bus.file import (
    ALL_OFFSET,
    HEAD_OFFSET,
    NOBODY,
    RING_SLOTS,
    TAIL_OFFSET,
    Identity,
    make,
    open_file,
    plan,
    read_layout,
    refusal,
)
from lamina_kit.errors import Internal, InvalidArgument, OutOfRange, ResourceExhausted
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE

EXEC = 1 << 0
WRITE = 1 << 1
DIRTY = 1 << 2
QUEUED = 1 << 3
FAILED = 1 << 4
PIN_SHIFT = 8
PIN_MASK = 0xFFFF << PIN_SHIFT

_HEAD_WORD, _TAIL_WORD, _ALL_WORD = HEAD_OFFSET >> 3, TAIL_OFFSET >> 3, ALL_OFFSET >> 3
_ZEROS = bytes(PAGE_SIZE)


class Everything(enum.Enum):
    """The answer of `drain_code_writes` when too much was written to list it."""

    ALL = "all"


ALL: Final = Everything.ALL


class MemoryBus:
    """One mapping of a host's RAM file.

    `size` is the RAM in bytes, `frames` in frames; `base` is the address of RAM's byte 0 in this process (with
    `ram_offset` its place in the file), `state_base` that of the state words and `head_base` that of the header, for
    compiled code; `dma` is the memory beyond RAM that only devices reach. A bus is a context manager; closing it while
    somebody holds a `view` of it unmaps when the last view is gone.
    """

    def __init__(self, path: Path, file: int) -> None:
        """Maps an open file, which may be closed afterwards; use `create` or `open`."""
        layout = read_layout(path, file)
        try:
            self._map = mmap.mmap(file, layout.total, mmap.MAP_SHARED)
        except OSError as error:
            raise refusal(path, error) from error
        self.path = path
        self.size = layout.size
        self.frames = layout.size >> PAGE_SHIFT
        self.ram_offset, self.state_offset, self.run_offset = layout.ram_offset, layout.state_offset, layout.run_offset
        self.run_pages = layout.run_pages
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self.failed_frames: set[int] = set()
        self._ram_word = self.ram_offset >> 3
        self._states = self._view[self.state_offset : self.state_offset + 4 * self.frames].cast("I")
        self.head_base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.base = self.head_base + self.ram_offset
        self.state_base = self.head_base + self.state_offset
        area = self._view[layout.dma_offset : layout.dma_offset + layout.dma_bytes]
        self.dma = DmaArea(area, layout.dma_offset, self.head_base + layout.dma_offset, self._discard)

    @classmethod
    def create(
        cls,
        path: Path | str,
        size_bytes: int,
        run_pages: int = 4096,
        *,
        dma_bytes: int = 0,
        reset: bool = False,
        identity: Identity = NOBODY,
    ) -> MemoryBus:
        """Makes a bus of `size_bytes` zeros (a multiple of 4096, up to 16 TiB, stored sparsely) and maps it.

        `identity` says whose RAM it is. An existing file is `AlreadyExists` `BUS_EXISTS`, unless `reset` is given and
        it is a bus of the same size: then a fresh file takes its place, as a reboot empties RAM; who still maps the
        old one keeps it.
        """
        make(Path(path), plan(size_bytes, run_pages, dma_bytes), reset=reset, identity=identity)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> MemoryBus:
        """Maps an existing bus.

        Raises `NotFound` `BUS_NOT_FOUND`, `FailedPrecondition` `BUS_FOREIGN` (not a bus, or of another version) or
        `BUS_UNUSABLE`, or `DataLoss` `BUS_TRUNCATED`.
        """
        file = open_file(Path(path))
        try:
            return cls(Path(path), file)
        finally:
            os.close(file)

    def __enter__(self) -> MemoryBus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends this mapping; the file stays. Idempotent."""
        self.dma.close()
        self._states.release()
        self._words.release()
        self._view.release()
        try:
            self._map.close()
        except BufferError:
            return  # somebody still holds a view; the map ends with it

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, pa: int, n: int) -> bytes:
        """Returns a copy of `n` bytes at `pa`."""
        if pa < 0 or n < 0 or pa + n > self.size:
            raise self._outside(pa, n)
        start = self.ram_offset + pa
        return bytes(self._view[start : start + n])

    def write(self, pa: int, data: bytes | bytearray | memoryview) -> None:
        """Stores `data` at `pa`, marks its frames dirty and queues those that were executed."""
        n = len(data) if not isinstance(data, memoryview) else data.nbytes
        if pa < 0 or pa + n > self.size:
            raise self._outside(pa, n)
        if not n:
            return
        start = self.ram_offset + pa
        self._view[start : start + n] = data.cast("B") if isinstance(data, memoryview) else data
        self._mark(pa >> PAGE_SHIFT, (pa + n - 1) >> PAGE_SHIFT)

    def note_write(self, frame: int) -> None:
        """Marks a frame that somebody wrote without this bus, as a kernel does that maps the file."""
        self._state_address(frame)
        self._mark(frame, frame)

    def view(self, pa: int, n: int) -> memoryview:
        """Returns a read-only view of `n` bytes at `pa`; it changes as RAM changes."""
        if pa < 0 or n < 0 or pa + n > self.size:
            raise self._outside(pa, n)
        start = self.ram_offset + pa
        return self._view[start : start + n].toreadonly()

    def zero(self, frame: int) -> None:
        """Fills a frame with zeros."""
        if not 0 <= frame < self.frames:
            raise self._outside(frame << PAGE_SHIFT, PAGE_SIZE)
        start = self.ram_offset + (frame << PAGE_SHIFT)
        self._view[start : start + PAGE_SIZE] = _ZEROS
        self._mark(frame, frame)

    def copy_frame(self, src: int, dst: int) -> None:
        """Copies frame `src` to frame `dst`."""
        self.write(dst << PAGE_SHIFT, self.view(src << PAGE_SHIFT, PAGE_SIZE))

    # ── words ────────────────────────────────────────────────────────────────────────────────────────────────────

    def load64(self, pa: int) -> int:
        """Returns the 8 bytes at `pa` (a multiple of 8) as one undivided little-endian load."""
        if pa < 0 or pa & 7 or pa + 8 > self.size:
            raise self._bad_word(pa)
        return self._words[self._ram_word + (pa >> 3)]

    def store64(self, pa: int, value: int) -> None:
        """Stores 8 bytes at `pa` (a multiple of 8). For entries of tables in use take `cas64`."""
        if pa < 0 or pa & 7 or pa + 8 > self.size:
            raise self._bad_word(pa)
        self._words[self._ram_word + (pa >> 3)] = value
        self._mark(pa >> PAGE_SHIFT, pa >> PAGE_SHIFT)

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """Stores `new` at `pa` (a multiple of 8) when `expected` is there; returns what was there.

        A result equal to `expected` means that it swapped. Atomic across all processes that map the bus.
        """
        if pa < 0 or pa & 7 or pa + 8 > self.size:
            raise self._bad_word(pa)
        found: int = self._few_atomics.swap64(self.base + pa, expected, new)
        if found == expected:
            self._mark(pa >> PAGE_SHIFT, pa >> PAGE_SHIFT)
        return found

    def take64(self, pa: int, count: int) -> list[int]:
        """Replaces `count` words from `pa` (a multiple of 8) with zeros, each by one exchange; returns what was there.

        This is how a run of table entries is withdrawn with the bits that were set until then.
        """
        if pa < 0 or pa & 7 or count < 0 or pa + 8 * count > self.size:
            raise self._bad_word(pa)
        taken = [int(word) for word in self._atomics.take64(self.base + pa, count)]
        if count:
            self._mark(pa >> PAGE_SHIFT, (pa + 8 * count - 1) >> PAGE_SHIFT)
        return taken

    @property
    def has_code_writes(self) -> bool:
        """Whether `drain_code_writes` has something to return."""
        return self._words[_HEAD_WORD] != self._words[_TAIL_WORD] or self._words[_ALL_WORD] != 0

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def pin(self, frame: int) -> None:
        """Adds a pin: the frame is neither evicted nor freed until `unpin`. At most 65,535 at once."""
        if self._few_atomics.change_pins(self._state_address(frame), True) < 0:
            raise ResourceExhausted(
                f"Frame {frame:#x} is pinned 65535 times already.",
                reason="PIN_LIMIT",
                next_step="Wait for copies and DMA in flight to end.",
            )

    def unpin(self, frame: int) -> None:
        """Takes a pin away. Without a pin to take it is `Internal` `PIN_UNDERFLOW`."""
        if self._few_atomics.change_pins(self._state_address(frame), False) < 0:
            raise Internal(f"Frame {frame:#x} was unpinned more often than pinned.", reason="PIN_UNDERFLOW")

    def pins(self, frame: int) -> int:
        """Returns how many pins the frame has now."""
        return (self.state(frame) & PIN_MASK) >> PIN_SHIFT

    def pinned_frames(self, first: int, count: int) -> list[int]:
        """Returns which of `count` frames from `first` have pins now, in order."""
        if first < 0 or count < 0 or first + count > self.frames:
            raise self._outside(first << PAGE_SHIFT, count << PAGE_SHIFT)
        found: list[int] = self._atomics.pinned_frames(self._states, first, count)
        return found

    def state(self, frame: int) -> int:
        """Returns the frame's state word."""
        if not 0 <= frame < self.frames:
            raise self._outside(frame << PAGE_SHIFT, PAGE_SIZE)
        return self._states[frame]

    def set_exec(self, frame: int) -> None:
        """Says that a core may hold translated code of the frame. Compiled walkers do it themselves."""
        self._atomics.change_state(self._state_address(frame), 0xFFFF_FFFF, EXEC)

    def clear_exec(self, frame: int) -> None:
        """Says that no core holds translated code or a fetch mapping of the frame any more."""
        self._atomics.change_state(self._state_address(frame), 0xFFFF_FFFF & ~EXEC, 0)

    def fail(self, frame: int) -> None:
        """Says that the frame's memory failed; whoever keeps translations of it must drop them."""
        self._atomics.change_state(self._state_address(frame), 0xFFFF_FFFF, FAILED)
        self.failed_frames.add(frame)

    def mend(self, frame: int) -> None:
        """Says that the frame's memory works again."""
        self._atomics.change_state(self._state_address(frame), 0xFFFF_FFFF & ~FAILED, 0)
        self.failed_frames.discard(frame)

    def drain_code_writes(self) -> list[int] | Literal[Everything.ALL]:
        """Takes and returns the executed frames that were written since the last call, oldest first.

        `ALL` when the ring overflowed: then every translation must go. Only the hardware service calls this.
        """
        if not self.has_code_writes:
            return []
        taken = self._atomics.drain_code_writes(self.head_base, self._drained)
        return ALL if taken < 0 else [int(frame) for frame in self._drained[:taken]]

    def collect_dirty(self, first: int, count: int) -> list[int]:
        """Returns the frames among `count` from `first` that were written, in order, and clears their DIRTY bits.

        Each write is reported by exactly one call: the bit is taken atomically.
        """
        if first < 0 or count < 0 or first + count > self.frames:
            raise self._outside(first << PAGE_SHIFT, count << PAGE_SHIFT)
        out = self._atomics.numbers(count)
        found = self._atomics.collect_dirty(self.head_base, first, count, out)
        return [int(frame) for frame in out[:found]]

    def run_page(self, index: int) -> memoryview:
        """Returns run page `index`, 4096 writable bytes beyond RAM; `run_page.RunPage` gives them their meaning."""
        if not 0 <= index < self.run_pages:
            raise OutOfRange(
                f"Run page {index} does not exist; this bus has {self.run_pages}.", reason="RUN_PAGE_OUTSIDE"
            )
        start = self.run_offset + index * PAGE_SIZE
        return self._view[start : start + PAGE_SIZE]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _atomics(self) -> ModuleType:
        from lamina_kit.bus import atomics  # numba: only those pay for it who change words that others change too

        return atomics

    @cached_property
    def _few_atomics(self) -> Any:
        """What marks, pins and swaps: compiled by numba where that is loaded anyway, else without it."""
        has_numba = "lamina_kit.bus.atomics" in sys.modules
        return self._atomics if has_numba else machine_code.loaded() or self._atomics

    @cached_property
    def _drained(self) -> Any:
        return self._atomics.numbers(RING_SLOTS)

    def _discard(self, offset: int, size: int) -> bool:
        """Punches a hole into the file; returns whether its file system can."""
        try:
            self._map.madvise(mmap.MADV_REMOVE, offset, size)
        except OSError:
            return False
        return True

    def _mark(self, first: int, last: int) -> None:
        if first == last and self._states[first] & (DIRTY | EXEC) == DIRTY:
            return  # the usual case costs no call; the interpreter's own work orders it behind the store of the bytes
        self._few_atomics.mark_written(self.head_base, first, last - first + 1)

    def _state_address(self, frame: int) -> int:
        if not 0 <= frame < self.frames:
            raise self._outside(frame << PAGE_SHIFT, PAGE_SIZE)
        return self.state_base + 4 * frame

    def _bad_word(self, pa: int) -> OutOfRange | InvalidArgument:
        if pa & 7 and 0 <= pa < self.size:
            return InvalidArgument(
                f"{pa:#x} is not the address of an aligned 8-byte word.", reason="ADDRESS_MISALIGNED"
            )
        return self._outside(pa, 8)

    def _outside(self, pa: int, n: int) -> OutOfRange:
        return OutOfRange(
            f"{n} bytes at {pa:#x} do not lie within the RAM of {self.size:#x} bytes.",
            reason="ADDRESS_OUTSIDE_RAM",
            next_step="Check the address against the size that the hardware reports.",
            address=f"{pa:#x}",
            size=n,
        )
