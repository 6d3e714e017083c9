"""What is being made and not there yet. Who needs it, or wants it gone, waits until it is, or is known not to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lamina_container_runtime.domain.wait import Waiter, WaitQueue
from lamina_kit.effects import Effect, Step

Wait = Callable[[Waiter, int | None], Effect]


class Creations:
    """The ids of what is being made. `wait` makes the effect by which a step waits."""

    def __init__(self, wait: Any) -> None:
        self._wait: Wait = wait
        self._queues: dict[str, WaitQueue] = {}

    @contextmanager
    def of(self, made: str) -> Iterator[None]:
        """Says that something is being made within the `with` block."""
        self._queues[made] = WaitQueue()
        try:
            yield
        finally:
            self._queues.pop(made).wake()

    def until_made(self, made: str) -> Step[None]:
        """Waits while something is being made; look it up again afterwards."""
        while (queue := self._queues.get(made)) is not None:
            waiter = Waiter()
            queue.add(waiter)
            try:
                yield self._wait(waiter, None)
            finally:
                queue.remove(waiter)

    def __contains__(self, made: str) -> bool:
        return made in self._queues
