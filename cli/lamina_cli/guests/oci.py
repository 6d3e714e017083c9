"""Builds OCI images from files: the same files and configuration give the same bytes.

    archive = build_image([File("hello", elf, mode=0o755)], Config(entrypoint=("/hello",)), reference="hello:latest")

is a tar of an OCI image layout:

    oci-layout                     {"imageLayoutVersion":"1.0.0"}
    index.json                     → digest of the manifest, with the reference as an annotation
    blobs/sha256/<manifest>        → digests of the configuration and of each layer
    blobs/sha256/<configuration>   entry point, environment, … and the digest of each layer's plain tar
    blobs/sha256/<layer>           a tar of files

Every tool that reads OCI layouts (skopeo, podman, `lamina image import`) reads it.
Source: OCI Image Format Specification 1.1 (image-layout.md, manifest.md, config.md, layer.md).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field

from lamina_kit.errors import InvalidArgument

LAYOUT_VERSION = "1.0.0"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
REFERENCE_ANNOTATION = "org.opencontainers.image.ref.name"
NAME_ANNOTATION = "io.containerd.image.name"
"""Full reference; `org.opencontainers.image.ref.name` by itself is often the tag alone."""


@dataclass(frozen=True)
class File:
    """One entry of a layer.

    `path` is relative to the image's root, without a leading slash. `kind` is `file`, `directory`, `symlink` (to
    `target`) or `hardlink` (to the path `target` of the same layer). Permission bits are the low 12 bits of `mode`.
    A file named `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq` hides all they have in its directory.
    """

    path: str
    data: bytes = b""
    mode: int = 0o644
    kind: str = "file"
    target: str = ""
    uid: int = 0
    gid: int = 0
    mtime: int = 0


@dataclass(frozen=True)
class Config:
    """What a container of the image runs by default; see the configuration of the OCI specification."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    working_dir: str = "/"
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    architecture: str = "amd64"
    os: str = "linux"
    extra: tuple[tuple[str, object], ...] = field(default=())


def digest_of(data: bytes) -> str:
    """Returns the OCI digest of bytes: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def build_layer(files: Sequence[File]) -> bytes:
    """Returns the plain tar of a layer; entries in the order given, parents that are missing are added before."""
    buffer = io.BytesIO()
    listed = {file.path.rstrip("/") for file in files if file.kind == "directory"}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            for parent in _parents(file.path):
                if parent not in listed:
                    listed.add(parent)
                    tar.addfile(_member(File(parent, kind="directory", mode=0o755)))
            tar.addfile(_member(file), io.BytesIO(file.data) if file.kind == "file" else None)
    return buffer.getvalue()


def build_image(
    files: Sequence[File],
    config: Config,
    *,
    reference: str = "",
    lower_layers: Sequence[Sequence[File]] = (),
    compress: bool = False,
) -> bytes:
    """Returns the tar of an OCI image layout with one image.

    `files` are the top layer, `lower_layers` lie beneath it, lowest first. With `compress` layers are gzipped. A path
    that leaves the image's root is `InvalidArgument` `PATH_ESCAPES`.
    """
    plain = [build_layer(layer) for layer in (*lower_layers, files)]
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, data: bytes) -> dict[str, object]:
        digest = digest_of(data)
        blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    layers = [
        blob(LAYER_TYPE + "+gzip", gzip.compress(tar, mtime=0)) if compress else blob(LAYER_TYPE, tar) for tar in plain
    ]
    settings = blob(CONFIG_TYPE, _json(_config(config, [digest_of(tar) for tar in plain])))
    manifest = blob(
        MANIFEST_TYPE, _json({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": settings, "layers": layers})
    )
    if reference:
        manifest["annotations"] = {NAME_ANNOTATION: reference, REFERENCE_ANNOTATION: reference}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [manifest]}
    members = [File("oci-layout", _json({"imageLayoutVersion": LAYOUT_VERSION})), File("index.json", _json(index))]
    members += [File(f"blobs/sha256/{digest[7:]}", data) for digest, data in sorted(blobs.items())]
    return build_layer(members)


def _config(config: Config, diff_ids: list[str]) -> dict[str, object]:
    run: dict[str, object] = {"Env": list(config.env), "WorkingDir": config.working_dir}
    if config.entrypoint:
        run["Entrypoint"] = list(config.entrypoint)
    if config.cmd:
        run["Cmd"] = list(config.cmd)
    if config.user:
        run["User"] = config.user
    if config.labels:
        run["Labels"] = dict(config.labels)
    if config.stop_signal:
        run["StopSignal"] = config.stop_signal
    return {
        "architecture": config.architecture,
        "os": config.os,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **dict(config.extra),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


_KINDS = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


def _member(file: File) -> tarfile.TarInfo:
    parts = file.path.rstrip("/").split("/")
    if file.path.startswith("/") or ".." in parts or not all(parts):
        raise InvalidArgument(
            f"The path {file.path!r} of an image's file is not below its root.",
            reason="PATH_ESCAPES",
            next_step="Give a relative path without empty and '..' parts.",
        )
    if file.kind not in _KINDS:
        raise InvalidArgument(f"{file.path!r} has the unknown kind {file.kind!r}.", reason="FILE_KIND_UNKNOWN")
    member = tarfile.TarInfo(file.path.rstrip("/"))
    member.type = _KINDS[file.kind]
    member.mode = file.mode & 0o7777
    member.uid, member.gid = file.uid, file.gid
    member.mtime = file.mtime
    member.linkname = file.target
    member.size = len(file.data) if file.kind == "file" else 0
    return member
