"""Traces: bytes as they come become columns of accesses.

A reader takes pieces of any size and keeps what is not a whole record yet. Everything in a trace is somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lamina_kit.errors import InvalidArgument
from lamina_mmu.replay.memory.state import Array
from lamina_mmu.replay.plan import Format, ReplayPlan
from lamina_mmu.replay.traces import text
from lamina_mmu.replay.traces.inflate import inflater

BATCH = 1 << 16
"""Most accesses of a batch."""
MAX_LINE = 4096
"""Most bytes of a line of text."""
ORACLE = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
NO_KINDS = np.zeros(0, np.uint8)
NO_SIZES = np.zeros(0, np.uint32)


class Columns(NamedTuple):
    """Accesses: addresses (u64), kinds (u8: 1 read, 2 write, 3 execute; or none), sizes in bytes (u32; or none)."""

    addresses: Array
    kinds: Array = NO_KINDS
    sizes: Array = NO_SIZES


class Trace:
    """One trace, being read."""

    def __init__(self, plan: ReplayPlan) -> None:
        self._plan = plan
        self._inflater = inflater(plan.compression)
        self._rest = b""
        self._offset = 0
        self._counts = np.zeros(5, np.int64)
        self.bytes_read = 0

    def feed(self, data: bytes) -> Iterator[Columns]:
        """Yields the accesses that bytes of the trace complete."""
        self.bytes_read += len(data)
        for piece in self._inflater.feed(data):
            self._rest += piece
            yield from self._records()

    def end(self) -> Iterator[Columns]:
        """Yields what the end completes. Afterwards `is_truncated` says whether the trace was whole."""
        if self._is_text and self._rest:
            self._rest += b"\n"
            yield from self._records()

    @property
    def _is_text(self) -> bool:
        return self._plan.format in (Format.CSV, Format.LACKEY)

    @property
    def is_truncated(self) -> bool:
        """Whether the trace ended within a record or a compressed stream; one that is empty is compressed wrongly."""
        return bool(self._rest) or not self._inflater.is_whole

    def truncated(self) -> InvalidArgument:
        """Returns the error of a trace that ended too early."""
        where = f"line {int(self._counts[text.LINE]) + 1}" if self._is_text else f"offset {self._offset}"
        return InvalidArgument(
            f"The trace ends within a record or a compressed stream that begins at {where} or before.",
            reason="TRACE_TRUNCATED",
            next_step="Send it whole, or ask for a partial replay.",
            offset=self._offset,
        )

    def _records(self) -> Iterator[Columns]:
        if self._is_text:
            yield from self._lines()
            return
        width = 8 if self._plan.format == Format.RAW_U64 else ORACLE.itemsize
        whole = len(self._rest) - len(self._rest) % width
        data, self._rest = self._rest[:whole], self._rest[whole:]
        for start in range(0, whole, BATCH * width):
            part = memoryview(data)[start : start + BATCH * width]
            self._offset += len(part)
            if width == 8:
                yield Columns(np.frombuffer(part, "<u8"))
            else:
                yield Columns(np.ascontiguousarray(np.frombuffer(part, ORACLE)["key"]))

    def _lines(self) -> Iterator[Columns]:
        buffer = np.frombuffer(bytearray(self._rest), np.uint8)
        n = self._counts
        n[text.CONSUMED] = 0
        while True:
            n[text.COUNT] = 0
            addresses, kinds, sizes = np.empty(BATCH, np.uint64), np.empty(BATCH, np.uint8), np.empty(BATCH, np.uint32)
            text.parse(buffer, int(self._plan.format == Format.LACKEY), addresses, kinds, sizes, n)
            count = int(n[text.COUNT])
            if count:
                yield Columns(addresses[:count], kinds[:count], sizes[:count])
            if n[text.ERROR]:
                raise self._wrong_line(text.ERRORS[int(n[text.ERROR])])
            if count < BATCH:
                break
        consumed = int(n[text.CONSUMED])
        self._offset += consumed
        self._rest = self._rest[consumed:]
        if len(self._rest) > MAX_LINE:
            n[text.LINE] += 1
            raise self._wrong_line(f"has more than {MAX_LINE} bytes")

    def _wrong_line(self, what: str) -> InvalidArgument:
        line = int(self._counts[text.LINE])
        return InvalidArgument(
            f"Line {line} of the trace {what}.",
            reason="TRACE_MALFORMED",
            next_step="Name the format that the trace has, or mend the line.",
            line=line,
        )
