"""The state of the cluster: the cache and its indices, the ledger, the feed, Events and links."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import START, deployment, made, node, pod, replica_set

from lamina_kit.errors import OutOfRange
from lamina_orchestrator.domain.controllers.deletion import mark
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, EVENT, NAMESPACE, NODE, POD, REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    labels_of,
    name_of,
    with_annotations,
    with_metadata,
)
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.objects.selectors import FieldSelector, Selector, parse_label_selector
from lamina_orchestrator.engines.model.state.cache import REQUEST_ID, Cache, Index
from lamina_orchestrator.engines.model.state.feed import Feed, FeedCursor, Filter, Noticed
from lamina_orchestrator.engines.model.state.ledger import Intent, Ledger
from lamina_orchestrator.io.store.memory import MemoryStore

HOUR = 3600 * SECOND


def names(objects: list[Object]) -> list[str]:
    """Names of objects."""
    return [name_of(obj) for obj in objects]


def key_of(obj: Object) -> Key:
    """The key of an object."""
    return kinds.key_of(obj)


def cached(*objects: Object) -> Cache:
    """A cache of objects."""
    cache = Cache()
    for obj in objects:
        cache.put(key_of(obj), obj)
    return cache


def on(obj: Object, where: str) -> Object:
    """A pod bound to a node."""
    return {**obj, "spec": {**obj["spec"], "nodeName": where}}


# ── cache ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_index_is_ordered_and_forgets() -> None:
    """Keys come in order whatever the order of filing; a dropped one is gone."""
    index = Index()
    one, two, three = (Key("pods", "n", name) for name in "abc")
    for key in (three, one, one):
        index.add("x", key)
    assert index.keys("x") == [one, three]
    index.add("x", two)
    assert index.keys("x") == [one, two, three]
    index.drop("x", three)
    index.drop("x", three)
    index.drop("never", one)
    assert index.keys("x") == [one, two]
    index.drop("x", one)
    index.drop("x", two)
    assert index.keys("x") == index.keys("never") == []


def test_objects_are_found_by_key_uid_kind_and_namespace() -> None:
    """An object is found in every way that it is filed by, and in none when it is dropped."""
    obj, host, other = pod("p"), node("h1"), with_metadata(pod("a"), namespace="team")
    cache = cached(obj, host, other)
    assert len(cache) == 3
    assert cache.get(key_of(obj)) is obj
    assert cache.by_uid(obj["metadata"]["uid"]) is obj
    assert cache.exists(host["metadata"]["uid"]) and not cache.exists("no-such-uid")
    assert cache.by_uid("no-such-uid") is None
    assert names(cache.of_kind(POD)) == ["p", "a"]
    assert cache.of_kind(EVENT) == []
    assert names(cache.in_namespace("default")) == ["p"]
    assert names(cache.everything()) == ["h1", "p", "a"]
    assert cache.drop(key_of(obj)) is obj
    assert cache.drop(key_of(obj)) is None
    assert cache.get(key_of(obj)) is cache.by_uid(obj["metadata"]["uid"]) is None
    assert names(cache.of_kind(POD)) == ["a"]
    assert cache.in_namespace("default") == []
    assert not cache.exists(obj["metadata"]["uid"])


def test_a_new_version_takes_the_place_of_the_old() -> None:
    """A new version is filed by what it says now: owner, node and request; `put` returns the one before."""
    owner = replica_set()
    first = with_annotations(on(pod("p", owner=owner), "h1"), **{REQUEST_ID: "r-1"})
    cache = cached(owner, first)
    assert names(cache.owned(owner["metadata"]["uid"])) == names(cache.pods_on("h1")) == ["p"]
    assert cache.made_by("r-1") is first
    assert names(cache.candidates(POD, owner)) == ["p"]
    moved = with_annotations(on(with_metadata(first, ownerReferences=None), "h2"), **{REQUEST_ID: None})
    assert cache.put(key_of(moved), moved) is first
    assert cache.owned(owner["metadata"]["uid"]) == cache.pods_on("h1") == []
    assert names(cache.pods_on("h2")) == ["p"]
    assert cache.made_by("r-1") is None
    labelled = with_metadata(moved, labels={"x": "1"})
    cache.put(key_of(moved), labelled)
    assert cache.pods_on("h2") == [labelled]
    cache.drop(key_of(moved))
    assert cache.pods_on("h2") == cache.candidates(POD, owner) == []


def test_a_name_that_is_taken_anew_is_another_object() -> None:
    """An object of the same key with another uid is found under its own uid alone."""
    first, second = pod("p"), pod("p")
    cache = cached(first, second)
    assert cache.by_uid(second["metadata"]["uid"]) is second
    assert not cache.exists(first["metadata"]["uid"])


def test_candidates_are_own_and_loose_objects_of_the_namespace() -> None:
    """A controller looks at what it owns and at what nobody controls in its namespace, of one kind and in order."""
    owner, other = replica_set("rs"), replica_set("other")
    mine, theirs, loose = pod("z", owner=owner), pod("b", owner=other), pod("a")
    elsewhere = with_metadata(pod("c"), namespace="team")
    cache = cached(owner, other, mine, theirs, loose, elsewhere, deployment())
    assert names(cache.candidates(POD, owner)) == ["a", "z"]
    assert names(cache.candidates(REPLICA_SET, deployment())) == ["other", "rs"]
    adopted = with_metadata(loose, ownerReferences=theirs["metadata"]["ownerReferences"])
    cache.put(key_of(loose), adopted)
    assert names(cache.candidates(POD, owner)) == ["z"]


# ── ledger and feed ──────────────────────────────────────────────────────────────────────────────────────────────────


def ledger(history: int = 1000) -> Ledger:
    """An empty ledger."""
    return Ledger(MemoryStore(), history)


def space(name: str = "team", **labels: str) -> Object:
    """A namespace."""
    return made(NAMESPACE, metadata={"name": name, "labels": labels})


def test_history_is_compacted_when_twice_as_much_is_there() -> None:
    """Just twice the history is kept; one more revision, and what is beyond the history is forgotten."""
    target = ledger(history=3)
    for number in range(6):
        target.put(NAMESPACE.key("", f"n{number}"), space(f"n{number}"))
    assert (target.store.revision, target.store.compacted) == (6, 0)
    target.put(NAMESPACE.key("", "one-more"), space("one-more"))
    assert (target.store.revision, target.store.compacted) == (7, 4)
    assert len(target.store.changes(4, 10)) == 3
    with pytest.raises(OutOfRange, match="too old"):
        target.store.changes(3, 1)


def test_versions_are_numbered_and_listeners_told() -> None:
    """A write gets the next revision, and every listener sees it once, with what was before."""
    target, seen = ledger(), list[Noticed]()
    target.listen(seen.append)
    key = DEPLOYMENT.key("default", "d")
    first = target.put(key, deployment(1))
    second = target.put(key, {**first.obj, "spec": {**first.obj["spec"], "replicas": 2}})
    third = target.put(key, with_metadata(second.obj, labels={"x": "1"}))
    gone = target.remove(key)
    assert [one.obj["metadata"]["resourceVersion"] for one in (first, second, third, gone)] == ["1", "2", "3", "4"]
    assert [one.obj["metadata"]["generation"] for one in (first, second, third)] == [1, 2, 2]
    assert [(change.revision, change.deleted) for change in seen] == [(1, False), (2, False), (3, False), (4, True)]
    assert seen[0].before is None
    assert seen[2].before is second.obj
    assert target.cache.get(key) is None
    assert target.store.get(key.path) is None


def test_a_batch_is_one_transaction() -> None:
    """Objects that are written together get consecutive revisions in their order."""
    target = ledger()
    written = target.commit([Intent(NAMESPACE.key("", name), space(name)) for name in ("b", "a")])
    assert [(name_of(one.obj), one.obj["metadata"]["resourceVersion"]) for one in written] == [("b", "1"), ("a", "2")]
    assert [change.revision for change in target.feed.since(0, 10)] == [1, 2]


def test_the_update_that_completes_a_deletion_deletes() -> None:
    """A marked object goes with the write that takes its last finalizer; one that is new is written as it is."""
    target = ledger()
    held = with_metadata(deployment(), finalizers=["example.com/x"])
    marked = mark(DEPLOYMENT, held, START, "background", None)
    assert marked is not None
    key = DEPLOYMENT.key("default", "d")
    target.put(key, held)
    target.put(key, marked)
    assert target.cache.get(key) is not None
    target.put(key, with_metadata(marked, finalizers=None))
    assert target.cache.get(key) is None
    assert target.feed.since(2, 1)[0].deleted


def test_a_ledger_reads_what_a_store_holds() -> None:
    """A new ledger over a store that was written before has all objects."""
    first = ledger()
    first.put(NAMESPACE.key("", "a"), space("a"))
    again = Ledger(first.store, 10)
    again.load()
    assert names(again.cache.everything()) == ["a"]


def test_a_feed_reads_from_memory_what_it_has() -> None:
    """Changes come from memory at its very first and last revision, and from the store before that."""
    target = ledger()
    target.feed = Feed(target.store, recent=3)
    for number in range(5):
        target.put(NAMESPACE.key("", f"n{number}"), space(f"n{number}"))
    kept = target.feed.since(2, 9)
    assert [change.revision for change in kept] == [3, 4, 5]
    assert kept[0].obj is target.cache.get(kept[0].key)
    assert [change.revision for change in target.feed.since(3, 1)] == [4]
    assert target.feed.since(5, 9) == []
    older = target.feed.since(1, 9)
    assert [(change.revision, name_of(change.obj), change.before) for change in older][:2] == [
        (2, "n1", None), (3, "n2", None),
    ]  # fmt: skip
    assert older[1].obj == kept[0].obj
    with pytest.raises(OutOfRange):
        target.feed.since(6, 1)


def cursor(target: Ledger, revision: int, labels: str = "", **fields: Any) -> FeedCursor:
    """A watch of namespaces."""
    shown = Filter(NAMESPACE, fields.get("namespace", ""), parse_label_selector(labels), FieldSelector())
    return FeedCursor(target.feed, shown, revision, None, fields.get("bookmarks", False))


def test_a_cursor_gives_no_more_than_it_is_asked_for() -> None:
    """A watcher reads in pieces, and nothing twice; other kinds and objects that never matched are not shown."""
    target = ledger()
    for name in "abc":
        target.put(NAMESPACE.key("", name), space(name, x="1"))
        target.put(NODE.key("", name), node(name))
        target.put(NAMESPACE.key("", f"{name}-other"), space(f"{name}-other"))
    watch = cursor(target, 0, "x=1")
    first = watch.next(1)
    assert [(event.type, name_of(event.stored.obj)) for event in first] == [("ADDED", "a")]
    assert [name_of(event.stored.obj) for event in watch.next(10)] == ["b", "c"]
    assert watch.next(10) == []
    target.remove(NAMESPACE.key("", "a"))
    target.remove(NAMESPACE.key("", "b-other"))
    assert [(event.type, name_of(event.stored.obj)) for event in watch.next(10)] == [("DELETED", "a")]


def test_bookmarks_only_when_asked_and_after_silence() -> None:
    """999 revisions without an event bring no bookmark, the thousandth does, and an event puts it off."""
    target = ledger(history=100_000)
    silent = cursor(target, 0, "x=1")
    marked = cursor(target, 0, "x=1", bookmarks=True)
    for number in range(999):
        target.put(NAMESPACE.key("", "n"), space("n", y=str(number)))
    assert marked.next(5000) == silent.next(5000) == []
    target.put(NAMESPACE.key("", "hit"), space("hit", x="1"))
    assert [event.type for event in marked.next(5000)] == ["ADDED"]
    for number in range(1000):
        target.put(NAMESPACE.key("", "n"), space("n", y=str(number)))
    assert [event.type for event in marked.next(5000)] == ["BOOKMARK"]
    assert [event.type for event in silent.next(5000)] == ["ADDED"]


def test_a_filter_is_of_one_namespace() -> None:
    """A filter with a namespace shows that one; without, all."""
    obj = pod()
    key = POD.key("default", "p")
    assert Filter(POD, "default", Selector(), FieldSelector()).matches(key, obj)
    assert not Filter(POD, "team", Selector(), FieldSelector()).matches(key, obj)
    assert Filter(POD, "", Selector(), FieldSelector()).matches(key, obj)
    assert not Filter(POD, "", parse_label_selector("app=b"), FieldSelector()).matches(key, obj)
    assert not Filter(POD, "", Selector(), FieldSelector((("metadata.name", True, "x"),))).matches(key, obj)
    assert labels_of(obj) == {"app": "a"}
