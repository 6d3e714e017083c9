"""How long a process that died stays away before it is started again, and when it is given up. Pure.

Each death that follows another one doubles the pause. A life that has served for a while ends the row: what comes after
it is a new misfortune, not a crash loop.
"""

from __future__ import annotations

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MOST_DEATHS = 10
"""After more deaths in a row the process is given up."""
STEADY_S = 10.0
"""How long a life has to serve to end a row of deaths."""


class Backoff:
    """The row of deaths of one process; `deaths` is its present length."""

    def __init__(self) -> None:
        self.deaths = 0

    def died(self, served_s: float) -> float | None:
        """Returns the pause in seconds after a life that served for `served_s`; None: it is given up."""
        self.deaths = 1 if served_s >= STEADY_S else self.deaths + 1
        if self.deaths > MOST_DEATHS:
            return None
        return float(min(FIRST_PAUSE_S * 2 ** (self.deaths - 1), LONGEST_PAUSE_S))
