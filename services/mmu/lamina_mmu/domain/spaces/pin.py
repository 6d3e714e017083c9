"""Pins: ranges of a space that stay in their frames, for DMA, until they are unpinned. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import NOBODY, Session


class Run(NamedTuple):
    """Frames in a row: the address of the first page in its space, the first frame, how many."""

    address: int
    frame: int
    frames: int


@dataclass(slots=True)
class Pin:
    """One pinned range. `space` is the number of the space that it was pinned in; it may be gone by now."""

    space: int
    runs: tuple[Run, ...]
    session: Session = NOBODY
    id: int = 0
    generation: int = 0
    number: int = 0
    closing: bool = False

    @property
    def handle(self) -> Handle:
        """Returns the handle of this pin."""
        return Handle(self.id, self.generation)

    @property
    def frames(self) -> list[int]:
        """Returns the pinned frames, a frame as often as it is pinned."""
        return [frame for run in self.runs for frame in range(run.frame, run.frame + run.frames)]


def runs_of(first_address: int, frames: list[int], page_size: int) -> tuple[Run, ...]:
    """Returns the frames of consecutive pages as runs of consecutive frames."""
    runs: list[Run] = []
    for index, frame in enumerate(frames):
        if runs and runs[-1].frame + runs[-1].frames == frame:
            runs[-1] = runs[-1]._replace(frames=runs[-1].frames + 1)
        else:
            runs.append(Run(first_address + index * page_size, frame, 1))
    return tuple(runs)
