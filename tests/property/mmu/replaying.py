"""Runs traces through the replay engine, for tests that compare it with something else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamina_mmu.replay.outcome import Curve, Explanation, Outcome, Result
from lamina_mmu.replay.plan import Limits, PolicyPlan, ReplayPlan
from lamina_mmu.replay.replay import Replay
from lamina_mmu.replay.traces.accesses import NO_KINDS, NO_SIZES, Columns


def plan(names: Sequence[str], frames: Sequence[int], **more: Any) -> ReplayPlan:
    """Returns a plan for pages that are given as they are."""
    return ReplayPlan(tuple(PolicyPlan(name) for name in names), tuple(frames), **{"page_shift": 0, **more})


def replayed(
    wanted: ReplayPlan, pages: Iterable[int], writes: Iterable[bool] = (), batch: int = 0, limits: Limits | None = None
) -> list[Outcome]:
    """Returns what a replay says of a trace of pages, given in batches of `batch` accesses (0: all at once)."""
    addresses = np.array(list(pages), np.uint64)
    kinds = np.array([2 if write else 1 for write in writes], np.uint8) if writes else NO_KINDS
    step = batch or max(1, addresses.size)
    with tempfile.TemporaryDirectory(prefix="lamina-replay-") as folder:
        replay = Replay(wanted, Path(folder), 99, limits)
        try:
            for start in range(0, addresses.size, step):
                part = slice(start, start + step)
                for _ in replay.columns(Columns(addresses[part], kinds[part] if kinds.size else NO_KINDS, NO_SIZES)):
                    pass
            for _ in replay.end():
                pass
            return [outcome for outcome in replay.outcomes() if outcome is not None]
        finally:
            replay.close()


def results(outcomes: Iterable[Outcome]) -> dict[tuple[str, int], Result]:
    """Returns the results by policy and size."""
    return {(one.policy, one.frames): one for one in outcomes if isinstance(one, Result)}


def explanations(outcomes: Iterable[Outcome]) -> dict[tuple[str, int], Explanation]:
    """Returns the explanations by policy and size."""
    return {(one.policy, one.frames): one for one in outcomes if isinstance(one, Explanation)}


def curves(outcomes: Iterable[Outcome]) -> dict[str, Curve]:
    """Returns the curves by policy."""
    return {one.policy: one for one in outcomes if isinstance(one, Curve)}
