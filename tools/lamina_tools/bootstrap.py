"""Makes the virtual environment that `./run` uses: `python -I bootstrap.py ROOT VENV runtime|dev`.

It runs before anything is installed, so it imports the standard library alone. What it promises:

- it never deletes an environment; one that exists, however it was made, is completed in place;
- two that run at once take turns (a lock that the kernel drops when its holder dies, so that no lock goes stale);
- an interrupted one leaves a mark, and the next one repairs packages that were left half installed;
- the stamp is written last, so that a stamp means a finished environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)
MARK = ".lamina-installing"
EXTRAS = {"runtime": ("runtime",), "dev": ("dev", "runtime")}
"""What is asked for, and the stamps that it earns: the tools of a developer include what the stack needs."""


class SetupFailed(Exception):
    """A step of the set-up failed; the message says which and what to do next."""


class Progress:
    """Prints one line a step, each with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:4.0f} s] {text}", file=sys.stderr, flush=True)


def checksum(root: Path, venv: Path) -> str:
    """Returns the first line of a stamp, as the `ready` function of `run` computes it."""
    content = (root / "pyproject.toml").read_bytes() + (venv / "pyvenv.cfg").read_bytes()
    out = subprocess.run(["cksum"], input=content, stdout=subprocess.PIPE, check=True).stdout
    return f"{out.decode().strip()} {root}"


def requirements(root: Path, venv: Path) -> str:
    """Returns a digest of what an installation depends on.

    It leaves out the settings of tools: a changed lint rule is no reason to install anything.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())
    parts = [project.get("build-system"), project.get("project"), project.get("tool", {}).get("hatch")]
    text = json.dumps(parts, sort_keys=True) + (venv / "pyvenv.cfg").read_text() + str(root)
    return hashlib.sha256(text.encode()).hexdigest()


def read_stamp(venv: Path, name: str) -> list[str]:
    """Returns the lines of a stamp: checksum and requirements; none when there is no such stamp."""
    try:
        return (venv / f".lamina-{name}").read_text().splitlines()
    except FileNotFoundError:
        return []


def write_stamp(root: Path, venv: Path, name: str) -> None:
    """Writes a stamp whole or not at all."""
    target = venv / f".lamina-{name}"
    scratch = target.with_suffix(f".{os.getpid()}")
    scratch.write_text(f"{checksum(root, venv)}\n{requirements(root, venv)}\n")
    scratch.replace(target)


def is_ready(root: Path, venv: Path, extras: str) -> bool:
    """Says whether an environment works and its stamp says that it is finished."""
    if not (venv / "pyvenv.cfg").exists() or read_stamp(venv, extras)[:1] != [checksum(root, venv)]:
        return False
    return runs(venv / "bin" / "python", "import sys")


@contextlib.contextmanager
def turn(venv: Path, progress: Progress) -> Iterator[int]:
    """Waits until no other set-up works on this environment; yields the descriptor that holds the lock.

    Children inherit the descriptor: a pip that outlives a killed parent still holds the lock.
    """
    venv.mkdir(parents=True, exist_ok=True)
    with open(venv / ".lamina-lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another ./run is setting up the same environment: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def make(venv: Path, progress: Progress) -> None:
    """Makes the environment, or completes one whose interpreter or pip is missing."""
    python = venv / "bin" / "python"
    if not runs(python, "import sys"):
        progress.say(f"making a virtual environment with Python {platform.python_version()} in {venv}")
        for link in (venv / "bin").glob("python*"):
            if link.is_symlink() and not link.exists():
                link.unlink()  # the interpreter it named is gone, and venv would keep the dangling link
        must([sys.executable, "-m", "venv", str(venv)], "python -m venv")
    if not runs(python, f"import sys; sys.exit(sys.version_info < {OLDEST})"):
        raise SetupFailed(f"{venv} was made with a Python that is too old; remove that folder and run again")
    if not runs(python, "import pip"):
        progress.say("adding pip to the environment")
        must([str(python), "-m", "ensurepip", "--upgrade", "--default-pip"], "python -m ensurepip")


def runs(python: Path, code: str) -> bool:
    """Says whether an interpreter exists and runs a line of code without an error."""
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def must(command: list[str], name: str) -> None:
    """Runs a command whose output matters only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SetupFailed(f"{name} failed:\n{done.stdout.strip()}")


def progress_line(line: str) -> str | None:
    """Returns what a line of pip's output means to someone who waits, or None when it means nothing to them."""
    if match := re.match(r"\s*Downloading (\S+?)-\S*?\.(?:whl|tar\.gz)\S* \((.+ MB)\)", line):  # small ones are quick
        return f"downloading {match[1].rpartition('/')[2]} ({match[2]})"
    if match := re.match(r"Installing collected packages: (.+)", line):
        return f"installing {match[1].count(',') + 1} packages"
    if match := re.match(r"\s*Installing build dependencies: started", line):
        return "fetching the build tools"
    return None


def pip(venv: Path, root: Path, arguments: list[str], lock: int, progress: Progress) -> None:
    """Runs `pip install` in the root folder and reports its progress; its whole output goes to a log file."""
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off", "--no-input", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    tail: list[str] = []
    with (
        open(venv / ".lamina-install.log", "a") as log,
        subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            tail = [*tail[-19:], line]
            if said := progress_line(line):
                progress.say(said)
    if process.returncode:
        raise SetupFailed(
            f"pip failed:\n{''.join(tail)}The whole output is in {log.name}.\n"
            "If the package registry could not be reached, see to the network or to pip's own configuration and run"
            " again: what was fetched is kept."
        )


def arguments_for(venv: Path, extras: str) -> list[str]:
    """Returns what to tell pip: this project, in place, with the extras.

    Where the build tools are in the environment already they are used, so that no registry is needed.
    """
    isolation = ["--no-build-isolation"] if runs(venv / "bin" / "python", "import hatchling, editables") else []
    return [*isolation, "--editable", ".[dev]" if extras == "dev" else "."]


DAMAGED = """
import csv, importlib.metadata
for found in importlib.metadata.distributions():
    record = [row[0] for row in csv.reader((found.read_text("RECORD") or "").splitlines()) if row]
    lost = [path for path in record if path.endswith((".py", ".so")) and not found.locate_file(path).exists()]
    if found.metadata["Name"] and (lost or not record):
        print(found.metadata["Name"] + "==" + found.version)
"""
"""Prints each package of the environment that lacks files which its own record names."""


def repair(venv: Path, root: Path, lock: int, progress: Progress) -> None:
    """Installs again what an interrupted installation left incomplete."""
    python = str(venv / "bin" / "python")
    found = subprocess.run([python, "-c", DAMAGED], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    damaged = [package for package in found if not package.startswith("lamina==")]
    if damaged:
        progress.say(f"repairing {', '.join(damaged)}")
        pip(venv, root, ["--force-reinstall", "--no-deps", *damaged], lock, progress)


def install(root: Path, venv: Path, extras: str, lock: int, progress: Progress) -> None:
    """Installs the project and what it needs, then stamps the environment."""
    make(venv, progress)
    only_settings_changed = read_stamp(venv, extras)[1:] == [requirements(root, venv)]
    if not only_settings_changed:
        interrupted = (venv / MARK).exists()
        (venv / MARK).touch()
        for name in EXTRAS["dev"]:
            (venv / f".lamina-{name}").unlink(missing_ok=True)  # neither holds while pip is at work
        progress.say(f"installing Lamina and what it needs ({extras}); this happens once and takes about half a minute")
        pip(venv, root, arguments_for(venv, extras), lock, progress)
        if interrupted:
            repair(venv, root, lock, progress)
    for name in EXTRAS[extras]:
        write_stamp(root, venv, name)
    (venv / MARK).unlink(missing_ok=True)
    progress.say("the environment is ready")


def main(arguments: list[str]) -> int:
    """Makes the environment ready; returns 0, or 1 after saying what failed."""
    root, venv, extras = Path(arguments[0]), Path(arguments[1]), arguments[2]
    progress = Progress()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        here = f"{platform.system()} {platform.machine()}"
        progress.say(f"Lamina is made for Linux on x86-64; on {here} parts of it may not run")
    try:
        with turn(venv, progress) as lock:
            if is_ready(root, venv, extras):
                return 0  # the one that we waited for has done it
            install(root, venv, extras, lock, progress)
    except SetupFailed as failure:
        print(f"run: {failure}", file=sys.stderr)
        return 1
    except OSError as failure:
        print(f"run: {failure}. LAMINA_VENV can name another folder for the environment.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run: interrupted; the next ./run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
