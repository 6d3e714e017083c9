"""Sampling of what happens to frames, for the event log: one event a second and subject, with the number it stands for.

Counters are exact; the log only has to show that something happens, and to one frame. An attacker who sends a million
bad frames a second writes one event a second.
"""

from __future__ import annotations

from dataclasses import dataclass

PERIOD_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Notice:
    """Something for the event log: the object (a resource name), the event, the rule behind it, named details."""

    object: str
    event: str
    rule: str
    inputs: tuple[tuple[str, str], ...]


class Sampler:
    """Decides which occurrences become events. Keys are (object, event); there are as many as objects times events."""

    def __init__(self, period_ns: int = PERIOD_NS) -> None:
        self._period_ns = period_ns
        self._last_ns: dict[tuple[str, str], int] = {}
        self._pending: dict[tuple[str, str], int] = {}

    def sample(self, object_name: str, event: str, count: int, now_ns: int) -> int:
        """Note `count` occurrences. Return how many an event written now stands for, or 0 when none is due."""
        key = (object_name, event)
        last = self._last_ns.get(key)
        if last is not None and now_ns - last < self._period_ns:
            self._pending[key] = self._pending.get(key, 0) + count
            return 0
        self._last_ns[key] = now_ns
        return count + self._pending.pop(key, 0)

    def forget(self, object_name: str) -> None:
        """Drop what is kept about an object that is gone."""
        for kept in (self._last_ns, self._pending):
            for key in [key for key in kept if key[0] == object_name]:
                del kept[key]
