"""What an event of virtual time costs: a timer and the wakeup of the task that waited for it.

    python bench/stack/virtual_loop.py [--tasks 100] [--sleeps 200] [--rounds 7]

Side by side in one run: the kit's loop with `VirtualClock.sleep_ns` and with `asyncio.sleep`, and asyncio's own loop
whose selector jumps instead of waiting. Absolute figures depend on the machine and on what else runs there; the ratio
is what counts. The aim is at most 9 µs an event on an idle machine: a simulated day may have two million of them. The
last line is a deadline that is set and not needed, which every unary call has.
"""

from __future__ import annotations

import argparse
import asyncio
import selectors
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

AIM_US = 9.0


class Jumping(selectors.SelectSelector):
    """Never waits: moves its loop's time instead."""

    loop: StockLoop

    def select(self, timeout: float | None = None) -> Any:
        """Returns nothing, at once."""
        if timeout:
            self.loop.now += timeout
        return []


class StockLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, jumping from timer to timer."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Returns virtual seconds."""
        return self.now


async def work(tasks: int, sleeps: int, sleep: Callable[[int], Awaitable[None]]) -> None:
    """Lets each task sleep in periods of its own, so that most instants wake one task."""

    async def one(number: int) -> None:
        period = 1_000_000 + number * 1_009
        for _ in range(sleeps):
            await sleep(period)

    await asyncio.gather(*(one(number) for number in range(tasks)))


async def deadlines(count: int) -> None:
    """Sets and cancels timers."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        loop.call_later(30, print).cancel()


def timed(events: int, run: Callable[[Any], object], main: Any) -> float:
    """Returns microseconds an event."""
    start = time.perf_counter()
    run(main)
    return (time.perf_counter() - start) / events * 1e6


def seconds(ns: int) -> Awaitable[None]:
    """Sleeps as asyncio does."""
    return asyncio.sleep(ns / 1e9)


def main(tasks: int, sleeps: int, rounds: int) -> None:
    """Measures and prints."""
    clocked, plain, stock, unused = [], [], [], []
    events = tasks * sleeps
    for seed in range(rounds):
        loop = VirtualLoop(seed)
        clock = VirtualClock(loop)
        clocked.append(timed(events, loop.run, work(tasks, sleeps, clock.sleep_ns)))
        plain.append(timed(events, loop.run, work(tasks, sleeps, seconds)))
        unused.append(timed(events, loop.run, deadlines(events)))
        other = StockLoop()
        stock.append(timed(events, other.run_until_complete, work(tasks, sleeps, seconds)))
        other.close()
    middle = statistics.median
    print(f"virtual, clock.sleep_ns    {middle(clocked):6.2f} µs an event (best {min(clocked):.2f}; aim ≤ {AIM_US:g})")
    print(f"virtual, asyncio.sleep     {middle(plain):6.2f} µs an event (best {min(plain):.2f})")
    print(f"asyncio's loop, jumping    {middle(stock):6.2f} µs an event (best {min(stock):.2f})")
    print(f"ratio                      {middle(clocked) / middle(stock):6.2f} × asyncio's")
    print(f"a deadline not needed      {middle(unused):6.2f} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--sleeps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.tasks, arguments.sleeps, arguments.rounds)
