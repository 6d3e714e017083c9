"""The queue of one disk: who begins when, and when it ends. Pure; time and timers come from outside.

A transfer waits for its group's turn and limits and for one of `depth` places. Then the medium takes its bytes, one
transfer after the other at the disk's rate, and the latency passes, for all places at once: a disk of depth 32 and
100 µs does at most 320,000 transfers a second however small they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lamina_hardware.domain.disk.counters import DiskCounters
from lamina_hardware.domain.disk.groups import IoGroups
from lamina_hardware.domain.disk.transfer import NotYet, Result, Transfer, TransferFailed

_NS = 1_000_000_000
_BYTE_COST_SHIFT = 4
"""On a disk without a rate 16 bytes count as a nanosecond, so that shares still mean something."""


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Makes it not happen. Idempotent."""
        ...


class Clockwork(Protocol):
    """Time for disks."""

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Calls back once at a time, never before this returns."""
        ...


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a disk is. `rate` in bytes a second, 0 for as fast as it goes."""

    latency_ns: int = 0
    rate: int = 0
    depth: int = 32


class DiskQueue:
    """Transfers of one disk."""

    def __init__(self, name: str, speed: Speed, groups: IoGroups, clockwork: Clockwork) -> None:
        self.name = name
        self.speed = speed
        self.counters = DiskCounters()
        self._groups = groups
        self._clockwork = clockwork
        self._medium_free_ns = 0
        self._under_way: dict[Transfer, Timer] = {}
        self._wakeup: tuple[int, Timer] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return not self.counters.present

    def submit(self, transfer: Transfer) -> None:
        """Has a transfer wait, and begins what may begin."""
        transfer.asked_ns = self._clockwork.now_ns()
        self.counters.came()
        self._groups.queue(transfer, self.name, transfer.asked_ns)
        self.pump()

    def pump(self) -> None:
        """Begins what may begin: after a place became free, a limit or the speed changed."""
        now = self._clockwork.now_ns()
        while len(self._under_way) < self.speed.depth:
            transfer, when = self._groups.choose(self.name, now)
            if transfer is None:
                self._wake_at(when)
                return
            self._begin(transfer, now)

    def fail_all(self, result: Result) -> None:
        """Ends all that waits or is under way, without its work being done."""
        now = self._clockwork.now_ns()
        under_way, self._under_way = self._under_way, {}
        self._medium_free_ns = now  # nobody waits for the bytes of transfers that are over
        for transfer, timer in under_way.items():
            timer.cancel()
            transfer.result, transfer.failed_offset, transfer.done_ns = result, transfer.offset, now
            self._ended(transfer, now)
        for transfer in self._groups.drop(self.name, now):
            transfer.result, transfer.failed_offset, transfer.done_ns = result, transfer.offset, now
            self.counters.ended(transfer, now, began=False)
            self._groups.count_dropped(transfer, self.name, now)
            transfer.ended(transfer)

    def _begin(self, transfer: Transfer, now: int) -> None:
        speed = self.speed
        medium = -(-transfer.moved_bytes * _NS // speed.rate) if speed.rate else 0
        cost = medium + speed.latency_ns // speed.depth or 1 + (transfer.moved_bytes >> _BYTE_COST_SHIFT)
        self._groups.begin(transfer, self.name, cost, now)
        self.counters.began(now)
        self._medium_free_ns = max(now, self._medium_free_ns) + medium
        timer = self._clockwork.call_at(self._medium_free_ns + speed.latency_ns, lambda: self._done(transfer))
        self._under_way[transfer] = timer

    def _done(self, transfer: Transfer) -> None:
        if transfer not in self._under_way:
            return
        try:
            transfer.work()
        except NotYet as later:
            later.then(lambda: self._done(transfer))
            return
        except TransferFailed as failed:
            transfer.result, transfer.failed_offset = failed.result, failed.offset
        self._under_way.pop(transfer, None)
        transfer.done_ns = self._clockwork.now_ns()
        self._ended(transfer, transfer.done_ns)
        self.pump()

    def _ended(self, transfer: Transfer, now: int) -> None:
        self.counters.ended(transfer, now, began=True)
        self._groups.end(transfer, self.name, now)
        transfer.ended(transfer)

    def _wake_at(self, when: int | None) -> None:
        if self._wakeup is not None:
            if when is not None and self._wakeup[0] == when:
                return
            self._wakeup[1].cancel()
            self._wakeup = None
        if when is not None:
            self._wakeup = (when, self._clockwork.call_at(when, self._woken))

    def _woken(self) -> None:
        self._wakeup = None
        self.pump()
