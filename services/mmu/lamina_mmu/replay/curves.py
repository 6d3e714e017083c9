"""Miss-ratio curves: LRU's exactly and for all sizes in the first pass, others by simulation over the spool.

With `sample` n only pages whose hash is 0 modulo n are followed, distances and sizes count n-fold, and misses are
scaled by accesses: spatial sampling. Simulated curves have at most `SIMULATED` points.
Source: Waldspurger et al., Efficient MRC Construction with SHARDS, FAST 2015; Cache Modeling and Optimization using
Miniature Simulations, ATC 2017.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lamina_mmu.replay.distances import Distances
from lamina_mmu.replay.memory.state import Array
from lamina_mmu.replay.outcome import Curve, Outcome
from lamina_mmu.replay.plan import CurvePlan, PolicyPlan, ReplayPlan
from lamina_mmu.replay.policies.catalogue import OPT
from lamina_mmu.replay.run import IdealRun, PolicyRun, log_of
from lamina_mmu.replay.traces.pages import PageNumbers, followed
from lamina_mmu.replay.traces.spool import Spool

SIMULATED = 64
"""Most points of a curve that is simulated."""
LRU = "lru"


class Curves:
    """The curves of one replay."""

    def __init__(self, plan: CurvePlan, warmup: int) -> None:
        self._plan, self._warmup = plan, warmup
        self._distances = Distances() if any(policy.name == LRU for policy in plan.policies) else None
        self._followed = 0

    @property
    def is_simulated(self) -> bool:
        """Whether a curve needs the trace again."""
        return any(policy.name != LRU for policy in self._plan.policies)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        return self._distances.size_bytes if self._distances is not None else 0

    def take(self, words: Array, pages: PageNumbers, position: int) -> None:
        """Takes accesses of the first pass."""
        counted = min(max(self._warmup - position, 0), words.size)
        if self._distances is None:
            return
        if self._plan.sample > 1:
            before = self._sampled(words[:counted], pages)
            words = np.concatenate([before, self._sampled(words[counted:], pages)])
            counted = before.size
        self._followed += words.size - counted
        self._distances.run(words, pages.nodes, counted)

    def _sampled(self, words: Array, pages: PageNumbers) -> Array:
        return followed(words, pages.page_of, self._plan.sample)

    def outcomes(self, spool: Spool | None, pages: PageNumbers, accesses: int) -> Iterator[Outcome | None]:
        """Yields the curves in the order of the plan, with None between pieces of work."""
        counted = max(0, accesses - self._warmup)
        for policy in self._plan.policies:
            if policy.name == LRU:
                yield self._exact(counted, pages.distinct)
            elif spool is not None:
                yield from self._simulated(policy, spool, pages, counted)

    def _sizes(self, pages: int, most: int) -> list[int]:
        """Returns numbers of frames from 1 to `pages`, at most `most` of them (0: all), spread evenly."""
        if pages == 0:
            return []
        if not most or pages <= most:
            return list(range(1, pages + 1))
        return sorted({round(1 + (pages - 1) * index / (most - 1)) for index in range(most)})

    def _exact(self, counted: int, pages: int) -> Curve:
        assert self._distances is not None
        sizes = self._sizes(pages, self._plan.points)
        misses = self._distances.misses()
        steps = np.array(sizes, np.int64) // self._plan.sample
        found = misses[np.minimum(steps, misses.size - 1)] if misses.size else np.zeros(0, np.int64)
        if self._plan.sample > 1:
            found = np.array([self._scaled(int(miss), self._followed, counted) for miss in found], np.int64)
        return Curve(LRU, tuple(sizes), tuple(found.tolist()), counted)

    def _scaled(self, misses: int, followed_accesses: int, counted: int) -> int:
        return misses * counted // followed_accesses if followed_accesses else 0

    def _simulated(
        self, policy: PolicyPlan, spool: Spool, pages: PageNumbers, counted: int
    ) -> Iterator[Outcome | None]:
        sizes = self._sizes(pages.distinct, min(self._plan.points or SIMULATED, SIMULATED))
        misses = []
        for frames in sizes:
            total = seen = 0
            small = max(1, frames // self._plan.sample)
            run = Simulation(policy, small, pages)
            for block, (position, words) in enumerate(spool.forwards()):
                warm = min(max(self._warmup - position, 0), words.size)
                nexts = spool.nexts(block) if policy.name == OPT else words
                for part, counts in ((slice(0, warm), False), (slice(warm, None), True)):
                    kept = np.ones(words[part].size, bool)
                    if self._plan.sample > 1:
                        kept = np.isin(words[part], self._sampled(words[part], pages))
                    chosen = words[part][kept]
                    before = run.misses
                    run.take(chosen, nexts[part][kept], position + (part.start or 0))
                    if counts:
                        total += run.misses - before
                        seen += chosen.size
                yield None
            misses.append(total if self._plan.sample == 1 else self._scaled(total, seen, counted))
        yield Curve(policy.name, tuple(sizes), tuple(misses), counted)


class Simulation:
    """A policy with one number of frames, of which only the misses matter."""

    def __init__(self, policy: PolicyPlan, frames: int, pages: PageNumbers) -> None:
        self._pages = pages
        plan = ReplayPlan((policy,), (frames,))
        self._run: IdealRun | PolicyRun
        if policy.name == OPT:
            self._run = IdealRun(policy, frames, plan, log_of(plan), pages.nodes)
        else:
            self._run = PolicyRun(policy, frames, plan, log_of(plan))
            self._run.make_room(pages.nodes)

    @property
    def misses(self) -> int:
        """Returns the misses so far."""
        return self._run.counts().misses

    def take(self, words: Array, nexts: Array, position: int) -> None:
        """Runs accesses; `nexts` are looked at by OPT alone."""
        self._run.take(words, nexts, self._pages.page_of, position)
