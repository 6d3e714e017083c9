"""Making the environment: what is read from pip, when a stamp holds, and how two set-ups take turns."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lamina_tools import bootstrap
from lamina_tools.bootstrap import Progress, SetupFailed

PROJECT = """
[build-system]
requires = ["hatchling"]
[project]
name = "lamina"
dependencies = ["numpy"]
[tool.ruff]
line-length = 120
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a folder with a project file and an environment that only has its settings."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version = 3.11.7\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  Downloading numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl (16.9 MB)", "downloading numpy (16.9 MB)"),
        ("  Downloading idna-3.20-py3-none-any.whl.metadata (8.1 kB)", None),
        ("Installing collected packages: numpy, numba, lamina", "installing 3 packages"),
        ("Collecting numpy>=2.0", None),
    ],
)
def test_progress_tells_what_takes_time(line: str, said: str | None) -> None:
    """Of pip's output, only what takes time is told."""
    assert bootstrap.progress_line(line) == said


def test_a_stamp_is_what_the_shell_computes(root: Path) -> None:
    """The first line of a stamp is the checksum that `run` computes with cat and cksum."""
    bootstrap.write_stamp(root, root / ".venv", "dev")
    script = 'printf "%s %s\\n" "$(cat pyproject.toml .venv/pyvenv.cfg | cksum)" "$PWD"'
    shell = subprocess.run(["sh", "-c", script], cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert bootstrap.read_stamp(root / ".venv", "dev")[0] == shell.strip()


def test_settings_of_tools_require_nothing(root: Path) -> None:
    """A changed lint rule changes the checksum but not what an installation depends on."""
    venv = root / ".venv"
    before = bootstrap.checksum(root, venv), bootstrap.requirements(root, venv)
    (root / "pyproject.toml").write_text(PROJECT.replace("120", "100"))
    assert bootstrap.checksum(root, venv) != before[0]
    assert bootstrap.requirements(root, venv) == before[1]


@pytest.mark.parametrize(("old", "new"), [('["numpy"]', '["numpy>=2"]'), ('["hatchling"]', '["hatchling>=1.27"]')])
def test_dependencies_require_an_installation(root: Path, old: str, new: str) -> None:
    """A changed dependency, of the project or of its build, is a reason to install."""
    before = bootstrap.requirements(root, root / ".venv")
    (root / "pyproject.toml").write_text(PROJECT.replace(old, new))
    assert bootstrap.requirements(root, root / ".venv") != before


def test_another_folder_requires_an_installation(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same files in another folder need an installation: an editable one names its folder."""
    other = tmp_path_factory.mktemp("other")
    (other / "pyproject.toml").write_text(PROJECT)
    assert bootstrap.requirements(other, root / ".venv") != bootstrap.requirements(root, root / ".venv")


def test_a_missing_stamp_has_no_lines(root: Path) -> None:
    """An environment that was made by hand has no stamp, which is no error."""
    assert bootstrap.read_stamp(root / ".venv", "runtime") == []


def test_two_set_ups_take_turns(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second set-up says that it waits, and goes on when the first has finished."""
    order = []
    inside, waiting = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait(10)
        waiting.set()
        with bootstrap.turn(root / ".venv", Progress()):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with bootstrap.turn(root / ".venv", Progress()):
        inside.set()
        waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_lock_of_a_dead_set_up_is_free(root: Path) -> None:
    """A set-up that was killed leaves no lock behind."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from lamina_tools import bootstrap\n"
        "with bootstrap.turn(Path(sys.argv[2]), bootstrap.Progress()): os.kill(os.getpid(), 9)"
    )
    tools = str(Path(bootstrap.__file__).parents[1])
    killed = subprocess.run([sys.executable, "-c", code, tools, str(root / ".venv")])
    assert killed.returncode == -9
    with bootstrap.turn(root / ".venv", Progress()) as descriptor:
        assert descriptor > 0


def test_a_failed_step_says_what_it_printed() -> None:
    """A step that fails is reported with its name and its output."""
    with pytest.raises(SetupFailed, match=r"step one failed:\nno disk"):
        bootstrap.must(["sh", "-c", "echo no disk; exit 3"], "step one")


def test_an_interpreter_that_is_gone_does_not_run(tmp_path: Path) -> None:
    """A dangling link to a removed interpreter is noticed."""
    link = tmp_path / "python"
    link.symlink_to(tmp_path / "gone")
    assert not bootstrap.runs(link, "import sys")
    assert bootstrap.runs(Path(sys.executable), "import sys")


def test_damaged_packages_are_found(tmp_path: Path) -> None:
    """A package that lacks a file which its record names is damaged; a complete one is not."""
    for name, files in (("whole", ["whole.py"]), ("torn", [])):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n")
        for file in files:
            (tmp_path / file).touch()
    only_these = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    command = [sys.executable, "-S", "-c", f"{only_these}{bootstrap.DAMAGED}"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert printed.split() == ["torn==1.0"]


def test_a_finished_set_up_is_not_repeated(root: Path) -> None:
    """Whoever waited for another's set-up finds the stamp and installs nothing."""
    bootstrap.write_stamp(root, root / ".venv", "dev")
    (root / ".venv" / "bin").mkdir()
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert bootstrap.main([str(root), str(root / ".venv"), "dev"]) == 0
    assert not (root / ".venv" / bootstrap.MARK).exists()


def test_a_stamp_without_an_interpreter_is_not_enough(root: Path) -> None:
    """An environment whose interpreter is gone is not ready, whatever its stamp says."""
    bootstrap.write_stamp(root, root / ".venv", "dev")
    assert not bootstrap.is_ready(root, root / ".venv", "dev")
