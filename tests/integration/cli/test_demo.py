"""The main job."""

from __future__ import annotations

import re
import sys
from typing import Any


def test_the_demo_holds_on_both_clocks(lamina: Any) -> None:
    """In real and in virtual time the demo tells the same nine chapters with as many checks each, and all hold."""
    real, virtual = (
        checks(lamina.run("demo", "--seed", "7", "--clock", clock).stdout) for clock in ("real", "virtual")
    )
    assert len(real) == 9 and sum(real) > 30
    assert virtual == real


def checks(told: str) -> list[int]:
    """Returns how many checks each chapter of a demo has; all of them hold."""
    assert "✗" not in told
    chapters = re.split(r"^\d+\. ", told, flags=re.MULTILINE)[1:]
    counts = [chapter.count("✓") for chapter in chapters]
    last = told.strip().splitlines()[-1].split()
    assert last[:3] == [str(sum(counts)), "of", str(sum(counts))]
    return counts


def test_a_program_runs_without_a_stack(lamina: Any, tmp_path: Any) -> None:
    """`runtime run` starts a private stack when none is up."""
    from lamina_cli.demo import images

    program = tmp_path / "counter"
    program.write_bytes(images.build("counter").elf)
    assert lamina.run("runtime", "run", str(program), "2", "0").stdout.strip()


def test_a_traced_run_needs_a_stack(lamina: Any) -> None:
    """Without a stack nobody could look at the trace later: the command says so and runs nothing."""
    assert "STACK_NOT_UP" in lamina.run("runtime", "run", "--trace", sys.executable, expect=1).stderr
