"""Kernel images on disk, by digest: `images/sha256/<64 hexadecimal digits>`.

An image is written under another name and renamed when it is complete, so that a reader never sees a part of one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lamina_kit.errors import DataLoss, InvalidArgument, NotFound

MAX_BYTES = 64 << 20
_PREFIX = "sha256:"


def digest_of(data: bytes) -> str:
    """Returns the digest of an image."""
    return _PREFIX + hashlib.sha256(data).hexdigest()


class Images:
    """The images of one host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.new"):
            left.unlink()

    def put(self, data: bytes, expected: str = "") -> str:
        """Keeps an image; returns its digest. Another digest than expected is `DIGEST_MISMATCH`."""
        digest = digest_of(data)
        if expected and expected != digest:
            raise InvalidArgument(
                f"The image has the digest {digest}, not {expected[:80]}.",
                reason="DIGEST_MISMATCH",
                next_step="Upload it again; bytes were lost or changed on the way.",
            )
        path = self._path(digest)
        if not path.exists():
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        return digest

    def has(self, digest: str) -> bool:
        """Returns whether an image of this digest is kept."""
        return self._known(digest) and self._path(digest).exists()

    def get(self, digest: str) -> bytes:
        """Returns an image after checking its digest; `NotFound` `IMAGE_UNKNOWN`, `DataLoss` `IMAGE_CORRUPT`."""
        if not self.has(digest):
            raise NotFound(
                f"There is no kernel image {digest[:80]!r}.",
                reason="IMAGE_UNKNOWN",
                next_step="Upload it with UploadImage, or send the kernel's bytes with the request.",
            )
        data = self._path(digest).read_bytes()
        if digest_of(data) != digest:
            raise DataLoss(
                f"The stored kernel image {digest} has changed on disk.",
                reason="IMAGE_CORRUPT",
                next_step="Remove the file and upload the image again.",
            )
        return data

    def _known(self, digest: str) -> bool:
        text = digest.removeprefix(_PREFIX)
        return digest.startswith(_PREFIX) and len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)

    def _path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix(_PREFIX)
