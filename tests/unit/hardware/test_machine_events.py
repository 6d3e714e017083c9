"""What happened to the machine: present state, news, and what is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_hardware.domain.machine_events import (
    MOST_KEPT,
    CoreChange,
    DeviceChange,
    DeviceNews,
    MachineEvents,
    MemoryFailure,
    News,
)
from lamina_kit.errors import OutOfRange


def test_what_is_over_is_not_told() -> None:
    """A core that came back and a device that went are no part of the present state; the latest of each thing is."""
    events = MachineEvents()
    told: list[News] = [
        DeviceChange("nic0", DeviceNews.ADDED),
        CoreChange(0, lost=True),
        CoreChange(1, lost=True),
        DeviceChange("nic0", DeviceNews.LINK_UP),
        DeviceChange("gone", DeviceNews.ADDED),
        MemoryFailure(0x1234, 1, corrected=True, count=1),
        CoreChange(0, lost=False),
        DeviceChange("nic0", DeviceNews.LINK_DOWN),
        DeviceChange("gone", DeviceNews.REMOVED),
        MemoryFailure(0x1238, 8, corrected=False, count=2),
    ]
    for number, news in enumerate(told):
        events.note(news, number * 10)
    present = events.present()
    assert [event.news for event in present] == [told[0], told[2], told[7], told[9]]
    assert [(event.sequence, event.time_ns) for event in present] == [(1, 0), (3, 20), (8, 70), (10, 90)]


def test_going_on_after_a_number() -> None:
    """Who knows a number hears what came after it; one that is not kept, or not yet there, is refused."""
    events = MachineEvents()
    assert events.after(0) == []
    for number in range(MOST_KEPT + 10):
        events.note(CoreChange(number % 4, lost=bool(number % 2)), number)
    assert [event.sequence for event in events.after(MOST_KEPT + 7)] == [MOST_KEPT + n for n in (8, 9, 10)]
    assert len(events.after(10)) == MOST_KEPT
    for wrong in (9, MOST_KEPT + 11):
        with pytest.raises(OutOfRange) as refused:
            events.after(wrong)
        assert refused.value.reason == "EVENTS_FORGOTTEN"


news = st.one_of(
    st.builds(CoreChange, st.integers(0, 3), st.booleans()),
    st.builds(DeviceChange, st.sampled_from("abc"), st.sampled_from(list(DeviceNews))),
    st.builds(MemoryFailure, st.integers(0, 20_000), st.just(1), st.booleans(), st.just(1)),
)


@given(st.lists(news, max_size=60), st.integers(0, 60))
def test_late_and_early_know_the_same(history: list[News], late: int) -> None:
    """Who begins late with the present state ends with the same state as who heard everything."""

    def lost(events: list[News]) -> set[int]:
        cores: set[int] = set()
        for entry in events:
            if isinstance(entry, CoreChange):
                (cores.add if entry.lost else cores.discard)(entry.core)
        return cores

    events = MachineEvents()
    for entry in history[:late]:
        events.note(entry, 0)
    begun, known = events.last, [event.news for event in events.present()]
    for entry in history[late:]:
        events.note(entry, 0)
    known += [event.news for event in events.after(begun)] if begun or events.last <= MOST_KEPT else []
    assert lost(known) == lost(history)
