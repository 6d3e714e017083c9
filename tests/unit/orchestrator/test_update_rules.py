"""Rules of changes to objects: who may write what, what is kept, what is filled in."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import ADMISSION, START, deployment, made, pod, replica_set, template
from tests.unit.orchestrator.test_validation import violations

from lamina_kit.errors import Aborted, InvalidArgument
from lamina_orchestrator.domain.admission.chain import check_preconditions, check_same, describe, shaped, update
from lamina_orchestrator.domain.admission.defaults import with_tolerations
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, EVENT, LEASE, NAMESPACE, NODE, POD, REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import with_metadata


def test_only_the_system_writes_system_fields() -> None:
    """Who creates an object gives neither its uid, nor its times, nor its status; a resource version is refused."""
    given = {"name": "team", "uid": "mine", "generation": 7, "creationTimestamp": "2020-01-01T00:00:00Z"}
    obj = made(NAMESPACE, metadata=given, status={"phase": "Mine"})
    assert obj["metadata"]["uid"] != "mine"
    assert (obj["metadata"]["generation"], obj["metadata"]["creationTimestamp"]) == (1, "2026-01-01T00:00:00Z")
    assert obj["status"] == {"phase": "Active"}
    assert obj["spec"] == {"finalizers": ["kubernetes"]}
    assert obj["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    assert violations(NAMESPACE, metadata={"name": "a", "resourceVersion": "5"}) == [
        "metadata.resourceVersion: Forbidden: may not be set on objects to be created"
    ]
    assert violations(NAMESPACE, metadata={"name": "a", "resourceVersion": "x"}) == [
        'metadata.resourceVersion: Invalid value: "x": must be a number'
    ]
    assert pod()["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert deployment()["status"] == {}
    assert "status" not in made(EVENT, metadata={"name": "e"}, involvedObject={})
    assert "namespace" not in made(NODE, metadata={"name": "h"})["metadata"]
    assert made(LEASE, metadata={"name": "l"})["metadata"]["namespace"] == "default"


def test_updates_keep_what_the_system_wrote() -> None:
    """An update keeps system fields and status, fills defaults in, and checks as a creation does."""
    old = deployment(2)
    old["status"] = {"replicas": 2}
    new = {**old, "status": {}, "metadata": {"name": "d", "namespace": "default", "labels": {"x": "1"}}}
    after = update(DEPLOYMENT, old, new)
    assert after["status"] == {"replicas": 2}
    assert after["metadata"]["uid"] == old["metadata"]["uid"]
    assert (after["metadata"]["labels"], after["metadata"]["generation"]) == ({"x": "1"}, 1)
    with pytest.raises(InvalidArgument, match="does not match"):
        update(
            DEPLOYMENT, old, {**new, "spec": {**old["spec"], "template": {"metadata": {}, "spec": template()["spec"]}}}
        )
    status = update(DEPLOYMENT, old, {**new, "status": {"replicas": 9}}, status_only=True)
    assert (status["status"], status["metadata"]) == ({"replicas": 9}, old["metadata"])
    event = made(EVENT, metadata={"name": "e"}, involvedObject={})
    assert "status" not in update(EVENT, event, event)
    own = replica_set()
    with pytest.raises(InvalidArgument, match="field is immutable"):
        update(REPLICA_SET, own, {**own, "spec": {**own["spec"], "selector": {"matchLabels": {"app": "a", "b": "c"}}}})


def test_tolerations_of_a_pod_may_only_grow() -> None:
    """A toleration that is there may be neither removed nor changed."""
    old = pod()
    fewer = {**old, "spec": {**old["spec"], "tolerations": old["spec"]["tolerations"][:1]}}
    with pytest.raises(InvalidArgument, match="existing tolerations may not be changed or removed"):
        update(POD, old, fewer)


def test_finalizers_are_not_added_to_what_is_deleted() -> None:
    """An object that is being deleted may lose finalizers and gets no new ones."""
    old = with_metadata(deployment(), finalizers=["a/x", "a/y"], deletionTimestamp="2026-01-01T00:00:00Z")
    fewer = update(DEPLOYMENT, old, with_metadata(old, finalizers=["a/y"]))
    assert fewer["metadata"]["finalizers"] == ["a/y"]
    with pytest.raises(InvalidArgument, match="no new finalizers"):
        update(DEPLOYMENT, old, with_metadata(old, finalizers=["a/x", "a/y", "a/z"]))
    alive = with_metadata(deployment(), finalizers=["a/x"])
    assert update(DEPLOYMENT, alive, with_metadata(alive, finalizers=["a/z"]))["metadata"]["finalizers"] == ["a/z"]


def test_preconditions() -> None:
    """A wanted uid and version have to be the object's; none wanted is always right."""
    obj = with_metadata(pod(), resourceVersion="7")
    uid = obj["metadata"]["uid"]
    check_preconditions(POD, obj, "", 0)
    check_preconditions(POD, obj, uid, 7)
    for wanted in (("other", 0), (uid, 6)):
        with pytest.raises(Aborted) as caught:
            check_preconditions(POD, obj, *wanted)
        assert caught.value.reason == "CONFLICT"


def test_a_patch_may_not_move_an_object() -> None:
    """Another name or namespace than the object's is refused; a kind without namespaces has none to differ."""
    check_same(POD, pod(), "default", "p")
    check_same(NODE, made(NODE, metadata={"name": "h"}), "any", "h")
    for where, name in (("team", "p"), ("default", "q")):
        with pytest.raises(InvalidArgument, match="may not be changed"):
            check_same(POD, pod(), where, name)
    assert describe(POD, pod()) == 'Pod "default/p"'
    assert describe(NODE, {"metadata": {"name": "h", "namespace": "x"}}) == 'Node "h"'
    assert describe(POD, {"metadata": {"generateName": "g-"}}) == 'Pod "g-"'


def test_shapes_fill_in_the_namespace() -> None:
    """A kind with namespaces gets the default one, and keeps its own; empty labels are no labels."""
    spec = {"containers": [{"name": "a", "image": "x"}]}
    obj = shaped(POD, {"metadata": {"name": "p", "labels": {}}, "spec": spec}, "team")
    assert obj["metadata"] == {"name": "p", "namespace": "team"}
    assert (
        shaped(POD, {"metadata": {"name": "p", "namespace": "x"}, "spec": spec}, "team")["metadata"]["namespace"] == "x"
    )
    assert "namespace" not in shaped(NODE, {"metadata": {"name": "h"}}, "team")["metadata"]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], 2),
        ([{"operator": "Exists"}], 0),
        ([{"operator": "Exists", "effect": "NoExecute"}], 0),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}], 1),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}], 2),
        ([{"key": "gpu", "operator": "Exists"}], 2),
    ],
)
def test_every_pod_tolerates_a_lost_node_for_a_while(given: list[dict[str, Any]], added: int) -> None:
    """A pod gets a toleration for each of the two taints of a lost node that it does not tolerate in its own way."""
    obj = with_tolerations({"spec": {"tolerations": given}}, 77)
    new = obj["spec"]["tolerations"][len(given) :]
    assert obj["spec"]["tolerations"][: len(given)] == given
    assert len(new) == added
    assert all((one["tolerationSeconds"], one["effect"], one["operator"]) == (77, "NoExecute", "Exists") for one in new)


@pytest.mark.parametrize(
    ("image", "policy"),
    [("x", "Always"), ("x:latest", "Always"), ("x:1", "IfNotPresent"), ("r:5000/x", "Always"),
     ("r/x@sha256:abc", "IfNotPresent"), ("x@sha256:abc", "IfNotPresent")],
)  # fmt: skip
def test_the_tag_decides_when_to_pull(image: str, policy: str) -> None:
    """An image without a tag, or with `latest`, is pulled always; one with another tag or a digest when missing."""
    assert pod(container={"image": image})["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_requests_default_to_limits_one_by_one() -> None:
    """A resource with a limit and no request requests its limit; requests that are given stay."""
    resources = {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}
    assert pod(container={"resources": resources})["spec"]["containers"][0]["resources"]["requests"] == {
        "cpu": "1", "memory": "1Gi",
    }  # fmt: skip
    only = {"requests": {"cpu": "1"}}
    assert pod(container={"resources": only})["spec"]["containers"][0]["resources"] == only
    assert ADMISSION.complete(NODE, {"metadata": {"name": "h"}}, START)["metadata"]["generation"] == 1
