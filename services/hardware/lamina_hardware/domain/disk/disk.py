"""A disk: content with a cache, what is broken of it, and its queue. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum

from lamina_hardware.domain.disk.cache import Store, WriteCache
from lamina_hardware.domain.disk.queue import DiskQueue, Speed
from lamina_hardware.domain.disk.transfer import Result, TransferFailed

MIB = 1 << 20
LEAST_BYTES, MOST_BYTES = MIB, 64 << 40
SECTORS = (512, 4096)
MOST_LATENCY_NS = 1_000_000_000
LEAST_RATE, MOST_RATE = 1_000_000, 100_000_000_000
MOST_DEPTH = 1024
MOST_TRANSFER, MOST_INLINE = 16 * MIB, MIB


class DiskState(IntEnum):
    """What a disk does; the numbers are the contract's."""

    WORKING = 1
    FAILED = 2
    READ_ONLY = 3


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a disk is, as it is kept; a change is a new object."""

    size: int
    sector: int = 4096
    speed: Speed = field(default_factory=Speed)
    write_cache: bool = False


@dataclass(slots=True)
class Breakage:
    """What is broken of a disk; all of it by faults."""

    failed: bool = False
    powerless: bool = False
    """A torn write took its power."""
    read_only: bool = False
    full: bool = False
    bad: tuple[int, int] | None = None
    """Bytes that cannot be read or written: begin and end."""
    tear_after: int | None = None
    """Sectors that the next write still stores before the power goes."""

    @property
    def is_dead(self) -> bool:
        """Whether every transfer fails."""
        return self.failed or self.powerless


class Disk:
    """One disk. `torn` hears that a torn write took the disk's power; `survives` draws what of the cache is left."""

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        store: Store,
        queue: DiskQueue,
        survives: Callable[[], bool],
        torn: Callable[[Disk, int], None],
    ) -> None:
        self.name, self.geometry, self.queue = name, geometry, queue
        self.broken = Breakage()
        self._store = store
        self._cache = WriteCache(store, geometry.sector)
        self._survives = survives
        self._torn = torn

    @property
    def state(self) -> DiskState:
        """What the disk does."""
        if self.broken.is_dead:
            return DiskState.FAILED
        return DiskState.READ_ONLY if self.broken.read_only else DiskState.WORKING

    @property
    def unsafe_bytes(self) -> int:
        """Bytes in the volatile cache."""
        return self._cache.held_bytes

    def change(self, geometry: Geometry) -> None:
        """Takes a new size, speed or cache. A cache that is switched off is flushed first."""
        if self.geometry.write_cache and not geometry.write_cache:
            self.flush()
        self.geometry = replace(geometry, sector=self.geometry.sector)
        self.queue.speed = geometry.speed
        self.queue.pump()

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes. Raises `TransferFailed`."""
        self._check(offset, size, writes=False)
        return self._cache.read(offset, size)

    def write(self, offset: int, data: bytes, fua: bool) -> None:
        """Stores bytes: into the cache, if there is one and `fua` does not go past it. Raises `TransferFailed`.

        Without a cache they are in the store when this returns, which outlives Lamina; `fua` makes them outlive the
        machine that it runs on.
        """
        self._check(offset, len(data), writes=True)
        if self.broken.tear_after is not None:
            self._tear(offset, data)
        if self.geometry.write_cache and not fua:
            self._cache.write(offset, data)
            return
        self._store.write(offset, data)
        self._cache.forget(offset, len(data))
        if fua:
            self._store.sync()

    def zero(self, offset: int, size: int, fua: bool) -> None:
        """Stores zeros. Raises `TransferFailed`."""
        self._check(offset, size, writes=True)
        self._store.zero(offset, size)
        self._cache.forget(offset, size)
        if fua:
            self._store.sync()

    def flush(self) -> None:
        """Makes safe all that was written. Raises `TransferFailed`."""
        if self.broken.is_dead:
            raise TransferFailed(Result.DISK_FAILED)
        self._cache.flush()

    def meter(self, offset: int, writes: bool) -> None:
        """Checks a transfer whose bytes lie elsewhere: it fails where the whole disk does. Raises `TransferFailed`."""
        if self.broken.is_dead:
            raise TransferFailed(Result.DISK_FAILED, offset)
        if writes:
            self._check_writable(offset)

    def _tear(self, offset: int, data: bytes) -> None:
        """Stores a part of a write, loses the power, and with it what chance takes of the cache."""
        whole = (self.broken.tear_after or 0) * self.geometry.sector
        self.broken.tear_after = None
        lost = self._cache.lose_power(self._survives)
        if whole:
            self._store.write(offset, data[:whole])
        self._store.sync()
        self.broken.powerless = True
        self._torn(self, lost)
        raise TransferFailed(Result.DISK_FAILED, offset + min(whole, len(data)))

    def _check(self, offset: int, size: int, writes: bool) -> None:
        broken = self.broken
        if broken.is_dead:
            raise TransferFailed(Result.DISK_FAILED, offset)
        if offset + size > self.geometry.size:
            raise TransferFailed(Result.BEYOND_END, self.geometry.size)
        if writes:
            self._check_writable(offset)
        if broken.bad is not None and offset < broken.bad[1] and broken.bad[0] < offset + size:
            raise TransferFailed(Result.MEDIUM_ERROR, max(offset, broken.bad[0]))

    def _check_writable(self, offset: int) -> None:
        if self.broken.read_only:
            raise TransferFailed(Result.READ_ONLY, offset)
        if self.broken.full:
            raise TransferFailed(Result.SPACE_EXHAUSTED, offset)
