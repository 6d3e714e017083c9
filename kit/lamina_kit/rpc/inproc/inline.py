"""Runs the other end of an in-process call in the step of who waits for it, where the loop is in real time.

A call through the loop costs two of its turns, and a turn costs more than most handlers. So who awaits a call that has
just been made runs its handler's first step there and then, and finds the answer when the handler did not wait itself.
The handler's task is one like any other: it has its own context, is the current task while it runs, can be cancelled,
and once it has waited it goes on in turns of the loop. Who awaits lets others run anyway, so nothing is new to it; and
calls of a server begin in the order in which they were made, so one behind another that waits for its turn waits too.

That nobody starves, all that is run so within one turn of the loop has `LIMIT_S` together; what comes later takes its
turn behind everything that was ready. That no chain of handlers grows the stack without bound, `MAX_DEPTH` of them may
stand inside one another. On a virtual loop a call always takes turns: the seed orders them.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio.tasks import _enter_task, _leave_task
from typing import Any

LIMIT_S = 0.002
"""How long work is run at once before all that is ready has its turn, in seconds."""
MAX_DEPTH = 8
"""How many pieces of work may be run inside one another."""


def is_next(call: Any, calls: dict[Any, None]) -> bool:
    """Returns whether all calls that were made before one have begun; `calls` are a server's, the newest last."""
    newest = reversed(calls)
    if next(newest, None) is not call:
        return False
    before = next(newest, None)
    return before is None or before.started


class Turn:
    """The present turn of an event loop: until when work is run at once in it, and how deep it stands now."""

    __slots__ = ("_depth", "_until")

    def __init__(self) -> None:
        self._depth = 0
        self._until: float | None = None

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Turn | None:
        """Returns the turn of a loop, one object for each; None for a loop that is not one of asyncio's own."""
        found = _TURNS.get(loop)
        if found is None and isinstance(loop, asyncio.BaseEventLoop):
            found = _TURNS[loop] = Turn()
        return found

    def begin(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Says whether work may be run at once; if so, `end` is to be called behind it."""
        if self._depth >= MAX_DEPTH:
            return False
        now = loop.time()
        if self._until is None:
            self._until = now + LIMIT_S
            loop.call_soon(self._over)  # behind all that is ready now
        elif now >= self._until:
            return False
        self._depth += 1
        return True

    def end(self) -> None:
        """Takes note that work has run."""
        self._depth -= 1

    def step(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Runs the first step of a task here and now if it was the last to get ready; else its turn comes anyway.

        Its handle stays where it is, cancelled: the loop may have counted it for the turn that is under way, and other
        threads append behind it.
        """
        ready: Any = vars(loop)["_ready"]
        if not ready:
            return
        handle = ready[-1]
        if getattr(handle._callback, "__self__", None) is not task or not self.begin(loop):
            return
        run, context = handle._callback, handle._context
        handle.cancel()
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)  # one task is current at a time
        try:
            context.run(run)
        finally:
            if outer is not None:
                _enter_task(loop, outer)
            self.end()

    def _over(self) -> None:
        self._until = None


_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = weakref.WeakKeyDictionary()
