"""The file descriptors of a process."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from lamina_container_runtime.engines.model.kernel.abi import Errno, signed
from lamina_container_runtime.engines.model.kernel.files.open_file import OpenFile

DEFAULT_LIMIT = 1024


@dataclass
class Slot:
    """One descriptor: an open file and whether exec closes it."""

    file: OpenFile
    close_on_exec: bool = False


class FdTable:
    """Descriptors by number. Shared by processes made with CLONE_FILES; `users` counts them."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.slots: dict[int, Slot] = {}
        self.limit = limit
        self.users = 1

    def get(self, fd: int) -> OpenFile:
        """Returns the open file of a descriptor; EBADF."""
        return self.slot(fd).file

    def slot(self, fd: int) -> Slot:
        """Returns the slot of a descriptor; EBADF."""
        slot = self.slots.get(signed(fd, 32))
        if slot is None:
            raise Errno(errno.EBADF)
        return slot

    def add(self, file: OpenFile, *, close_on_exec: bool = False, lowest: int = 0) -> int:
        """Gives an open file the lowest free descriptor from `lowest` up; EMFILE when there is none below the limit."""
        fd = lowest
        while fd in self.slots:
            fd += 1
        if fd >= self.limit:
            if file.references == 0:
                file.acquire().release()
            raise Errno(errno.EMFILE)
        self.slots[fd] = Slot(file.acquire(), close_on_exec)
        return fd

    def put(self, fd: int, file: OpenFile, *, close_on_exec: bool = False) -> None:
        """Gives an open file exactly this descriptor, closing what it was; EBADF beyond the limit."""
        if not 0 <= fd < self.limit:
            raise Errno(errno.EBADF)
        old = self.slots.get(fd)
        self.slots[fd] = Slot(file.acquire(), close_on_exec)
        if old is not None:
            old.file.release()

    def close(self, fd: int) -> None:
        """Closes a descriptor; EBADF."""
        slot = self.slot(fd)
        del self.slots[signed(fd, 32)]
        slot.file.release()

    def copy(self) -> FdTable:
        """Returns a copy for a fork: the same open files."""
        table = FdTable(self.limit)
        table.slots = {fd: Slot(slot.file.acquire(), slot.close_on_exec) for fd, slot in sorted(self.slots.items())}
        return table

    def close_on_exec(self) -> None:
        """Closes what exec closes."""
        for fd in [fd for fd, slot in self.slots.items() if slot.close_on_exec]:
            self.close(fd)

    def close_all(self) -> None:
        """Closes everything, lowest first."""
        for fd in sorted(self.slots):
            self.close(fd)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.slots))
