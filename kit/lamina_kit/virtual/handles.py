"""What the virtual loop runs, and in which order: handles, and the seeded choice among ready tasks.

A *task's* callback is its first step or its wakeup: which of two ready tasks goes first is nobody's promise, so the
seed decides it. Any other callback is *plain*: whoever schedules two of them may rely on their order, so they keep it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any

_UNORDERED = 1 << 62


class ReadyHandle(asyncio.Handle):
    """A callback that is ready: what `call_soon` returns. Leaner than asyncio's, which keeps where it was made."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: Any, context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        """Prevents the callback from running. Idempotent."""
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # what they hold is not kept


class TimerHandle(asyncio.TimerHandle):
    """A callback at a time: what `call_at` returns. `when_ns` is that time on the loop's clock."""

    __slots__ = ("when_ns",)

    def __init__(
        self, when_ns: int, callback: Callable[..., object], args: tuple[Any, ...], loop: Any, context: Context | None
    ) -> None:
        self.when_ns = when_ns
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._scheduled = False
        self._repr = None
        self._source_traceback = None
        self._when = when_ns / 1e9

    def cancel(self) -> None:
        """Prevents the callback from running. Idempotent."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]
            if self._scheduled:
                self._loop.note_cancelled()


def task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Returns the task whose step or wakeup a handle is; None for a plain callback (`task.cancel` is one)."""
    callback = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if not isinstance(owner, asyncio.Task):
        return None
    name = getattr(callback, "__name__", "step")  # the C implementation's step has no name
    return owner if name.endswith(("step", "wakeup")) else None


def order_of(task: asyncio.Task[Any]) -> int:
    """Returns the number of a task of the virtual loop, in the order in which they were made."""
    number: int = getattr(task, "order", _UNORDERED)
    return number


def permute(batch: list[asyncio.Handle], rng: random.Random) -> None:
    """Lets the seed choose which ready task takes which of the tasks' places in the batch; plain ones stay.

    The tasks are put in the order of their making first: who made them ready may have walked a set.
    """
    tasks = [(order_of(task), at) for at, handle in enumerate(batch) if (task := task_of(handle)) is not None]
    if len(tasks) < 2:
        return
    handles = [batch[at] for _, at in sorted(tasks)]
    rng.shuffle(handles)
    places: Iterator[int] = (at for _, at in tasks)
    for at, handle in zip(places, handles, strict=True):
        batch[at] = handle
