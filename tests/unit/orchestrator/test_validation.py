"""Shapes and rules: every violation names its field as Kubernetes does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import deployment, made, pod, template

from lamina_kit.errors import Aborted, InvalidArgument
from lamina_orchestrator.domain.admission.chain import shaped, update
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, NODE, POD, kind_named


def violations(kind: Any, **parts: Any) -> list[str]:
    """What is wrong with an object, as `field: description`."""
    with pytest.raises(InvalidArgument) as caught:
        made(kind, **parts)
    assert caught.value.reason == "OBJECT_INVALID"
    return [f"{found.field}: {found.description}" for found in caught.value.violations]


def bad_pod(**spec: Any) -> list[str]:
    """What is wrong with a pod."""
    container = {"name": "main", "image": "x", **spec.pop("container", {})}
    return violations(POD, metadata={"name": "p"}, spec={"containers": [container], **spec})


def bad_deployment(**spec: Any) -> list[str]:
    """What is wrong with a Deployment."""
    whole = {"selector": {"matchLabels": {"app": "a"}}, "template": template(), **spec}
    return violations(DEPLOYMENT, metadata={"name": "d"}, spec=whole)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"replicas": "3"}, 'spec.replicas: Invalid value: "3": must be of type integer'),
        ({"replica": 3}, 'spec.replica: unknown field; did you mean "replicas"?'),
        ({"selector": {}}, "spec.selector: Required value"),
        ({"selector": {"matchLabels": {"app": "b"}}},
         "spec.template.metadata.labels: Invalid value: a map: `selector` does not match template `labels`"),
        ({"strategy": {"type": "Blue"}},
         'spec.strategy.type: Unsupported value: "Blue": supported values: "RollingUpdate", "Recreate"'),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
         "spec.strategy.rollingUpdate: Forbidden: may not be given when strategy `type` is 'Recreate'"),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
         'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'),
        ({"progressDeadlineSeconds": 5, "minReadySeconds": 5},
         "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"),
    ],
)  # fmt: skip
def test_wrong_deployments(spec: dict[str, Any], wanted: str) -> None:
    """Each wrong field of a Deployment is named with its value and the rule."""
    assert wanted in bad_deployment(**spec)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"container": {"name": "A_"}}, "spec.containers[0].name: Invalid value: "),
        ({"container": {"image": ""}}, "spec.containers[0].image: Required value"),
        ({"container": {"livenessProbe": {}}}, "spec.containers[0].livenessProbe: Forbidden: a Kubernetes field"),
        ({"container": {"tty": True}}, "spec.containers[0].tty: Unsupported value: true: supported values: false"),
        ({"container": {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}},
         'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"container": {"resources": {"requests": {"cpu": -1}}}},
         "spec.containers[0].resources.requests[cpu]: Invalid value: -1: must be greater than or equal to 0"),
        ({"container": {"resources": {"requests": {"gpu": 1}}}}, "spec.containers[0].resources.requests: Unsupported"),
        ({"container": {"ports": [{"containerPort": 0}]}},
         "spec.containers[0].ports[0].containerPort: Invalid value: 0: must be greater than or equal to 1"),
        ({"container": {"env": [{"name": "A=B"}]}}, "spec.containers[0].env[0].name: Invalid value"),
        ({"container": {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}},
         "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value"),
        ({"initContainers": [{"name": "main", "image": "y"}]}, 'spec.containers[0].name: Duplicate value: "main"'),
        ({"tolerations": [{"operator": "Exists", "value": "x", "key": "k"}]}, "spec.tolerations[0].value: Invalid"),
        ({"tolerations": [{"value": "x"}]}, "spec.tolerations[0].operator: Invalid value"),
        ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector: Invalid value"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds: Invalid value: -1"),
        ({"affinity": {}}, "spec.affinity: Forbidden"),
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]},
         'spec.containers[1].name: Duplicate value: "a"'),
    ],
)  # fmt: skip
def test_wrong_pods(spec: dict[str, Any], wanted: str) -> None:
    """Each wrong field of a pod is named with its path."""
    assert any(found.startswith(wanted) for found in bad_pod(**spec)), bad_pod(**spec)


def test_metadata_rules() -> None:
    """Names, namespaces, labels and finalizers follow their rules."""
    assert violations(NODE, metadata={"name": "h1", "namespace": "x"}) == [
        "metadata.namespace: Forbidden: Node objects have no namespace"
    ]
    found = violations(POD, metadata={"labels": {"a b": "c", "k": "é"}}, spec={"containers": []})
    assert {line.partition(":")[0] for line in found} == {
        "metadata.name", "metadata.labels", "metadata.labels[k]", "spec.containers",
    }  # fmt: skip
    assert violations(POD, metadata=5)[0] == "metadata: Invalid value: 5: must be of type object"


def test_defaults_are_filled_in() -> None:
    """What a manifest leaves out gets Kubernetes' defaults, and requests default to limits."""
    obj = pod(container={"image": "x", "resources": {"limits": {"cpu": "0.5"}}})
    container = obj["spec"]["containers"][0]
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"]["requests"] == {"cpu": "500m"}
    assert obj["spec"]["restartPolicy"] == "Always"
    assert [toleration["tolerationSeconds"] for toleration in obj["spec"]["tolerations"]] == [300, 300]
    assert deployment()["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert pod(container={"image": "r.io:5000/x"})["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert pod(container={"image": "r.io/x:1"})["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_null_is_absent() -> None:
    """A field given as null is as if it were not given."""
    container = {"name": "a", "image": "b", "env": None}
    checked = shaped(POD, {"metadata": {"name": "p"}, "spec": {"containers": [container]}}, "n")
    assert "env" not in checked["spec"]["containers"][0]


def test_what_may_not_change() -> None:
    """A pod's spec and a workload's selector are refused when they change; tolerations may be added."""
    before = pod()
    after = {**before, "spec": {**before["spec"], "hostname": "other"}}
    with pytest.raises(InvalidArgument, match="may not change but for added tolerations"):
        update(POD, before, after)
    more = [*before["spec"]["tolerations"], {"key": "k", "operator": "Exists"}]
    grown = update(POD, before, {**before, "spec": {**before["spec"], "tolerations": more}})
    assert grown["spec"]["tolerations"] == more
    old = deployment()
    new = {**old, "spec": {**old["spec"], "selector": {"matchLabels": {"app": "a", "x": "y"}}}}
    with pytest.raises(InvalidArgument, match="field is immutable"):
        update(DEPLOYMENT, old, new)


def test_updates_move_the_generation() -> None:
    """A changed spec counts the generation up; changed metadata or nothing does not; another uid conflicts."""
    old = deployment()
    assert update(DEPLOYMENT, old, old) == old
    scaled = update(DEPLOYMENT, old, {**old, "spec": {**old["spec"], "replicas": 9}})
    assert scaled["metadata"]["generation"] == 2
    with pytest.raises(Aborted, match="has been modified"):
        update(DEPLOYMENT, old, {**old, "metadata": {**old["metadata"], "uid": "other"}})


def test_unknown_kinds_name_the_near_one() -> None:
    """An unknown kind or version is refused, naming what is served."""
    with pytest.raises(InvalidArgument, match="did you mean Deployment"):
        kind_named("Deploymet")
    with pytest.raises(InvalidArgument, match=r'served in "apps/v1"'):
        kind_named("Deployment", "v1")
