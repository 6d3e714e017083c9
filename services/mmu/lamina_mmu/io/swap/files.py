"""The swap area as a file: sparse, one page of 4096 bytes a slot, held by one MMU at a time.

What it holds means nothing without the RAM of the same start, so it is emptied when it is opened.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from lamina_kit.errors import DataLoss, FailedPrecondition, ResourceExhausted

PAGE = 4096
INJECTED = OSError(errno.EIO, os.strerror(errno.EIO))
"""What the disk says while a fault is injected."""


class SwapFile:
    """Implements `domain.swap.areas.SwapStore` over a file of `slots` pages.

    `fails_reads` and `fails_writes` make the disk under it fail, as EIO does: faults that were injected.
    """

    def __init__(self, path: Path, slots: int) -> None:
        """Opens and empties the file; SWAP_IN_USE when another MMU has it."""
        self.slots = slots
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise FailedPrecondition(
                f"The swap file {path} is in use by another MMU.",
                reason="SWAP_IN_USE",
                next_step="Give each host a state directory of its own.",
            ) from None
        self.fails_reads = self.fails_writes = False
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, slots * PAGE)

    def write(self, slot: int, data: bytes | memoryview, /) -> None:
        """Stores a page; SWAP_DEVICE_FULL when the file system has no room for it."""
        if self.fails_writes:
            raise self._failed("written", slot, INJECTED)
        try:
            done = os.pwrite(self._file, data, slot * PAGE)
        except OSError as error:
            raise self._failed("written", slot, error) from error
        if done != PAGE:
            raise self._full(slot)

    def read(self, slot: int, /) -> bytes:
        """Returns a page."""
        if self.fails_reads:
            raise self._failed("read", slot, INJECTED)
        try:
            return os.pread(self._file, PAGE, slot * PAGE)
        except OSError as error:
            raise self._failed("read", slot, error) from error

    def close(self) -> None:
        """Closes the file, which then holds nothing of use. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _failed(self, what: str, slot: int, error: OSError) -> ResourceExhausted | DataLoss:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._full(slot)
        return DataLoss(
            f"Slot {slot} of the swap file {self._path} cannot be {what}: {error.strerror}.",
            reason="SWAP_IO_FAILED",
            next_step="Check the disk under the state directory.",
        )

    def _full(self, slot: int) -> ResourceExhausted:
        return ResourceExhausted(
            f"The file system has no room for slot {slot} of the swap file {self._path}.",
            reason="SWAP_DEVICE_FULL",
            next_step="Free space under the state directory, or set a smaller mmu.swap_bytes.",
        )
