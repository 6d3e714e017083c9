"""Reads the files that people name on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina_kit.errors import NotFound


@contextmanager
def readable(what: str, path: str, next_step: str) -> Iterator[None]:
    """Turns the failure to read a file into an error that names it.

    Raises:
        NotFound: `FILE_UNREADABLE`, with the cause and `next_step`.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(
            f"the {what} {path} cannot be read: {error}", reason="FILE_UNREADABLE", next_step=next_step
        ) from error


def read_bytes(what: str, path: str, next_step: str) -> bytes:
    """Returns the content of a file, which `what` names for people; fails as `readable` does."""
    with readable(what, path, next_step):
        return Path(path).read_bytes()


def read_text(what: str, path: str, next_step: str) -> str:
    """Returns the text of a file, or of standard input for `-`; fails as `readable` does."""
    with readable(what, path, next_step):
        return sys.stdin.read() if path == "-" else Path(path).read_text()
