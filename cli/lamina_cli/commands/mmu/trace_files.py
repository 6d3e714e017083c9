"""Files of memory accesses: how they are written and compressed, seen at their first bytes and by their names."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lamina_cli.input.files import readable

FORMATS = {
    "raw": "FORMAT_RAW_U64",
    "csv": "FORMAT_CSV",
    "oracleGeneral": "FORMAT_ORACLE_GENERAL",
    "lackey": "FORMAT_LACKEY",
}
COMPRESSIONS = {"none": "COMPRESSION_NONE", "gzip": "COMPRESSION_GZIP", "zstd": "COMPRESSION_ZSTD"}
"""What people say, and the names of the contract."""

CHUNK = 1 << 20
HEAD = 4096
"""Bytes that are looked at, decompressed."""
ZSTD_PIECE = 256
"""Bytes of zstd that are opened at once: four of them may stand for 128 KiB."""
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
LACKEY_LINE = re.compile(rb"(==\d+==.*|--\d+--.*|I  [0-9a-f]+,\d+| [LSM] [0-9a-f]+,\d+)\r?$")
ORACLE_NAME = "oraclegeneral"


class Source:
    """A trace that is being read."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file
        self._head = file.read(CHUNK)

    @property
    def compression(self) -> str:
        """Returns the compression that the first bytes show."""
        if self._head.startswith(GZIP):
            return "gzip"
        return "zstd" if self._head.startswith(ZSTD) else "none"

    def format(self, compression: str) -> str:
        """Returns the format: text is CSV or lackey's; bytes are oracleGeneral when the name says so."""
        head = opened_head(self._head, compression)
        lines = head.split(b"\n")[:-1] or [head]  # the last may be cut
        if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
            return "lackey" if any(line and LACKEY_LINE.fullmatch(line) for line in lines) else "csv"
        return "oracleGeneral" if ORACLE_NAME in Path(self.name).name.lower() else "raw"

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes as they stand in the file."""
        chunk = self._head
        while chunk:
            yield chunk
            chunk = self._file.read(CHUNK)


def opened_head(data: bytes, compression: str) -> bytes:
    """Returns the first bytes of a trace without its compression; nothing when they are not so compressed."""
    if compression == "gzip":
        try:
            return zlib.decompressobj(wbits=31).decompress(data, HEAD)
        except zlib.error:
            return b""
    if compression == "zstd":
        import zstandard

        try:
            return zstd_head(data)
        except zstandard.ZstdError:
            return b""
    return data[:HEAD]


def zstd_head(data: bytes) -> bytes:
    """Returns the first bytes; a block, up to 128 KiB of them, gives nothing before all of it is there."""
    import zstandard

    opener, head, at = zstandard.ZstdDecompressor().decompressobj(), b"", 0
    while len(head) < HEAD and at < len(data) and not opener.eof:
        head += opener.decompress(data[at : at + ZSTD_PIECE])
        at += ZSTD_PIECE
    return head[:HEAD]


@contextmanager
def opened(name: str) -> Iterator[Source]:
    """Opens a trace, `-` for standard input. FILE_UNREADABLE for one that cannot be read."""
    with readable("trace", name, "name a file of memory accesses; `lamina mmu replay --help` tells which"):
        file: IO[bytes] = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 (closed below)
        source = Source(name, file)
    with file:
        yield source
