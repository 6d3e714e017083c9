"""Reads the JSON documents of an image: index, manifest, configuration, and `manifest.json` of a docker-archive.

All of it is untrusted: sizes, counts and types are checked before use, and unknown fields are ignored, as the
specification wants. Source: OCI Image Format Specification 1.1; Docker Image Specification 1.2 (docker save).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lamina_container_runtime.domain.images import digest as digests
from lamina_container_runtime.domain.images import reference as references
from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 128
MAX_MANIFESTS = 256
MAX_WORDS = 4096
NAME_ANNOTATION = "io.containerd.image.name"
REFERENCE_ANNOTATION = "org.opencontainers.image.ref.name"
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


@dataclass(frozen=True)
class Descriptor:
    """Names a blob. `platform` is `os/architecture` or empty; `reference` the name that an index gives it.

    `tag` is set instead where the index gives a tag alone: one of a name that is said elsewhere.
    """

    digest: str
    size: int
    media_type: str
    platform: str = ""
    reference: str = ""
    tag: str = ""

    @property
    def is_index(self) -> bool:
        """Whether it names another index."""
        return self.media_type in _INDEX_TYPES


@dataclass(frozen=True)
class Manifest:
    """Configuration and layers of one image, lowest layer first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class RunConfig:
    """What a container runs by default; labels in the order of their keys."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True)
class ImageSettings:
    """An image's configuration: for which machine, what to run, and the digests of the plain layers."""

    platform: str
    run: RunConfig
    diff_ids: tuple[str, ...]


@dataclass(frozen=True)
class DockerImage:
    """One image of a docker-archive: names of archive members."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def parse_index(data: bytes, where: str) -> tuple[Descriptor, ...]:
    """Returns the manifests (and indexes) that an index names; `InvalidArgument` `ARCHIVE_MALFORMED`."""
    document = _object(_load(data, where), where)
    manifests = _list(document.get("manifests"), f"{where} manifests", MAX_MANIFESTS)
    return tuple(_descriptor(item, f"{where} manifests[{number}]") for number, item in enumerate(manifests))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Returns what a manifest names; `InvalidArgument` `ARCHIVE_MALFORMED`."""
    document = _object(_load(data, where), where)
    layers = _list(document.get("layers"), f"{where} layers", MAX_LAYERS)
    return Manifest(
        _descriptor(document.get("config"), f"{where} config"),
        tuple(_descriptor(item, f"{where} layers[{number}]") for number, item in enumerate(layers)),
    )


def parse_config(data: bytes, where: str) -> ImageSettings:
    """Returns an image's settings; `InvalidArgument` `ARCHIVE_MALFORMED`."""
    document = _object(_load(data, where), where)
    run = _object(document.get("config") or {}, f"{where} config")
    rootfs = _object(document.get("rootfs"), f"{where} rootfs")
    diff_ids = _list(rootfs.get("diff_ids"), f"{where} rootfs.diff_ids", MAX_LAYERS)
    labels = _object(run.get("Labels") or {}, f"{where} config.Labels")
    system = _text(document.get("os"), f"{where} os")
    machine = _text(document.get("architecture"), f"{where} architecture")
    return ImageSettings(
        platform=f"{system}/{machine}",
        run=RunConfig(
            entrypoint=_words(run.get("Entrypoint"), f"{where} config.Entrypoint"),
            cmd=_words(run.get("Cmd"), f"{where} config.Cmd"),
            env=_words(run.get("Env"), f"{where} config.Env"),
            working_dir=_text(run.get("WorkingDir") or "", f"{where} config.WorkingDir"),
            user=_text(run.get("User") or "", f"{where} config.User"),
            labels=tuple((key, _text(labels[key], f"{where} config.Labels")) for key in sorted(labels)),
            stop_signal=_text(run.get("StopSignal") or "", f"{where} config.StopSignal"),
        ),
        diff_ids=tuple(digests.check(item, f"{where} rootfs.diff_ids") for item in diff_ids),
    )


def parse_docker_manifest(data: bytes) -> tuple[DockerImage, ...]:
    """Returns the images of a docker-archive; `InvalidArgument` `ARCHIVE_MALFORMED`."""
    where = "manifest.json"
    images = []
    for item in _list(_load(data, where), where, MAX_MANIFESTS):
        entry = _object(item, where)
        images.append(
            DockerImage(
                _text(entry.get("Config"), f"{where} Config"),
                _words(entry.get("Layers"), f"{where} Layers", MAX_LAYERS),
                _words(entry.get("RepoTags"), f"{where} RepoTags"),
            )
        )
    return tuple(images)


def choose(descriptors: Sequence[Descriptor], platform: str) -> list[Descriptor]:
    """Returns the descriptors that may be images for `platform`: those that say so or say nothing."""
    return [item for item in descriptors if item.platform in ("", platform)]


def _descriptor(value: object, where: str) -> Descriptor:
    fields = _object(value, where)
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _malformed(where, f"has the size {shown(size)}")
    platform = _object(fields.get("platform") or {}, f"{where} platform")
    annotations = _object(fields.get("annotations") or {}, f"{where} annotations")
    full = _text(annotations.get(NAME_ANNOTATION) or "", f"{where} annotations")
    name = full or _text(annotations.get(REFERENCE_ANNOTATION) or "", f"{where} annotations")
    tag = name if not full and references.is_tag(name) else ""
    return Descriptor(
        digests.check(fields.get("digest"), where),
        size,
        _text(fields.get("mediaType") or "", f"{where} mediaType"),
        f"{platform.get('os')}/{platform.get('architecture')}" if platform else "",
        "" if tag else name,
        tag,
    )


def _load(data: bytes, where: str) -> object:
    if len(data) > MAX_DOCUMENT:
        raise InvalidArgument(
            f"{where} has {len(data)} bytes, more than {MAX_DOCUMENT}.",
            reason="ARCHIVE_LIMIT",
            next_step="The archive is malformed or hostile; export it again.",
        )
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed(where, f"is not JSON ({type(error).__name__})") from error
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(where, "is no object")
    return value


def _list(value: object, where: str, limit: int) -> list[object]:
    if not isinstance(value, list):
        raise _malformed(where, "is no list")
    if len(value) > limit:
        raise InvalidArgument(
            f"{where} has {len(value)} entries, more than {limit}.",
            reason="ARCHIVE_LIMIT",
            next_step="The archive is malformed or hostile; export it again.",
        )
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _malformed(where, f"is {shown(value)}, no text")
    return value


def _words(value: object, where: str, limit: int = MAX_WORDS) -> tuple[str, ...]:
    return tuple(_text(item, where) for item in _list(value if value is not None else [], where, limit))


def _malformed(where: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"{where} {why}.", reason="ARCHIVE_MALFORMED", next_step="The archive is malformed; export the image again."
    )
