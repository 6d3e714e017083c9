"""What happened to the machine, for those that must know: cores lost, memory that failed, devices. Pure.

Events are numbered from 1 without gaps. The last 4096 are kept, and beside them, of each thing, the event that tells
its present state, for those that come later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from lamina_kit.errors import OutOfRange

MOST_KEPT = 4096


class DeviceNews(IntEnum):
    """What happened to a device; the numbers are the contract's."""

    ADDED = 1
    REMOVED = 2
    FAILED = 3
    RECOVERED = 4
    LINK_UP = 5
    LINK_DOWN = 6


@dataclass(frozen=True, slots=True)
class CoreChange:
    """A core takes no work any more, or works again."""

    core: int
    lost: bool


@dataclass(frozen=True, slots=True)
class MemoryFailure:
    """Memory failed: `size` bytes at `address`; `count` errors in this frame since the start."""

    address: int
    size: int
    corrected: bool
    count: int


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """Something happened to a device, by its id."""

    device: str
    change: DeviceNews


News: TypeAlias = CoreChange | MemoryFailure | DeviceChange


@dataclass(frozen=True, slots=True)
class MachineEvent:
    """An event with its number and its time in nanoseconds."""

    sequence: int
    time_ns: int
    news: News


class MachineEvents:
    """The events of one machine."""

    def __init__(self) -> None:
        self.last = 0
        self._kept: deque[MachineEvent] = deque(maxlen=MOST_KEPT)
        self._present: dict[tuple[str, int | str], MachineEvent] = {}
        self._hearers: list[Callable[[], None]] = []

    def note(self, news: News, now_ns: int) -> None:
        """Takes an event in, and tells those that listen that there is news."""
        self.last += 1
        event = MachineEvent(self.last, now_ns, news)
        self._kept.append(event)
        self._remember(event)
        for hear in list(self._hearers):
            hear()

    def present(self) -> list[MachineEvent]:
        """Returns the events that tell the present state, in their order: what is as it always was has none."""
        return sorted(self._present.values(), key=lambda event: event.sequence)

    def after(self, sequence: int) -> list[MachineEvent]:
        """Returns the events after one. Raises `OutOfRange` `EVENTS_FORGOTTEN` when they are not all kept."""
        oldest = self._kept[0].sequence if self._kept else self.last + 1
        if not oldest - 1 <= sequence <= self.last:
            raise OutOfRange(
                f"Events after {sequence} are not kept; there are those of {oldest} to {self.last}.",
                reason="EVENTS_FORGOTTEN",
                next_step="Begin anew with `after_sequence` 0, which tells the present state.",
            )
        return [event for event in self._kept if event.sequence > sequence]

    def listen(self, hear: Callable[[], None]) -> Callable[[], None]:
        """Has `hear` called at each event; returns what ends that."""
        self._hearers.append(hear)
        return lambda: self._hearers.remove(hear)

    def end(self) -> None:
        """Wakes those that listen: there is no more to come."""
        for hear in list(self._hearers):
            hear()

    def _remember(self, event: MachineEvent) -> None:
        news = event.news
        if isinstance(news, CoreChange):
            key: tuple[str, int | str] = ("core", news.core)
            self._present.pop(key, None)
            if news.lost:
                self._present[key] = event
        elif isinstance(news, MemoryFailure):
            self._present["memory", news.address >> 12] = event
        elif news.change is DeviceNews.REMOVED:
            self._present.pop(("device", news.device), None)
            self._present.pop(("link", news.device), None)
        else:
            kind = "link" if news.change in (DeviceNews.LINK_UP, DeviceNews.LINK_DOWN) else "device"
            self._present[kind, news.device] = event
