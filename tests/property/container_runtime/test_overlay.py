"""The union file system against a naive oracle: a dict of paths, changed by the same operations."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_container_runtime.domain.images import layer as layers
from lamina_container_runtime.domain.images.layer import (
    DIRECTORY,
    FILE,
    OPAQUE_MARK,
    SYMLINK,
    WHITEOUT_PREFIX,
    LayerEntry,
    LayerNode,
)
from lamina_container_runtime.engines.model.kernel.files import overlay
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, FileInode, Inode, SymlinkInode

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
DATA = st.binary(max_size=6)
Tree = dict[str, object]
"""Path → bytes of a file, None of a directory, text of a link."""


class Store:
    """File contents by digest."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keeps bytes."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def read(self, digest: str, offset: int, count: int) -> bytes:
        """Returns a part."""
        return self.blobs[digest][offset : offset + count]


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, str, object]]:
    """Returns one layer as (what, path, data), so that no entry lies below a file of the same layer."""
    found: dict[str, tuple[str, object]] = {}
    for _ in range(draw(st.integers(0, 6))):
        path = draw(PATHS)
        what = draw(st.sampled_from(["file", "directory", "link", "whiteout", "opaque"]))
        above = [path.rsplit("/", count)[0] for count in range(1, path.count("/") + 1)]
        if any(found.get(part, ("directory",))[0] != "directory" for part in above):
            continue
        if what in ("file", "link", "whiteout") and any(other.startswith(path + "/") for other in found):
            continue
        found[path] = (what, draw(DATA) if what == "file" else draw(NAMES))
    return [(what, path, data) for path, (what, data) in found.items()]


def tree_of(layer: list[tuple[str, str, object]], store: Store) -> LayerNode:
    """Returns a layer for the overlay."""
    entries = []
    for what, path, data in layer:
        folder, _, name = path.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        if what == "file":
            assert isinstance(data, bytes)
            entries.append(LayerEntry(path, FILE, size=len(data), digest=store.put(data) if data else ""))
        elif what == "link":
            entries.append(LayerEntry(path, SYMLINK, target=str(data)))
        elif what == "whiteout":
            entries.append(LayerEntry(f"{prefix}{WHITEOUT_PREFIX}{name}", FILE))
        else:
            entries.append(LayerEntry(path, DIRECTORY))
            if what == "opaque":
                entries.append(LayerEntry(f"{path}/{OPAQUE_MARK}", FILE))
    return layers.build(entries)


def apply(tree: Tree, layer: list[tuple[str, str, object]]) -> None:
    """Changes the oracle as the specification says: what the layer hides goes first, then what it has comes."""

    def drop(path: str, keep_itself: bool = False) -> None:
        for other in [other for other in tree if other.startswith(path + "/") or (other == path and not keep_itself)]:
            del tree[other]

    for what, path, _ in layer:
        if what == "whiteout":
            drop(path)
        elif what == "opaque":
            drop(path, keep_itself=True)
    for what, path, data in layer:
        for count in range(path.count("/"), 0, -1):
            above = path.rsplit("/", count)[0]
            if tree.get(above, "") is not None:
                drop(above)
                tree[above] = None
        if what in ("file", "link"):
            drop(path)
            tree[path] = data
        elif what != "whiteout":
            if tree.get(path, "") is not None:
                drop(path)
            tree[path] = None


def listing(root: DirectoryInode) -> Tree:
    """Returns an overlay as the oracle has it."""
    found: Tree = {}

    def visit(prefix: str, directory: DirectoryInode) -> None:
        for name, inode in directory.list():
            found[prefix + name] = value(inode)
            if isinstance(inode, DirectoryInode):
                visit(f"{prefix}{name}/", inode)

    visit("", root)
    return found


def value(inode: Inode) -> object:
    """Returns what the oracle keeps of an inode."""
    if isinstance(inode, FileInode):
        return inode.read(0, 100)
    return inode.target if isinstance(inode, SymlinkInode) else None


def mounted(stack: list[LayerNode], store: Store) -> DirectoryInode:
    """Returns an overlay over layers, lowest first."""
    return overlay.mount(stack, store, lambda: 7, 1 << 20)


@given(st.lists(changes(), max_size=4))
def test_the_union_is_what_applying_layer_after_layer_gives(stack: list[list[tuple[str, str, object]]]) -> None:
    """Looking down through layers shows what unpacking them one over the other would."""
    store = Store()
    oracle: Tree = {}
    for layer in stack:
        apply(oracle, layer)
    assert listing(mounted([tree_of(layer, store) for layer in stack], store)) == oracle


KINDS = st.sampled_from(["write", "append", "mkdir", "remove", "rename", "link"])
OPERATIONS = st.lists(st.tuples(KINDS, PATHS, PATHS, DATA), max_size=12)


def find(root: DirectoryInode, path: str) -> tuple[DirectoryInode | None, str, Inode | None]:
    """Returns the directory, the name and the inode of a path; no directory when it is not there."""
    here: Inode = root
    *above, name = path.split("/")
    for part in above:
        if not isinstance(here, DirectoryInode) or here.get(part) is None:
            return None, name, None
        here = here.get(part)  # type: ignore[assignment]
    return (here, name, here.get(name)) if isinstance(here, DirectoryInode) else (None, name, None)


def operate(root: DirectoryInode, oracle: Tree, operation: tuple[str, str, str, bytes]) -> None:
    """Performs one operation on the overlay and on the oracle, where both allow it."""
    what, path, other, data = operation
    parent, name, inode = find(root, path)
    if parent is None:
        return
    if what == "write" and inode is None:
        parent.add(name, FileInode(root.fs, 0o644, data=data))
        oracle[path] = data
    elif what == "append" and isinstance(inode, FileInode):
        inode.write(inode.size, data)
        oracle[path] = bytes(inode.read(0, 100))
    elif what == "mkdir" and inode is None:
        parent.add(name, DirectoryInode(root.fs, 0o755))
        oracle[path] = None
    elif what == "link" and inode is None:
        parent.add(name, SymlinkInode(root.fs, other))
        oracle[path] = other
    elif what == "remove" and inode is not None and not (isinstance(inode, DirectoryInode) and inode.entries()):
        parent.remove(name)
        del oracle[path]
    elif what == "rename" and inode is not None:
        target, new_name, existing = find(root, other)
        if target is None or existing is not None or f"{other}/".startswith(f"{path}/"):
            return
        parent.remove(name)
        target.add(new_name, inode)
        moved = {key: oracle.pop(key) for key in list(oracle) if key == path or key.startswith(path + "/")}
        oracle.update({other + key[len(path) :]: kept for key, kept in moved.items()})


@settings(max_examples=200)
@given(st.lists(changes(), max_size=3), OPERATIONS)
def test_the_upper_layer_holds_all_changes(
    stack: list[list[tuple[str, str, object]]], operations: list[tuple[str, str, str, bytes]]
) -> None:
    """After any changes the tree is the oracle's, the lower layers are untouched, and the upper layer, put over the
    same lower layers, gives the same tree again."""
    store = Store()
    lowers = [tree_of(layer, store) for layer in stack]
    root = mounted(lowers, store)
    oracle = listing(root)
    before = dict(oracle)
    for operation in operations:
        operate(root, oracle, operation)
    assert listing(root) == oracle
    assert listing(mounted(lowers, store)) == before
    upper = []
    for entry, data in overlay.upper_entries(root):
        digest = store.put(data) if data else ""
        upper.append(LayerEntry(entry.path, entry.kind, size=len(data), digest=digest, target=entry.target))
    again = mounted([*lowers, layers.build(upper)], store)
    assert listing(again) == oracle


@given(changes())
def test_a_layer_is_what_its_entries_say(layer: list[tuple[str, str, object]]) -> None:
    """Writing a layer's entries down and building it again gives the same layer."""
    tree = tree_of(layer, Store())
    again = layers.build(layers.entries_of(tree))
    assert list(layers.entries_of(again)) == list(layers.entries_of(tree))
