"""Events about objects, and the links to nodes, as the cluster keeps them."""

from __future__ import annotations

from tests.unit.orchestrator.objects_made import START, entropy, node, pod, ready_node
from tests.unit.orchestrator.test_state import HOUR, ledger, space

from lamina_orchestrator.domain.controllers.deletion import mark
from lamina_orchestrator.domain.controllers.nodes import ADDRESS
from lamina_orchestrator.domain.kinds.kinds import EVENT, LEASE, NAMESPACE
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    name_of,
    with_annotations,
    with_metadata,
)
from lamina_orchestrator.domain.kinds.timestamps import SECOND, rfc3339, rfc3339_micro
from lamina_orchestrator.engines.interface import Connect, Disconnect
from lamina_orchestrator.engines.model.control.recorder import EventRecorder, sweep_after
from lamina_orchestrator.engines.model.nodes.links import NodeLinks
from lamina_orchestrator.engines.model.state.ledger import Ledger

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
