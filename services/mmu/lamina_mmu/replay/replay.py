"""A replay: one pass over a trace for all policies and sizes, a second one over its spool for what needs the future.

    chunk ─▶ `Trace` ─▶ `touches` ─▶ page numbers ─▶ each `PolicyRun` · LRU distances · `Spool` (only when needed)
    end   ─▶ next uses, backwards ─▶ `Opt` runs and judges of evictions, forwards ─▶ simulated curves ─▶ outcomes

Memory grows with the pages seen and not with the trace. Everything here is a function of the plan and the trace; its
steps are generators that yield after each piece of work, so that whoever drives them can do other things in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lamina_kit.errors import ResourceExhausted
from lamina_mmu.replay.curves import Curves
from lamina_mmu.replay.explain import explanation
from lamina_mmu.replay.memory.state import MAX_NODES, Array
from lamina_mmu.replay.outcome import Outcome, Progress, Result
from lamina_mmu.replay.plan import Format, Limits, ReplayPlan
from lamina_mmu.replay.policies import opt
from lamina_mmu.replay.policies.catalogue import OPT
from lamina_mmu.replay.run import IdealRun, PolicyRun, Run, log_of
from lamina_mmu.replay.traces.accesses import Columns, Trace
from lamina_mmu.replay.traces.pages import PageNumbers
from lamina_mmu.replay.traces.spool import BLOCK, Spool
from lamina_mmu.replay.traces.touches import touches

Steps = Iterator[Progress | None]
"""Work, a piece at a time; a report of progress when one is due."""


class Replay:
    """One replay. `folder` is where its trace lies while the future is needed; `key` makes its hashes unguessable."""

    def __init__(self, plan: ReplayPlan, folder: Path, key: int, limits: Limits | None = None) -> None:
        self._plan, self._limits = plan, limits or Limits()
        self._trace = Trace(plan)
        self._pages = PageNumbers(key)
        self._log = log_of(plan)
        self._runs = {
            (place, size): PolicyRun(policy, frames, plan, self._log)
            for place, policy in enumerate(plan.policies)
            if policy.name != OPT
            for size, frames in enumerate(plan.frames)
        }
        self._curves = Curves(plan.curve, plan.warmup) if plan.curve else None
        simulated = self._curves is not None and self._curves.is_simulated
        needs_future = any(policy.name == OPT for policy in plan.policies) or plan.explain > 0
        self._spool = Spool(folder, self._limits.spool_bytes) if needs_future or simulated else None
        self._position = 0
        self._reported = 0
        self._truncated = False
        self._pages_before = 0
        self._check_memory()

    def close(self) -> None:
        """Gives back what the replay keeps on disk. Idempotent."""
        if self._spool is not None:
            self._spool.close()

    # ── the first pass ───────────────────────────────────────────────────────────────────────────────────────────

    def chunk(self, data: bytes) -> Steps:
        """Takes bytes of the trace as they stand in its file."""
        for columns in self._trace.feed(data):
            yield from self.columns(columns)

    def columns(self, columns: Columns) -> Steps:
        """Takes accesses."""
        for pages, kinds in touches(columns, self._plan.page_shift, self._position):
            warm_left = self._plan.warmup - self._position
            if 0 < warm_left < pages.size:
                yield from self._take(pages[:warm_left], kinds[:warm_left])
                pages, kinds = pages[warm_left:], kinds[warm_left:]
            yield from self._take(pages, kinds)

    def _take(self, pages: Array, kinds: Array) -> Steps:
        if self._position + pages.size > self._limits.accesses:
            raise ResourceExhausted(
                f"The trace has more than {self._limits.accesses} accesses.",
                reason="TRACE_TOO_LONG",
                next_step="Cut it, or replay a sample of its pages.",
            )
        words = self._pages.number(pages, kinds)
        self._check_memory()
        if self._spool is not None:
            self._spool.append(words)
        if self._curves is not None:
            self._curves.take(words, self._pages, self._position)
        for run in self._runs.values():
            run.make_room(self._pages.nodes_room)
            run.take(words, pages, self._pages.page_of, self._position)
            yield None
        self._position += pages.size
        if self._position <= self._plan.warmup:
            self._pages_before = self._pages.distinct
            for run in self._runs.values():
                run.note_warm()
        if self._position - self._reported >= self._plan.progress:
            self._reported = self._position
            yield Progress(self._position, self._trace.bytes_read, self._pages.distinct)

    def _check_memory(self) -> None:
        """REPLAY_TOO_BIG when the state for the pages seen is more than granted."""
        nodes = self._pages.nodes_room
        each = sum(run.size_bytes for run in self._runs.values())
        coming = len(self._runs) * 16 * nodes
        futures = [opt.memory(frames, nodes) for frames in self._plan.frames] if self._spool is not None else [0]
        curves = self._curves.size_bytes if self._curves is not None else 0
        total = max(each, coming) + self._pages.size_bytes + max(futures) + curves
        if total > self._limits.memory_bytes or nodes >= MAX_NODES:
            raise ResourceExhausted(
                f"{len(self._runs)} runs over {self._pages.distinct} pages need {total} bytes; a replay may have "
                f"{self._limits.memory_bytes}.",
                reason="REPLAY_TOO_BIG",
                next_step="Replay fewer policies or sizes at once.",
                needed_bytes=total,
            )

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def takes_columns(self) -> bool:
        """Whether the trace comes as columns, not as bytes of a file."""
        return self._plan.format == Format.COLUMNS

    def end(self, *, complete: bool = True) -> Steps:
        """Ends the trace: TRACE_TRUNCATED when it was not whole, unless a partial replay was asked for.

        `complete`: whoever sends the trace said that this is all.
        """
        for columns in self._trace.end():
            yield from self.columns(columns)
        self._truncated = not complete or self._trace.is_truncated
        if self._truncated and not self._plan.partial:
            raise self._trace.truncated()
        yield Progress(self._position, self._trace.bytes_read, self._pages.distinct)

    def outcomes(self) -> Iterator[Outcome | None]:
        """Yields results in the order of the plan, then explanations, then curves, with None between pieces of work."""
        if self._spool is not None:
            yield from self._look_ahead()
        logs: dict[tuple[int, int], Array] = {}
        for place, policy in enumerate(self._plan.policies):
            for size, frames in enumerate(self._plan.frames):
                run: Run
                if policy.name == OPT:
                    run = ideal = IdealRun(policy, frames, self._plan, self._log, self._pages.nodes)
                    yield from self._ideal(ideal)
                else:
                    run = self._runs.pop((place, size))
                logs[place, size] = run.explained
                yield self._result(run)
        if self._plan.explain:
            for (place, size), log in logs.items():
                yield from self._explain(self._plan.policies[place].name, self._plan.frames[size], log)
        if self._curves is not None:
            yield from self._curves.outcomes(self._spool, self._pages, self._position)

    def _result(self, run: Run) -> Result:
        counted = max(0, self._position - self._plan.warmup)
        pages = self._pages.distinct
        cold = pages - self._pages_before
        return Result(run.policy, run.frames, counted, cold, pages, self._truncated, run.counts())

    def _look_ahead(self) -> Iterator[None]:
        """Finds each access's next use, from the end of the trace to its begin."""
        assert self._spool is not None
        ahead = np.zeros(self._pages.nodes, np.int64)
        for block in range(self._spool.blocks() - 1, -1, -1):
            words = self._spool.words(block)
            nexts = np.empty(words.size, np.int64)
            opt.look_ahead(words, ahead, block * BLOCK, nexts)
            self._spool.put_nexts(block, nexts)
            yield None

    def _ideal(self, run: IdealRun) -> Iterator[None]:
        """Runs OPT over the spool."""
        assert self._spool is not None
        page_of = self._pages.page_of
        for block, (position, words) in enumerate(self._spool.forwards()):
            nexts = self._spool.nexts(block)
            warm = min(max(self._plan.warmup - position, 0), words.size)
            if warm:
                run.take(words[:warm], nexts[:warm], page_of, position)
                run.note_warm()
            run.take(words[warm:], nexts[warm:], page_of, position + warm)
            yield None

    def _explain(self, policy: str, frames: int, log: Array) -> Iterator[Outcome | None]:
        """Sets a run's first evictions beside what OPT would have chosen."""
        assert self._spool is not None
        judge = opt.Judge(frames, self._pages.nodes, log)
        for block, (position, words) in enumerate(self._spool.forwards()):
            if judge.is_done:
                break
            judge.run(words, self._spool.nexts(block), position)
            yield None
        yield explanation(policy, frames, judge.judged, self._pages.page_of)
