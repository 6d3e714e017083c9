"""The guest programs and their compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lamina_cli.guests.assets import asset
from lamina_cli.guests.programs import compile_program
from lamina_kit.errors import InvalidArgument, NotFound


def test_the_same_sources_give_the_same_bytes() -> None:
    """Compiling is deterministic, so that image digests are."""
    assert compile_program("hello") == compile_program("hello")


def test_a_changed_string_changes_the_program(tmp_path: Path) -> None:
    """The sources are what runs: a string that is changed in a source is in its program."""
    folder = tmp_path / "guests"
    shutil.copytree(asset("guests"), folder)
    source = folder / "hello.c"
    source.write_text(source.read_text().replace("Hello from ", "Greetings of "))
    program = compile_program("hello", folder)
    assert b"Greetings of " in program
    assert b"Hello from " not in program


def test_a_program_behaves_natively_as_it_says(tmp_path: Path) -> None:
    """The counter counts and exits with its code on the kernel of this machine too."""
    program = tmp_path / "counter"
    program.write_bytes(compile_program("counter"))
    program.chmod(0o755)
    done = subprocess.run([program, "2", "7"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1\n2\n", 7)


def test_a_wrong_source_names_its_line(tmp_path: Path) -> None:
    """A source that does not compile is refused with what the compiler says."""
    folder = tmp_path / "guests"
    shutil.copytree(asset("guests"), folder)
    (folder / "wrong.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(InvalidArgument, match=r"wrong\.c:1"):
        compile_program("wrong", folder)


def test_a_program_that_is_not_there_is_not_found() -> None:
    """An unknown program is named."""
    with pytest.raises(NotFound, match=r"nothing\.c"):
        compile_program("nothing")


def test_a_source_may_stand_anywhere(tmp_path: Path) -> None:
    """A program outside guests/ is compiled with the same library."""
    (tmp_path / "mine.c").write_text('#include "lib/lamina.h"\nint main(void) { print("mine\\n"); return 4; }\n')
    assert b"mine" in compile_program("mine", tmp_path)
