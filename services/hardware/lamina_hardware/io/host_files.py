"""Reads the /proc and /sys of a machine: of this one, or of one that was copied into a folder."""

from __future__ import annotations

import os
from pathlib import Path

MOST_BYTES = 16 << 20
"""Most of a file that is read: /proc/cpuinfo of 4096 processors has some 8 MiB."""

MOST_NAMES = 1 << 17


class HostFiles:
    """A `domain.host.tree.Tree` over a folder. What cannot be read is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, path: str) -> Path:
        return self._root / path

    def data(self, path: str, most: int = MOST_BYTES) -> bytes:
        """Returns the first bytes of a file. Raises `OSError`."""
        with self._path(path).open("rb", buffering=0) as file:
            pieces, left = [], most
            while left and (piece := file.read(left)):  # files of the kernel are read in pieces of a page
                pieces.append(piece)
                left -= len(piece)
        return b"".join(pieces)

    def text(self, path: str) -> str:
        """See `Tree.text`."""
        try:
            return self.data(path).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def names(self, path: str) -> list[str]:
        """See `Tree.names`."""
        try:
            return sorted(os.listdir(self._path(path)))[:MOST_NAMES]
        except OSError:
            return []

    def target(self, path: str) -> str:
        """See `Tree.target`."""
        try:
            return self._path(path).readlink().name
        except OSError:
            return ""

    def usable(self, path: str) -> bool:
        """See `Tree.usable`."""
        return os.access(self._path(path), os.R_OK | os.W_OK)

    def exists(self, path: str) -> bool:
        """See `Tree.exists`."""
        return self._path(path).exists()
