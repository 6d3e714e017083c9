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

_running: set[subprocess.Popen[bytes]] = set()


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
    started = subprocess.Popen(
        command(arguments, scratch),
        cwd=ROOT,
        env=environment_of(environment, scratch),
        stdin=subprocess.DEVNULL,
        stdout=told,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_bound,
    )
    _running.add(started)
    return started


def command(arguments: Sequence[str], scratch: Path) -> list[str]:
    """Returns how pytest is called."""
    common = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "lamina_tools.mutation.profile"]
    common += ["--hypothesis-profile", "mutation", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    return [sys.executable, "-m", "pytest", *common, f"--basetemp={scratch / 'tmp'}", *arguments]


def environment_of(more: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Returns the environment: this checkout's code first on the import path, behind what starts the hook."""
    paths = [scratch / "site", Path(hook.__file__).resolve().parents[2], *(ROOT / folder for folder in SOURCE_ROOTS)]
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **os.environ,
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
        **more,
        "PYTHONPATH": os.pathsep.join([*map(str, paths), *inherited]),
    }


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
        _running.discard(running)


def stop_all() -> None:
    """Ends every run, for one who was interrupted: a signal to us does not reach them in their sessions."""
    for running in list(_running):
        stop(running)
