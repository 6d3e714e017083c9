"""The reverse map: from a frame to the (space, page) pairs whose entries name it. Pure.

One chain of nodes a frame, in columns that grow by doubling; a forked process adds its nodes in one numpy step.

    head[frame] ─▶ node ─▶ node ─▶ 0            node: space id, virtual page number, next node

Chains are kept newest first. A frame of an object has its home (object, index) in the frame table, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lamina_kit.errors import Internal
from lamina_mmu.domain.frames.table import column

_FIRST_CAPACITY = 1024


class ReverseMap:
    """Where each of `frames` frames is mapped."""

    def __init__(self, frames: int) -> None:
        self._heads, self._head = column(frames, np.int32)
        self._free: list[int] = []
        self._used = 1
        self._spaces, self._space = column(_FIRST_CAPACITY, np.int32)
        self._vpns, self._vpn = column(_FIRST_CAPACITY, np.int64)
        self._nexts, self._next = column(_FIRST_CAPACITY, np.int32)

    def _double(self) -> None:
        old = self._spaces, self._vpns, self._nexts
        self._spaces, self._space = column(2 * len(old[0]), np.int32)
        self._vpns, self._vpn = column(2 * len(old[0]), np.int64)
        self._nexts, self._next = column(2 * len(old[0]), np.int32)
        for new, previous in zip((self._spaces, self._vpns, self._nexts), old, strict=True):
            new[: len(previous)] = previous

    def add(self, frame: int, space: int, vpn: int) -> None:
        """Records that page `vpn` of `space` is mapped to `frame`."""
        if self._free:
            node = self._free.pop()
        else:
            node = self._used
            if node == len(self._space):
                self._double()
            self._used += 1
        self._space[node] = space
        self._vpn[node] = vpn
        self._next[node] = self._head[frame]
        self._head[frame] = node

    def add_many(self, frames: Any, space: int, vpns: Any) -> None:
        """Records that each of `vpns` of `space` is mapped to the frame at the same place of `frames`."""
        count = len(frames)
        if len(np.unique(frames)) != count:
            for frame, vpn in zip(frames.tolist(), vpns.tolist(), strict=True):
                self.add(frame, space, vpn)
            return
        while self._used + count > len(self._space):
            self._double()
        nodes = np.arange(self._used, self._used + count, dtype=np.int32)
        self._used += count
        self._spaces[nodes] = space
        self._vpns[nodes] = vpns
        self._nexts[nodes] = self._heads[frames]
        self._heads[frames] = nodes

    def remove(self, frame: int, space: int, vpn: int) -> None:
        """Forgets that page `vpn` of `space` is mapped to `frame`."""
        before, node = 0, self._head[frame]
        while node:
            following = self._next[node]
            if self._vpn[node] == vpn and self._space[node] == space:
                if before:
                    self._next[before] = following
                else:
                    self._head[frame] = following
                self._free.append(node)
                return
            before, node = node, following
        raise Internal(
            f"Frame {frame} is not mapped at page {vpn:#x} of space {space}.",
            reason="REVERSE_MAP_BROKEN",
            next_step="This is a defect of the MMU; report it with its event log.",
        )

    def of(self, frame: int) -> Iterator[tuple[int, int]]:
        """Yields (space id, virtual page number) for each place where `frame` is mapped, newest first."""
        node = self._head[frame]
        while node:
            following = self._next[node]
            yield self._space[node], self._vpn[node]
            node = following

    def count(self, frame: int) -> int:
        """Returns at how many places `frame` is mapped."""
        count, node = 0, self._head[frame]
        while node:
            count += 1
            node = self._next[node]
        return count
