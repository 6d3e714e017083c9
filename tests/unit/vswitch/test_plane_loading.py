"""Loading the compiled plane: what was never compiled is compiled by a process of its own, which can be ended."""

from __future__ import annotations

import asyncio
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane import loading
from lamina_vswitch.plane.compiled import intake
from lamina_vswitch.plane.loading import PlaneLoader, compile_apart, is_compiled


def test_the_cache_is_known_by_what_numba_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache is whole when it has the last function, and that is not older than a source."""
    compiled: Any = intake.read
    name = compiled._cache._cache_file._index_name
    assert fnmatch(name, loading._LAST)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not is_compiled()
    (tmp_path / "plane_0").mkdir()
    (tmp_path / "plane_0" / name).touch()
    assert is_compiled()
    os.utime(tmp_path / "plane_0" / name, (0, 0))
    assert not is_compiled()


async def test_the_process_that_compiles_ends_with_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """A service that stops meanwhile leaves no process, and does not wait for it."""
    started: list[asyncio.subprocess.Process] = []
    original = asyncio.create_subprocess_exec

    async def starting(*words: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await original(*words, **options))
        return started[-1]

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    waiting = asyncio.create_task(compile_apart())
    await eventually(lambda: bool(started), "the process has begun")
    assert started[0].returncode is None
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert started[0].returncode == -9


async def test_stopping_cancels_whoever_waits_for_the_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """All wait for one loading; `stop` ends it, and them."""
    calls, began = [], asyncio.Event()

    async def compiling() -> None:
        calls.append(1)
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(loading, "_MODULE", "lamina_vswitch.plane.never_loaded")
    monkeypatch.setattr(loading, "is_compiled", lambda: False)
    monkeypatch.setattr(loading, "compile_apart", compiling)
    loader = PlaneLoader(ModelEngine(lambda notice: None), Rng("test"))
    waiting = [asyncio.create_task(loader.load()) for _ in range(2)]
    async with asyncio.timeout(20):
        await began.wait()
    loader.stop()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError] * 2 and calls == [1]
