"""How pytest is started to record tests or to try a mutant: apart from the checkout's caches, stopped as a whole."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from lamina_tools.mutation import hook
from lamina_tools.tree import ROOT, SOURCE_ROOTS

MOST_BYTES = 8 << 30
"""Memory of its own that a process may have: a mutant that never ends would take all there is."""


class Scratch:
    """A folder for one run, with what starts the hook in it; it goes at the end."""

    def __enter__(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix="lamina-mutant-"))
        hook.site_folder(self._folder)
        return self._folder

    def __exit__(self, *failure: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def pytest(
    arguments: Sequence[str], environment: Mapping[str, str], scratch: Path, told: IO[str] | int
) -> subprocess.Popen[bytes]:
    """Starts pytest in the root folder, in a process group of its own.

    Generated input is the same in every run, is not made smaller when it fails, and is not kept: a run of a mutant
    leaves nothing behind that a later one would try first.
    """
    common = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "lamina_tools.mutation.profile"]
    common += ["--hypothesis-profile", "mutation", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    paths = [scratch / "site", Path(hook.__file__).resolve().parents[2], *(ROOT / folder for folder in SOURCE_ROOTS)]
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *common, f"--basetemp={scratch / 'tmp'}", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
            **environment,
            "PYTHONPATH": os.pathsep.join([*map(str, paths), *inherited]),
        },
        stdin=subprocess.DEVNULL,
        stdout=told,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_bound,
    )


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))


def stop(running: subprocess.Popen[bytes]) -> None:
    """Ends a run with all that it started."""
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        running.wait()
