"""Disks as files: sparse content beside a small description, in one folder. They outlive the machine.

    NAME.disk   the bytes, as long as the disk; holes are zeros
    NAME.json   size, sector, latency, rate, depth, cache; written last when a disk is made, removed first

A description without content, or the other way round, is what a loss of power between two steps leaves; `DiskFolder`
takes the first for a damaged disk, which fails the start, and removes the second.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lamina_hardware.domain.disk.transfer import Result, TransferFailed
from lamina_kit.errors import DataLoss, ResourceExhausted

_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_PUNCH = (errno.EOPNOTSUPP, errno.ENOSYS)
_ZEROS = bytes(1 << 20)
_LARGEST_DESCRIPTION = 4096

_LIBC = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class Description:
    """What is kept of a disk beside its bytes."""

    size: int
    sector: int
    latency_ns: int
    rate: int
    depth: int
    write_cache: bool


class DiskFile:
    """The bytes of one disk. Failures of the file are failures of the disk: `TransferFailed`."""

    def __init__(self, path: Path, size: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes. A file that became shorter has lost them: a medium error at the first that is missing."""
        with _failing(offset):
            data = os.pread(self._file, size, offset)
        if len(data) < size:
            raise TransferFailed(Result.MEDIUM_ERROR, offset + len(data))
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Stores bytes."""
        done = 0
        while done < len(data):
            with _failing(offset + done):
                done += os.pwrite(self._file, memoryview(data)[done:], offset + done)

    def zero(self, offset: int, size: int) -> None:
        """Makes a hole, or writes zeros where the file system has none."""
        if _LIBC.fallocate(self._file, _PUNCH_HOLE | _KEEP_SIZE, offset, size) == 0:
            return
        number = ctypes.get_errno()
        if number not in _CANNOT_PUNCH:
            raise _failed(number, offset)
        for at in range(offset, offset + size, len(_ZEROS)):
            self.write(at, _ZEROS[: min(len(_ZEROS), offset + size - at)])

    def sync(self) -> None:
        """Makes safe what was stored."""
        with _failing(0):
            os.fdatasync(self._file)

    def grow(self, size: int) -> None:
        """Makes the file longer. Raises `ResourceExhausted` `DISK_SPACE_EXHAUSTED`."""
        _lengthen(self._file, size, "The disk")
        self.size = size

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def _failing(offset: int) -> Iterator[None]:
    """Turns what the file system refuses at an offset of the disk into a failed transfer."""
    try:
        yield
    except OSError as error:
        raise _failed(error.errno or 0, offset) from error


def _failed(number: int, offset: int) -> TransferFailed:
    return TransferFailed(Result.SPACE_EXHAUSTED if number in _NO_ROOM else Result.MEDIUM_ERROR, offset)


def _lengthen(file: int, size: int, what: str) -> None:
    with _room(f"{what} cannot have {size} bytes"):
        os.ftruncate(file, size)


@contextmanager
def _room(what: str) -> Iterator[None]:
    """Turns what the file system refuses into `DISK_SPACE_EXHAUSTED`."""
    try:
        yield
    except OSError as error:
        raise ResourceExhausted(
            f"{what}: {error.strerror}.",
            reason="DISK_SPACE_EXHAUSTED",
            next_step="Ask for less, or give the stack a state directory on a larger file system.",
        ) from error


class DiskFolder:
    """The disks of one host on the real disk. The folder is made when the first disk is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Description]:
        """Returns the disks that are there. Raises `DataLoss` `DISK_DAMAGED` for one that cannot be what it was."""
        found = {}
        for description in sorted(self._path.glob("*.json")):
            found[description.stem] = self._read(description)
        for content in sorted(self._path.glob("*.disk")):
            if content.stem not in found:
                content.unlink()
        return found

    def make(self, name: str, description: Description) -> DiskFile:
        """Makes a disk of zeros. Raises `ResourceExhausted` `DISK_SPACE_EXHAUSTED`; nothing is left then."""
        content = self._content(name)
        with _room(f"Disk {name} cannot be kept"):
            self._path.mkdir(parents=True, exist_ok=True)
            file = os.open(content, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _lengthen(file, description.size, f"Disk {name}")
            self.describe(name, description)
        except BaseException:
            content.unlink()
            raise
        finally:
            os.close(file)
        return self.open(name, description)

    def open(self, name: str, description: Description) -> DiskFile:
        """Opens a disk's bytes."""
        return DiskFile(self._content(name), description.size)

    def describe(self, name: str, description: Description) -> None:
        """Keeps a description, whole or not at all. Raises `ResourceExhausted` `DISK_SPACE_EXHAUSTED`."""
        beside = self._path / f"{name}.json.new"
        try:
            with _room(f"What disk {name} is cannot be kept"):
                beside.write_text(json.dumps(asdict(description), sort_keys=True) + "\n")
                beside.replace(self._path / f"{name}.json")
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Removes a disk with its bytes."""
        (self._path / f"{name}.json").unlink(missing_ok=True)
        self._content(name).unlink(missing_ok=True)

    def _content(self, name: str) -> Path:
        return self._path / f"{name}.disk"

    def _read(self, path: Path) -> Description:
        content = self._content(path.stem)
        try:
            with path.open("rb") as file:
                read = json.loads(file.read(_LARGEST_DESCRIPTION))
            description = Description(**read)
            length = content.stat().st_size
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise self._damaged(path.stem, f"{path.name} or {content.name} cannot be read: {error}") from error
        types = {name: type(value) for name, value in asdict(description).items()}
        if types != {name: bool if name == "write_cache" else int for name in types}:
            raise self._damaged(path.stem, f"{path.name} has a value of another type")
        if length < description.size:
            raise self._damaged(path.stem, f"{content.name} has {length} bytes of {description.size}")
        return description

    def _damaged(self, name: str, why: str) -> DataLoss:
        return DataLoss(
            f"Disk {name} is damaged: {why}.",
            reason="DISK_DAMAGED",
            next_step=f"Put its files in {self._path} back, or remove both of them to go on without the disk.",
        )
