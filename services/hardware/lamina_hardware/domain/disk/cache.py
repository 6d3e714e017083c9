"""A volatile write cache over a store of sectors: what was written and not flushed, and what a loss of power leaves.

Pure: the store and chance come from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

MOST_BYTES = 64 << 20
"""Size of a cache; when it is full it writes all of itself out, as drives do."""


class Store(Protocol):
    """Bytes that last, addressed by offset. Raises `TransferFailed` where it fails."""

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes; places never written read as zero."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Stores bytes."""
        ...

    def zero(self, offset: int, size: int) -> None:
        """Stores zeros, giving space up where that is possible."""
        ...

    def sync(self) -> None:
        """Makes safe what was stored."""
        ...


class WriteCache:
    """Sectors that were written and are not safe yet, the latest content of each, in the order of first writing."""

    def __init__(self, store: Store, sector: int) -> None:
        self._store = store
        self._sector = sector
        self._held: dict[int, bytes] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes that a loss of power would put at risk."""
        return len(self._held) * self._sector

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes as the latest writes left them. Offset and size are sector aligned, as everywhere here."""
        data = self._store.read(offset, size)
        if not self._held:
            return data
        changed, first = bytearray(data), offset // self._sector
        for number in range(size // self._sector):
            held = self._held.get(first + number)
            if held is not None:
                changed[number * self._sector : (number + 1) * self._sector] = held
        return bytes(changed)

    def write(self, offset: int, data: bytes) -> None:
        """Takes sectors in; when they do not fit, all that is held is written out first."""
        if self.held_bytes + len(data) > MOST_BYTES:
            self.flush()
        first = offset // self._sector
        for number in range(len(data) // self._sector):
            self._held[first + number] = data[number * self._sector : (number + 1) * self._sector]

    def forget(self, offset: int, size: int) -> None:
        """Drops what is held of a range that the store has newer content of."""
        first = offset // self._sector
        for number in range(first, first + size // self._sector):
            if not self._held:
                return
            self._held.pop(number, None)

    def flush(self) -> None:
        """Writes out all that is held and makes it safe; what fails stays held."""
        for begin, data in self._runs():
            self._store.write(begin, data)
        self._store.sync()
        self._held.clear()

    def lose_power(self, survives: Callable[[], bool]) -> int:
        """Leaves of what is held those sectors that `survives` says, and returns how many are lost."""
        lost = 0
        for number, data in self._held.items():
            if survives():
                self._store.write(number * self._sector, data)
            else:
                lost += 1
        self._held.clear()
        return lost

    def _runs(self) -> list[tuple[int, bytes]]:
        """Returns what is held as runs of neighbours, ascending."""
        runs: list[tuple[int, list[bytes]]] = []
        last = -2
        for number in sorted(self._held):
            if number != last + 1:
                runs.append((number * self._sector, []))
            runs[-1][1].append(self._held[number])
            last = number
        return [(begin, b"".join(parts)) for begin, parts in runs]
