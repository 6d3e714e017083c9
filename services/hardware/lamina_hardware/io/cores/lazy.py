"""A core that is made when something runs on it: a host that is idle has none.

A core that was never used holds no translations and no translated code, so there is nothing to forget before that.
Making the first one loads compiled code for most of a second: the run that makes it belongs on a thread where there are
any, and nothing else here waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from lamina_hardware.domain.contexts.counts import NOTHING
from lamina_hardware.domain.paging.tlb import EMPTY, TlbContent
from lamina_hardware.engines.interface import CoreEngine, CorePath, CoreRun, Stopped


class LazyCore:
    """A `CoreEngine` that is made at its first `run`. What it is asked before that it hears once it exists."""

    def __init__(self, path: CorePath) -> None:
        self.path = path.name
        self.capabilities = path.capabilities
        self._make = path.make
        self._loaded = path.loaded
        self._core: CoreEngine | None = None
        self._cancelled = self._paused = False
        self._lock = threading.Lock()  # a run on the core's thread and a pause from the loop may both be the first

    @property
    def is_ready(self) -> bool:
        """See `CoreEngine.is_ready`."""
        return self._core is not None or self._loaded()

    def run(self, work: CoreRun) -> Stopped:
        """See `CoreEngine.run`."""
        if self._core is None:
            core = self._make()
            with self._lock:
                if self._paused:
                    core.pause()
                if self._cancelled:
                    core.cancel()
                self._core = core
            self.run = core.run  # type: ignore[method-assign]  # from here on there is nothing in between
            self.counters = core.counters  # type: ignore[method-assign]
        return self._core.run(work)

    def cancel(self) -> None:
        """See `CoreEngine.cancel`."""
        with self._lock:
            self._cancelled = True
        if self._core is not None:
            self._core.cancel()

    def relent(self) -> None:
        """See `CoreEngine.relent`."""
        with self._lock:
            self._cancelled = False
        if self._core is not None:
            self._core.relent()

    def pause(self) -> None:
        """See `CoreEngine.pause`."""
        with self._lock:
            self._paused = True
        if self._core is not None:
            self._core.pause()

    def holds(self, root: int, eptp: int) -> bool:
        """See `CoreEngine.holds`."""
        return self._core is not None and self._core.holds(root, eptp)

    def tlb(self) -> TlbContent:
        """See `CoreEngine.tlb`."""
        return EMPTY if self._core is None else self._core.tlb()

    def flush(self) -> None:
        """See `CoreEngine.flush`."""
        if self._core is not None:
            self._core.flush()

    def drop_code(self, frames: Iterable[int] | None) -> None:
        """See `CoreEngine.drop_code`."""
        if self._core is not None:
            self._core.drop_code(frames)

    def forget(self, context: int) -> None:
        """See `CoreEngine.forget`."""
        if self._core is not None:
            self._core.forget(context)

    def counters(self) -> Sequence[int]:
        """See `CoreEngine.counters`."""
        return NOTHING if self._core is None else self._core.counters()

    def close(self) -> None:
        """See `CoreEngine.close`."""
        if self._core is not None:
            self._core.close()
