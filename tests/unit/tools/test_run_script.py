"""The entry script, with interpreters that only pretend: which one it takes, what it says, what it passes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lamina_tools.tree import ROOT

TOOLS = ("sh", "cat", "cksum", "find", "mkdir", "cp")
BOOTSTRAP = """#!/bin/sh
mkdir -p "$VENV/bin"; echo 'version = 3.11' > "$VENV/pyvenv.cfg"
printf '%s %s\\n' "$(cat "$TREE/pyproject.toml" "$VENV/pyvenv.cfg" | cksum)" "$TREE" > "$VENV/.lamina-$extras"
cp "$TREE/pretended" "$VENV/bin/python"; cp "$TREE/pretended" "$VENV/bin/lamina"
echo "set up with $0" >&2
"""
PRETENDED = """#!/bin/sh
# Stands for the environment's python and lamina: warms without compiling, and shows its arguments.
case "$*" in
*lamina_tools.warm*all) echo "$VENV/numba/x" > "$VENV/.lamina-warm-all"; exit 0 ;;
*lamina_tools.warm*) echo "$VENV/numba/x" > "$VENV/.lamina-warm"; exit 0 ;;
esac
for argument; do printf '<%s>' "$argument"; done; echo " cache=$NUMBA_CACHE_DIR"
"""


class Tree:
    """A tree with the entry script and nothing behind it, in a folder whose name has spaces."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a tree"
        self.bin = folder / "bin"
        self.venv = self.root / ".venv"
        self.bin.mkdir()
        for name in TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        for below in ("kit", "cli", "services"):
            (self.root / below).mkdir(parents=True)
        shutil.copy(ROOT / "run", self.root / "run")
        (self.root / "pyproject.toml").write_text("[project]\n")
        (self.root / "pretended").write_text(PRETENDED)
        (self.root / "pretended").chmod(0o755)

    def interpreter(self, name: str, version: str, *, venv: bool = True) -> None:
        """Puts an interpreter on the path that answers the script's questions, and sets up by pretending."""
        old = version in ("3.9", "3.10")
        lines = [
            "#!/bin/sh",
            'case "$*" in',
            f"*print*) echo {version} ;;",
            f"*version_info*) exit {int(old)} ;;",
            f"*ensurepip*) exit {int(not venv)} ;;",
            "*bootstrap.py*) for extras; do :; done",
            *BOOTSTRAP.replace("#!/bin/sh\n", "").splitlines(),
            ";;",
            "esac",
        ]
        (self.bin / name).write_text("\n".join(lines) + "\n")
        (self.bin / name).chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the script with nothing but this tree's interpreters on the path."""
        tree = {"PATH": str(self.bin), "VENV": str(self.venv), "TREE": str(self.root.resolve()), "HOME": os.devnull}
        command = [str(self.root / "run"), *arguments]
        return subprocess.run(command, env=tree | environment, capture_output=True, text=True, cwd="/")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Returns a tree without any interpreter."""
    return Tree(tmp_path)


def test_help_needs_no_python(tree: Tree) -> None:
    """The help text is there before anything is installed."""
    done = tree.run("help")
    assert done.returncode == 0
    assert "./run demo" in done.stdout


def test_no_word_means_help(tree: Tree) -> None:
    """Without a word the script explains itself."""
    assert tree.run().stdout == tree.run("help").stdout


def test_a_machine_without_python_is_told_what_to_install(tree: Tree) -> None:
    """Without any Python the script fails and names packages of common systems."""
    done = tree.run("demo")
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_an_old_python_is_named(tree: Tree) -> None:
    """A Python that is too old is named with its version."""
    tree.interpreter("python3", "3.9")
    done = tree.run("demo")
    assert done.returncode == 1
    assert "python3 is 3.9" in done.stderr


def test_a_python_without_venv_is_named(tree: Tree) -> None:
    """A Python without its venv module is named, with the package that brings it."""
    tree.interpreter("python3", "3.13", venv=False)
    done = tree.run("demo")
    assert done.returncode == 1
    assert "python3 (3.13) has no venv module" in done.stderr
    assert "python3-venv" in done.stderr


def test_a_newer_python_is_found_beside_an_old_one(tree: Tree) -> None:
    """When python3 is too old, a newer one under its own name is taken."""
    tree.interpreter("python3", "3.10")
    tree.interpreter("python3.12", "3.12")
    done = tree.run("demo")
    assert done.returncode == 0, done.stderr
    assert "python3.12" in done.stderr


def test_a_named_python_is_the_only_candidate(tree: Tree) -> None:
    """LAMINA_PYTHON is not silently replaced by another one when it does not do."""
    tree.interpreter("python3", "3.13")
    tree.interpreter("mine", "3.9")
    done = tree.run("demo", LAMINA_PYTHON="mine")
    assert done.returncode == 1
    assert "mine is 3.9" in done.stderr


def test_arguments_are_passed_on_as_they_are(tree: Tree) -> None:
    """Any other word goes to lamina with its arguments, spaces and all, and with the cache of compiled functions."""
    tree.interpreter("python3", "3.13")
    done = tree.run("runtime", "run", "my file", "*")
    assert done.stdout == f"<runtime><run><my file><*> cache={tree.venv}/numba/x\n"


@pytest.mark.parametrize("word", ["test", "check", "gen", "bench"])
def test_words_of_the_tree_go_to_the_tools(tree: Tree, word: str) -> None:
    """The words for those who change Lamina go to the tools, in an environment with all of them."""
    tree.interpreter("python3", "3.13")
    done = tree.run(word, "--x")
    assert done.stdout.startswith(f"<-m><lamina_tools><{word}><--x>")
    assert (tree.venv / ".lamina-dev").exists()


def test_a_ready_environment_is_not_set_up_again(tree: Tree) -> None:
    """The second run starts at once."""
    tree.interpreter("python3", "3.13")
    assert "set up" in tree.run("demo").stderr
    assert tree.run("demo").stderr == ""


def test_an_environment_for_developers_is_enough_for_users(tree: Tree) -> None:
    """After `test` there is nothing to set up for `demo`."""
    tree.interpreter("python3", "3.13")
    tree.run("test")
    assert tree.run("demo").stderr == ""


def test_a_changed_project_is_set_up_again(tree: Tree) -> None:
    """A change to pyproject.toml is noticed."""
    tree.interpreter("python3", "3.13")
    tree.run("demo")
    (tree.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert "set up" in tree.run("demo").stderr


def test_a_moved_tree_is_set_up_again(tree: Tree) -> None:
    """A tree that was moved is noticed: what is installed names the old folder."""
    tree.interpreter("python3", "3.13")
    tree.run("demo")
    tree.root = tree.root.rename(tree.root.with_name("another tree"))
    tree.venv = tree.root / ".venv"
    assert "set up" in tree.run("demo").stderr


def test_a_changed_source_is_compiled_again(tree: Tree) -> None:
    """A source file that is newer than the stamp makes the script look at the cache of compiled functions."""
    tree.interpreter("python3", "3.13")
    tree.run("demo")
    stamp = tree.venv / ".lamina-warm"
    os.utime(stamp, (1, 1))
    (tree.root / "kit" / "module.py").touch()
    tree.run("demo")
    assert stamp.stat().st_mtime > 1


@pytest.mark.parametrize(
    ("words", "all_of_it"),
    [(("demo",), False), (("mmu", "spaces"), False), (("mmu", "replay", "x"), True), (("test",), True)],
)
def test_what_no_stack_runs_is_compiled_for_those_who_need_it(
    tree: Tree, words: tuple[str, ...], all_of_it: bool
) -> None:
    """A demo does not wait for the compiled replays; a replay and the tests do."""
    tree.interpreter("python3", "3.13")
    tree.run(*words)
    assert (tree.venv / ".lamina-warm-all").exists() == all_of_it
    assert (tree.venv / ".lamina-warm").exists() != all_of_it


def test_the_environment_can_be_made_ready_beforehand(tree: Tree) -> None:
    """`prepare` makes the environment and runs nothing in it; `prepare all` also compiles what tests want."""
    tree.interpreter("python3", "3.13")
    done = tree.run("prepare")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tree.venv / ".lamina-dev").exists() and not (tree.venv / ".lamina-warm-all").exists()
    done = tree.run("prepare", "all")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tree.venv / ".lamina-warm-all").exists()
