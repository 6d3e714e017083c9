"""What ends the slices of KVM cores: KVM counts no instructions, so a slice is a time. Only in real time.

No other module of the engine reads a clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_POLL_S = 0.001
_IDLE_POLLS = 50


class Watch:
    """A thread that ends slices. It sleeps while nothing runs."""

    def __init__(self) -> None:
        self._ends: dict[object, tuple[int, Callable[[], None]]] = {}
        self._busy = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="lamina-kvm-watch", daemon=True)
        self._thread.start()

    def begin(self, who: object, slice_ns: int, expire: Callable[[], None]) -> None:
        """Calls `expire` when `slice_ns` nanoseconds have passed, unless `end` comes first."""
        self._ends[who] = (time.monotonic_ns() + slice_ns, expire)
        if not self._busy.is_set():
            self._busy.set()

    def end(self, who: object) -> None:
        """Forgets a slice."""
        self._ends.pop(who, None)

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._busy.set()
        self._thread.join()

    def _serve(self) -> None:
        idle = 0
        while not self._stopped:
            if not self._ends:
                idle += 1
                if idle > _IDLE_POLLS:
                    self._busy.clear()
                    if not self._ends and not self._stopped:  # both are set before the event is
                        self._busy.wait()
                    idle = 0
                    continue
            else:
                idle = 0
            now = time.monotonic_ns()
            for who, (end, expire) in list(self._ends.items()):
                if end <= now and self._ends.pop(who, None) is not None:
                    expire()
            time.sleep(_POLL_S)
