"""What the tests of all layers share: markers by kind, hypothesis profiles, and fixtures that know no layer."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings
from tests.virtual_time import DEFAULT_SEED, is_possible, loop_factories

TESTS = Path(__file__).parent

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)  # --hypothesis-profile thorough, by hand
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that accepts what golden tests see as what they expect."""
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")
    parser.addoption("--loop-seed", type=int, default=DEFAULT_SEED, help="seed of the loops in virtual time")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Runs async tests on the clocks that `virtual_time.py` names."""
    return loop_factories(item, TESTS)


def pytest_configure(config: pytest.Config) -> None:
    """Leaves the order of files to `longest_first`: xdist would begin with those that have the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks every test with its kind, the name of its folder, so that `-m property` selects it."""
    items[:] = [item for item in items if is_possible(item)]
    for item in items:
        if item.path.is_relative_to(TESTS):
            item.add_marker(item.path.relative_to(TESTS).parts[0])
    if hasattr(config, "workerinput"):  # one of several processes
        longest_first(items)


def longest_first(items: list[pytest.Item]) -> None:
    """Sorts tests by file: those of `long_files.toml` as they stand there, then those with many tests.

    Each process takes the next file when it has done one; one that begins late and takes long is waited for.
    """
    listed = tomllib.loads((TESTS / "long_files.toml").read_text())["files"]
    place = {TESTS.parent / name: number for number, name in enumerate(listed)}
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: (place.get(item.path, len(place)), -count[item.path]))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Returns an empty folder with a short path: the path of a UNIX socket has at most 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="lamina-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


class ManualClock:
    """A clock of the kit that stands still until a test moves it; `wall_ns` starts at 2026-01-01."""

    WALL_START_NS = 1_767_225_600 * 10**9
    mode = "stepped"

    def __init__(self) -> None:
        self._now = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ns(self) -> int:
        """Returns nanoseconds since the clock was made."""
        return self._now

    def wall_ns(self) -> int:
        """Returns Unix time in nanoseconds."""
        return self.WALL_START_NS + self._now

    async def sleep_ns(self, ns: int) -> None:
        """Returns once the test has moved the clock by `ns`; at once, but not before others ran, for 0 or less."""
        if ns <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._sleepers.append((self._now + ns, self._count, woken))
        await woken

    async def advance(self, ns: int) -> None:
        """Moves the clock by `ns`; what is ready runs first, and each sleeper that wakes before the next one does."""
        end = self._now + ns
        await self._others()
        while due := sorted(entry for entry in self._sleepers if entry[0] <= end):
            self._sleepers.remove(due[0])
            self._now = due[0][0]
            if not due[0][2].done():
                due[0][2].set_result(None)
            await self._others()
        self._now = end

    async def _others(self) -> None:
        for _ in range(10):  # a woken task may need several turns to reach its next sleep
            await asyncio.sleep(0)


@pytest.fixture
def manual_clock() -> ManualClock:
    """Returns a clock that stands still until the test moves it with `advance`."""
    return ManualClock()


class Eventually(Protocol):
    """Waits until a condition holds; fails the test, saying what it waited for, when it does not in time."""

    async def __call__(self, condition: Callable[[], object], what: str, within: float = 30.0) -> None: ...


@pytest.fixture
def eventually() -> Eventually:
    """Returns the one way in which tests wait for something that happens in another task, thread or process."""

    async def wait(condition: Callable[[], object], what: str, within: float = 30.0) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        while not condition():
            assert loop.time() < end, f"after {within:g} s still not: {what}"
            await asyncio.sleep(0.005)

    return wait


class Golden(Protocol):
    """Compares a text with a golden file beside the test."""

    def __call__(self, text: str, path: Path) -> None: ...


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Returns the comparison with a golden file; `--update-golden` writes the file instead."""

    def compare(text: str, path: Path) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing; --update-golden writes it"
        assert text == path.read_text(), f"{path} differs; --update-golden accepts the difference"

    return compare
