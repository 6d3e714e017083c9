"""Traces of pages for comparisons with other simulators: made by seed, and one of a real program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 30_000
REAL = Path(__file__).parent / "data" / "true.lackey.gz"
"""What lackey wrote of the first accesses of a small program."""


def zipf(seed: int, pages: int, power: float, length: int = LENGTH) -> Any:
    """Returns accesses whose pages are as popular as Zipf's law says, scattered over their numbers."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, pages + 1) ** power
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(length))
    return rng.permutation(pages).astype(np.uint64)[np.minimum(ranks, pages - 1)] + np.uint64(1)


def scan(pages: int = 5000) -> Any:
    """Returns passes over pages of which only some are used twice."""
    once = np.arange(1, pages + 1, dtype=np.uint64)
    hot = np.tile(np.arange(1, 101, dtype=np.uint64), 50)
    return np.concatenate([hot, once, hot, once[::2], hot])


def loop(pages: int = 900) -> Any:
    """Returns a loop over pages."""
    return np.tile(np.arange(1, pages + 1, dtype=np.uint64), LENGTH // pages)


def mixed(seed: int = 3) -> Any:
    """Returns a Zipf trace into which a loop is woven."""
    rng = np.random.default_rng(seed)
    looped = np.arange(LENGTH, dtype=np.uint64) % np.uint64(1200) + np.uint64(5000)
    return np.where(rng.random(LENGTH) < 0.6, zipf(seed, 2000, 0.9), looped)


def working_sets(seed: int = 5) -> Any:
    """Returns phases, each of which uses pages of its own and some of the phase before."""
    rng = np.random.default_rng(seed)
    phases = [rng.integers(600 * phase, 600 * phase + 900, 5000) for phase in range(6)]
    return np.concatenate(phases).astype(np.uint64) + np.uint64(1)


TRACES: dict[str, Callable[[], Any]] = {
    "zipf": lambda: zipf(1, 3000, 1.0),
    "flat zipf": lambda: zipf(2, 3000, 0.6),
    "scan": scan,
    "loop": loop,
    "mixed": mixed,
    "working sets": working_sets,
}
SIZES = (20, 137, 600)
