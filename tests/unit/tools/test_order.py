"""The order in which the processes of one kind get their files of tests."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import TESTS, longest_first


def items(*names: str) -> list[Any]:
    """Returns what stands for tests, each with its file."""
    return [SimpleNamespace(path=TESTS.parent / name, number=number) for number, name in enumerate(names)]


def test_files_that_take_long_come_first() -> None:
    """Listed files come as they are listed, then those with many tests; the tests of a file keep their order."""
    first, second, *_ = tomllib.loads((TESTS / "long_files.toml").read_text())["files"]
    found = items("tests/a.py", "tests/b.py", second, "tests/b.py", first, first, "tests/c.py")
    longest_first(found)
    assert [(str(item.path.relative_to(TESTS.parent)), item.number) for item in found] == [
        (first, 4), (first, 5), (second, 2), ("tests/b.py", 1), ("tests/b.py", 3), ("tests/a.py", 0), ("tests/c.py", 6),
    ]  # fmt: skip


def test_listed_files_are_there() -> None:
    """Each file in the list exists, once."""
    listed = tomllib.loads((TESTS / "long_files.toml").read_text())["files"]
    assert listed and len(set(listed)) == len(listed)
    assert [name for name in listed if not Path(TESTS.parent / name).is_file()] == []
