"""Transfers between frames and the slots of an area that lies on a disk: they take time. Pure.

The disk reads and writes the frames itself (DMA). A transfer is one piece: slots in a row, whatever frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lamina_kit.errors import LaminaError


@dataclass(slots=True)
class SwapTransfer:
    """Pages from slot `first` of an area on: written from `frames`, or read into them (without frames: into `data`).

    When it is `done`, `errors` has what is wrong with single slots, and `finished` was called.
    """

    write: bool
    first: int
    count: int
    frames: tuple[int, ...]
    finished: Callable[[SwapTransfer], None]
    errors: dict[int, LaminaError] = field(default_factory=dict)
    data: bytes = b""
    done: bool = False


class DiskStore(Protocol):
    """Keeps pages of 4096 bytes by slot number on a disk of the machine."""

    slots: int
    """How many slots there are."""
    disk: str
    """Name of the disk."""

    def begin(self, transfer: SwapTransfer, /) -> None:
        """Begins a transfer; its `finished` is called later, never before this returns."""


def runs(places: list[int]) -> list[tuple[int, int]]:
    """Returns ascending numbers as (first, count) of those in a row, at most MOST_PAGES each."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][0] + found[-1][1] == place and found[-1][1] < MOST_PAGES:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((place, 1))
    return found


MOST_PAGES = 256
"""Pages of one transfer (1 MiB, what a disk answers inline at most)."""
