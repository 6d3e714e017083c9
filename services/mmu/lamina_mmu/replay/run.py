"""One policy with one number of frames, being replayed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lamina_mmu.replay.memory.state import EVICTIONS, LOG_COUNT, MISSES, WRITE_BACKS, Array, PolicyState
from lamina_mmu.replay.plan import PolicyPlan, ReplayPlan
from lamina_mmu.replay.policies import passes
from lamina_mmu.replay.policies.catalogue import COMPILED, make_room, prepare
from lamina_mmu.replay.policies.opt import Opt
from lamina_mmu.replay.tlb import HITS, MISSES_OF, SECOND_HITS, Tlb
from lamina_mmu.replay.traces.accesses import BATCH


@dataclass(frozen=True)
class Counts:
    """What happened: misses, evictions, write-backs; TLB hits of each level and misses."""

    misses: int = 0
    evictions: int = 0
    write_backs: int = 0
    tlb_hits: int = 0
    tlb_second_hits: int = 0
    tlb_misses: int = 0

    def minus(self, other: Counts) -> Counts:
        """Returns what happened since `other`."""
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] - theirs[name] for name in mine})


class Run(ABC):
    """One run, and what it wrote down. `log` is room for what happens in one batch, shared by all runs.

    `explained` are the first evictions as rows of `passes`: position, page, reason, value.
    """

    def __init__(self, policy: PolicyPlan, frames: int, plan: ReplayPlan, log: Array) -> None:
        self.policy = policy.name
        self.frames = frames
        self._tlb = Tlb(plan.tlb) if plan.tlb else None
        self._wanted = plan.explain
        self._log = log
        self._warm = Counts()
        self.explained: Array = np.zeros((0, 4), np.int64)

    def _note(self, words: Array, pages: Array, page_of: Array, position: int, rows: int) -> None:
        """Takes what the log says of a batch: to the TLB, and to what is explained."""
        if self._tlb is not None:
            self._tlb.run(words, pages, page_of, position, self._log, rows)
        if len(self.explained) < self._wanted and rows:
            evictions = self._log[:rows][self._log[:rows, 1] != passes.FLUSH]
            left = self._wanted - len(self.explained)
            self.explained = np.concatenate([self.explained, evictions[:left]])

    @abstractmethod
    def _totals(self) -> tuple[int, int, int]:
        """Returns misses, evictions and write-backs so far."""

    def _so_far(self) -> Counts:
        tlb = self._tlb.counts if self._tlb else np.zeros(3, np.int64)
        return Counts(*self._totals(), int(tlb[HITS]), int(tlb[SECOND_HITS]), int(tlb[MISSES_OF]))

    def note_warm(self) -> None:
        """Leaves what happened so far out of what is counted."""
        self._warm = self._so_far()

    def counts(self) -> Counts:
        """Returns what is counted."""
        return self._so_far().minus(self._warm)


class PolicyRun(Run):
    """A run of a compiled policy, which knows the past."""

    def __init__(self, policy: PolicyPlan, frames: int, plan: ReplayPlan, log: Array) -> None:
        super().__init__(policy, frames, plan, log)
        self._number = COMPILED[policy.name]
        self._state = PolicyState(frames, plan.table_bits)
        prepare(self._state, policy.name, frames, policy.values)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        tlb = self._tlb.size_bytes if self._tlb else 0
        return int(self._state.size_bytes + self.explained.nbytes + tlb)

    def make_room(self, nodes: int) -> None:
        """Makes room for accesses to nodes below `nodes`."""
        make_room(self._state, self._number, nodes, self.frames)

    def take(self, words: Array, pages: Array, page_of: Array, position: int) -> None:
        """Runs accesses, the first of which is number `position` of the trace, and their pages."""
        state = self._state
        state.set(LOG_COUNT, 0)
        passes.run(self._number, state.address, words, position, self._log)
        self._note(words, pages, page_of, position, state.get(LOG_COUNT))

    def _totals(self) -> tuple[int, int, int]:
        return self._state.get(MISSES), self._state.get(EVICTIONS), self._state.get(WRITE_BACKS)


class IdealRun(Run):
    """A run of OPT, which knows the future."""

    def __init__(self, policy: PolicyPlan, frames: int, plan: ReplayPlan, log: Array, nodes: int) -> None:
        super().__init__(policy, frames, plan, log)
        self._opt = Opt(frames, nodes)

    def take(self, words: Array, nexts: Array, page_of: Array, position: int) -> None:
        """Runs accesses, the first of which is number `position` of the trace, and their next uses."""
        rows = self._opt.run(words, nexts, position, self._log)
        pages = page_of[words >> np.uint32(1)] if self._tlb is not None else page_of
        self._note(words, pages, page_of, position, rows)

    def _totals(self) -> tuple[int, int, int]:
        return self._opt.totals()


def log_of(plan: ReplayPlan) -> Array:
    """Returns room for what one batch of a run may write down; none when nobody reads it."""
    return np.zeros((2 * BATCH if plan.tlb is not None or plan.explain else 0, 4), np.int64)
