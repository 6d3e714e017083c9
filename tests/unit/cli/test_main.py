"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lamina_cli import main


def test_every_word_has_a_module() -> None:
    """Each command's parser can be built."""
    for module, _ in main.COMMANDS:
        word = module.rpartition(".")[2]
        parser = main.build_parser([word])
        assert word in parser.format_help()


def test_help_imports_nothing_heavy() -> None:
    """`lamina --help` loads neither gRPC nor the emulator nor the compiler of the walker."""
    code = (
        "import sys\nfrom lamina_cli.main import build_parser\nbuild_parser(['--help'])\n"
        "print([name for name in ('grpc', 'numpy', 'numba', 'unicorn', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is none ends with status 2 and names the words there are."""
    with pytest.raises(SystemExit) as caught:
        main.main(["dance"])
    assert caught.value.code == 2
    assert "demo" in capsys.readouterr().err


def test_a_command_without_a_stack_says_how_to_start_one(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that needs a stack ends with status 1 and the next step on standard error."""
    monkeypatch.setenv("LAMINA_HOME", str(tmp_path))
    assert main.main(["mmu", "memory"]) == 1
    assert "lamina up" in capsys.readouterr().err
