"""The scheduler: filters, scores, ties, explanations."""

from __future__ import annotations

from typing import Any

from tests.unit.orchestrator.objects_made import node, pod, replica_set, running

from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.scheduling.node_table import NodeTable
from lamina_orchestrator.domain.scheduling.scheduler import Placement, Unschedulable, refusal, schedule


def table(*nodes: Object, pods: tuple[Object, ...] = ()) -> NodeTable:
    """A table of nodes with pods on them."""
    made = NodeTable()
    for obj in nodes:
        made.put_node(obj)
    for obj in pods:
        made.assign(obj)
    return made


def asking(name: str = "p", cpu: str = "0", memory: str = "0", **spec: Any) -> Object:
    """A pod with requests."""
    resources = {"requests": {"cpu": cpu, "memory": memory}}
    return pod(name, container={"image": "x", "resources": resources}, **spec)


def chosen(obj: Object, known: NodeTable) -> str:
    """The node that is chosen."""
    result = schedule(obj, known)
    assert isinstance(result, Placement), result
    return result.node


def failure(obj: Object, known: NodeTable) -> str:
    """Why none is chosen."""
    result = schedule(obj, known)
    assert isinstance(result, Unschedulable), result
    return result.message


def test_requests_have_to_fit() -> None:
    """A pod goes only where CPU, memory and the number of pods fit exactly."""
    known = table(node("h1", 1000, 1 << 30), node("h2", 2000, 1 << 30))
    assert chosen(asking(cpu="2"), known) == "h2"
    assert failure(asking(cpu="2001m"), known) == "0/2 nodes are available: 2 Insufficient cpu."
    message = failure(asking(cpu="3", memory="2Gi"), known)
    assert message == "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory."
    full = table(node("h1", pods=1), pods=(running(asking("q"), "h1"),))
    assert failure(asking(), full) == "0/1 nodes are available: 1 Too many pods."
    assert failure(asking(), table()) == "no nodes available to schedule pods"


def test_room_is_counted_and_given_back() -> None:
    """What a pod takes is counted once, and is free again when it is released."""
    known = table(node("h1", 1000))
    taken = running(asking("q", cpu="1"), "h1")
    known.assign(taken)
    known.assign(taken)
    assert known.free("h1") == (0, 8 << 30, 109)
    assert "Insufficient cpu" in failure(asking(cpu="1m"), known)
    assert known.release(taken["metadata"]["uid"])
    assert not known.release(taken["metadata"]["uid"])
    assert chosen(asking(cpu="1"), known) == "h1"


def test_selector_cordon_and_taints() -> None:
    """Node selectors, cordons and taints keep pods away, and each is named."""
    known = table(
        node("h1", unschedulable=True),
        node("h2", taints=[{"key": "gpu", "value": "a", "effect": "NoSchedule"}]),
        node("h3", labels={"zone": "x"}),
    )
    assert failure(asking(nodeSelector={"zone": "y"}), known) == (
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {gpu: a}, 1 node(s) were unschedulable."
    )
    assert chosen(asking(), known) == "h3"
    known.drop_node("h3")
    assert chosen(asking(tolerations=[{"key": "gpu", "value": "a"}]), known) == "h2"


def test_least_allocated_wins() -> None:
    """Of nodes that fit, the one with more left is chosen; equals go to the first name."""
    busy = running(asking("q", cpu="2", memory="2Gi"), "h1")
    assert chosen(asking(cpu="1"), table(node("h1"), node("h2"), pods=(busy,))) == "h2"
    result = schedule(asking(), table(node("h2"), node("h1")))
    assert isinstance(result, Placement)
    assert (result.node, result.rule) == ("h1", "highest score, first of equals by name")


def test_siblings_spread() -> None:
    """Pods of one owner spread over nodes even if another node has more left."""
    owner = replica_set()
    sibling = running(pod("q", owner=owner), "h1")
    known = table(node("h1", 64_000, 1 << 40), node("h2", 1000), pods=(sibling,))
    result = schedule(pod("p", owner=owner), known)
    assert isinstance(result, Placement)
    assert result.node == "h2"
    assert result.inputs["feasible"] == 2
    assert "spread 100" in str(result.inputs["score"])


def test_preferred_taints_are_avoided_not_forbidden() -> None:
    """A PreferNoSchedule taint counts against a node that is still taken when there is no other."""
    soft = node("h1", taints=[{"key": "old", "effect": "PreferNoSchedule"}])
    assert chosen(asking(), table(soft, node("h2"))) == "h2"
    assert chosen(asking(), table(soft)) == "h1"


def test_huge_requests_do_not_overflow() -> None:
    """A request beyond all bounds is refused, not wrapped around."""
    known = table(node("h1", 10**9, 1 << 56))
    assert "Insufficient memory" in failure(asking(memory=str(2**63 - 1)), known)


def test_changed_nodes_are_seen() -> None:
    """New labels, taints and capacities of a node count from the next pod on."""
    known = table(node("h1"))
    wanted = asking(nodeSelector={"zone": "x"})
    assert "didn't match" in failure(wanted, known)
    known.put_node(node("h1", labels={"zone": "x"}))
    assert chosen(wanted, known) == "h1"
    known.put_node(node("h1", cpu=1, labels={"zone": "x"}))
    assert "Insufficient cpu" in failure(asking(cpu="1"), known)


def test_a_named_node_may_refuse() -> None:
    """A pod that names its node is refused there when it does not fit, as the kubelet does."""
    known = table(node("h1", 1000))
    assert refusal(asking(cpu="2", nodeName="h1"), known) == "OutOfcpu"
    assert refusal(asking(cpu="1", nodeName="h1"), known) == ""
    assert refusal(asking(cpu="1", nodeName="nowhere"), known) == ""
