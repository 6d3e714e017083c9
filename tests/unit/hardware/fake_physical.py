"""Physical memory for tests of the pure parts: a bytearray as RAM, and a second one far above it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lamina_kit.bus.dma import DMA_BASE


class FakePhysical:
    """RAM of `ram` bytes from 0 and DMA memory of `dma` bytes; `written` has the frames that `write` touched."""

    def __init__(self, ram: int, dma: int = 0) -> None:
        self.ram = bytearray(ram)
        self.dma = bytearray(dma)
        self.written: list[int] = []

    def _part(self, pa: int) -> tuple[bytearray, int]:
        return (self.dma, pa - DMA_BASE) if pa >= DMA_BASE else (self.ram, pa)

    def contains(self, pa: int, n: int) -> bool:
        """See `Physical.contains`."""
        part, at = self._part(pa)
        return at >= 0 and at + n <= len(part)

    def is_dma(self, pa: int) -> bool:
        """See `Physical.is_dma`."""
        return pa >= DMA_BASE

    def read(self, pa: int, n: int) -> bytes:
        """See `Physical.read`."""
        assert self.contains(pa, n), hex(pa)
        part, at = self._part(pa)
        return bytes(part[at : at + n])

    def write(self, pa: int, data: bytes) -> None:
        """See `Physical.write`."""
        assert self.contains(pa, len(data)), hex(pa)
        part, at = self._part(pa)
        part[at : at + len(data)] = data
        self.written.append(pa >> 12)

    def load64(self, pa: int) -> int:
        """See `Physical.load64`."""
        assert pa % 8 == 0
        return int.from_bytes(self.read(pa, 8), "little")

    def store64(self, pa: int, value: int) -> None:
        """Stores a word, as an owner of tables does."""
        self.write(pa, value.to_bytes(8, "little"))

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """See `Physical.cas64`."""
        found = self.load64(pa)
        if found == expected:
            self.store64(pa, new)
        return found

    def take64(self, pa: int, count: int) -> list[int]:
        """See `Physical.take64`."""
        taken = [self.load64(pa + 8 * n) for n in range(count)]
        self.write(pa, bytes(8 * count))
        return taken


@dataclass
class _Deadline:
    when: int
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


@dataclass
class FakeTimers:
    """Time that a test moves."""

    now: int = 0
    deadlines: list[_Deadline] = field(default_factory=list)

    def now_ns(self) -> int:
        """Returns the time."""
        return self.now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> _Deadline:
        """See `Timers.call_at`."""
        deadline = _Deadline(when_ns, callback)
        self.deadlines.append(deadline)
        return deadline

    def advance(self, ns: int) -> None:
        """Lets time pass, deadline by deadline."""
        end = self.now + ns
        while due := [entry for entry in self.deadlines if entry.callback is not None and entry.when <= end]:
            first = min(due, key=lambda entry: entry.when)
            self.deadlines.remove(first)
            self.now = max(self.now, first.when)
            callback, first.callback = first.callback, None
            assert callback is not None
            callback()
        self.now = end
