"""The main job."""

from __future__ import annotations

import sys
from typing import Any

import pytest

CHECKS = 38


@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_the_demo_holds(lamina: Any, clock: str) -> None:
    """On both clocks the demo tells the same nine chapters with the same checks, and every one of them holds."""
    done = lamina.run("demo", "--seed", "7", "--clock", clock)
    assert "✗" not in done.stdout
    assert all(f"\n{chapter}. " in done.stdout for chapter in range(1, 10))
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[:3] == [str(CHECKS), "of", str(CHECKS)]


def test_a_program_runs_without_a_stack(lamina: Any, tmp_path: Any) -> None:
    """`runtime run` starts a private stack when none is up."""
    from lamina_cli.demo import images

    program = tmp_path / "counter"
    program.write_bytes(images.build("counter").elf)
    assert lamina.run("runtime", "run", str(program), "2", "0").stdout.strip()


def test_a_traced_run_needs_a_stack(lamina: Any) -> None:
    """Without a stack nobody could look at the trace later: the command says so and runs nothing."""
    assert "STACK_NOT_UP" in lamina.run("runtime", "run", "--trace", sys.executable, expect=1).stderr
