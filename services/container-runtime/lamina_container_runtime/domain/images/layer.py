"""One layer of an image as a tree: a read-only lowerdir.

A layer is a list of changes. Whiteouts say what it removes from the layers below it:

    etc/motd              a file: hides etc/motd of lower layers
    etc/.wh.issue         a whiteout: etc/issue of lower layers is gone
    var/.wh..wh..opq      an opaque directory: all that lower layers have in var is hidden

File contents are not here but in the content store, by their digest.
Source: OCI Image Format Specification, layer.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARK = ".wh..wh..opq"
MAX_PATH = 4096
MAX_NAME = 255
MAX_DEPTH = 256

FILE, DIRECTORY, SYMLINK, CHARACTER, BLOCK, FIFO, HARDLINK = (
    "file", "directory", "symlink", "character", "block", "fifo", "hardlink",
)  # fmt: skip


@dataclass(frozen=True)
class LayerEntry:
    """One entry as an archive or the store has it. `path` as written, `target` of a link; times in nanoseconds.

    `digest` names the content of a file of at least one byte. `device` is (major, minor).
    """

    path: str
    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    digest: str = ""
    target: str = ""
    device: tuple[int, int] = (0, 0)


@dataclass(eq=False, slots=True)
class LayerNode:
    """A file, directory or other object of a layer. Hard links are one node with several names."""

    entry: LayerEntry
    children: dict[str, LayerNode] = field(default_factory=dict)
    whiteouts: set[str] = field(default_factory=set)
    opaque: bool = False
    links: int = 1

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.entry.kind == DIRECTORY


def split_path(path: str) -> tuple[str, ...]:
    """Returns the parts of an entry's path, () for the root; `PATH_ESCAPES` or `ARCHIVE_LIMIT` for a bad one."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in path:
        raise InvalidArgument(
            f"The entry {shown(path)} of a layer points outside of it.",
            reason="PATH_ESCAPES",
            next_step="The image is malformed or hostile; do not use it.",
        )
    longest = max((len(part.encode(errors="surrogateescape")) for part in parts), default=0)
    if len(path) > MAX_PATH or len(parts) > MAX_DEPTH or longest > MAX_NAME:
        raise InvalidArgument(
            f"The path {shown(path)} of a layer is too long or too deep.",
            reason="ARCHIVE_LIMIT",
            next_step=f"Paths have at most {MAX_PATH} characters, {MAX_DEPTH} parts, and {MAX_NAME} bytes a part.",
        )
    return parts


class LayerBuilder:
    """Grows a layer's tree entry by entry."""

    def __init__(self, max_entries: int = 1_000_000) -> None:
        self.root = LayerNode(LayerEntry("", DIRECTORY, mode=0o755))
        self._left = max_entries
        self._max = max_entries

    def add(self, entry: LayerEntry) -> None:
        """Adds one entry; a later entry of a path replaces an earlier one, directories keep their children.

        `InvalidArgument`: `PATH_ESCAPES`, `ARCHIVE_LIMIT`, or `ARCHIVE_MALFORMED` for an entry below something that is
        no directory, or a hard link whose target is not in the layer.
        """
        self._left -= 1
        if self._left < 0:
            raise InvalidArgument(
                f"A layer has more than {self._max} entries.", reason="ARCHIVE_LIMIT", next_step="Use a smaller image."
            )
        parts = split_path(entry.path)
        if not parts:
            self.root.entry = replace(entry, path="", kind=DIRECTORY)
            return
        parent = self._parent(parts)
        name = parts[-1]
        if name == OPAQUE_MARK:
            parent.opaque = True
        elif name.startswith(WHITEOUT_PREFIX):
            self._white_out(parent, name.removeprefix(WHITEOUT_PREFIX), entry.path)
        elif entry.kind == HARDLINK:
            self._link(parent, name, entry)
        else:
            self._put(parent, name, replace(entry, path="/".join(parts)))

    def _parent(self, parts: tuple[str, ...]) -> LayerNode:
        node = self.root
        for depth, part in enumerate(parts[:-1], start=1):
            child = node.children.get(part)
            if child is None:
                child = LayerNode(LayerEntry("/".join(parts[:depth]), DIRECTORY, mode=0o755))
                node.children[part] = child
            if not child.is_directory:
                raise _malformed("/".join(parts), f"lies below {shown('/'.join(parts[:depth]))}, which is no directory")
            node = child
        return node

    def _white_out(self, parent: LayerNode, name: str, path: str) -> None:
        if name in ("", ".", ".."):
            raise _malformed(path, "is a whiteout without a name")
        parent.whiteouts.add(name)

    def _link(self, parent: LayerNode, name: str, entry: LayerEntry) -> None:
        node: LayerNode | None = self.root
        for part in split_path(entry.target):
            node = node.children.get(part) if node is not None else None
        if node is None or node.is_directory:
            raise _malformed(entry.path, f"is a hard link to {shown(entry.target)}, which is no file of the layer")
        if parent.children.get(name) is not node:
            parent.children[name] = node
            node.links += 1

    def _put(self, parent: LayerNode, name: str, entry: LayerEntry) -> None:
        existing = parent.children.get(name)
        if existing is not None and existing.is_directory and entry.kind == DIRECTORY:
            existing.entry = entry
        else:
            parent.children[name] = LayerNode(entry)


def build(entries: Iterable[LayerEntry]) -> LayerNode:
    """Returns the tree of a layer's entries."""
    builder = LayerBuilder()
    for entry in entries:
        builder.add(entry)
    return builder.root


def entries_of(root: LayerNode) -> Iterator[LayerEntry]:
    """Yields entries from which `build` makes the same tree: parents first, names in alphabetical order.

    A node's entry has its first path; its other names come at the end, as hard links to that.
    """
    first_path: dict[LayerNode, str] = {}
    later_links: list[LayerEntry] = []
    yield root.entry
    stack = [("", root)]
    while stack:
        path, node = stack.pop()
        if node.opaque:
            yield LayerEntry(f"{path}{OPAQUE_MARK}", FILE)
        for name in sorted(node.whiteouts):
            yield LayerEntry(f"{path}{WHITEOUT_PREFIX}{name}", FILE)
        directories = []
        for name, child in sorted(node.children.items()):
            if child in first_path:
                later_links.append(LayerEntry(path + name, HARDLINK, target=first_path[child]))
                continue
            if child.links > 1:
                first_path[child] = path + name
            yield replace(child.entry, path=path + name)
            if child.is_directory:
                directories.append((f"{path}{name}/", child))
        stack.extend(reversed(directories))
    yield from later_links


def _malformed(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"The entry {shown(path)} of a layer {why}.",
        reason="ARCHIVE_MALFORMED",
        next_step="The image is malformed; export it again.",
    )
