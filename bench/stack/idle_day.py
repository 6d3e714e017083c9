"""What a simulated day of a stack costs in which nothing happens: loop events and seconds of the machine.

    python bench/stack/idle_day.py [--hosts 10] [--days 1] [--who]

Nothing is asked of the stack during the day. What still happens is periodic work; `--who` names the coroutines and
callbacks that ran, most frequent first. The aim for ten idle hosts: under 10 s and under
200,000 events. The events are a fact of the program, the seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextvars
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVarTuple

from lamina_cli.stack.embedded import Settings, private_stack
from lamina_kit.telemetry.log import configure
from lamina_kit.virtual.loop import VirtualLoop

Ts = TypeVarTuple("Ts")
DAY_NS = 86_400 * 10**9
AIM_EVENTS, AIM_S = 200_000, 10.0


class Watched(VirtualLoop):
    """A loop that counts who is called."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.who: collections.Counter[str] = collections.Counter()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Counts and schedules."""
        self.who[described(callback)] += 1
        return super().call_soon(callback, *args, context=context)

    def _at(self, when_ns: Any, callback: Any, args: Any, context: Any) -> Any:
        self.who["timer " + described(callback)] += 1
        return super()._at(when_ns, callback, args, context)


def described(callback: Any) -> str:
    """Returns whose callback it is: a task's coroutine, or a function."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coroutine: Any = owner.get_coro()
        frame = getattr(coroutine, "cr_frame", None)
        return f"task {coroutine.__qualname__} {frame.f_code.co_filename.rpartition('/')[2] if frame else ''}"
    return str(getattr(callback, "__qualname__", callback))


async def main(loop: VirtualLoop, hosts: int, days: float) -> None:
    """Starts the stack, lets a minute pass so that it settles, then the days."""
    start = time.perf_counter()
    async with private_stack(Settings(seed=1, clock="virtual", hosts=hosts)):
        await asyncio.sleep(60)
        started = time.perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(
            f"{hosts} hosts up        {started - start:8.2f} s, {loop.callbacks} events, {memory} MiB of memory at most"
        )
        before, begin = loop.callbacks, loop.now_ns
        if isinstance(loop, Watched):
            loop.who.clear()
        await asyncio.sleep(days * DAY_NS / 1e9)
        took, events = time.perf_counter() - started, loop.callbacks - before
        assert loop.now_ns - begin >= days * DAY_NS
        print(f"{days:g} idle days       {took:8.2f} s of the machine (aim ≤ {AIM_S:g} for ten hosts and one day)")
        print(f"loop events        {events:8d} (aim ≤ {AIM_EVENTS}), {took / max(events, 1) * 1e6:.1f} µs each")
        if isinstance(loop, Watched):
            for name, count in loop.who.most_common(25):
                print(f"{count:10d} {name}")


if __name__ == "__main__":
    configure(level="warning")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--who", action="store_true", help="name what ran")
    arguments = parser.parse_args()
    chosen = Watched(1) if arguments.who else VirtualLoop(1)
    sys.exit(chosen.run(main(chosen, arguments.hosts, arguments.days)))
