"""How a step of a thread waits: for events, for time, and never past a signal that must be delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lamina_container_runtime.domain.wait import Waiter, WaitQueue, Woken
from lamina_container_runtime.engines.model.effects import Wait
from lamina_container_runtime.engines.model.kernel.abi import Interrupted
from lamina_kit.effects import Step


class Sleeper(Protocol):
    """What a wait asks of the thread that waits."""

    must_die: bool

    def signal_pending(self) -> bool:
        """Returns whether something must be done before it goes on in user mode."""

    def begin_wait(self, waiter: Waiter, channel: str, killable_only: bool) -> None:
        """Notes what it waits for."""

    def end_wait(self) -> None:
        """Notes that it goes on."""


def wait(
    thread: Sleeper,
    queues: Sequence[WaitQueue],
    channel: str,
    timeout_ns: int | None = None,
    *,
    killable_only: bool = False,
    restartable: bool = True,
) -> Step[bool]:
    """Waits until one of the queues is woken; returns False when `timeout_ns` passed first.

    `channel` says what for, in the list of processes. A signal ends the wait with `Interrupted`; with `killable_only`
    only one that ends the thread does.
    """
    if thread.must_die or (not killable_only and thread.signal_pending()):
        raise Interrupted(restartable)
    waiter = Waiter()
    for queue in queues:
        queue.add(waiter)
    thread.begin_wait(waiter, channel, killable_only)
    try:
        yield Wait(waiter, timeout_ns)
    finally:
        thread.end_wait()
        for queue in queues:
            queue.remove(waiter)
    if waiter.reason is Woken.SIGNAL:
        raise Interrupted(restartable)
    return waiter.reason is Woken.EVENT
