"""The images of a runtime: imported archives, references, and layers ready for containers."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from lamina_container_runtime.domain.images import digest as digests
from lamina_container_runtime.domain.images import layer as layers
from lamina_container_runtime.domain.images import reference as references
from lamina_container_runtime.domain.images.image import ImageRecord
from lamina_container_runtime.domain.images.layer import LayerEntry, LayerNode
from lamina_container_runtime.io.images.archive import Archive, FoundImage
from lamina_container_runtime.io.images.blobs import BlobStore
from lamina_container_runtime.io.images.unpack import unpack
from lamina_container_runtime.io.records.database import Database
from lamina_kit.checks import shown
from lamina_kit.errors import DataLoss, InvalidArgument, NotFound

_TREES_KEPT = 64


class ImageStore:
    """Images in the database, blobs and trees below `folder`.

    `trees/<diff id>` lists the entries of an unpacked layer, one JSON object a line; `files/` has their contents.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self._database = database
        self._blobs = BlobStore(folder / "blobs")
        self._files = BlobStore(folder / "files")
        self._trees = folder / "trees"
        self._trees.mkdir(parents=True, exist_ok=True)
        self._records = {record.image_id: record for record in database.images()}
        self._kept: OrderedDict[str, LayerNode] = OrderedDict()

    def close(self) -> None:
        """Closes open files."""
        self._blobs.close()
        self._files.close()

    def unpack_archive(self, file: IO[bytes], reference: str) -> list[FoundImage]:
        """Stores and unpacks the content of an archive and returns its images, which `record` makes known.

        `reference` is to name the only one. The long half of an import: it touches files alone, so that it may run on
        a thread of its own, one at a time and not beside `delete`, which would collect what no image has yet.
        """
        if reference:
            references.normalise(reference)
        archive = Archive(file, self._blobs)
        try:
            found = list(archive.images())
        finally:
            archive.close()
        if reference and len(found) > 1:
            raise InvalidArgument(
                f"The archive holds {len(found)} images; one reference, {reference}, cannot name them all.",
                reason="REFERENCE_AMBIGUOUS",
                next_step="Import it without a reference, or export one image.",
            )
        for image in found:
            image.names(reference)
        for image in found:
            self._unpack_layers(image)
        return found

    def record(self, found: Sequence[FoundImage], reference: str, now_ns: int) -> list[ImageRecord]:
        """Makes unpacked images known; `reference` names the only one beside the names in the archive."""
        return [self._add(image, image.names(reference), now_ns) for image in found]

    def all(self) -> list[ImageRecord]:
        """Returns all images in the order of their ids."""
        return [self._records[key] for key in sorted(self._records)]

    def resolve(self, reference: str) -> ImageRecord:
        """Returns an image by id, by digest of its manifest or configuration, or by reference."""
        if reference in self._records:
            return self._records[reference]
        if digests.is_digest(reference):
            return self._by_digest(reference, reference)
        full = references.normalise(reference)
        name, _, digest = full.partition("@")
        if digest:
            return self._by_digest(digest, reference)
        for record in self.all():
            if name in record.references:
                return record
        raise self._unknown(reference)

    def layers(self, image: ImageRecord) -> Sequence[LayerNode]:
        """Returns the trees of an image's layers, lowest first; one that is missing is unpacked again."""
        return [self._tree(stored, diff_id) for stored, diff_id in zip(image.layers, image.diff_ids, strict=True)]

    def read(self, digest: str, offset: int, count: int) -> bytes:
        """Returns bytes of a file of a layer."""
        return self._files.read(digest, offset, count)

    def delete(self, reference: str) -> tuple[tuple[str, ...], bool, int]:
        """Deletes an image, or only the given reference when it has others.

        Returns the references removed, whether the image is gone, and the bytes freed.
        """
        record = self.resolve(reference)
        by_name = reference not in (record.image_id, record.manifest_digest) and not digests.is_digest(reference)
        named = references.normalise(reference) if by_name else ""
        if named in record.references and len(record.references) > 1:
            self._put(replace(record, references=tuple(item for item in record.references if item != named)))
            return (named,), False, 0
        del self._records[record.image_id]
        self._database.delete_image(record.image_id)
        return record.references, True, self._collect(record)

    def will_delete_image(self, reference: str) -> ImageRecord | None:
        """Returns the image that `delete` would remove as a whole; None when only a reference would go."""
        record = self.resolve(reference)
        known_by_digest = reference in (record.image_id,) or digests.is_digest(reference)
        return record if known_by_digest or len(record.references) <= 1 else None

    def _by_digest(self, digest: str, shown_as: str) -> ImageRecord:
        for record in self.all():
            if digest in (record.manifest_digest, f"sha256:{record.image_id}"):
                return record
        raise self._unknown(shown_as)

    def _add(self, found: FoundImage, names: Sequence[str], now_ns: int) -> ImageRecord:
        image_id = digests.hex_part(found.config.digest)
        for other in self.all():
            if other.image_id != image_id and any(name in other.references for name in names):
                self._put(replace(other, references=tuple(item for item in other.references if item not in names)))
        existing = self._records.get(image_id)
        record = ImageRecord(
            image_id=image_id,
            manifest_digest=found.manifest_digest,
            references=tuple(sorted({*names, *(existing.references if existing else ())})),
            layers=tuple(stored for stored, _ in found.layers),
            diff_ids=tuple(diff_id for _, diff_id in found.layers),
            run=found.settings.run,
            size_bytes=found.size_bytes,
            import_time_ns=existing.import_time_ns if existing else now_ns,
        )
        self._put(record)
        return record

    def _put(self, record: ImageRecord) -> None:
        self._database.put_image(record)
        self._records[record.image_id] = record

    def _unpack_layers(self, image: FoundImage) -> None:
        for stored, diff_id in image.layers:
            if not self._tree_path(diff_id).is_file():
                self._unpack(stored, diff_id)

    def _unpack(self, stored: str, diff_id: str) -> LayerNode:
        with self._blobs.open(stored) as blob:
            tree, plain = unpack(blob, self._files, f"The layer {stored}")
        digests.verify(diff_id, plain, f"The unpacked layer {stored}")
        lines = "".join(json.dumps(asdict(entry), separators=(",", ":")) + "\n" for entry in layers.entries_of(tree))
        temporary = self._tree_path(diff_id).with_suffix(".tmp")
        temporary.write_text(lines, encoding="utf-8")
        temporary.replace(self._tree_path(diff_id))
        return tree

    def _tree(self, stored: str, diff_id: str) -> LayerNode:
        tree = self._kept.pop(diff_id, None) or self._load_tree(stored, diff_id)
        self._kept[diff_id] = tree
        if len(self._kept) > _TREES_KEPT:
            self._kept.popitem(last=False)
        return tree

    def _load_tree(self, stored: str, diff_id: str) -> LayerNode:
        path = self._tree_path(diff_id)
        if not path.is_file():
            return self._unpack(stored, diff_id)
        try:
            with path.open(encoding="utf-8") as file:
                return layers.build(_entry(json.loads(line)) for line in file)
        except (ValueError, TypeError) as error:
            raise DataLoss(
                f"The unpacked layer {diff_id} cannot be read: {error}.",
                reason="STORE_CORRUPT",
                next_step="Delete the image and import it again; check the disk.",
            ) from error

    def _tree_path(self, diff_id: str) -> Path:
        return self._trees / digests.hex_part(diff_id)

    def _collect(self, gone: ImageRecord) -> int:
        """Removes the blobs, trees and file contents that only `gone` used; returns the bytes freed."""
        kept_blobs = {digest for record in self.all() for digest in _blobs_of(record)}
        freed = sum(self._blobs.delete(digest) for digest in _blobs_of(gone) if digest not in kept_blobs)
        kept_trees = {diff_id for record in self.all() for diff_id in record.diff_ids}
        dead = [diff_id for diff_id in gone.diff_ids if diff_id not in kept_trees]
        if not dead:
            return freed
        kept_files = {
            entry.digest for record in self.all() for tree in self.layers(record) for entry in layers.entries_of(tree)
        }
        for diff_id in dead:
            for digest in sorted({entry.digest for entry in self._entries(diff_id)} - kept_files - {""}):
                freed += self._files.delete(digest)
            self._kept.pop(diff_id, None)
            self._tree_path(diff_id).unlink(missing_ok=True)
        return freed

    def _entries(self, diff_id: str) -> list[LayerEntry]:
        path = self._tree_path(diff_id)
        if not path.is_file():
            return []
        with path.open(encoding="utf-8") as file:
            return [_entry(json.loads(line)) for line in file]

    @staticmethod
    def _unknown(reference: str) -> NotFound:
        return NotFound(
            f"There is no image {shown(reference)}.",
            reason="IMAGE_UNKNOWN",
            next_step="Import it (lamina image import FILE), or list the images.",
        )


def _blobs_of(record: ImageRecord) -> tuple[str, ...]:
    return (record.manifest_digest, f"sha256:{record.image_id}", *record.layers)


def _entry(fields: dict[str, object]) -> LayerEntry:
    device = fields.pop("device", [0, 0])
    assert isinstance(device, list)
    return LayerEntry(**fields, device=(device[0], device[1]))  # type: ignore[arg-type]
