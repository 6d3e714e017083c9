"""The rules about folders of source."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_tools.style import folders
from lamina_tools.style.source import Source


def paths(folder: str, *names: str) -> list[Path]:
    """Returns the paths of some files in a folder."""
    return [Path(folder, name) for name in names]


def modules(count: int) -> tuple[str, ...]:
    """Returns names for some modules."""
    return tuple(f"m{number}.py" for number in range(count))


def test_a_folder_is_counted_by_its_nouns() -> None:
    """A C file and its header are one module; `__init__`, `__main__` and what is no source do not count."""
    found = folders.folders(
        [
            *paths("kit/a", "__init__.py", "__main__.py", "x.py", "README.md"),
            *paths("kit/a/b", "__init__.py"),
            *paths("guests/k", "trap.c", "trap.h", "trap.S", "boot.S"),
        ]
    )
    assert found == {
        Path("kit/a"): folders.Folder({"x"}, {"b"}),
        Path("kit/a/b"): folders.Folder(),
        Path("guests/k"): folders.Folder({"trap", "boot"}),
    }


@pytest.mark.parametrize(
    ("count", "excused", "finding"),
    [
        (24, (), ""),
        (25, (), "a: 25 modules; 24 is the limit: which of them make a folder?"),
        (25, ("a",), "a: 25 modules; 24 is the limit: which of them make a folder?"),
        (3, (), ""),
        (2, (), "a: 2 modules and subfolders; fewer than 3 make no folder without a reason"),
        (2, ("a",), ""),
        (3, ("a",), "a: is excused for being small, and is not"),
        (3, ("b",), "b: is excused, and does not exist"),
    ],
)
def test_sizes_of_folders(count: int, excused: tuple[str, ...], finding: str) -> None:
    """A folder has three to 24 modules; whoever is excused needs it."""
    assert list(folders.sizes(folders.folders(paths("a", *modules(count))), excused)) == [finding][: bool(finding)]


def test_subfolders_are_parts() -> None:
    """A folder of two folders and one module is large enough."""
    found = folders.folders([*paths("a", "x.py"), *paths("a/b", *modules(3)), *paths("a/c", *modules(3))])
    assert list(folders.sizes(found, ())) == []


def test_a_circle_of_includes_is_found() -> None:
    """A file that reaches itself through headers of others is named with the way."""
    texts = {"k/a.c": '#include "a.h"\n#include "b.h"', "k/b.h": '#include "l/c.h"', "k/l/c.c": '#include "../a.h"'}
    found = list(folders.include_circle(Source(Path(path), text) for path, text in texts.items()))
    assert len(found) == 1
    assert found[0].startswith("includes in a circle: k/")
    texts["k/l/c.c"] = "#include <stddef.h>\n"
    assert list(folders.include_circle(Source(Path(path), text) for path, text in texts.items())) == []
