"""What a virtual loop keeps beside its timers: tasks in the order of their making, async generators, errors.

asyncio keeps tasks and generators in sets, whose order differs from run to run; here the order is that of their making.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator
from typing import Any

from lamina_kit.virtual.handles import order_of
from lamina_kit.virtual.outside import NoOutside

_LOG = logging.getLogger(__name__)


class TaskKeeper(NoOutside):
    """The part of an event loop that makes tasks and futures and takes the errors that nobody handled.

    `strict` (tests) ends a run with the first such error; otherwise they are logged.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._tasks_made = 0
        self._generators: weakref.WeakKeyDictionary[AsyncGenerator[Any, Any], None] = weakref.WeakKeyDictionary()
        self._task_factory: Any = None
        self._exception_handler: Any = None
        self._unhandled: BaseException | None = None
        self._closed = self._debug = False

    def is_closed(self) -> bool:
        """Returns whether `close` was called."""
        return self._closed

    # ── tasks and futures ────────────────────────────────────────────────────────────────────────────────────────

    def create_future(self) -> asyncio.Future[Any]:
        """Returns a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Makes a task of a coroutine; tasks are numbered in the order of their making."""
        if self._closed:
            coro.close()
            raise RuntimeError("Event loop is closed")
        if self._task_factory is not None:
            task = self._task_factory(self, coro, **options)
        else:
            task = asyncio.Task(coro, loop=self, **options)
        self._tasks_made = task.order = self._tasks_made + 1
        return task  # type: ignore[no-any-return]

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Returns the tasks that have not ended, in the order in which they were made."""
        return sorted(asyncio.all_tasks(self), key=order_of)

    def set_task_factory(self, factory: Any) -> None:
        """Sets what makes tasks; None for asyncio's."""
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        """Returns what makes tasks, or None."""
        return self._task_factory

    # ── async generators ─────────────────────────────────────────────────────────────────────────────────────────────

    async def shutdown_asyncgens(self) -> None:
        """Closes the async generators that were begun and not ended, oldest first."""
        for generator in list(self._generators):
            try:
                await generator.aclose()
            except Exception as error:
                self.call_exception_handler(
                    {"message": f"closing of {generator!r} failed", "exception": error, "asyncgen": generator}
                )

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators[generator] = None

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._closed:
            self.create_task(generator.aclose())

    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Takes an exception that nobody handled: the handler that was set, or `default_exception_handler`."""
        if self._exception_handler is None:
            self.default_exception_handler(context)
        else:
            self._exception_handler(self, context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Logs it; a strict loop raises the first one from the run that is under way."""
        error = context.get("exception")
        if self._strict and self._unhandled is None:
            self._unhandled = error or RuntimeError(context.get("message", "unhandled exception in the event loop"))
        else:
            _LOG.error(context.get("message", "unhandled exception in the event loop"), exc_info=error)

    def set_exception_handler(self, handler: Any) -> None:
        """Sets `handler(loop, context)`; None for the default."""
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        """Returns the handler that was set, or None."""
        return self._exception_handler

    def get_debug(self) -> bool:
        """Returns whether asyncio's debug mode is on."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        """Turns on what asyncio itself does in debug mode: origins of coroutines that nobody awaits."""
        self._debug = enabled


def describe(task: asyncio.Task[Any]) -> str:
    """Returns a task's name and the line where it waits."""
    coroutine = getattr(task.get_coro(), "__qualname__", "?")
    frames = task.get_stack(limit=1)
    where = f" at {frames[0].f_code.co_filename.rpartition('/')[2]}:{frames[0].f_lineno}" if frames else ""
    return f"{task.get_name()} ({coroutine}{where})"
