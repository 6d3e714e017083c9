"""Which core engine this machine runs: the walker core when its self-test passes, else the portable one.

The verdict of the self-test is kept in a file, for one build of the emulator, one Python and one version of our code;
another combination is tested again. There is no silent fallback: the choice and its reason are in `GetHost` and in the
event log, and a configured `walker` that does not pass is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import unicorn

from lamina_hardware.engines.interface import CoreEngine, CorePath
from lamina_hardware.io.emulator import capabilities
from lamina_hardware.io.kvm import abi
from lamina_kit import numba_cache
from lamina_kit.bus import run_page
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import FailedPrecondition

_FILE = "walker-selftest.json"
COMPILED_IN = ("atomics.py", "exit_record.py", "run_page.py")
"""Modules of the memory bus whose functions and numbers are compiled into the cores."""

_LIMIT_S = 300
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the self-test found; `reason` says why, for people. Only a lasting one holds for the next start too."""

    passed: bool
    reason: str
    lasting: bool = True


def choose(wanted: str, state_dir: Path, bus: MemoryBus, *, cores_of: str = "model") -> CorePath:
    """Returns the core path for a configuration of `auto`, `walker` or `portable`; that of KVM cores is `kvm`.

    Raises `FailedPrecondition` `CORE_SELFTEST_FAILED` when `walker` is configured and its self-test fails.
    """
    if cores_of == "kvm":
        return _kvm(bus)
    if wanted == "portable":
        return _portable("configured", bus)
    verdict = examine(state_dir)
    if verdict.passed:
        reason = verdict.reason if wanted == "auto" else f"configured; {verdict.reason}"
        return CorePath("walker", reason, capabilities.WALKER, lambda: _walker(bus), loaded=_has_walker)
    if wanted == "walker":
        raise FailedPrecondition(
            f"The walker core cannot run here: {verdict.reason}.",
            reason="CORE_SELFTEST_FAILED",
            next_step="Set LAMINA_HARDWARE_CORE_PATH=portable, which is slower, or install the pinned unicorn.",
        )
    return _portable(f"the walker core's self-test failed: {verdict.reason}", bus)


def _walker(bus: MemoryBus) -> CoreEngine:
    """Makes a walker core; the first one loads the compiled code, which takes most of a second."""
    from lamina_hardware.io.emulator.walker_core import UnicornCore

    return UnicornCore(bus)


def _has_walker() -> bool:
    """Returns whether the module of the walker core is loaded whole; another thread may be at it."""
    return hasattr(sys.modules.get("lamina_hardware.io.emulator.walker_core"), "UnicornCore")


def _kvm(bus: MemoryBus) -> CorePath:
    from lamina_hardware.io.kvm.core import KvmCore
    from lamina_hardware.io.kvm.vm import KvmHost

    host = KvmHost(bus)
    reason = f"the engine's cores are processors of the host, by {abi.DEVICE}"
    return CorePath("kvm", reason, KvmCore.capabilities, lambda: KvmCore(host), host)


def _portable(reason: str, bus: MemoryBus) -> CorePath:
    from lamina_hardware.io.emulator.portable_core import PortableCore

    return CorePath("portable", reason, PortableCore.capabilities, lambda: PortableCore(bus))


def examine(state_dir: Path) -> Verdict:
    """Returns the verdict of the self-test, from its file if it holds for this machine as it is."""
    key = fingerprint()
    for folder in (_cache_folder(), state_dir):
        known = _load(folder / _FILE, key)
        if known is not None:
            return known
    verdict = run_selftest()
    for folder in (_cache_folder(), state_dir) if verdict.lasting else ():
        if _save(folder / _FILE, key, verdict):
            break
    return verdict


def fingerprint() -> str:
    """Identifies everything that the verdict depends on: the emulator's library, Python, the machine, our code."""
    digest = hashlib.sha256()
    library = sorted((Path(unicorn.__file__).parent / "lib").glob("libunicorn*"))
    own = sorted(Path(__file__).parent.parent.glob("**/*.py"))
    kit = (Path(run_page.__file__).with_name(name) for name in COMPILED_IN)
    for path in (*library, *own, *kit):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    digest.update(f"{sys.version} {platform.machine()} {platform.system()}".encode())
    return digest.hexdigest()


def run_selftest() -> Verdict:
    """Runs the self-test in a process of its own, which may crash."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lamina_hardware.io.emulator.selftest"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(False, f"it did not end within {_LIMIT_S} s", lasting=False)  # it compiles: the machine is busy
    last = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[-1][:_SHOWN]
    if done.returncode == 0 and last == "ok":
        return Verdict(True, f"self-test passed with unicorn {metadata.version('unicorn')}")
    if done.returncode < 0:
        return Verdict(False, f"it was killed by signal {-done.returncode}")
    return Verdict(False, last)


def _cache_folder() -> Path:
    """Returns the folder where compiled code is kept: the verdict belongs with it."""
    chosen = numba_cache.choose()
    return Path(chosen) if chosen else Path(__file__).with_name("__pycache__")


def _load(file: Path, key: str) -> Verdict | None:
    try:
        found = json.loads(file.read_text())
        if found["key"] == key:
            return Verdict(bool(found["passed"]), str(found["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no file, or one that another version or a torn write left: test again
    return None


def _save(file: Path, key: str, verdict: Verdict) -> bool:
    """Stores a verdict; returns whether the folder took it."""
    fresh = file.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"key": key, "passed": verdict.passed, "reason": verdict.reason}))
        os.replace(fresh, file)
    except OSError:
        return False
    return True
