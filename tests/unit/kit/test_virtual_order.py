"""Who goes first on the virtual loop: the seed, among tasks; whoever came first, among plain callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lamina_kit.virtual.loop import VirtualLoop


def history(seed: int, write: Callable[[VirtualLoop, list[Any]], Any]) -> list[Any]:
    """Returns what `write` notes on a loop with a seed."""
    loop = VirtualLoop(seed, strict=True)
    seen: list[Any] = []
    loop.run(write(loop, seen))
    return seen


async def racing(loop: VirtualLoop, seen: list[Any]) -> None:
    """Lets five tasks take turns, three rounds and a timer each."""

    async def work(number: int) -> None:
        for _ in range(3):
            seen.append(number)
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        seen.append(number)

    await asyncio.gather(*(work(number) for number in range(5)))


def test_a_seed_repeats_its_history() -> None:
    """The same seed gives the same interleaving; others give others."""
    assert history(1, racing) == history(1, racing)
    assert len({tuple(history(seed, racing)) for seed in range(20)}) > 15


def test_plain_callbacks_keep_their_order() -> None:
    """Whoever schedules two callbacks may rely on their order, whatever tasks are ready between them."""

    async def write(loop: VirtualLoop, seen: list[Any]) -> None:
        async def noise() -> None:
            await asyncio.sleep(0)

        for number in range(50):
            loop.call_soon(seen.append, number)
            loop.create_task(noise())
        await asyncio.sleep(1)

    for seed in range(10):
        assert history(seed, write) == list(range(50))


def test_cancelling_is_a_plain_callback() -> None:
    """`call_soon(task.cancel)` is no step of the task: it keeps its place before what was scheduled after it."""

    async def write(loop: VirtualLoop, seen: list[Any]) -> None:
        def note(task: asyncio.Task[None], number: int) -> None:
            seen.append((number, task.cancelling()))

        tasks = [loop.create_task(asyncio.sleep(10)) for _ in range(8)]
        await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            loop.call_soon(task.cancel)
            loop.call_soon(note, task, number)
        await asyncio.sleep(1)

    assert history(3, write) == [(number, 1) for number in range(8)]


def test_timers_of_one_instant_follow_the_seed() -> None:
    """Two timers of the same nanosecond have no order of their own."""

    async def write(loop: VirtualLoop, seen: list[Any]) -> None:
        for number in range(6):
            loop.call_at_ns(500, seen.append, number)
        await asyncio.sleep(1)

    assert len({tuple(history(seed, write)) for seed in range(20)}) > 10
    assert history(4, write) == history(4, write)


def test_who_walks_a_set_of_tasks_changes_nothing() -> None:
    """A task group cancels its tasks in the order of a set; the seed's order is the same for every such order."""

    def cancelled_in(order: list[int]) -> list[Any]:
        async def write(loop: VirtualLoop, seen: list[Any]) -> None:
            async def work(number: int) -> None:
                try:
                    await asyncio.sleep(10)
                finally:
                    seen.append(number)

            tasks = [loop.create_task(work(number)) for number in range(6)]
            await asyncio.sleep(0)
            for number in order:
                tasks[number].cancel()
            await asyncio.sleep(1)

        return history(9, write)

    assert cancelled_in([0, 1, 2, 3, 4, 5]) == cancelled_in([5, 3, 1, 0, 2, 4])
