"""A disk with time, chance and content made of lists."""

from __future__ import annotations

from collections.abc import Callable

from lamina_hardware.domain.disk.disk import Disk, Geometry
from lamina_hardware.domain.disk.groups import IoGroups
from lamina_hardware.domain.disk.queue import DiskQueue, Speed
from lamina_hardware.domain.disk.transfer import Operation, Transfer

SECTOR = 4096


class Memory:
    """Content of a disk: what was stored, and what of it is safe."""

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self.safe = bytes(size)
        self.syncs = 0

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes."""
        return bytes(self.bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Stores bytes."""
        self.bytes[offset : offset + len(data)] = data

    def zero(self, offset: int, size: int) -> None:
        """Stores zeros."""
        self.write(offset, bytes(size))

    def sync(self) -> None:
        """Notes what is safe."""
        self.syncs += 1
        self.safe = bytes(self.bytes)


class Handle:
    """A timer that can be taken back."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Takes it back."""
        self.callback = None


class Clock:
    """Time by hand."""

    def __init__(self) -> None:
        self.now = 0
        self.timers: list[tuple[int, int, Handle]] = []
        self._count = 0

    def now_ns(self) -> int:
        """Returns the time."""
        return self.now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Handle:
        """Notes a timer."""
        self._count += 1
        handle = Handle(callback)
        self.timers.append((when_ns, self._count, handle))
        return handle

    def run(self, until: int = 1 << 62) -> None:
        """Lets timers fire in their order up to a time, or until none is left."""
        while self.timers:
            first = min(self.timers, key=lambda timer: timer[:2])
            if first[0] > until:
                break
            self.timers.remove(first)
            if first[2].callback is not None:
                self.now = max(self.now, first[0])
                first[2].callback()
        if until < 1 << 62:
            self.now = max(self.now, until)


class World:
    """One disk of 1 MiB with its groups."""

    def __init__(self, speed: Speed | None = None, write_cache: bool = False, size: int = 1 << 20) -> None:
        self.clock, self.memory, self.groups = Clock(), Memory(size), IoGroups()
        self.queue = DiskQueue("d", speed or Speed(), self.groups, self.clock)
        self.draws: list[bool] = []
        self.torn: list[int] = []
        geometry = Geometry(size, SECTOR, self.queue.speed, write_cache)
        self.disk = Disk(
            "d", geometry, self.memory, self.queue, lambda: self.draws.pop(0), lambda _, lost: self.torn.append(lost)
        )
        self.ended: list[Transfer] = []

    def ask(
        self, operation: Operation, offset: int = 0, size: int = SECTOR, group: str = "", fill: int = 1
    ) -> Transfer:
        """Submits a transfer; a write stores bytes of `fill`."""
        work: Callable[[], object] = {
            Operation.READ: lambda: self.disk.read(offset, size),
            Operation.WRITE: lambda: self.disk.write(offset, bytes([fill]) * size, fua=False),
            Operation.FLUSH: self.disk.flush,
            Operation.DISCARD: lambda: self.disk.zero(offset, size, fua=False),
            Operation.WRITE_ZEROES: lambda: self.disk.zero(offset, size, fua=False),
        }[operation]

        def do() -> None:
            work()

        transfer = Transfer(operation, offset, size, group, do, self.ended.append)
        self.queue.submit(transfer)
        return transfer
