"""What ends the slices of KVM cores: KVM counts no instructions, so a slice is a time. Only in real time.

A core that begins and ends runs tells nobody: a thread looks, each half of a millisecond, who is still in the run in
which it was before. So a slice ends up to a millisecond late, and never early. No other module of the engine reads a
clock.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

_POLL_S = 0.0005
_IDLE_POLLS = 100


class Sliced(Protocol):
    """A core as it is watched."""

    def slice_now(self) -> tuple[object, int, int] | None:
        """Returns what is in the core, which run of that it is, and its slice in ns; None: nothing to be ended."""
        ...

    def pause(self) -> None:
        """Ends the run that is under way, to be continued."""
        ...


@dataclass(slots=True, eq=False)
class _Seen:
    """A core, the run in which it was seen, and since when."""

    core: Sliced
    run: tuple[object, int] | None = None
    since: int = 0


class Watch:
    """A thread that ends slices. It sleeps while nothing runs; who begins a run and finds it asleep wakes it."""

    def __init__(self) -> None:
        self.sleeps = True
        """Set before it looks for the last time: who runs is seen, or sees this."""
        self._seen: list[_Seen] = []
        self._busy = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def add(self, core: Sliced) -> None:
        """Watches a core from now on."""
        self._seen.append(_Seen(core))

    def wake(self) -> None:
        """Has the thread look: something runs."""
        self.sleeps = False
        self._busy.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stopped:
                    self._thread = threading.Thread(target=self._serve, name="lamina-kvm-watch", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._busy.set()
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _serve(self) -> None:
        idle = 0
        while not self._stopped:
            idle = 0 if self.look(time.monotonic_ns()) else idle + 1
            if idle > _IDLE_POLLS:
                idle = 0
                self._busy.clear()
                self.sleeps = True
                if not self.look(time.monotonic_ns()) and not self._stopped:
                    self._busy.wait()
                self.sleeps = False
            time.sleep(_POLL_S)

    def look(self, now: int) -> bool:
        """Ends slices that are over; returns whether anything runs."""
        runs = False
        for seen in self._seen:
            found = seen.core.slice_now()
            if found is None:
                continue
            runs = True
            who, turn, slice_ns = found
            if seen.run != (who, turn):
                seen.run, seen.since = (who, turn), now
            elif now - seen.since >= slice_ns:
                seen.run = None
                seen.core.pause()
        return runs
