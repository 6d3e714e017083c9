"""One transfer of blocks: what is asked, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Operation(IntEnum):
    """What a transfer does; the numbers are the contract's."""

    READ = 1
    WRITE = 2
    FLUSH = 3
    DISCARD = 4
    WRITE_ZEROES = 5


class Result(IntEnum):
    """How a transfer ends; the numbers are the contract's."""

    DONE = 1
    NOT_FOUND = 2
    BEYOND_END = 3
    MEDIUM_ERROR = 4
    DISK_FAILED = 5
    SPACE_EXHAUSTED = 6
    READ_ONLY = 7
    DMA_FAULT = 8


class TransferFailed(Exception):
    """A transfer that could not be done; `offset` is the first byte of the disk that failed."""

    def __init__(self, result: Result, offset: int = 0) -> None:
        super().__init__(result.name)
        self.result = result
        self.offset = offset


class NotYet(Exception):
    """A page of memory that a transfer needs is on its way; `then` is given what is to be called when it has come."""

    def __init__(self, then: Callable[[Callable[[], None]], None]) -> None:
        super().__init__("a page of memory is on its way")
        self.then = then


@dataclass(slots=True, eq=False)
class Transfer:
    """A transfer on its way. Offsets and sizes in bytes, times in nanoseconds.

    `work` moves the bytes when the disk has got so far; it raises `TransferFailed`, or `NotYet` and is then called
    again. `ended` hears the end, once.
    """

    operation: Operation
    offset: int
    size: int
    group: str
    work: Callable[[], None]
    ended: Callable[[Transfer], None]
    asked_ns: int = 0
    begun_ns: int = 0
    done_ns: int = 0
    result: Result = Result.DONE
    failed_offset: int = 0
    number: int = 0
    """Position among all that were asked for."""
    limited_ns: int | None = None
    """Since when a limit, on it or on those before it, and not the disk holds it up."""

    @property
    def writes(self) -> bool:
        """Whether it changes the disk's content, and counts against limits on writes."""
        return self.operation in (Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES)

    @property
    def moved_bytes(self) -> int:
        """Bytes that pass the disk's interface: discarding and zeroing send none."""
        return self.size if self.operation in (Operation.READ, Operation.WRITE) else 0
