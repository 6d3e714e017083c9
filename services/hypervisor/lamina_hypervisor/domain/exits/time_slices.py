"""Time slices: which vCPU was on which core, when, for how long, and why it left. Pure.

The hardware layer grants cores (by weight, quota and its 10 ms slice) and reports each run. A slice is the chain of
runs of one vCPU on one core until something ends it: the time is used up, the vCPU halts, waits for memory, gives the
rest away, is stopped, or is found on another core.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

SLICE_NS = 10_000_000
"""Longest slice: 10 ms of time on the core."""

KEPT = 4096


class SliceEnd(enum.Enum):
    """Why a slice ended."""

    EXPIRED = "expired"
    HALTED = "halted"
    MEMORY = "memory"
    YIELDED = "yielded"
    STOPPED = "stopped"
    MOVED = "moved"
    OPEN = "open"


@dataclass
class Slice:
    """One slice; times in nanoseconds, `start_ns` since the stack's start."""

    vm: str
    vcpu: int
    core: int
    start_ns: int
    run_ns: int = 0
    wait_ns: int = 0
    exits: int = 0
    instructions: int = 0
    end: SliceEnd = SliceEnd.OPEN


class SliceLedger:
    """The slices of one host, the latest `KEPT` of them, in the order of their starts."""

    def __init__(self, kept: int = KEPT) -> None:
        self._slices: deque[Slice] = deque(maxlen=kept)

    def latest(self, count: int, vm: str = "") -> list[Slice]:
        """Returns the latest `count` slices, of one VM if given, oldest first."""
        chosen = [entry for entry in self._slices if not vm or entry.vm == vm]
        return chosen[-count:] if count else []

    def open(self, entry: Slice) -> None:
        """Adds a slice that begins."""
        self._slices.append(entry)


class SliceTimer:
    """Chains the runs of one vCPU into slices. `count` is the number of slices so far."""

    def __init__(self, ledger: SliceLedger, vm: str, vcpu: int) -> None:
        self._ledger = ledger
        self._vm = vm
        self._vcpu = vcpu
        self._open: Slice | None = None
        self.count = 0

    def ran(self, now_ns: int, core: int, run_ns: int, wait_ns: int, instructions: int) -> None:
        """Accounts for a run that just ended."""
        current = self._open
        if current is not None and current.core != core:
            self.close(SliceEnd.MOVED)
            current = None
        if current is None:
            current = self._open = Slice(self._vm, self._vcpu, core, now_ns - run_ns)
            self._ledger.open(current)
            self.count += 1
        current.run_ns += run_ns
        current.wait_ns += wait_ns
        current.exits += 1
        current.instructions += instructions
        if current.run_ns >= SLICE_NS:
            self.close(SliceEnd.EXPIRED)

    def close(self, end: SliceEnd) -> None:
        """Ends the slice that is open, if one is."""
        if self._open is not None:
            self._open.end = end
            self._open = None
