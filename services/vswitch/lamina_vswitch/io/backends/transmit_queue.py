"""The way out through one descriptor of the kernel: frames go at once, or wait until there is room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from lamina_vswitch.io.backends.backend import sorted_out

RETRY_S = 0.001
"""How often a full peer is tried that the kernel does not watch for us: a UNIX datagram socket of somebody else."""

MOST_AT_ONCE = 256
"""Frames that one turn of the loop sends or reads, so that one backend does not hold up the others."""


class Batches(Protocol):
    """Sends many frames with few calls: the plane's wire, once the plane is loaded."""

    def send(self, frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Return the frames that went, those for which there is no room now, and those that failed."""

    def set_waits(self, waits: bool) -> None:
        """Learn whether frames wait, so that none passes them."""


class TransmitQueue:
    """At most `capacity` frames wait. `write` sends one frame or raises `OSError`; `lost` is told of those that failed.

    `watched` says whether the kernel tells when there is room again; `waiting` is told whether frames wait.
    """

    def __init__(
        self,
        descriptor: int,
        capacity: int,
        write: Callable[[bytes], object],
        lost: Callable[[Sequence[bytes]], None],
        *,
        watched: bool = True,
        waiting: Callable[[bool], None] = lambda waits: None,
    ) -> None:
        self._descriptor = descriptor
        self._capacity = capacity
        self._write = write
        self._lost = lost
        self._watched = watched
        self._waiting_changed = waiting
        self._waiting: deque[bytes] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._is_watching = False
        self._batches: Batches | None = None

    @property
    def waits(self) -> int:
        """How many frames wait."""
        return len(self._waiting)

    def use(self, batches: Batches) -> None:
        """Send in batches from now on."""
        self._batches = batches
        batches.set_waits(bool(self._waiting))

    def put_all(self, frames: Sequence[bytes]) -> int:
        """Send frames or have them wait; return how many were taken, as `FrameSink.deliver` promises."""
        taken: list[bytes] = []
        lost: list[bytes] = []
        left = frames
        if self._batches is not None and not self._waiting:
            taken, left, lost = self._batches.send(frames)
        for frame in left:
            (taken if self.put(frame) else lost).append(frame)
        return sorted_out(frames, taken, lost)

    def put(self, frame: bytes) -> bool:
        """Send a frame or have it wait; False: it is lost."""
        if not self._waiting:
            try:
                with contextlib.suppress(BlockingIOError, InterruptedError):  # no room now: it waits
                    self._write(frame)
                    return True
            except OSError:
                return False
        if len(self._waiting) >= self._capacity:
            return False
        self._waiting.append(frame)
        self._wait()
        return True

    def withdraw(self) -> list[bytes]:
        """Return what waits, oldest first, and forget it."""
        frames = list(self._waiting)
        self._waiting.clear()
        self._rest()
        return frames

    def _flush(self) -> None:
        self._retry = None
        for _ in range(MOST_AT_ONCE):
            if not self._waiting:
                break
            try:
                self._write(self._waiting[0])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._lost([self._waiting[0]])
            self._waiting.popleft()
        if self._waiting:
            self._wait()
        else:
            self._rest()

    def _wait(self) -> None:
        self._waiting_changed(True)
        if self._batches is not None:
            self._batches.set_waits(True)
        loop = asyncio.get_running_loop()
        if not self._watched:
            self._retry = self._retry or loop.call_later(RETRY_S, self._flush)
        elif not self._is_watching:
            loop.add_writer(self._descriptor, self._flush)
            self._is_watching = True

    def _rest(self) -> None:
        self._waiting_changed(False)
        if self._batches is not None:
            self._batches.set_waits(False)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._is_watching:
            asyncio.get_running_loop().remove_writer(self._descriptor)
            self._is_watching = False
