"""How faults end, and the record of how they got there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Outcome(IntEnum):
    """How a fault ends; the numbers are those of the contract's `FaultResponse.Outcome`."""

    ZERO_FILLED = 1
    OBJECT_MAPPED = 2
    COPIED = 3
    SWAPPED_IN = 4
    SPURIOUS = 5
    SEGMENTATION_FAULT = 6
    OUT_OF_MEMORY = 7
    BUS_ERROR = 8
    SUPPLIED = 9


REFUSED = (Outcome.SEGMENTATION_FAULT, Outcome.OUT_OF_MEMORY, Outcome.BUS_ERROR)


class FaultStep(NamedTuple):
    """One step: what was done, particulars for people, and when (ns since the stack's start)."""

    step: str
    detail: str
    time_ns: int


class Trail:
    """Collects the steps of one fault. A fault that nobody asked to see the steps of has no trail."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.steps: list[FaultStep] = []

    def add(self, step: str, detail: str) -> None:
        """Appends a step that happened now."""
        self.steps.append(FaultStep(step, detail, self._now_ns()))


@dataclass(slots=True)
class FaultResult:
    """How a fault ended. `frame` and `entry` only when the access is possible now.

    When memory ran out: the name of the group at its limit, and the number of the space to kill (0: there is none).
    `around` pages were mapped beside it; `evicted`: the frame was taken from somebody for it.
    """

    outcome: Outcome
    frame: int = 0
    entry: int = 0
    steps: Sequence[FaultStep] = ()
    limit_group: str = ""
    victim_space: int = 0
    refusal_reason: str = ""
    around: int = 0
    evicted: bool = False

    @property
    def refused(self) -> bool:
        """Returns whether the access is not possible."""
        return self.outcome in REFUSED


@dataclass(frozen=True, slots=True)
class ReclaimResult:
    """What a reclaim pushed out: `pages` left RAM, of which `written` went to swap.

    `busy` pages could not go just then (another operation had them, or a pin came in between): trying again may help.
    """

    pages: int = 0
    written: int = 0
    busy: int = 0
