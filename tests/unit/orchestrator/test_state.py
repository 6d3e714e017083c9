"""The state of the cluster: the cache and its indices, the ledger, the feed, Events and links."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import START, deployment, entropy, made, node, pod, ready_node, replica_set

from lamina_kit.errors import OutOfRange
from lamina_orchestrator.domain.controllers.deletion import mark
from lamina_orchestrator.domain.controllers.nodes import ADDRESS
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, EVENT, LEASE, NAMESPACE, NODE, POD, REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    labels_of,
    name_of,
    with_annotations,
    with_metadata,
)
from lamina_orchestrator.domain.kinds.timestamps import SECOND, rfc3339, rfc3339_micro
from lamina_orchestrator.domain.objects.selectors import FieldSelector, Selector, parse_label_selector
from lamina_orchestrator.engines.interface import Connect, Disconnect
from lamina_orchestrator.engines.model.control.recorder import EventRecorder, sweep_after
from lamina_orchestrator.engines.model.nodes.links import NodeLinks
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


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def recording(*spaces: Object) -> tuple[Ledger, EventRecorder]:
    """A recorder in a cluster with some namespaces and the default one."""
    target = ledger()
    for obj in (space("default"), *spaces):
        target.put(NAMESPACE.key("", name_of(obj)), obj)
    return target, EventRecorder(target, entropy)


def emit(recorder: EventRecorder, obj: Object, now_ns: int = START, message: str = "m") -> None:
    """Records an Event."""
    recorder.emit(obj, "Warning", "BackOff", message, "kubelet", now_ns)


def test_an_event_says_what_happened_to_whom() -> None:
    """An Event names its object, kind, reason, message, component and time; its name begins with the object's."""
    target, recorder = recording()
    obj = pod("p")
    emit(recorder, obj, message="m" * 2000)
    (event,) = target.cache.of_kind(EVENT)
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default", "uid": obj["metadata"]["uid"],
    }  # fmt: skip
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "BackOff", "m" * 1024)
    assert event["source"] == {"component": "kubelet"}
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (1, rfc3339(START), rfc3339(START))
    assert name_of(event).startswith("p.")
    assert event["metadata"]["namespace"] == "default"


def test_the_same_again_counts_up() -> None:
    """The same happening counts one Event up and moves its time; another message or object is another Event."""
    target, recorder = recording()
    obj = pod("p")
    emit(recorder, obj)
    emit(recorder, obj, START + 5 * SECOND)
    emit(recorder, obj, message="other")
    emit(recorder, pod("p"))
    counts = sorted(event["count"] for event in target.cache.of_kind(EVENT))
    assert counts == [1, 1, 2]
    (twice,) = [event for event in target.cache.of_kind(EVENT) if event["count"] == 2]
    assert (twice["firstTimestamp"], twice["lastTimestamp"]) == (rfc3339(START), rfc3339(START + 5 * SECOND))


def test_events_about_nodes_are_in_the_default_namespace() -> None:
    """An object without a namespace has its Events in `default`, and they name no namespace of the object."""
    target, recorder = recording()
    emit(recorder, node("h1"))
    (event,) = target.cache.of_kind(EVENT)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


def test_a_namespace_that_ends_or_is_gone_gets_no_events() -> None:
    """Nothing is recorded in a namespace that is being deleted or not there."""
    leaving = mark(NAMESPACE, space("team"), START, "background", None)
    assert leaving is not None
    target, recorder = recording(leaving)
    for namespace in ("team", "nowhere"):
        emit(recorder, with_metadata(pod("p"), namespace=namespace))
    assert target.cache.of_kind(EVENT) == []


def test_events_go_an_hour_after_they_happened_last() -> None:
    """An Event stays for an hour after it happened last, goes in whole minutes, and what happens then is a new one."""
    target, recorder = recording()
    obj = pod("p")
    emit(recorder, obj)
    emit(recorder, obj, START + 600 * SECOND)
    emit(recorder, obj, START + 1200 * SECOND, "other")
    assert recorder.next_sweep() == START + HOUR
    assert recorder.sweep(START + HOUR) == START + HOUR + 600 * SECOND
    assert len(target.cache.of_kind(EVENT)) == 2
    assert recorder.sweep(START + HOUR + 599 * SECOND) == START + HOUR + 600 * SECOND
    assert recorder.sweep(START + HOUR + 600 * SECOND) == START + HOUR + 1200 * SECOND
    assert [event["message"] for event in target.cache.of_kind(EVENT)] == ["other"]
    emit(recorder, obj, START + HOUR + 700 * SECOND)
    assert sorted((event["message"], event["count"]) for event in target.cache.of_kind(EVENT)) == [
        ("m", 1), ("other", 1),
    ]  # fmt: skip
    assert recorder.sweep(START + 3 * HOUR) == 0
    assert target.cache.of_kind(EVENT) == []


def test_sweeps_come_in_whole_minutes() -> None:
    """An Event is swept an hour later, rounded up to a whole minute."""
    assert sweep_after(START) == START + HOUR
    assert sweep_after(START + 1) == sweep_after(START + 60 * SECOND) == START + HOUR + 60 * SECOND


def test_a_recorder_goes_on_after_a_restart() -> None:
    """Events that were stored before count up and go in the order of their age."""
    target, recorder = recording()
    old, young = pod("old"), pod("young")
    emit(recorder, young, START + 60 * SECOND)
    emit(recorder, old)
    again = EventRecorder(target, entropy)
    assert again.next_sweep() == 0
    again.load()
    assert again.next_sweep() == START + HOUR
    emit(again, young, START + 70 * SECOND)
    assert sorted(event["count"] for event in target.cache.of_kind(EVENT)) == [1, 2]
    again.sweep(START + HOUR)
    assert [event["involvedObject"]["name"] for event in target.cache.of_kind(EVENT)] == ["young"]


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def at(obj: Object, address: str) -> Object:
    """A node whose runtime is at an address."""
    return with_annotations(obj, **{ADDRESS: address})


def linked(obj: Object, now_ns: int = START) -> NodeLinks:
    """The links of one node."""
    links = NodeLinks()
    links.follow(obj, now_ns)
    return links


def test_links_follow_addresses() -> None:
    """A new address is connected to, a changed one anew, an unchanged one not again, and none at all not."""
    links = linked(at(node("h1"), "a"))
    links.follow(at(node("h1"), "a"), START)
    links.follow(at(node("h2"), ""), START)
    assert links.take_effects() == [Connect("h1", "a")]
    assert links.take_effects() == []
    links.follow(at(node("h1"), "b"), START)
    links.follow(at(node("h2"), "c"), START)
    assert links.take_effects() == [Disconnect("h1"), Connect("h1", "b"), Connect("h2", "c")]
    links.follow(at(node("h1"), ""), START)
    links.drop("h1")
    links.drop("h2")
    links.drop("never")
    assert links.take_effects() == [Disconnect("h1"), Disconnect("h2")]


def test_a_node_answers_until_it_is_silent() -> None:
    """Silence is news once, only of a node that answered; a node that is not known neither answers nor is silent."""
    links = linked(at(node("h1"), "a"))
    assert not links.is_up("h1")
    assert not links.silent("h1", START)
    assert links.answers("h1", START)
    assert links.is_up("h1")
    assert links.silent("h1", START + 25 * SECOND)
    assert not links.is_up("h1")
    assert not links.silent("h1", START + 30 * SECOND)
    assert not links.answers("h9", START)
    assert not links.silent("h9", START)
    assert not links.is_up("h9")


def test_the_heartbeat_is_the_last_renewal() -> None:
    """A silent node was renewed last at a multiple of 10 s; whether it ever answered is known from its condition."""
    links = linked(at(node("h1"), "a"))
    beat = links.heartbeat("h1")
    assert (beat.answers, beat.ever, beat.renewed_ns) == (False, False, START)
    links.answers("h1", START + SECOND)
    assert links.heartbeat("h1").ever
    links.silent("h1", START + 25 * SECOND)
    beat = links.heartbeat("h1")
    assert (beat.answers, beat.ever, beat.renewed_ns) == (False, True, START + 21 * SECOND)
    assert linked(at(ready_node(), "a")).heartbeat("h1").ever
    unready = ready_node()
    unready["status"]["conditions"][0]["status"] = "False"
    assert not linked(at(unready, "a")).heartbeat("h1").ever


def test_leases_read_as_renewed_while_the_node_answers() -> None:
    """A lease is stored when a link begins or ends, and reads as renewed every 10 s in between."""
    obj = at(node("h1"), "a")
    links = linked(obj)
    links.answers("h1", START)
    stored = links.lease(obj, None)
    assert stored["spec"] == {
        "holderIdentity": "h1", "leaseDurationSeconds": 40, "renewTime": rfc3339_micro(START),
    }  # fmt: skip
    assert stored["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]
    later = START + 39 * SECOND
    assert links.renewed(stored, later)["spec"]["renewTime"] == rfc3339_micro(START + 30 * SECOND)
    assert links.renewed(obj, later) is obj
    theirs = with_metadata(stored, namespace="default")
    assert links.renewed(theirs, later) is theirs
    stranger = with_metadata(stored, name="h9")
    assert links.renewed(stranger, later) is stranger
    links.silent("h1", later)
    assert links.renewed(stored, later) is stored
    kept = links.lease(obj, {**stored, "spec": {**stored["spec"], "leaseTransitions": 7}})
    assert (kept["spec"]["leaseTransitions"], kept["spec"]["renewTime"]) == (7, rfc3339_micro(START + 30 * SECOND))
    assert kept["kind"] == LEASE.name
