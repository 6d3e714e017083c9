"""Content digests: how blobs are named and checked."""

from __future__ import annotations

import hashlib
import re

from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def of(data: bytes) -> str:
    """Returns the digest of bytes: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Returns whether `text` is a well-formed SHA-256 digest."""
    return _DIGEST.fullmatch(text) is not None


def check(text: object, where: str) -> str:
    """Returns `text` when it is a digest; `InvalidArgument` `ARCHIVE_MALFORMED` naming `where` otherwise."""
    if isinstance(text, str) and is_digest(text):
        return text
    raise InvalidArgument(
        f"{where} names the digest {shown(text)}, which is not sha256: and 64 hexadecimal digits.",
        reason="ARCHIVE_MALFORMED",
        next_step="Only SHA-256 digests are supported; export the image again.",
    )


def verify(expected: str, actual: str, what: str) -> None:
    """Raises `InvalidArgument` `DIGEST_MISMATCH`, which names both digests, when they differ."""
    if expected != actual:
        raise InvalidArgument(
            f"{what} should have the digest {expected} but has {actual}.",
            reason="DIGEST_MISMATCH",
            next_step="The archive was damaged or altered; export and transfer it again.",
            expected=expected,
            actual=actual,
        )


def hex_part(digest: str) -> str:
    """Returns the hexadecimal digits of a digest."""
    return digest.removeprefix("sha256:")
