"""Explanations from judged evictions."""

from __future__ import annotations

from lamina_mmu.replay.memory.state import Array
from lamina_mmu.replay.outcome import Eviction, Explanation
from lamina_mmu.replay.policies.eviction_reasons import words
from lamina_mmu.replay.policies.opt import ACCESS, BEST, BEST_NEXT, CAME, INCOMING, LAST_USE, NEXT_USE, PAGE, VALUE, WHY


def explanation(policy: str, frames: int, judged: Array, page_of: Array) -> Explanation:
    """Returns the rows of a judge with pages for nodes, distances for positions, and reasons in words."""
    evictions = []
    for row in judged.tolist():
        access = row[ACCESS]
        evictions.append(
            Eviction(
                access=access,
                incoming_page=int(page_of[row[INCOMING]]),
                page=int(page_of[row[PAGE]]),
                reason=words(row[WHY], row[VALUE], access, row[CAME], row[LAST_USE]),
                next_use=row[NEXT_USE] - access if row[NEXT_USE] >= 0 else -1,
                best_page=int(page_of[row[BEST]]),
                best_next_use=row[BEST_NEXT] - access if row[BEST_NEXT] >= 0 else -1,
            )
        )
    return Explanation(policy, frames, tuple(evictions))
