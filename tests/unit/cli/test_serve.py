"""`lamina serve`: the command becomes a layer's process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lamina_cli import main


def _serve(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lamina_cli.main", "serve", *words], capture_output=True, text=True, check=False
    )


def test_flags_are_the_layers_own() -> None:
    """What stands behind the layer goes to its process as it is, help included."""
    done = _serve("mmu", "--help")
    assert done.returncode == 0 and "python -m lamina_mmu" in done.stdout and "--upstream" in done.stdout


def test_the_exit_status_is_the_layers_own() -> None:
    """A flag that the layer does not have ends with its status and its words."""
    done = _serve("vswitch", "--colour")
    assert done.returncode == 2 and "python -m lamina_vswitch" in done.stderr and "--colour" in done.stderr


def test_an_unknown_layer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the layers there are."""
    with pytest.raises(SystemExit) as caught:
        main.main(["serve", "disk"])
    assert caught.value.code == 2
    assert "container-runtime" in capsys.readouterr().err
