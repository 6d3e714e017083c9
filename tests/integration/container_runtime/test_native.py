"""The same programs natively and in a container: output and exit code have to be the same."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
from tests.contract.container_runtime.runtime_stack import Stack, compile_test_program, image_of

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="needs x86-64 Linux as the yardstick"
)
PROGRAMS = [
    ("writer", "3"),
    ("badpointer",),
    ("threads",),
    ("interrupt",),
    ("hog", "256"),
    ("unknown",),
    *[("fault", str(kind)) for kind in range(11)],
]


def natively(program: Path, *arguments: str) -> tuple[int, bytes, bytes]:
    """Runs a program on this machine's kernel; returns exit code as shells have it, output and errors."""
    done = subprocess.run(
        [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False, env={}
    )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
async def test_a_program_behaves_as_natively(stack: Stack, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The container gives what this machine's own kernel gives."""
    program = tmp_path / words[0]
    program.write_bytes(compile_test_program(words[0]))
    program.chmod(0o755)
    image = await stack.import_image(image_of(words[0]))
    ended = await stack.run(image, f"/{words[0]}", *words[1:])
    assert (ended.code, ended.out, ended.err) == natively(program, *words[1:])
