"""Reads an image archive: an OCI image layout or a docker-archive, as one tar.

The archive is spooled to a file and listed once; members are then read by name. Nothing of it is trusted: names are
looked up in the list, never used as paths.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from lamina_container_runtime.domain.images import digest as digests
from lamina_container_runtime.domain.images import oci_document as oci
from lamina_container_runtime.domain.images import reference as references
from lamina_container_runtime.domain.images.oci_document import Descriptor, ImageSettings
from lamina_container_runtime.io.images.blobs import BlobStore, BlobWriter
from lamina_container_runtime.io.images.unpack import MAX_LAYER_BYTES, plain_stream
from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

PLATFORM = "linux/amd64"
MAX_MEMBERS = 100_000
_MAX_DEPTH = 3
_PIECE = 1 << 20


@dataclass(frozen=True)
class FoundImage:
    """One image of an archive, its blobs in the store. `layers` are (digest as stored, digest of the plain tar).

    `tag` is one that the archive says without a name; `references` are empty then.
    """

    manifest_digest: str
    config: Descriptor
    settings: ImageSettings
    layers: tuple[tuple[str, str], ...]
    size_bytes: int
    references: tuple[str, ...]
    tag: str = ""

    def names(self, wanted: str) -> list[str]:
        """Returns the full references of the image, of which `wanted` (or nothing) was asked for by the caller."""
        if self.tag:
            return references.tagged(wanted, self.tag)
        return [references.normalise(name) for name in (*self.references, wanted) if name]


class Archive:
    """An image archive in a seekable file."""

    def __init__(self, file: IO[bytes], store: BlobStore) -> None:
        self._store = store
        self._file = file
        stream = plain_stream(file, "The archive")
        try:
            self._tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (closed by `close`)
            self._members: dict[str, tarfile.TarInfo] = {}
            for count, member in enumerate(self._tar):
                if count >= MAX_MEMBERS:
                    raise InvalidArgument(
                        f"The archive has more than {MAX_MEMBERS} entries.",
                        reason="ARCHIVE_LIMIT",
                        next_step="Export only the images that are wanted.",
                    )
                self._members[member.name.removeprefix("./")] = member
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
            raise _malformed("The archive", f"is no readable tar ({type(error).__name__}: {error})") from error

    def close(self) -> None:
        """Closes the archive; the file is the caller's."""
        self._tar.close()

    def images(self) -> Iterator[FoundImage]:
        """Yields the linux/amd64 images in the order of the archive, with their blobs stored and checked."""
        if "index.json" in self._members and "oci-layout" in self._members:
            found = list(self._oci_images(oci.parse_index(self._read("index.json"), "index.json"), 0))
        elif "manifest.json" in self._members:
            found = list(self._docker_images())
        else:
            raise _malformed("The archive", "has neither index.json with oci-layout nor manifest.json")
        if not found:
            raise InvalidArgument(
                f"The archive holds no image for {PLATFORM}.",
                reason="PLATFORM_UNSUPPORTED",
                next_step=f"Export the image for {PLATFORM}.",
            )
        yield from found

    def _oci_images(self, descriptors: tuple[Descriptor, ...], depth: int) -> Iterator[FoundImage]:
        for descriptor in oci.choose(descriptors, PLATFORM):
            data = self._blob(descriptor)
            if descriptor.is_index:
                if depth >= _MAX_DEPTH:
                    raise _malformed("index.json", f"nests more than {_MAX_DEPTH} indexes")
                inner = oci.parse_index(data, f"the index {descriptor.digest}")
                named = tuple(_named_by(item, descriptor) for item in inner)
                yield from self._oci_images(named, depth + 1)
                continue
            found = self._oci_image(descriptor, data)
            if found is not None:
                yield found

    def _oci_image(self, descriptor: Descriptor, data: bytes) -> FoundImage | None:
        where = f"the manifest {descriptor.digest}"
        manifest = oci.parse_manifest(data, where)
        config = self._blob(manifest.config)
        settings = oci.parse_config(config, f"the configuration {manifest.config.digest}")
        if settings.platform != PLATFORM:
            return None
        if len(settings.diff_ids) != len(manifest.layers):
            raise _malformed(where, f"has {len(manifest.layers)} layers and {len(settings.diff_ids)} diff_ids")
        self._store.put(data)
        self._store.put(config)
        for layer in manifest.layers:
            self._copy(_blob_name(layer.digest), layer.digest, layer.size)
        pairs = tuple((layer.digest, diff) for layer, diff in zip(manifest.layers, settings.diff_ids, strict=True))
        size = len(config) + sum(layer.size for layer in manifest.layers)
        named = (descriptor.reference,) if descriptor.reference else ()
        return FoundImage(descriptor.digest, manifest.config, settings, pairs, size, named, descriptor.tag)

    def _docker_images(self) -> Iterator[FoundImage]:
        for image in oci.parse_docker_manifest(self._read("manifest.json")):
            data = self._read(image.config)
            settings = oci.parse_config(data, image.config)
            if settings.platform != PLATFORM:
                continue
            if len(settings.diff_ids) != len(image.layers):
                raise _malformed(image.config, f"has {len(settings.diff_ids)} diff_ids for {len(image.layers)} layers")
            digest = self._store.put(data)
            name = image.config.removesuffix(".json").rpartition("/")[2]
            if digests.is_digest(f"sha256:{name}"):
                digests.verify(f"sha256:{name}", digest, f"The configuration {image.config}")
            pairs = []
            for member, diff_id in zip(image.layers, settings.diff_ids, strict=True):
                pairs.append((self._copy(member, "", None), diff_id))
            size = len(data) + sum(self._store.size(stored) for stored, _ in pairs)
            config = Descriptor(digest, len(data), "")
            yield FoundImage(digest, config, settings, tuple(pairs), size, image.tags)

    def _blob(self, descriptor: Descriptor) -> bytes:
        """Returns a small blob of an OCI layout, checked against its descriptor."""
        data = self._read(_blob_name(descriptor.digest))
        digests.verify(descriptor.digest, digests.of(data), f"The blob {_blob_name(descriptor.digest)}")
        if len(data) != descriptor.size:
            raise _malformed(descriptor.digest, f"has {len(data)} bytes, not {descriptor.size}")
        return data

    def _member(self, name: str) -> tuple[tarfile.TarInfo, IO[bytes]]:
        member = self._members.get(name.removeprefix("./"))
        for _ in range(8):
            if member is None or not (member.islnk() or member.issym()):
                break
            folder = member.name.removeprefix("./").rpartition("/")[0] if member.issym() else ""
            member = self._members.get(_join(folder, member.linkname))
        file = self._tar.extractfile(member) if member is not None and member.isfile() else None
        if member is None or file is None:
            raise _malformed("The archive", f"has no file {shown(name)}, which it refers to")
        return member, file

    def _read(self, name: str) -> bytes:
        member, file = self._member(name)
        if member.size > oci.MAX_DOCUMENT:
            raise InvalidArgument(
                f"{shown(name)} has {member.size} bytes, more than {oci.MAX_DOCUMENT}.",
                reason="ARCHIVE_LIMIT",
                next_step="The archive is malformed or hostile; export it again.",
            )
        return b"".join(_pieces(file, name))

    def _copy(self, name: str, expected: str, size: int | None) -> str:
        """Copies a member into the store and returns its digest, checked when one is expected."""
        member, file = self._member(name)
        if member.size > MAX_LAYER_BYTES:
            raise InvalidArgument(
                f"{shown(name)} has {member.size} bytes, more than {MAX_LAYER_BYTES}.",
                reason="ARCHIVE_LIMIT",
                next_step="Use a smaller image.",
            )
        if size is not None and member.size != size:
            raise _malformed(name, f"has {member.size} bytes, not {size}")
        writer: BlobWriter = self._store.writer()
        try:
            for piece in _pieces(file, name):
                writer.write(piece)
            if expected:
                digests.verify(expected, writer.digest(), f"The blob {name}")
        except BaseException:
            writer.drop()
            raise
        return writer.keep()


def _named_by(inner: Descriptor, outer: Descriptor) -> Descriptor:
    """Returns a descriptor of a nested index with the name of that index where it has none; a tag alone is less."""
    reference = inner.reference or outer.reference
    return replace(inner, reference=reference, tag="" if reference else outer.tag or inner.tag)


def _pieces(file: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        while piece := file.read(_PIECE):
            yield piece
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise _malformed(shown(name), f"cannot be read ({type(error).__name__}: {error})") from error


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digests.hex_part(digest)}"


def _join(folder: str, link: str) -> str:
    """Returns the name in the archive that a link in `folder` leads to."""
    parts: list[str] = folder.split("/") if folder else []
    for part in link.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _malformed(what: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"{what} {why}.", reason="ARCHIVE_MALFORMED", next_step="The archive is malformed; export the image again."
    )
