"""The event log of a stack tells of all six layers, and why what happened happened."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.simulation.story import History

LAYERS = ("hardware", "mmu", "vswitch", "hypervisor", "container-runtime", "orchestrator")
TRACE = re.compile(r"[0-9a-f]{32}")
POD = "namespaces/default/pods/hello-"
DEPLOYMENT = "namespaces/default/deployments/hello"


@pytest.fixture(scope="module")
def history(seventh: bytes) -> History:
    """The log of the demo."""
    return History(seventh)


def test_events_stand_in_the_order_of_their_times(history: History) -> None:
    """Time never goes back, and each layer numbers its events without gaps."""
    times = [event["time_ns"] for event in history.events]
    assert times == sorted(times)
    for layer in LAYERS:
        numbers = [history.events[at]["sequence"] for at in history.of(layer)]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_tells_what_happened_when_where_to_whom_and_why(history: History, layer: str) -> None:
    """Events of each layer have time, host, layer, object, event and cause; few begin by themselves."""
    events = [history.events[at] for at in history.of(layer)]
    assert events
    for event in events:
        assert list(event) == ["sequence", "time_ns", "host", "layer", "object", "event", "cause", "rule", "inputs"]
        assert isinstance(event["time_ns"], int) and event["host"] == ("" if layer == "orchestrator" else "h1")
        assert event["object"] and re.fullmatch(r"[a-z_]+\.[a-z_-]+", event["event"])
        assert event["cause"] or event["time_ns"] == 0 or event["event"] in SPONTANEOUS or is_at_start(event), event


SPONTANEOUS = ("host.powered_off",)
"""What nothing in the stack causes."""


def is_at_start(event: dict[str, Any]) -> bool:
    """Whether the orchestrator made it when it started: namespaces and its own node."""
    return event["object"].split("/")[0] in ("nodes", "namespaces") and event["time_ns"] < 10**6


@pytest.mark.parametrize(
    ("layer", "event"),
    [
        ("mmu", "page.faulted"),
        ("mmu", "space.created"),
        ("hardware", "context.created"),
        ("container-runtime", "container.created"),
    ],
)
def test_from_below_one_comes_up_to_the_deployment(history: History, layer: str, event: str) -> None:
    """A page of a container was faulted in because a pod was started because a deployment was applied."""
    chains = [history.chain(at) for at in history.of(layer, event)]
    found = [chain for chain in chains if any(e["object"].startswith(POD) for e in chain)]
    assert found
    for chain in found:
        objects = [e["object"] for e in chain]
        assert any(name == DEPLOYMENT for name in objects), objects
        assert TRACE.fullmatch(chain[-1]["cause"]), "it ends with the call of a user"


def test_pods_of_an_unsampled_scaling_lead_to_it_too(history: History) -> None:
    """No trace is recorded of the scaling, and yet the pages of its pods lead to it and not to the first apply."""
    scaled = next(history.events[at] for at in history.of("orchestrator", "replica_set.scaled_up"))
    roots = {history.chain(at)[-1]["cause"] for at in history.of("mmu", "page.faulted")}
    applied = next(history.events[at] for at in history.of("orchestrator", "replica_set.created"))
    assert {scaled["cause"], applied["cause"]} <= roots and scaled["cause"] != applied["cause"]


def test_an_evicted_page_leads_to_the_fault_that_needed_its_frame(history: History) -> None:
    """A page goes because another one is faulted in, at the same instant, for a call of a user."""
    evictions = [history.chain(at) for at in history.of("mmu", "page.evicted")]
    assert evictions
    for evicted, fault, *_ in evictions:
        assert (fault["event"], fault["time_ns"]) == ("page.faulted", evicted["time_ns"])
        assert TRACE.fullmatch(fault["cause"])


def test_what_a_switch_learns_leads_to_who_attached_the_port(history: History) -> None:
    """The address of a frame's sender is learned for whoever attached the port: the same trace made the port."""
    learned = [history.events[at] for at in history.of("vswitch", "mac.learned")]
    attached = {
        history.events[at]["object"]: history.events[at]["cause"] for at in history.of("vswitch", "port.attached")
    }
    made = {history.events[at]["object"]: history.events[at]["cause"] for at in history.of("vswitch", "port.created")}
    assert learned
    for event in learned:
        assert event["cause"] == attached[event["object"]] == made[event["object"]]
        assert TRACE.fullmatch(event["cause"])


def test_what_a_vm_does_leads_to_who_started_it(history: History) -> None:
    """All that happens to a VM has a cause, and its second-stage faults have that of its start."""
    causes = {e["event"]: e["cause"] for e in (history.events[at] for at in history.of("hypervisor"))}
    assert {"vm.starting", "vm.stopping", "vm.stopped"} <= set(causes) and all(map(TRACE.fullmatch, causes.values()))
    below = {e["event"] for e in history.events if e["layer"] == "mmu" and e["cause"] == causes["vm.starting"]}
    assert {"space.created", "page.faulted"} <= below
    assert [e["cause"] for e in history.events if e["event"] == "frames.freed"] == [causes["vm.stopped"]]
