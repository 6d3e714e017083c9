"""Watches of faults: who is told of what, what a slow reader misses, for whom a frame went."""

from __future__ import annotations

from typing import Any

from lamina_mmu.domain.fault_feed import MOST_EVICTED, MOST_QUEUED, FaultEvent, FaultFeed, watch_key


def event(space: int, address: int = 0) -> FaultEvent:
    """Returns a fault of a space."""
    result: Any = None
    return FaultEvent(space, address, 1, 2, 3, result)


def test_a_watch_hears_its_space_or_all() -> None:
    """Each has a queue of its own, and is woken for what concerns it alone."""
    woken: list[object] = []
    feed = FaultFeed(lambda key, told: woken.append(key))
    assert not feed.wants(1)
    one, all_of_them = feed.open(1, 1), feed.open(0, 1)
    assert (one.id, all_of_them.id, len(feed)) == (1, 2, 2) and feed.wants(7)
    feed.add(event(1))
    feed.add(event(2))
    assert [told.space for told in one.take(9)[0]] == [1] and [told.space for told in all_of_them.take(9)[0]] == [1, 2]
    assert woken == [watch_key(1), watch_key(2), watch_key(2)]
    feed.close(all_of_them)
    feed.close(all_of_them)
    assert feed.wants(1) and not feed.wants(2) and len(feed) == 1


def test_a_sample_is_one_of_so_many_from_the_first_on() -> None:
    """Of seven faults a sample of three tells the first, the fourth and the seventh."""
    feed = FaultFeed(lambda key, told: None)
    watch = feed.open(0, 3)
    for address in range(7):
        feed.add(event(1, address))
    assert [one.address for one in watch.take(2)[0]] == [0, 3] and [one.address for one in watch.take(2)[0]] == [6]


def test_what_a_slow_reader_misses_is_counted_once() -> None:
    """The queue is bounded; what came meanwhile is a number, which is told with the next events and then forgotten."""
    woken: list[object] = []
    feed = FaultFeed(lambda key, told: woken.append(key))
    watch = feed.open(0, 1)
    for address in range(MOST_QUEUED + 2):
        feed.add(event(1, address))
    assert len(woken) == MOST_QUEUED
    found, missed = watch.take(1)
    assert (found[0].address, missed, watch.take(1)[1]) == (0, 2, 0)
    feed.add(event(1, 5))
    assert watch.take(MOST_QUEUED)[0][-1].address == 5


def test_a_space_that_ends_closes_its_watches_and_no_others() -> None:
    """What is queued may still be read; those who watch all go on."""
    woken: list[object] = []
    feed = FaultFeed(lambda key, told: woken.append(key))
    mine, all_of_them = feed.open(3, 1), feed.open(0, 1)
    feed.add(event(3))
    woken.clear()
    feed.end(3)
    assert mine.closed and not all_of_them.closed and woken == [watch_key(mine.id)] and len(mine.take(5)[0]) == 1


def test_for_whom_a_frame_went_is_known_once_and_while_somebody_watches() -> None:
    """Another cause is no; the answer is given one time; the memory is bounded."""
    feed = FaultFeed(lambda key, told: None)
    feed.note_evicted(5, "a")
    assert not feed.was_evicted_for(5, "a"), "nobody watched"
    feed.open(0, 1)
    feed.note_evicted(5, "a")
    feed.note_evicted(6, "a")
    assert feed.was_evicted_for(5, "a") and not feed.was_evicted_for(5, "a") and not feed.was_evicted_for(6, "b")
    for frame in range(MOST_EVICTED):
        feed.note_evicted(frame, "a")
    assert feed.was_evicted_for(0, "a")
    feed.note_evicted(0, "a")
    feed.note_evicted(MOST_EVICTED, "a")
    assert not feed.was_evicted_for(1, "a") and feed.was_evicted_for(MOST_EVICTED, "a")
