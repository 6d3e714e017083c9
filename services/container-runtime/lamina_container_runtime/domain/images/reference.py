"""Image references, normalised as container engines do.

    hello                   → docker.io/library/hello:latest
    me/hello:1              → docker.io/me/hello:1
    localhost:5000/hello    → localhost:5000/hello:latest
    hello@sha256:<64 hex>   → docker.io/library/hello@sha256:<64 hex>

The first part is a registry when it contains a dot or a colon or is `localhost`.
Source: the grammar of distribution/reference (reference.go, normalize.go).
"""

from __future__ import annotations

import re

from lamina_container_runtime.domain.images import digest as digests
from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument, Violation

MAX_LENGTH = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])(?:\.(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*(?::[0-9]{1,5})?"
)


def normalise(reference: str, field: str = "reference") -> str:
    """Returns the full form of a reference; `InvalidArgument` `REFERENCE_MALFORMED` when it has none."""
    if not 0 < len(reference) <= MAX_LENGTH:
        raise _malformed(reference, field, f"has {len(reference)} characters, not 1 to {MAX_LENGTH}")
    name, _, digest = reference.partition("@")
    if "@" in reference and not digests.is_digest(digest):
        raise _malformed(reference, field, "has something behind @ that is not a SHA-256 digest")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _malformed(reference, field, "has a malformed tag")
    registry, path = _split_registry(name)
    if not _HOST.fullmatch(registry) or not _PATH.fullmatch(path):
        raise _malformed(reference, field, "has a malformed name; names are lower-case")
    if digest:
        return f"{registry}/{path}@{digest}"
    return f"{registry}/{path}:{tag or 'latest'}"


def is_tag(text: str) -> bool:
    """Returns whether a text is a tag alone, as `org.opencontainers.image.ref.name` often is: `1.2`, `latest`."""
    return _TAG.fullmatch(text) is not None


def tagged(reference: str, tag: str) -> list[str]:
    """Returns the full references that a name asked for comes to when the image itself brings a tag alone.

    The tag is one of that name; `reference` itself is another only when it says its own tag or digest:

        hello, 1.2        → docker.io/library/hello:1.2
        hello:mine, 1.2   → docker.io/library/hello:1.2, docker.io/library/hello:mine

    `InvalidArgument` `REFERENCE_MALFORMED` without a name.
    """
    if not reference:
        raise InvalidArgument(
            f"The image has no name, only the tag {shown(tag)} (annotation org.opencontainers.image.ref.name).",
            reason="REFERENCE_MALFORMED",
            next_step="Say the name that it is a tag of: `--name NAME`, or `start.reference` of the call.",
            violations=[Violation("start.reference", "is empty, and the archive says only a tag")],
        )
    full = normalise(reference)
    bare, own = _split_tag(reference.partition("@")[0])
    found = [normalise(f"{bare}:{tag}")]
    return [*found, full] if own is not None or "@" in reference else found


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (name, None)


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (any(mark in first for mark in ".:") or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = "docker.io", name
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return registry, path


def _malformed(reference: str, field: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"The image reference {shown(reference)} {why}.",
        reason="REFERENCE_MALFORMED",
        next_step="Write it as [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@sha256:DIGEST.",
        violations=[Violation(field, why)],
    )
