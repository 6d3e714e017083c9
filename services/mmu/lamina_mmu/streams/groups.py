"""One `WatchGroups` call: events as they come, pressure when it is due."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lamina.mmu.v1 import group_events_pb2 as pb

from lamina_kit.effects import WaitFor
from lamina_mmu.convert import groups
from lamina_mmu.domain.effects import Answer
from lamina_mmu.domain.groups.events import NEWS
from lamina_mmu.host import MmuHost

MOST_EVENTS = 1024
"""Events of one message."""


async def watch_groups(host: MmuHost, request: pb.WatchGroupsRequest) -> AsyncIterator[pb.GroupEventBatch]:
    """Yields events until the watched groups are gone. The first message comes at once, with events or without.

    Nothing ticks: while a watched group waits for memory, and only then, it looks again when its pressure may be due.
    """
    watch = host.engine.watch_groups(*groups.watched(request, host.name))
    try:
        is_first = True
        while True:
            due_ns = host.engine.pressure_due(watch)
            found = host.engine.group_events(watch, MOST_EVENTS)
            if found or is_first:
                is_first = False
                yield pb.GroupEventBatch(events=[groups.event(one, host.names) for one in found])
            elif not host.engine.is_watching(watch):
                return
            else:
                await host.perform(WaitFor(NEWS) if due_ns is None else Answer(NEWS, due_ns))
    finally:
        host.engine.end_group_watch(watch)
