"""What every Python process of a trial does first: it hands out the mutant for its module, or records executed lines.

`sitecustomize.py`, which `site_folder` writes, calls `start` in the tests' process and in those that it starts. It
imports nothing else of ours, so that a mutant of any module is seen by its first import.
"""

from __future__ import annotations

import atexit
import os
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

MODULE = "LAMINA_MUTANT_MODULE"
"""Variable that names the file of the module that is mutated."""
TEXT = "LAMINA_MUTANT_TEXT"
"""Variable that names the file with the mutant's text. Beside it `SEEN` is made once the mutant was imported."""
SEEN = "seen"
LINES = "LAMINA_MUTATION_LINES"
"""Variable that names the folder into which processes that tests start write the lines that they executed."""
SOURCE = "LAMINA_MUTATION_SOURCE"
"""Variable that names the folder of the code whose lines are recorded."""
CONTEXT = "LAMINA_MUTATION_CONTEXT"
"""Variable that names the test, while one runs."""


def site_folder(scratch: Path) -> Path:
    """Makes the folder that, put on the import path, starts the hook in every process; returns it."""
    folder = scratch / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("from lamina_tools.mutation import hook\n\nhook.start()\n")
    return folder


def start() -> None:
    """Does what the environment says."""
    environment = os.environ
    if MODULE in environment:
        hand_out(environment[MODULE], Path(environment[TEXT]))
    if CONTEXT in environment and LINES in environment:
        record(environment[LINES], environment[SOURCE], environment[CONTEXT])


def hand_out(module: str, text: Path) -> None:
    """Makes imports of the module's file compile the mutant's text; no bytecode of it is read or written."""
    original = SourceFileLoader.get_code
    real = os.path.realpath(module)

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if os.path.realpath(self.path) != real:
            return original(self, fullname)
        (text.parent / SEEN).touch()
        return self.source_to_code(text.read_bytes(), self.path)

    patched: Any = SourceFileLoader
    patched.get_code = get_code


def record(folder: str, source: str, context: str) -> None:
    """Records what this process executes until it ends."""
    import coverage

    recorder = coverage.Coverage(f"{folder}/lines.{os.getpid()}", source=[source], config_file=False, context=context)

    def save() -> None:
        recorder.stop()
        recorder.save()

    recorder.start()
    atexit.register(save)
