"""Unpacks a layer: from a tar blob to the layer's tree, with file contents in the content store.

Only plain and gzip tars are read. Everything is bounded while it streams: entries, sizes, and how far a gzip may grow.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from typing import IO, Any

from lamina_container_runtime.domain.images import layer as layers
from lamina_container_runtime.domain.images.layer import LayerBuilder, LayerEntry, LayerNode
from lamina_container_runtime.io.images.blobs import BlobStore
from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

MAX_LAYER_BYTES = 16 << 30
MAX_ENTRIES = 1_000_000
_PIECE = 1 << 20
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_KINDS = {
    tarfile.REGTYPE: layers.FILE,
    tarfile.AREGTYPE: layers.FILE,
    tarfile.CONTTYPE: layers.FILE,
    tarfile.GNUTYPE_SPARSE: layers.FILE,
    tarfile.DIRTYPE: layers.DIRECTORY,
    tarfile.SYMTYPE: layers.SYMLINK,
    tarfile.LNKTYPE: layers.HARDLINK,
    tarfile.CHRTYPE: layers.CHARACTER,
    tarfile.BLKTYPE: layers.BLOCK,
    tarfile.FIFOTYPE: layers.FIFO,
}


class _Counted:
    """A stream that hashes what is read and refuses to grow beyond a bound."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit
        self._hash = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        data: bytes = self._stream.read(min(count, _PIECE) if count >= 0 else _PIECE)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidArgument(
                f"A layer unpacks to more than {self._limit} bytes.",
                reason="ARCHIVE_LIMIT",
                next_step="Use a smaller image.",
            )
        self._hash.update(data)
        return data

    def finish(self) -> str:
        """Reads to the end and returns the digest of it all."""
        while self.read(_PIECE):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def plain_stream(file: IO[bytes], what: str) -> Any:
    """Returns a stream of the plain bytes of a file that is plain or gzipped; zstd is refused."""
    magic = file.read(4)
    file.seek(0)
    if magic == _ZSTD:
        raise InvalidArgument(
            f"{what} is compressed with zstd, which cannot be read here.",
            reason="COMPRESSION_UNSUPPORTED",
            next_step="Export the image with gzip (for example skopeo copy --dest-compress-format gzip).",
        )
    return gzip.GzipFile(fileobj=file) if magic[:2] == _GZIP else file


def unpack(blob: IO[bytes], contents: BlobStore, what: str, max_bytes: int = MAX_LAYER_BYTES) -> tuple[LayerNode, str]:
    """Returns the tree of a layer and the digest of its plain tar; file contents go into `contents`.

    `InvalidArgument` `ARCHIVE_MALFORMED`, `ARCHIVE_LIMIT`, `PATH_ESCAPES`, `COMPRESSION_UNSUPPORTED`.
    """
    builder = LayerBuilder(MAX_ENTRIES)
    stream = _Counted(plain_stream(blob, what), max_bytes)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 16) as tar:  # type: ignore[call-overload]
            for member in tar:
                builder.add(_entry(tar, member, contents, what))
        return builder.root, stream.finish()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OverflowError, ValueError, OSError) as error:
        raise InvalidArgument(
            f"{what} is no readable tar archive: {type(error).__name__}: {error}.",
            reason="ARCHIVE_MALFORMED",
            next_step="The archive was damaged; export the image again.",
        ) from error


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, contents: BlobStore, what: str) -> LayerEntry:
    kind = _KINDS.get(member.type)
    if kind is None:
        raise InvalidArgument(
            f"The entry {shown(member.name)} of {what} is of the unknown type {member.type!r}.",
            reason="ARCHIVE_MALFORMED",
            next_step="The image is malformed; export it again.",
        )
    digest = ""
    size = 0
    if kind == layers.FILE and member.size:
        source = tar.extractfile(member)
        assert source is not None
        digest, size = _store(source, contents)
    return LayerEntry(
        path=member.name,
        kind=kind,
        mode=member.mode & 0o7777,
        uid=max(0, member.uid),
        gid=max(0, member.gid),
        mtime_ns=_mtime_ns(member),
        size=size,
        digest=digest,
        target=member.linkname if kind in (layers.SYMLINK, layers.HARDLINK) else "",
        device=(member.devmajor, member.devminor) if kind in (layers.CHARACTER, layers.BLOCK) else (0, 0),
    )


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Returns the time of an entry in whole nanoseconds, exactly, also when a PAX header gives fractions."""
    text = member.pax_headers.get("mtime", "")
    seconds, _, fraction = text.partition(".")
    if seconds.isdecimal() and (not fraction or fraction.isdecimal()):
        ns = int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0") or 0)
    else:
        ns = int(member.mtime) * 10**9
    return ns if 0 <= ns < 1 << 63 else 0


def _store(source: IO[bytes], contents: BlobStore) -> tuple[str, int]:
    writer = contents.writer()
    try:
        while piece := source.read(_PIECE):
            writer.write(piece)
    except BaseException:
        writer.drop()
        raise
    if contents.has(writer.digest()):
        writer.drop()
        return writer.digest(), writer.size
    return writer.keep(), writer.size
