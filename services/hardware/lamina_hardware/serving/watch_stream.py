"""One `Hosts.WatchMachine` stream: the present state, then news."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from lamina.hardware.v1 import topology_pb2 as pb

from lamina_hardware.convert import events as convert_events

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine


async def watch(machine: Machine, after: int) -> AsyncIterator[pb.MachineEvent]:
    """Yields what was so (or, with `after`, what came after that number), `current`, and then news as they come.

    Ends with the machine. Raises `OutOfRange` `EVENTS_FORGOTTEN`, at the begin or for a reader that is too slow.
    """
    events, names = machine.events, machine.names
    news = asyncio.Event()
    end = events.listen(news.set)
    try:
        told = events.last
        for found in events.after(after) if after else events.present():
            yield convert_events.event(found, names)
        yield convert_events.current(told, machine.clock.now_ns())
        while machine.is_on:
            for found in events.after(told):
                told = found.sequence
                yield convert_events.event(found, names)
            if events.last == told and machine.is_on:
                news.clear()
                await news.wait()
    finally:
        end()
