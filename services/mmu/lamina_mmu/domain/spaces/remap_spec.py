"""What a caller asks to resize or to move. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """What is asked for: sizes are whole pages; `target` None leaves the place to the MMU."""

    address: int
    old_size: int
    new_size: int
    may_move: bool
    target: int | None = None
