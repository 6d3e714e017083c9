"""The checkout as data."""

from __future__ import annotations

from pathlib import Path

from lamina_tools.tree import files


def test_what_git_keeps_is_no_file_of_the_tree(tmp_path: Path) -> None:
    """`.git` is a folder in a clone and a file in a worktree; neither belongs to the tree."""
    for name, make in (("clone", Path.mkdir), ("worktree", Path.touch)):
        root = tmp_path / name
        root.mkdir()
        make(root / ".git")
        (root / "page.md").touch()
        assert list(files(root)) == [Path("page.md")], name
