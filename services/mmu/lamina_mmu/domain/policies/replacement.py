"""Which page leaves RAM: the policy of each group, fed with what happens to frames. Pure.

    frames ──▶ the group's policy (pages by number) ──▶ victims with reasons

A policy that remembers pages beyond their stay in RAM knows them by a number that stays the same; any other knows them
by their frame. Numbers are asked for when they are first needed, because a page gets its place only after its frame.

Groups that are reclaimed together (the children of one at its limit) keep their own orders; of the pages at their heads
the one whose last known access is the oldest goes first. That access is known here for every frame, whatever the
policy: a tick that counts sampled accesses.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from lamina_mmu.domain.frames.table import Use, column
from lamina_mmu.domain.policy import Choice, MayGo, Policy

_OBJECT = Use.OBJECT
FRESH = 1
"""Flag: nobody looked at the page since it was brought in."""
UNNUMBERED = 1 << 61
"""Numbers from here on are given to pages without a place of their own, and to those whose number is taken."""


class Chosen(NamedTuple):
    """A frame that goes: by which policy, why, and how old its last known access is."""

    frame: int
    policy: str
    reason: str
    age: int


class Replacement:
    """The policies of all groups. `make` makes that of a group id, `identify` returns a page's number or 0.

    `uses` says for each frame what it is used for.
    """

    def __init__(self, uses: Sequence[int], make: Callable[[int], Policy], identify: Callable[[int], int]) -> None:
        frames = len(uses)
        self._uses = uses
        _, self._stamp = column(frames, np.int64)
        _, self._arrived = column(frames, np.int64)
        _, self._group = column(frames, np.int32)
        _, self._flags = column(frames, np.uint8)
        self._make, self._identify = make, identify
        self._policies: dict[int, Policy] = {}
        self._pending: dict[int, dict[int, None]] = {}
        self._objects: dict[int, int] = {}
        self._cold: dict[int, dict[int, None]] = {}
        self._numbers: dict[int, int] = {}
        self._frames: dict[int, int] = {}
        self._tick = 0
        self._unnumbered = UNNUMBERED
        self.leaving: dict[int, int] = {}
        """Frames that were chosen and are on their way out, with their groups."""

    # ── what happens to frames ───────────────────────────────────────────────────────────────────────────────────

    def add(self, frame: int, group: int) -> None:
        """Takes up a frame whose page was just brought in."""
        self._tick += 1
        self._stamp[frame] = self._arrived[frame] = self._tick
        self._group[frame] = group
        self._flags[frame] = FRESH
        if self._uses[frame] == _OBJECT:
            self._count_object(group, 1)
        policy = self._policies.get(group)
        if policy is None:
            policy = self.policy(group)
        if policy.remembers:
            self._pending.setdefault(group, {})[frame] = None
        else:
            policy.brought_in(frame)

    def remove(self, frame: int) -> None:
        """Forgets a frame whose page was given up or has left; a frame that it does not know is passed over."""
        stamp = self._stamp[frame]
        if not stamp:
            return
        self._stamp[frame] = 0
        group = self._group[frame]
        if self._uses[frame] == _OBJECT:
            self._count_object(group, -1)
        self._warm(frame)
        if stamp < 0:
            del self.leaving[frame]
            self._forget_number(frame)
            return
        policy = self._policies[group]
        if policy.remembers:
            if self._pending.get(group, {}).pop(frame, 0) is None:
                return
            policy.left(self._numbers[frame])
            self._forget_number(frame)
        else:
            policy.left(frame)

    def accessed(self, frame: int) -> None:
        """Notes that the page was accessed since it was last looked at."""
        if self._stamp[frame] <= 0:
            return
        self._tick += 1
        self._stamp[frame] = self._tick
        policy = self._policies[self._group[frame]]
        self._warm(frame)
        fresh, self._flags[frame] = self._flags[frame], 0
        if not fresh or policy.first_access_counts:
            policy.accessed(self._page(frame, policy))

    def written(self, frame: int) -> None:
        """Notes that the page was written since it was last looked at."""
        if self._stamp[frame] > 0:
            policy = self._policies[self._group[frame]]
            policy.written(self._page(frame, policy))

    def cool(self, frame: int) -> None:
        """Puts a page before all that its group's policy orders, until it is accessed: advice said that it is cold."""
        if self._stamp[frame] > 0:
            self._cold.setdefault(self._group[frame], {})[frame] = None

    def _warm(self, frame: int) -> None:
        cold = self._cold.get(self._group[frame])
        if cold:
            cold.pop(frame, None)

    def moved(self, old: int, new: int) -> None:
        """Takes a page that went from frame `old` to frame `new` as the same page, with its age; its place may go."""
        stamp, arrived, flags = self._stamp[old], self._arrived[old], self._flags[old]
        if stamp <= 0:
            return
        group = self._group[old]
        self.remove(old)
        self.add(new, group)
        self._stamp[new], self._arrived[new], self._flags[new] = stamp, arrived, flags

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def evict(self, group: int, may_go: MayGo, incoming: int = 0) -> Chosen | None:
        """Has the policy of a group pick a frame; it counts as leaving until `remove` or `restored`."""
        cold = next(filter(may_go, self._cold.get(group, ())), 0)
        if cold:
            return self.take(cold, "advice said that it is cold")
        policy = self.policy(group)
        if policy.remembers:
            self._number_all(group)
            frames = self._frames
            choice = policy.evict(lambda page: may_go(frames[page]), incoming)
        else:
            choice = policy.evict(may_go)
        return None if choice is None else self._leaves(self._frame(choice, policy), policy.name, choice.reason)

    def take(self, frame: int, reason: str) -> Chosen:
        """Takes a frame that something else than its policy chose as leaving."""
        group = self._group[frame]
        policy = self._policies[group]
        self._warm(frame)
        policy.left(self._page(frame, policy))
        return self._leaves(frame, policy.name, reason)

    def restored(self, frame: int) -> None:
        """Takes a leaving frame back: its page stays."""
        if self._stamp[frame] >= 0:
            return
        self._stamp[frame] = -self._stamp[frame]
        group = self.leaving.pop(frame)
        policy = self.policy(group)
        if policy.remembers and frame not in self._numbers:
            self._number(frame)
        policy.restored(self._numbers[frame] if policy.remembers else frame)

    def _leaves(self, frame: int, policy: str, reason: str) -> Chosen:
        age = self._tick - self._stamp[frame]
        self._stamp[frame] = -self._stamp[frame]
        self.leaving[frame] = self._group[frame]
        return Chosen(frame, policy, reason, age)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def order(self, group: int) -> Iterator[int]:
        """Returns the frames of a group, the first to go first. Not to be changed while it is read."""
        policy = self.policy(group)
        if policy.remembers:
            self._number_all(group)
        order = map(self._frames.__getitem__, policy.order()) if policy.remembers else iter(policy.order())
        cold = self._cold.get(group)
        return chain(cold, (frame for frame in order if frame not in cold)) if cold else order

    def candidates(self, groups: Sequence[int]) -> Iterator[int]:
        """Returns the frames of several groups: of those at the heads of their orders the oldest access first."""
        held = [group for group in groups if self.population((group,))]
        if len(held) == 1:
            return self.order(held[0])
        return heapq.merge(*(self.order(group) for group in held), key=self._stamp.__getitem__)

    def age(self, frame: int) -> int:
        """Returns how many sampled accesses, of any frames, came after that of `frame`."""
        return self._tick - abs(self._stamp[frame])

    def standing(self, frame: int) -> str:
        """Returns what the policy knows of a frame's page, in words."""
        policy = self._policies[self._group[frame]]
        return policy.standing(self._page(frame, policy))

    def oldest_first(self, frames: Iterable[int]) -> list[int]:
        """Returns those of some frames that a policy orders, by their last known access."""
        stamp = self._stamp
        return sorted([frame for frame in frames if stamp[frame] > 0], key=stamp.__getitem__)

    def knows(self, frame: int) -> bool:
        """Returns whether a policy orders the frame now."""
        return bool(self._stamp[frame] > 0)

    def population(self, groups: Sequence[int]) -> int:
        """Returns how many frames of these groups the policies know."""
        found = 0
        for group in groups:
            policy = self._policies.get(group)
            if policy is not None:
                found += len(policy) + len(self._pending.get(group, ()))
        return found

    def is_mixed(self, group: int) -> bool:
        """Returns whether a group has anonymous pages as well as pages of objects."""
        return 0 < self._objects.get(group, 0) < self.population((group,))

    def _count_object(self, group: int, pages: int) -> None:
        self._objects[group] = self._objects.get(group, 0) + pages

    # ── policies ─────────────────────────────────────────────────────────────────────────────────────────────────

    def policy(self, group: int) -> Policy:
        """Returns the policy of a group."""
        found = self._policies.get(group)
        if found is None:
            found = self._policies[group] = self._make(group)
        return found

    def change(self, group: int) -> None:
        """Gives a group the policy that `make` makes now, from the order in which its pages came in."""
        old = self._policies.get(group)
        if old is None:
            return
        frames = sorted(self.order(group), key=self._arrived.__getitem__)
        for frame in frames:
            self._forget_number(frame)
        policy = self._policies[group] = self._make(group)
        for frame in frames:
            if policy.remembers:
                self._pending.setdefault(group, {})[frame] = None
            else:
                policy.brought_in(frame)

    def resize(self, group: int, capacity: int) -> None:
        """Tells the policy of a group how many frames there are for it."""
        policy = self._policies.get(group)
        if policy is not None and policy.capacity != capacity:
            policy.resize(capacity)

    def tell(self, group: int) -> None:
        """Tells a policy that remembers of the pages that came in since."""
        self._number_all(group)

    def forget_group(self, group: int) -> None:
        """Drops the policy of a group that is gone."""
        self._policies.pop(group, None)
        self._pending.pop(group, None)
        self._objects.pop(group, None)
        self._cold.pop(group, None)

    # ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def frame_of(self, page: int) -> int:
        """Returns the frame of a page in RAM that a remembering policy knows by number; 0 without one."""
        return self._frames.get(page, 0)

    def _frame(self, choice: Choice, policy: Policy) -> int:
        return self._frames[choice.page] if policy.remembers else choice.page

    def _page(self, frame: int, policy: Policy) -> int:
        if not policy.remembers:
            return frame
        if frame not in self._numbers:
            self._number_all(self._group[frame])
        return self._numbers[frame]

    def _number_all(self, group: int) -> None:
        """Numbers the pages of a group that came in since, and tells its policy of them."""
        pending = self._pending.pop(group, None)
        if pending:
            policy = self._policies[group]
            for frame in pending:
                self._number(frame)
                policy.brought_in(self._numbers[frame])

    def _number(self, frame: int) -> None:
        number = self._identify(frame)
        if not number or number in self._frames:
            self._unnumbered += 1
            number = self._unnumbered
        self._numbers[frame] = number
        self._frames[number] = frame

    def _forget_number(self, frame: int) -> None:
        number = self._numbers.pop(frame, 0)
        if number:
            del self._frames[number]
