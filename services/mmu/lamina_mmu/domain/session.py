"""Who a thing belongs to. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Session:
    """The owner's session at one of its starts. What belongs to it is freed when it expires."""

    owner: str = ""
    epoch: int = 0


NOBODY = Session()
"""Of what belongs to no session: it lives until it is deleted."""
