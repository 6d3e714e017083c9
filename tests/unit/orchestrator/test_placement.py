"""What the scheduler promises in detail: tolerations, weights, explanations, and the table of nodes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import node, pod, replica_set, running
from tests.unit.orchestrator.test_scheduler import asking, chosen, failure, table

from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.scheduling.node_table import CAP, NodeTable, demand_of
from lamina_orchestrator.domain.scheduling.scheduler import Placement, Unschedulable, refusal, schedule, signature
from lamina_orchestrator.domain.scheduling.taints import tolerates, untolerated

GPU = {"key": "gpu", "value": "a", "effect": "NoSchedule"}
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


def placed(obj: Object, known: NodeTable) -> Placement:
    """Where a pod goes, with the reasons."""
    result = schedule(obj, known)
    assert isinstance(result, Placement), result
    return result


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "a"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "b"}, False),
        ({"key": "gpu"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "a", "effect": "PreferNoSchedule"}, False),
        ({"value": "a"}, False),
    ],
)
def test_a_toleration_opens_a_tainted_node(toleration: dict[str, Any], covers: bool) -> None:
    """A pod goes to a tainted node exactly when one of its tolerations covers the taint."""
    known = table(node("h1", taints=[GPU]))
    wanted = pod()
    wanted["spec"]["tolerations"] = [{"key": "else", "operator": "Exists"}, toleration]
    assert isinstance(schedule(wanted, known), Placement) is covers
    assert tolerates(toleration, GPU) is covers
    assert (untolerated([GPU], [toleration], ("NoSchedule",)) is None) is covers


def test_a_taint_without_a_value_is_tolerated_by_an_empty_one() -> None:
    """An Equal toleration without a value covers a taint without one."""
    assert tolerates({"key": "k"}, {"key": "k", "effect": "NoSchedule"})
    assert not tolerates({"key": "k"}, {"key": "k", "value": "v", "effect": "NoSchedule"})


def test_every_taint_has_to_be_tolerated() -> None:
    """One taint that is not tolerated is enough, and it is the one that is named; other effects do not count."""
    both = [GPU, {"key": "disk", "effect": "NoExecute"}]
    known = table(node("h1", taints=both))
    gpu = {"key": "gpu", "operator": "Exists"}
    assert "untolerated taint {disk: }" in failure(asking(tolerations=[gpu]), known)
    assert chosen(asking(tolerations=[gpu, {"key": "disk", "operator": "Exists"}]), known) == "h1"
    assert untolerated(both, [], ("PreferNoSchedule",)) is None
    assert untolerated(both, [], ("NoExecute",)) == both[1]


def test_a_toleration_of_the_cordon_opens_a_cordoned_node() -> None:
    """A cordoned node takes a pod that tolerates the cordon, as a DaemonSet's pods do, and no other."""
    known = table(node("h1", unschedulable=True))
    assert "unschedulable" in failure(asking(), known)
    assert chosen(asking(tolerations=[{"key": UNSCHEDULABLE, "operator": "Exists"}]), known) == "h1"


def test_preferred_taints_count_when_not_tolerated() -> None:
    """A PreferNoSchedule taint weighs against a node unless it is tolerated; two weigh more than one."""
    soft = [{"key": key, "effect": "PreferNoSchedule"} for key in ("old", "slow")]
    known = table(node("h1", taints=soft), node("h2", taints=soft[:1]))
    assert chosen(asking(), known) == "h2"
    tolerant = asking(tolerations=[{"key": "slow", "operator": "Exists"}])
    assert placed(tolerant, known).rule == "highest score, first of equals by name"
    assert chosen(tolerant, known) == "h1"


def test_weights_order_the_scores() -> None:
    """A preferred taint outweighs spreading, and spreading outweighs what is left."""
    owner = replica_set()
    siblings = tuple(running(pod(f"q{n}", owner=owner), "h1") for n in range(2))
    soft = node("h2", taints=[{"key": "old", "effect": "PreferNoSchedule"}])
    assert chosen(pod(owner=owner), table(node("h1"), soft, pods=siblings)) == "h1"
    busy = tuple(running(asking(f"b{n}", cpu="1900m", memory="3Gi"), "h2") for n in range(2))
    assert chosen(pod(owner=owner), table(node("h1"), node("h2"), pods=(*siblings, *busy))) == "h2"


def test_scores_are_explained_in_numbers() -> None:
    """The explanation names the chosen node, how many were looked at, each score with its weight, and the next one."""
    owner = replica_set()
    sibling = running(pod("q", owner=owner), "h1")
    known = table(node("h1", 1000, 1000 << 20), node("h2", 1000, 1000 << 20), node("h3", pods=0), pods=(sibling,))
    found = placed(pod(owner=owner), known)
    assert found.rule == "highest score"
    assert found.inputs == {
        "node": "h2",
        "nodes": 3,
        "feasible": 2,
        "score": "1 × least-allocated 85 + 2 × spread 100 + 3 × taints 100 = 585",
        "runner_up": "h1: 1 × least-allocated 70 + 2 × spread 0 + 3 × taints 100 = 370",
    }
    only = placed(asking(), table(node("h1")))
    assert only.rule == "the only node that passes the filters"
    assert "runner_up" not in only.inputs


def test_both_resources_make_the_score() -> None:
    """What is left of CPU and of memory count alike, after the pod; a node without capacity has nothing left."""
    known = table(node("h1", 1000, 1000 << 20))
    assert "least-allocated 74 " in str(placed(asking(cpu="500m", memory="1Mi"), known).inputs["score"])
    assert "least-allocated 49 " in str(placed(asking(cpu="1", memory="10Mi"), known).inputs["score"])
    full = table(node("h1", 1000, 1000 << 20), pods=tuple(running(pod(f"q{n}"), "h1") for n in range(20)))
    assert "least-allocated 0 " in str(placed(asking(), full).inputs["score"])


def test_failures_name_what_was_asked() -> None:
    """A pod that goes nowhere gives counts by reason and what it asked for; a node out of the question has one."""
    known = table(node("h1", 1000, 1 << 30), node("h2", taints=[GPU], cpu=1), node("h3", 1000, 4 << 30, pods=0))
    result = schedule(asking(cpu="2", memory="2Gi"), known)
    assert isinstance(result, Unschedulable)
    assert result.inputs == {
        "nodes": 3,
        "Insufficient cpu": 2,
        "Insufficient memory": 1,
        "Too many pods": 1,
        "node(s) had untolerated taint {gpu: a}": 1,
        "requested_millicores": 2000,
        "requested_bytes": 2 << 30,
    }
    assert schedule(asking(), table()) == Unschedulable("no nodes available to schedule pods", {"nodes": 0})


def test_pods_without_requests_fit_where_nothing_is_left() -> None:
    """Who asks for nothing is not kept away by CPU or memory that is used up or overcommitted, only by the count."""
    full = table(node("h1", 1000, 1 << 30, pods=3), pods=(running(asking("q", cpu="2", memory="2Gi"), "h1"),))
    assert chosen(asking(), full) == "h1"
    assert failure(asking(cpu="1m"), full) == "0/1 nodes are available: 1 Insufficient cpu."
    assert failure(asking(memory="1"), full) == "0/1 nodes are available: 1 Insufficient memory."


def test_what_is_left_may_be_used_up() -> None:
    """A pod may take exactly what is left, of each resource, and not one thousandth or byte more."""
    used = running(asking("q", cpu="400m", memory="1Gi"), "h1")
    known = table(node("h1", 1000, 3 << 30), pods=(used,))
    assert chosen(asking(cpu="600m", memory="2Gi"), known) == "h1"
    assert "Insufficient cpu" in failure(asking(cpu="601m"), known)
    assert "Insufficient memory" in failure(asking(memory=str((2 << 30) + 1)), known)


def test_a_named_node_refuses_by_what_it_lacks() -> None:
    """A pod that names its node is refused for CPU, memory or the number of pods; what it does not ask is no reason."""
    known = table(node("h1", 1000, 1 << 30, pods=2), pods=(running(asking("q", cpu="1", memory="1Gi"), "h1"),))
    assert refusal(asking(memory="1", nodeName="h1"), known) == "OutOfmemory"
    assert refusal(asking(cpu="1m", memory="1", nodeName="h1"), known) == "OutOfcpu"
    assert refusal(asking(nodeName="h1"), known) == ""
    known.assign(running(asking("r"), "h1"))
    assert refusal(asking(nodeName="h1"), known) == "OutOfpods"


def test_alike_pods_share_a_signature() -> None:
    """Pods that differ in name or owner alone are alike; other tolerations, selectors or requests are not."""
    same = asking("a")
    assert signature(same) == signature(asking("b")) == signature(pod("c", owner=replica_set()))
    others = (
        asking(tolerations=[{"key": "gpu", "operator": "Exists"}]), asking(nodeSelector={"zone": "x"}),
        asking(cpu="1"), asking(memory="1"),
    )  # fmt: skip
    assert len({signature(same), *map(signature, others)}) == 5


def test_demands_are_capped() -> None:
    """A demand beyond all bounds counts as one that fits nowhere, and requests of nothing score as a small pod."""
    huge = demand_of(asking(cpu=str(2**63 - 1), memory=str(2**63 - 1)))
    assert (huge.millis, huge.bytes) == (2 * CAP, 2 * CAP)
    assert demand_of(asking()).scored == (100, 200 << 20)
    assert demand_of(asking(cpu="1", memory="5")).scored == (1000, 5)
    owner = replica_set()
    assert demand_of(pod(owner=owner)).owner == owner["metadata"]["uid"]


def test_siblings_are_counted_by_node() -> None:
    """Each node has its count of an owner's pods, also when nodes come later or pods go; others' are not counted."""
    owner = replica_set()
    uid = owner["metadata"]["uid"]
    pods = [running(pod(f"q{n}", owner=owner), where) for n, where in enumerate(("h1", "h2", "h2", "h9"))]
    known = table(node("h2"), pods=(*pods, running(pod("alone"), "h2")))
    assert known.siblings(uid).tolist() == [2]
    known.put_node(node("h1"))
    assert known.siblings(uid).tolist() == [1, 2]
    assert known.siblings("nobody").tolist() == [0, 0]
    known.release(pods[1]["metadata"]["uid"])
    known.release(pods[0]["metadata"]["uid"])
    assert known.siblings(uid).tolist() == [0, 1]


def test_nodes_come_and_go() -> None:
    """Nodes are listed by name, a dropped one has nothing free, and pods of a node that comes back still count."""
    known = table(node("h2"), node("h1", 1000))
    known.assign(running(asking("q", cpu="400m", memory="1Gi"), "h1"))
    assert [obj["metadata"]["name"] for obj in known.nodes()] == ["h1", "h2"]
    known.drop_node("h1")
    known.drop_node("never")
    assert known.free("h1") is None
    assert [obj["metadata"]["name"] for obj in known.nodes()] == ["h2"]
    known.put_node(node("h1", 1000))
    assert known.free("h1") == (600, 7 << 30, 109)


def test_allocatable_counts_before_capacity() -> None:
    """What may be allocated is what pods get; capacity stands in until the node has said so; none is nothing."""
    obj = node("h1", 4000)
    status = {**obj["status"], "allocatable": {"cpu": "1", "memory": "1Ki", "pods": "3"}}
    assert table({**obj, "status": status}).free("h1") == (1000, 1024, 3)
    assert table(obj).free("h1") == (4000, 8 << 30, 110)
    assert table({**obj, "status": {}}).free("h1") == (0, 0, 0)


def test_taints_that_change_are_seen() -> None:
    """A taint that is added or removed later counts from the next pod on, for filters and for scores."""
    known = table(node("h1"), node("h2"))
    assert chosen(asking(), known) == "h1"
    known.put_node(node("h1", taints=[{"key": "old", "effect": "PreferNoSchedule"}]))
    assert chosen(asking(), known) == "h2"
    known.put_node(node("h2", taints=[GPU]))
    assert chosen(asking(), known) == "h1"
    known.put_node(node("h2"))
    assert chosen(asking(), known) == "h2"
