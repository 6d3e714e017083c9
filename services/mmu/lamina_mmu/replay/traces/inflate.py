"""Decompression of a trace, a piece at a time: whatever somebody sends, a piece stays small."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import zstandard

from lamina_kit.errors import InvalidArgument
from lamina_mmu.replay.plan import Compression

PIECE = 1 << 20
"""Most bytes of a piece that gzip gives."""
SIP = 256
"""Bytes that zstd gets at once: a block of it, 3 bytes at least, may stand for 128 KiB."""
MAX_WINDOW = 1 << 27
"""Largest window that a zstd stream may ask for, in bytes."""


class Inflater(Protocol):
    """Turns bytes as they come into pieces of the trace."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what the bytes stand for; TRACE_MALFORMED for bytes that are not so compressed."""

    @property
    def is_whole(self) -> bool:
        """Whether the stream may end here."""


def inflater(compression: Compression) -> Inflater:
    """Returns what undoes a compression."""
    if compression == Compression.GZIP:
        return Gzip()
    return Zstd() if compression == Compression.ZSTD else Plain()


class Plain:
    """No compression."""

    is_whole = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the bytes."""
        if data:
            yield data


class Gzip:
    """gzip, members one behind the other (RFC 1952)."""

    def __init__(self) -> None:
        self._member: Any = None
        self._offset = 0

    @property
    def is_whole(self) -> bool:
        """Whether a member has just ended."""
        return self._member is None and self._offset > 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what the bytes stand for."""
        rest = data
        while rest:
            if self._member is None:
                self._member = zlib.decompressobj(wbits=31)
            before = len(rest)
            try:
                piece = self._member.decompress(rest, PIECE)
            except zlib.error as error:
                raise malformed("gzip", self._offset, error) from error
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._offset += before - len(rest)
            if self._member.eof:
                self._member = None
            if piece:
                yield piece


class Zstd:
    """Zstandard, frames one behind the other (RFC 8878)."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._frame: Any = None
        self._offset = 0

    @property
    def is_whole(self) -> bool:
        """Whether a frame has just ended."""
        return self._frame is None and self._offset > 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what the bytes stand for."""
        for start in range(0, len(data), SIP):
            rest = data[start : start + SIP]
            while rest:
                if self._frame is None:
                    self._frame = self._decompressor.decompressobj()
                before = len(rest)
                try:
                    piece = self._frame.decompress(rest)
                except zstandard.ZstdError as error:
                    raise malformed("zstd", self._offset, error) from error
                rest = self._frame.unused_data if self._frame.eof else b""
                self._offset += before - len(rest)
                if self._frame.eof:
                    self._frame = None
                if piece:
                    yield piece


def malformed(kind: str, offset: int, error: Exception) -> InvalidArgument:
    """Returns the error of a stream that is not what it should be."""
    return InvalidArgument(
        f"The trace is not {kind} near offset {offset}: {error}.",
        reason="TRACE_MALFORMED",
        next_step="Name the compression that the trace has, or send it whole.",
        offset=offset,
    )
