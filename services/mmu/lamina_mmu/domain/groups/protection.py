"""How far memory groups are protected when something above them is reclaimed. Pure.

A group's `min` or `low` holds as far as its parent's goes. When the children of a group together use more protection
than it has itself, it is shared out by what each uses of its own:

    web  low 60, used 100 ─┬─ a  low 40, uses 60 ─▶ claims 40 ─▶ 40 · 60 / 80 = 30
                           └─ b  low 40, uses 40 ─▶ claims 40 ─▶ 30

The group that is reclaimed is not protected from itself, so its children have all that they ask for. Protection is a
floor here: reclaim stops at it, and takes first from the group that is farthest above its own; Linux scans all in
proportion to what lies above.
Source: Linux mm/page_counter.c (page_counter_calculate_protection, without memory_recursiveprot), cgroup-v2.rst.
"""

from __future__ import annotations

from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.groups.group import Group

UNBOUNDED = 1 << 60
"""Stands for any number of pages."""


def setting(group: Group, low: bool) -> int:
    """Returns the pages that a group asks to be protected: `low` or `min`, which is part of low."""
    return max(group.min_bytes, group.low_bytes if low else 0) // PAGE_SIZE


def effective(target: Group, low: bool) -> dict[int, int]:
    """Returns for each group below `target`, by id, the pages that are protected when `target` is reclaimed."""
    found: dict[int, int] = {}
    todo: list[tuple[Group, int | None]] = [(child, None) for child in target.children]
    while todo:
        group, given = todo.pop(0)
        claimed = min(group.usage, setting(group, low))
        if given is not None:
            siblings = group.parent.children if group.parent is not None else []
            together = sum(min(one.usage, setting(one, low)) for one in siblings)
            if together > given:
                claimed = claimed * given // together
        found[group.id] = claimed
        todo += [(child, claimed) for child in group.children]
    return found


class Allowance:
    """How many pages may be taken from each group below `target` before one on the way has only what is protected."""

    def __init__(self, target: Group, low: bool) -> None:
        self._left = {}
        floors = effective(target, low)
        todo = [(child, child.path) for child in target.children]
        self._paths: dict[int, list[int]] = {target.id: []}
        while todo:
            group, path = todo.pop()
            below = [level.id for level in path if level.id in floors]
            self._paths[group.id] = below
            self._left[group.id] = group.usage - floors[group.id]
            todo += [(child, child.path) for child in group.children]

    def allows(self, group: int) -> bool:
        """Returns whether a page of a group may go."""
        return self.excess(group) > 0

    def excess(self, group: int) -> int:
        """Returns how many pages of a group may go; those of `target` itself all may."""
        return min((self._left[level] for level in self._paths[group]), default=UNBOUNDED)

    def took(self, group: int) -> None:
        """Counts a page of a group that goes."""
        for level in self._paths[group]:
            self._left[level] -= 1
