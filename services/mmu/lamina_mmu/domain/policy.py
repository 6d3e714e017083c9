"""The port of page replacement: which frame leaves RAM when one is needed. Pure.

The MMU tells the policy what happens to frames, and asks it for candidates. The policy sees accesses only as the
hardware shows them: an A bit that was set some time since it was last cleared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class ReplacementPolicy(Protocol):
    """Orders the frames of each memory group from the first to go to the last.

    Only frames that may leave RAM are known to it: pages of spaces and of objects.
    """

    name: str

    def add(self, frame: int, group: int) -> None:
        """Takes up a frame whose page was just brought in: the last to go."""

    def remove(self, frame: int) -> None:
        """Forgets a frame that left RAM."""

    def accessed(self, frame: int) -> None:
        """Notes that the page was accessed since it was last looked at."""

    def candidates(self, groups: Sequence[int]) -> Iterator[int]:
        """Yields the frames of these groups, first to go first. The order must not be changed while it is read."""

    def age(self, frame: int) -> int:
        """Returns how many sampled accesses of other frames lie behind the last one of `frame`."""

    def population(self, groups: Sequence[int]) -> int:
        """Returns how many frames of these groups it knows."""
