"""Work queue, feed and configuration."""

from __future__ import annotations

import pytest
from tests.unit.orchestrator.objects_made import made

from lamina_kit.errors import InvalidArgument
from lamina_orchestrator.config import OrchestratorConfig
from lamina_orchestrator.domain.kinds.kinds import NAMESPACE, POD
from lamina_orchestrator.domain.kinds.plain_object import Key
from lamina_orchestrator.domain.objects.selectors import FieldSelector, Selector
from lamina_orchestrator.engines.model.control.queue import Item, WorkQueue
from lamina_orchestrator.engines.model.state.feed import FeedCursor, Filter
from lamina_orchestrator.engines.model.state.ledger import Ledger
from lamina_orchestrator.io.store.memory import MemoryStore

A, B = Key("pods", "n", "a"), Key("pods", "n", "b")


def test_queue_is_first_in_first_out_without_duplicates() -> None:
    """An object that is queued twice is looked at once, in the place of its first queueing."""
    queue = WorkQueue()
    for key in (A, B, A):
        queue.add("x", key)
    assert [queue.pop(), queue.pop(), queue.pop()] == [Item("x", A), Item("x", B), None]


def test_counting_controllers_come_last() -> None:
    """Items of the controllers that come last are taken out apart, and count as work."""
    queue = WorkQueue(last=["count"])
    queue.add("count", A)
    queue.add("x", A)
    assert len(queue) == 2
    assert (queue.pop(), queue.pop(), queue.pop_last(), queue.pop_last()) == (
        Item("x", A),
        None,
        Item("count", A),
        None,
    )


def test_timers_keep_the_earliest() -> None:
    """Of several times for one object the earliest counts, and it fires once."""
    queue = WorkQueue()
    queue.add_at("x", A, 50)
    queue.add_at("x", A, 30)
    queue.add_at("x", A, 40)
    queue.add_at("x", B, 60)
    assert queue.next_due() == 30
    queue.advance(45)
    assert (queue.pop(), queue.pop()) == (Item("x", A), None)
    assert queue.next_due() == 60
    queue.advance(100)
    assert queue.pop() == Item("x", B)
    assert queue.next_due() == 0


def ledger(history: int = 1000) -> Ledger:
    """An empty ledger."""
    return Ledger(MemoryStore(), history)


def write(target: Ledger, name: str, **labels: str) -> None:
    """Writes a namespace."""
    target.put(NAMESPACE.key("", name), made(NAMESPACE, metadata={"name": name, "labels": labels}))


def cursor(target: Ledger, revision: int = 0, *, bookmarks: bool = False) -> FeedCursor:
    """A watch of all namespaces."""
    shown = Filter(NAMESPACE, "", Selector(), FieldSelector())
    return FeedCursor(target.feed, shown, revision, None, bookmarks)


def test_cursors_read_beyond_what_is_kept_in_memory() -> None:
    """A watcher that is far behind reads from the store what memory no longer holds, without a gap."""
    target = ledger(history=100_000)
    target.feed._recent = type(target.feed._recent)(maxlen=4)
    watch = cursor(target)
    for number in range(20):
        write(target, f"n{number}")
    names = []
    while events := watch.next(3):
        names += [event.stored.obj["metadata"]["name"] for event in events]
    assert names == [f"n{number}" for number in range(20)]


def test_bookmarks_follow_silence() -> None:
    """A watcher whose kind does not change gets a bookmark after 1000 revisions."""
    target = ledger(history=100_000)
    watch = FeedCursor(target.feed, Filter(POD, "", Selector(), FieldSelector()), 0, None, True)
    for number in range(1000):
        write(target, f"n{number}")
    (mark,) = watch.next(100)
    assert mark.type == "BOOKMARK"
    assert mark.stored.obj["metadata"]["resourceVersion"] == "1000"
    assert watch.next(100) == []


def test_history_is_compacted() -> None:
    """The store forgets history beyond its limit while objects are written."""
    target = ledger(history=10)
    for number in range(50):
        write(target, "same" if number % 2 else f"n{number}")
    assert 0 < target.store.compacted <= 40
    assert target.store.revision - target.store.compacted <= 20


def test_configuration_has_ranges() -> None:
    """Values out of range are refused with their keys."""
    with pytest.raises(InvalidArgument, match=r"orchestrator\.node_cpu_millicores"):
        OrchestratorConfig(node_cpu_millicores=0)
    assert OrchestratorConfig().node_memory_bytes == 8 << 30
