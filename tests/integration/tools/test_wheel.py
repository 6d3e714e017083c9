"""The wheel holds what runs, and nothing that only builds or tests it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lamina_tools.tree import LAYERS, ROOT, files, module_name, python_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Returns the wheel of this tree."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """The kit, the command line, the layers and the generated code are in the wheel under their import names."""
    names = set(wheel.namelist())
    folders = ["kit", "cli", *(str(layer.folder) for layer in LAYERS)]
    modules = [path for folder in folders for path in python_files(ROOT, folder)]
    modules += [path for path in files(ROOT, "protos/gen") if path.suffix == ".py"]
    expected = {module_name(path): path for path in modules}
    missing = [
        str(path)
        for name, path in expected.items()
        if name and not names & {f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py"}
    ]
    assert missing == []


@pytest.mark.parametrize("folder", ["guests", "examples"])
def test_what_the_command_line_reads_is_in_the_wheel(wheel: zipfile.ZipFile, folder: str) -> None:
    """The guests' sources and the examples travel inside the package of the command line."""
    expected = {f"lamina_cli/data/{path.as_posix()}" for path in files(ROOT, folder)}
    assert expected
    assert expected <= set(wheel.namelist())


def test_nothing_else_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """Tools, tests, contracts' sources and pages are not in the wheel."""
    packages = {"lamina", "lamina_kit", "lamina_net", "lamina_cli", *(layer.package for layer in LAYERS)}
    tops = {Path(name).parts[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} <= packages
    assert [name for name in wheel.namelist() if name.endswith((".proto", ".pyc"))] == []


def test_generated_code_is_marked_as_typed(wheel: zipfile.ZipFile) -> None:
    """Each package of generated code that holds modules carries the mark that type checkers look for."""
    names = set(wheel.namelist())
    folders = {str(Path(name).parent) for name in names if name.startswith("lamina/") and name.endswith("_pb2.py")}
    assert folders
    assert {f"{folder}/py.typed" for folder in folders} <= names


def test_the_wheel_names_its_services_and_engines(wheel: zipfile.ZipFile) -> None:
    """The entry points by which the command line finds services and engines are in the wheel's metadata."""
    (path,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(path).decode()
    assert "lamina = lamina_cli.main:main" in text
    for layer in LAYERS:
        assert f"{layer.name} = {layer.package}.server:build" in text
        assert f"[lamina.engines.{layer.package.removeprefix('lamina_')}]" in text
