"""Layers as trees: whiteouts, hard links, paths that lie."""

from __future__ import annotations

import pytest

from lamina_container_runtime.domain.images import layer as layers
from lamina_container_runtime.domain.images.layer import DIRECTORY, FILE, HARDLINK, SYMLINK, LayerBuilder, LayerEntry
from lamina_kit.errors import InvalidArgument


def file(path: str, **fields: object) -> LayerEntry:
    """Returns an entry of a file."""
    return LayerEntry(path, FILE, **fields)  # type: ignore[arg-type]


def test_whiteouts_are_not_files() -> None:
    """.wh.NAME removes a name, .wh..wh..opq closes a directory; neither is an entry."""
    root = layers.build([file("etc/.wh.motd"), file("var/.wh..wh..opq"), file("var/new")])
    assert (root.children["etc"].whiteouts, dict(root.children["etc"].children)) == ({"motd"}, {})
    assert root.children["var"].opaque
    assert list(root.children["var"].children) == ["new"]


def test_missing_parents_are_made() -> None:
    """An entry whose directories the archive does not list has them."""
    root = layers.build([file("./a/b/c")])
    assert root.children["a"].children["b"].children["c"].entry.path == "a/b/c"
    assert root.children["a"].entry.mode == 0o755


def test_later_entries_replace_earlier_ones() -> None:
    """A file given twice is the later; a directory given twice keeps its children."""
    root = layers.build([file("a", size=1), file("a", size=2), file("d/x"), LayerEntry("d", DIRECTORY, mode=0o700)])
    assert root.children["a"].entry.size == 2
    assert (root.children["d"].entry.mode, list(root.children["d"].children)) == (0o700, ["x"])


def test_hard_links_are_one_node() -> None:
    """Names that are linked share a node, which counts them."""
    links = [LayerEntry("d/b", HARDLINK, target="a"), LayerEntry("c", HARDLINK, target="/d/b")]
    root = layers.build([file("a", size=3), *links])
    assert root.children["a"] is root.children["c"] is root.children["d"].children["b"]
    assert root.children["a"].links == 3


def test_the_root_takes_attributes() -> None:
    """An entry for ./ sets the root's own mode."""
    assert layers.build([LayerEntry("./", DIRECTORY, mode=0o711)]).entry.mode == 0o711


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("../x")], "PATH_ESCAPES"),
        ([file("a/../../x")], "PATH_ESCAPES"),
        ([file("a\0b")], "PATH_ESCAPES"),
        ([file("x" * 256)], "ARCHIVE_LIMIT"),
        ([file("/".join("a" * 300))], "ARCHIVE_LIMIT"),
        ([file("a/" * 2200)], "ARCHIVE_LIMIT"),
        ([LayerEntry("a", SYMLINK, target="/etc"), file("a/passwd")], "ARCHIVE_MALFORMED"),
        ([LayerEntry("a", HARDLINK, target="absent")], "ARCHIVE_MALFORMED"),
        ([LayerEntry("d", DIRECTORY), LayerEntry("a", HARDLINK, target="d")], "ARCHIVE_MALFORMED"),
        ([LayerEntry("a", HARDLINK, target="../etc/shadow")], "PATH_ESCAPES"),
        ([file("d/.wh.")], "ARCHIVE_MALFORMED"),
        ([file("d/.wh..")], "ARCHIVE_MALFORMED"),
    ],
)
def test_hostile_entries_are_refused(entries: list[LayerEntry], reason: str) -> None:
    """Paths that climb, that are too long, or that go through links are refused."""
    with pytest.raises(InvalidArgument) as caught:
        layers.build(entries)
    assert caught.value.reason == reason


def test_the_number_of_entries_is_bounded() -> None:
    """One entry more than the limit is refused."""
    builder = LayerBuilder(max_entries=2)
    builder.add(file("a"))
    builder.add(file("b"))
    with pytest.raises(InvalidArgument) as caught:
        builder.add(file("c"))
    assert caught.value.reason == "ARCHIVE_LIMIT"
