"""Streams of posted writes over the counts in run pages."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import pytest

from lamina_hardware.contexts.posted_writes import Posted, PostedWrites
from lamina_hardware.domain.contexts.context import Context, Handle
from lamina_kit.bus import run_page as runpage


class World:
    """Run pages as bytes, what exists, and which contexts the cores are told to watch."""

    def __init__(self, pages: int) -> None:
        self.pages = [bytearray(runpage.PAGE_BYTES) for _ in range(pages)]
        self.contexts = [Context(Handle(n + 1, 1), n, "", f"#{n}", 0, 0, False, False, "", "") for n in range(pages)]
        self.gone: set[int] = set()
        self.watched: set[int] = set()
        self.posted = PostedWrites(cast(Any, self), cast(Any, self), lambda context: context.key not in self.gone)

    def run_page(self, number: int) -> memoryview:
        """See `MemoryBus.run_page`."""
        return memoryview(self.pages[number])

    def watch(self, context: Context, wanted: bool) -> None:
        """See `ControlState.watch`."""
        (self.watched.add if wanted else self.watched.discard)(context.key)

    def ring(self, number: int, slot: int, value: int, times: int = 1) -> None:
        """Counts a write as a core does."""
        place = runpage.POSTED_OFFSET + slot * 16
        count = struct.unpack_from("<Q", self.pages[number], place)[0]
        struct.pack_into("<QQ", self.pages[number], place, (count + times) & (2**64 - 1), value)

    def left(self, number: int) -> None:
        """Says that a context left its core."""
        self.posted.note(self.contexts[number])


async def begun(stream: Any) -> Any:
    """Asks a stream for its next message and lets it begin to wait."""
    asked = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    return asked


async def ended(stream: Any) -> None:
    """Ends a stream that nobody waits for."""
    await stream.aclose()


async def test_writes_since_the_message_before_are_merged() -> None:
    """What was counted before the stream began is not told; afterwards each slot once, with its last value."""
    world = World(2)
    world.ring(0, 3, 9, times=5)
    stream = world.posted.watch(world.contexts, 10)
    asked = await begun(stream)
    assert world.watched == {0, 1} and not asked.done()
    world.ring(1, 0, 4)
    world.ring(0, 3, 7)
    world.ring(0, 3, 8)
    world.left(0)
    first, second = world.contexts
    assert await asked == [Posted(first, 3, 2, 8), Posted(second, 0, 1, 4)]
    asked = await begun(stream)
    world.left(0)
    await asyncio.sleep(0)
    assert not asked.done()
    asked.cancel()


async def test_a_message_is_bounded_and_the_rest_follows() -> None:
    """Of more slots than a message has the others come with the next one, though nobody rings again."""
    world = World(1)
    stream = world.posted.watch(world.contexts, 2)
    asked = await begun(stream)
    for slot in range(3):
        world.ring(0, slot, slot)
    world.left(0)
    assert [entry.slot for entry in await asked] == [0, 1]
    assert [entry.slot for entry in await anext(stream)] == [2]
    await ended(stream)


async def test_counts_wrap() -> None:
    """A count of 64 bits that wraps is told by its difference."""
    world = World(1)
    world.ring(0, 0, 0, times=2**64 - 1)
    stream = world.posted.watch(world.contexts, 10)
    asked = await begun(stream)
    world.ring(0, 0, 1, times=3)
    world.left(0)
    assert [(entry.count, entry.value) for entry in await asked] == [(3, 1)]
    await ended(stream)


async def test_a_stream_ends_with_its_contexts_and_unwatches() -> None:
    """It ends when all of its contexts are gone; a context that another stream watches stays watched."""
    world = World(2)
    stream, other = world.posted.watch(world.contexts, 10), world.posted.watch(world.contexts[1:], 10)
    asked, others = await begun(stream), await begun(other)
    others.cancel()
    await asyncio.gather(others, return_exceptions=True)
    await ended(other)
    assert world.watched == {0, 1}
    world.gone = {0, 1}
    world.left(0)
    with pytest.raises(StopAsyncIteration):
        await asked
