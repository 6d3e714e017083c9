"""The cache of compiled functions: which modules take part, and what makes a cache stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_tools import warm

MODULES = {
    "a.walker": "from numba import njit\nfrom a.layout import PRESENT\n",
    "a.layout": "from a import words\nPRESENT = 1\n",
    "a.words": "X = 1\n",
    "a.other": "import a.walker\n",
    "a.talk": "'''This speaks of numba only.'''\n",
    "a.late": "def f():\n    import numba\n",
    "a.loop": "from a.walker import compiled as fast\nfrom a.step import X\n@fast('i64(i64)')\ndef f(x): return x\n",
    "a.named": "from a import walker\n@walker.compiled\ndef f(x): return x\n",
    "a.caller": "from a.walker import compiled\nfrom a.loop import f\n@property\ndef g(x): return compiled\n",
    "a.step": "X = 1\n",
}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """Returns a few modules by name."""
    paths = {name: tmp_path / f"{name}.py" for name in MODULES}
    for name, path in paths.items():
        path.write_text(MODULES[name])
    return paths


def test_modules_that_import_numba_are_compiled(sources: dict[str, Path]) -> None:
    """A module takes part when it imports numba anywhere; one that only names it does not."""
    found = warm.compiled_modules(sources)
    assert {"a.late", "a.walker"} <= set(found)
    assert not {"a.layout", "a.other", "a.talk", "a.words"} & set(found)


def test_modules_that_borrow_a_compiling_decorator_are_compiled(sources: dict[str, Path]) -> None:
    """A module whose functions are decorated by what a module with numba offers takes part; one that calls does not."""
    assert warm.compiled_modules(sources) == ["a.late", "a.loop", "a.named", "a.walker"]
    assert "a.step" in warm.closure(warm.compiled_modules(sources), sources)


def test_all_compiled_policies_of_replays_take_part() -> None:
    """The tree's own compiled modules are found, also those that never name numba."""
    sources = warm.own_sources()
    found = warm.compiled_modules(sources)
    replay = {"lamina_mmu.replay.policies.lru", "lamina_mmu.replay.policies.opt", "lamina_mmu.replay.traces.text"}
    assert replay <= set(found)
    assert {"lamina_hardware.io.emulator.walks.walker", "lamina_hardware.io.emulator.tlb.fill"} <= set(found)


def test_what_they_import_takes_part(sources: dict[str, Path]) -> None:
    """Modules that a compiled one imports, directly or not, take part; those that import it do not."""
    assert warm.closure(["a.walker"], sources) == ["a.layout", "a.walker", "a.words"]


def test_a_changed_constant_makes_the_cache_stale(sources: dict[str, Path]) -> None:
    """A change in an imported module, which numba itself does not notice, names another cache folder."""
    taking_part = warm.closure(["a.walker"], sources)
    before = warm.digest(taking_part, sources)
    sources["a.words"].write_text("X = 2\n")
    assert warm.digest(taking_part, sources) != before


def test_a_change_elsewhere_keeps_the_cache(sources: dict[str, Path]) -> None:
    """A change in a module that does not take part keeps the cache folder."""
    taking_part = warm.closure(["a.walker"], sources)
    before = warm.digest(taking_part, sources)
    sources["a.other"].write_text("X = 2\n")
    assert warm.digest(taking_part, sources) == before


def test_a_module_that_does_not_compile_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A module that cannot be imported is reported and counted, and the others are still compiled."""
    assert warm.compile_all(["lamina_tools.no_such_module", "lamina_tools.tree"]) == 1
    told = capsys.readouterr().err
    assert "no_such_module does not compile: ModuleNotFoundError" in told
    assert "lamina_tools.tree (2 of 2)" in told


def test_old_caches_are_removed(tmp_path: Path) -> None:
    """Only the newest cache folders are kept."""
    import os

    for age in range(5):
        (tmp_path / f"cache{age}").mkdir()
        os.utime(tmp_path / f"cache{age}", (1000 - age, 1000 - age))
    warm.prune(tmp_path, kept=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache0", "cache1"]
