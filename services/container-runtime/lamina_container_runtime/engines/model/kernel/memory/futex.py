"""Futexes: waiting for a word of user memory to change.

A private futex is known by its address space and address. Source: futex(2).
"""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.kernel.abi import Errno
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_kit.effects import Step

Key = tuple[str, int]


class Futexes:
    """The queues of those who wait, by address space and address."""

    def __init__(self) -> None:
        self._queues: dict[Key, list[tuple[WaitQueue, int]]] = {}

    def wait(self, thread: user.Toucher, address: int, expected: int, bits: int, timeout_ns: int | None) -> Step[int]:
        """Waits while the word at `address` is `expected`: EAGAIN when it is not, ETIMEDOUT."""
        word = yield from user.read(thread, address, 4)
        if struct.unpack("<I", word)[0] != expected & 0xFFFFFFFF:
            raise Errno(errno.EAGAIN)
        key = (thread.memory.space.name, address)
        queue = WaitQueue()
        entry = (queue, bits)
        self._queues.setdefault(key, []).append(entry)
        try:
            if not (yield from wait(thread, (queue,), "futex", timeout_ns, restartable=timeout_ns is None)):
                raise Errno(errno.ETIMEDOUT)
        finally:
            for entries in (self._queues.get(key, []), *self._queues.values()):
                if entry in entries:
                    entries.remove(entry)
                    break
            if not self._queues.get(key, True):
                del self._queues[key]
        return 0

    def wake(self, space: str, address: int, count: int, bits: int = 0xFFFFFFFF) -> int:
        """Wakes up to `count` waiters of an address whose bits match; returns how many."""
        woken = 0
        for queue, waiting_bits in list(self._queues.get((space, address), [])):
            if woken == count:
                break
            if waiting_bits & bits:
                woken += queue.wake()
        return woken

    def requeue(self, space: str, address: int, wake: int, move: int, target: int) -> int:
        """Wakes some waiters and moves others to another address; returns how many of both."""
        woken = self.wake(space, address, wake)
        waiting = [entry for entry in self._queues.get((space, address), []) if self._still_waits(entry)]
        moved = waiting[:move]
        for entry in moved:
            self._queues[(space, address)].remove(entry)
            self._queues.setdefault((space, target), []).append(entry)
        return woken + len(moved)

    @staticmethod
    def _still_waits(entry: tuple[WaitQueue, int]) -> bool:
        return entry[0].pending > 0
