"""User memory against a dict of pages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.user_memory import UserMemory
from lamina_kit.effects import NeedFault
from lamina_kit.paging import NX, PAGE_SIZE, PRESENT, RW, US, index

BASE = 0x7F00_0000_0000
PAGES = 6
ROOT_FRAME = 1
FIRST_FREE = 16

pages = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, PAGES - 1), st.booleans())), min_size=PAGES, max_size=PAGES
)
"""For each virtual page: nothing, or the frame that it maps to (possibly shared) and whether it may be written."""
accesses = st.lists(
    st.tuples(st.booleans(), st.integers(0, PAGES * PAGE_SIZE - 1), st.integers(1, 3 * PAGE_SIZE)), max_size=12
)


@pytest.fixture(scope="module")
def bus() -> Iterator[MemoryBus]:
    """Returns a bus of 64 frames that all examples share."""
    with tempfile.TemporaryDirectory() as folder, MemoryBus.create(Path(folder) / "ram", 64 * PAGE_SIZE) as bus:
        yield bus


def build(bus: MemoryBus, layout: list[tuple[int, bool] | None]) -> int:
    """Makes tables for a layout; returns the root."""
    for frame in range(64):
        bus.zero(frame)
    table = ROOT_FRAME * PAGE_SIZE
    for level in (4, 3, 2):
        below = table + PAGE_SIZE
        bus.store64(table + 8 * index(BASE, level), below | PRESENT | RW | US)
        table = below
    for number, page in enumerate(layout):
        if page is not None:
            frame, writable = page
            entry = (FIRST_FREE + frame) * PAGE_SIZE | PRESENT | US | NX | (RW if writable else 0)
            bus.store64(table + 8 * index(BASE + number * PAGE_SIZE, 1), entry)
    return ROOT_FRAME * PAGE_SIZE


@given(layout=pages, script=accesses, seed=st.integers(0, 255))
def test_user_memory_is_a_dict_of_pages(
    bus: MemoryBus, layout: list[tuple[int, bool] | None], script: list[tuple[bool, int, int]], seed: int
) -> None:
    """Every read and write does what the layout says, or faults on the first page that forbids it."""
    root, memory = build(bus, layout), UserMemory(bus)
    frames = {frame: bytearray(PAGE_SIZE) for frame in range(PAGES)}
    for step, (write, offset, n) in enumerate(script):
        n = min(n, PAGES * PAGE_SIZE - offset)
        data = bytes((seed + step + position) % 256 for position in range(n))
        spans = list(split(offset, n))
        bad = next((page for page, _, _ in spans if not allowed(layout[page], write)), None)
        try:
            if write:
                memory.write(root, BASE + offset, data)
            else:
                found = memory.read(root, BASE + offset, n)
                assert found == b"".join(bytes(frames[mapped(layout[page])][start:end]) for page, start, end in spans)
            assert bad is None
        except NeedFault as fault:
            assert bad is not None
            assert (fault.va, fault.write) == (BASE + max(offset, bad * PAGE_SIZE), write)
        if write:
            store(frames, layout, spans, data, bad)
    for frame, content in frames.items():
        assert bus.read((FIRST_FREE + frame) * PAGE_SIZE, PAGE_SIZE) == content
    assert not any(bus.pins(frame) for frame in range(64))


def split(offset: int, n: int) -> Iterator[tuple[int, int, int]]:
    """Yields (page, first byte, end) of each page that a range touches."""
    while n:
        page, start = divmod(offset, PAGE_SIZE)
        size = min(n, PAGE_SIZE - start)
        yield page, start, start + size
        offset, n = offset + size, n - size


def allowed(page: tuple[int, bool] | None, write: bool) -> bool:
    """Says whether a page may be read, or written."""
    return page is not None and (page[1] or not write)


def mapped(page: tuple[int, bool] | None) -> int:
    """Returns the frame of a page that has one."""
    assert page is not None
    return page[0]


def store(
    frames: dict[int, bytearray],
    layout: list[tuple[int, bool] | None],
    spans: list[tuple[int, int, int]],
    data: bytes,
    bad: int | None,
) -> None:
    """Stores what a write stored: all, or what lies before the page that forbade it."""
    done = 0
    for page, start, end in spans:
        if page == bad:
            return
        frames[mapped(layout[page])][start:end] = data[done : done + end - start]
        done += end - start
