"""The content store: bytes by their SHA-256 digest, as files.

    blobs/sha256/ab/abcdef…       manifests, configurations, layers as imported
    files/sha256/ab/abcdef…       contents of the files in layers, each once

A blob is written to a temporary file, checked, and moved into place: what has a digest's name is complete.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import OrderedDict
from pathlib import Path
from typing import IO

from lamina_container_runtime.domain.images import digest as digests
from lamina_kit.errors import DataLoss, NotFound, ResourceExhausted

_OPEN_FILES = 64
_PIECE = 1 << 20


class BlobWriter:
    """One blob in the making."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Appends bytes; `ResourceExhausted` `STORE_FULL` when the disk is full."""
        try:
            self._file.write(data)
        except OSError as error:
            raise _full(error) from error
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        """Returns the digest of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def keep(self) -> str:
        """Puts the blob into the store and returns its digest."""
        try:
            self._file.close()
        except OSError as error:
            self.drop()
            raise _full(error) from error
        digest = self.digest()
        target = self._store.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._path, target)
        return digest

    def drop(self) -> None:
        """Forgets what was written."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class BlobStore:
    """Blobs below one folder. What a dead writer left behind is removed at the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        for left in sorted(self._temporary.iterdir()):
            left.unlink()
        self._numbers = itertools.count(1)  # of writers; an import has its own thread, and `next` is atomic
        self._open: OrderedDict[str, IO[bytes]] = OrderedDict()

    def path(self, digest: str) -> Path:
        """Returns where a blob is or would be."""
        name = digests.hex_part(digest)
        return self._folder / "sha256" / name[:2] / name

    def has(self, digest: str) -> bool:
        """Returns whether a blob is there."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Returns the size of a blob; 0 when it is not there."""
        path = self.path(digest)
        return path.stat().st_size if path.is_file() else 0

    def writer(self) -> BlobWriter:
        """Begins a blob."""
        return BlobWriter(self, self._temporary / str(next(self._numbers)))

    def put(self, data: bytes) -> str:
        """Stores bytes and returns their digest."""
        digest = digests.of(data)
        if not self.has(digest):
            writer = self.writer()
            writer.write(data)
            writer.keep()
        return digest

    def read_all(self, digest: str, limit: int) -> bytes:
        """Returns a small blob, checked; `DataLoss` `STORE_CORRUPT` when it is not what its name says."""
        with self._file(digest) as file:
            data = file.read(limit + 1)
        if digests.of(data) != digest:
            raise _corrupt(digest)
        return data

    def open(self, digest: str) -> IO[bytes]:
        """Returns a blob for reading; the caller closes it."""
        return self._file(digest)

    def verify(self, digest: str) -> None:
        """Reads a blob through; `DataLoss` `STORE_CORRUPT` when it is not what its name says."""
        found = hashlib.sha256()
        with self._file(digest) as file:
            while piece := file.read(_PIECE):
                found.update(piece)
        if f"sha256:{found.hexdigest()}" != digest:
            raise _corrupt(digest)

    def read(self, digest: str, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes at `offset`; keeps the files used last open."""
        file = self._open.pop(digest, None) or self._file(digest)
        self._open[digest] = file
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return os.pread(file.fileno(), count, offset)

    def delete(self, digest: str) -> int:
        """Removes a blob and returns its size; 0 when it was not there."""
        file = self._open.pop(digest, None)
        if file is not None:
            file.close()
        size = self.size(digest)
        self.path(digest).unlink(missing_ok=True)
        return size

    def close(self) -> None:
        """Closes the open files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _file(self, digest: str) -> IO[bytes]:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound(
                f"The content {digest} is not in the store.",
                reason="BLOB_UNKNOWN",
                next_step="Import the image again.",
                digest=digest,
            ) from None


def _corrupt(digest: str) -> DataLoss:
    return DataLoss(
        f"The stored content {digest} is not what its name says.",
        reason="STORE_CORRUPT",
        next_step="Delete the image and import it again; check the disk.",
        digest=digest,
    )


def _full(error: OSError) -> ResourceExhausted:
    return ResourceExhausted(
        f"The content store cannot be written: {error.strerror}.",
        reason="STORE_FULL",
        next_step="Free space below the runtime's state directory.",
    )
