"""Rules of objects that no shape says, each with the value just inside and just outside."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import deployment, made, pod, replica_set, template
from tests.unit.orchestrator.test_validation import bad_deployment, bad_pod, violations

from lamina_kit.errors import InvalidArgument, Violation
from lamina_orchestrator.domain.kinds.kinds import NAMESPACE, NODE, POD
from lamina_orchestrator.domain.kinds.schema import (
    Amount,
    Boolean,
    Integer,
    IntegerOrPercent,
    ListOf,
    MapOf,
    Moment,
    Only,
    Opaque,
    Struct,
    Text,
    Type,
    refuse,
    shown,
)
from lamina_orchestrator.domain.kinds.yaml_text import Decimal

NODE_NAME = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
SMALL = Struct({"a": Integer(), "bcd": Text()}, required=("a",), unserved=("x",))


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (Text(3), "abc", ""),
        (Text(3), "abcd", "f: Too long: may not be more than 3 characters"),
        (Text(), 5, "f: Invalid value: 5: must be of type string"),
        (Text(), Decimal("1.5"), "f: Invalid value: 1.5: must be of type string"),
        (Text(choices=("a", "b")), "b", ""),
        (Text(choices=("a", "b")), "c", 'f: Unsupported value: "c": supported values: "a", "b"'),
        (Integer(1, 3), 1, ""),
        (Integer(1, 3), 3, ""),
        (Integer(1, 3), 0, "f: Invalid value: 0: must be greater than or equal to 1"),
        (Integer(1, 3), 4, "f: Invalid value: 4: must be less than or equal to 3"),
        (Integer(), True, "f: Invalid value: true: must be of type integer"),
        (Integer(), "1", 'f: Invalid value: "1": must be of type integer'),
        (Boolean(), False, ""),
        (Boolean(), 0, "f: Invalid value: 0: must be of type boolean"),
        (Amount(), 5, ""),
        (Amount(), "0", ""),
        (Amount(), Decimal("1.5"), ""),
        (Amount(), True, "f: Invalid value: true: must be of type quantity"),
        (Amount(), [], "f: Invalid value: a list: must be of type quantity"),
        (Amount(), "-1m", 'f: Invalid value: "-1m": must be greater than or equal to 0'),
        (Amount(), "x", 'f: Invalid value: "x": quantities must be a number'),
        (IntegerOrPercent(), 0, ""),
        (IntegerOrPercent(), 2**31 - 1, ""),
        (IntegerOrPercent(), 2**31, "f: Invalid value: 2147483648: must be greater than or equal to 0 and fit in 32"),
        (IntegerOrPercent(), -1, "f: Invalid value: -1: must be greater"),
        (IntegerOrPercent(), True, "f: Invalid value: true: must be of type integer or percentage"),
        (IntegerOrPercent(), "25%", ""),
        (IntegerOrPercent(), "1234567%", ""),
        (IntegerOrPercent(), "12345678%", "f: Invalid value: "),
        (IntegerOrPercent(), "25", 'f: Invalid value: "25": must be an integer or a percentage'),
        (IntegerOrPercent(), "%", 'f: Invalid value: "%"'),
        (IntegerOrPercent(), "-5%", 'f: Invalid value: "-5%"'),
        (IntegerOrPercent(), "٣%", 'f: Invalid value: "٣%"'),
        (IntegerOrPercent(), Decimal("2.5"), "f: Invalid value: 2.5: must be of type integer or percentage"),
        (Moment(), "2026-01-02T03:04:05Z", ""),
        (Moment(), "yesterday", 'f: Invalid value: "yesterday": must be a time'),
        (Moment(), 5, "f: Invalid value: 5: must be a time"),
        (Only(False), False, ""),
        (Only(False), 0, "f: Unsupported value: 0: supported values: false"),
        (Only(0), 0, ""),
        (Only(0), False, "f: Unsupported value: false: supported values: 0"),
        (Opaque(), {"a": [1, "x", None]}, ""),
        (Opaque(), {"a": [1, Decimal("0.5")]}, "f.a[1]: Invalid value: 0.5: numbers with a fraction are not stored"),
        (Opaque(), 0.5, "f: Invalid value: "),
        (MapOf(Integer()), {"a": 1, "b": None}, ""),
        (MapOf(Integer()), {"a": "x"}, 'f[a]: Invalid value: "x": must be of type integer'),
        (MapOf(Integer()), [], "f: Invalid value: a list: must be of type map"),
        (ListOf(Integer(), limit=2), [1, 1], ""),
        (ListOf(Integer(), limit=2), [1, 2, 3], "f: Too many: 3: must have at most 2 items"),
        (ListOf(Integer()), [1, None], "f[1]: Required value"),
        (ListOf(Integer()), {}, "f: Invalid value: a map: must be of type list"),
        (ListOf(SMALL, "a"), [{"a": 1}, {"a": 2}], ""),
        (ListOf(SMALL, "a"), [{"a": 1}, {"a": 1}], "f[1].a: Duplicate value: 1"),
        (SMALL, {"a": 1, "bcd": None}, ""),
        (SMALL, {"bcd": "x"}, "f.a: Required value"),
        (SMALL, {"a": 1, "x": 0}, "f.x: Forbidden: a Kubernetes field that this orchestrator does not act on"),
        (SMALL, {"a": 1, "bcde": 0}, 'f.bcde: unknown field; did you mean "bcd"?'),
        (SMALL, {"a": 1, "qqqq": 0}, "f.qqqq: unknown field"),
        (SMALL, [], "f: Invalid value: a list: must be of type object"),
    ],
)  # fmt: skip
def test_types_check_values(kind: Type, value: Any, wanted: str) -> None:
    """Each type takes what it should and names what it does not, with its path."""
    found: list[Violation] = []
    kind.check(value, "f", found)
    said = [f"{one.field}: {one.description}" for one in found]
    assert len(said) == (1 if wanted else 0), said
    assert not wanted or said[0].startswith(wanted), said


def test_values_are_normalised() -> None:
    """Quantities come back canonical, null fields do not come back, and the top level has no dot before its names."""
    found: list[Violation] = []
    assert Amount().check(0.5 and "0.5", "f", found) == "500m"
    assert MapOf(Integer()).check({"a": 1, "b": None}, "f", found) == {"a": 1}
    assert SMALL.check({"a": 1, "bcd": None}, "", found) == {"a": 1}
    assert found == []
    SMALL.check({"qqqq": 1}, "", found)
    assert [one.field for one in found] == ["qqqq", "a"]
    assert [one.description for one in found] == ["unknown field", "Required value"]


def test_values_are_shown_cut() -> None:
    """Values in messages are quoted as Kubernetes does, and long ones cut."""
    values: list[Any] = [True, None, 5, "x", [], {}]
    assert [shown(value) for value in values] == [
        "true", "null", "5", '"x"', "a list", "a map",
    ]  # fmt: skip
    assert shown("x" * 80) == f'"{"x" * 80}"'
    assert shown("x" * 81) == f'"{"x" * 80}…"'


def test_a_refusal_names_the_first_eight() -> None:
    """An error names eight violations and counts the rest; all come with it, up to a hundred; none is no error."""
    refuse("It", [])
    with pytest.raises(InvalidArgument) as caught:
        refuse("It", [Violation(f"f{number}", "bad") for number in range(120)])
    assert "f7: bad and 112 more" in str(caught.value)
    assert len(caught.value.violations) == 100
    with pytest.raises(InvalidArgument) as few:
        refuse("It", [Violation(f"f{number}", "bad") for number in range(8)])
    assert "more" not in few.value.message


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"container": {"image": " x"}}, "spec.containers[0].image: Invalid value: \" x\": must not have leading"),
        ({"container": {"ports": [{"name": "A", "containerPort": 1}]}}, "spec.containers[0].ports[0].name: Invalid"),
        ({"container": {"ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]}},
         'spec.containers[0].ports[1].name: Duplicate value: "a"'),
        ({"container": {"ports": [{"containerPort": 65536}]}}, "spec.containers[0].ports[0].containerPort: Invalid"),
        ({"container": {"env": [{**NODE_NAME, "value": "x"}]}},
         "spec.containers[0].env[0].valueFrom: Invalid value: a map: may not be specified when `value` is not empty"),
        ({"container": {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]}},
         "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value"),
        ({"container": {"resources": {"limits": {"memory": "1"}, "requests": {"memory": "2"}}}},
         'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to memory limit of 1'),
        ({"initContainers": [{"name": "B", "image": "y"}]}, "spec.initContainers[0].name: Invalid value"),
        ({"tolerations": [{"key": "a b", "operator": "Exists"}]}, "spec.tolerations[0].key: Invalid value"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 5}]}, "spec.tolerations[0].tolerationSeconds: Forbidden"),
        ({"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]},
         "spec.tolerations[0].tolerationSeconds: Forbidden"),
        ({"nodeSelector": {"a": "b c"}}, "spec.nodeSelector: Invalid value"),
        ({"hostname": "A"}, "spec.hostname: Invalid value"),
    ],
)  # fmt: skip
def test_wrong_pods(spec: dict[str, Any], wanted: str) -> None:
    """Each rule of a pod's spec names the field that breaks it, and that alone."""
    found = bad_pod(**spec)
    assert len(found) == 1, found
    assert found[0].startswith(wanted), found


def test_resources_that_are_not_served() -> None:
    """A limit of an unknown resource is a request of it, too: both are named."""
    found = bad_pod(container={"resources": {"limits": {"gpu": 1}}})
    where = "spec.containers[0].resources"
    assert [line.partition(":")[0] for line in found] == [f"{where}.requests", f"{where}.limits"]


def test_right_pods() -> None:
    """What is just inside the rules is taken."""
    obj = pod(
        container={
            "ports": [{"containerPort": 1}, {"containerPort": 65535}, {"name": "a", "containerPort": 2}],
            "env": [
                {"name": "A.b-c", "value": ""},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}}},
                {"name": "N", "value": "", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['x']"}}},
            ],
            "resources": {"limits": {"cpu": "1", "memory": "1Ki"}, "requests": {"cpu": "1000m", "memory": "1024"}},
        },
        initContainers=[{"name": "a", "image": "x"}],
        tolerations=[
            {"operator": "Exists"}, {"key": "a", "value": "b"}, {"key": "a", "operator": "Exists"},
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": -1},
        ],
        nodeSelector={"a.b/c": ""}, hostname="a",
    )  # fmt: skip
    first = obj["spec"]["containers"][0]
    assert [port["protocol"] for port in first["ports"]] == ["TCP"] * 3
    assert first["env"][1]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert first["env"][0] == {"name": "A.b-c", "value": ""}
    assert obj["spec"]["initContainers"][0]["imagePullPolicy"] == "Always"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"selector": {"matchLabels": {"a b": "c"}}}, "spec.selector.matchLabels: Invalid value"),
        ({"selector": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}},
         "spec.selector.matchExpressions[0].key: Invalid value"),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
         "spec.selector.matchExpressions[0].values: Required value"),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": []}]}},
         "spec.selector.matchExpressions[0].values: Required value"),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}},
         "spec.selector.matchExpressions[0].values: Forbidden: may not be given when operator is Exists"),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
         'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%'),
        ({"progressDeadlineSeconds": 0}, "spec.progressDeadlineSeconds: Invalid value: 0: must be greater"),
        ({"template": {"metadata": {"labels": {"app": "a", "x y": "z"}}, "spec": template()["spec"]}},
         "spec.template.metadata.labels: Invalid value"),
        ({"template": {**template(), "spec": {**template()["spec"], "restartPolicy": "Never"}}},
         'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
        ({"template": {**template(), "spec": {**template()["spec"], "hostname": "A"}}},
         "spec.template.spec.hostname: Invalid value"),
    ],
)  # fmt: skip
def test_wrong_workloads(spec: dict[str, Any], wanted: str) -> None:
    """Each rule of a workload's spec names the field that breaks it."""
    found = bad_deployment(**spec)
    assert any(one.startswith(wanted) for one in found), found


def test_right_workloads() -> None:
    """What is just inside the rules is taken."""
    deployment(progressDeadlineSeconds=1)
    deployment(progressDeadlineSeconds=6, minReadySeconds=5)
    deployment(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}})
    deployment(strategy={"rollingUpdate": {"maxSurge": "1%", "maxUnavailable": 0}})
    deployment(selector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]})
    deployment(selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})
    assert replica_set(replicas=0)["spec"]["replicas"] == 0


def test_names_of_objects() -> None:
    """Names, prefixes of generated names, annotations, finalizers, owners and taints have their rules."""
    containers = {"containers": [{"name": "a", "image": "x"}]}
    named = violations(POD, metadata={"name": "A"}, spec=containers)
    assert named[0].startswith("metadata.name: Invalid value: \"A\": must be lower-case letters, digits, '-' and")
    based = violations(POD, metadata={"generateName": "A-"}, spec=containers)
    assert based[0].startswith('metadata.generateName: Invalid value: "A-"')
    assert violations(POD, metadata={"generateName": "-"}, spec=containers)[0].startswith("metadata.generateName")
    assert violations(NAMESPACE, metadata={"name": "a.b"})[0].startswith('metadata.name: Invalid value: "a.b"')
    spaced = violations(POD, metadata={"name": "a", "namespace": "A"}, spec=containers)
    assert spaced[0].startswith('metadata.namespace: Invalid value: "A"')
    made(POD, metadata={"name": "a.b"}, spec=containers)
    generated = made(POD, metadata={"generateName": "a."}, spec=containers)["metadata"]["name"]
    assert generated.startswith("a.") and len(generated) == 7
    assert violations(NODE, metadata={"name": "h", "annotations": {"a b": ""}})[0].startswith("metadata.annotations")
    size = 256 * 1024
    made(NODE, metadata={"name": "h", "annotations": {"k": "x" * (size - 1)}})
    assert violations(NODE, metadata={"name": "h", "annotations": {"k": "x" * size}}) == [
        f"metadata.annotations: Too long: may not be more than {size} bytes"
    ]
    held = violations(NODE, metadata={"name": "h", "finalizers": ["a", "b c"]})
    assert held[0].startswith("metadata.finalizers[1]: Invalid value")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "h", "controller": True}
    both = [{**owner, "uid": "1"}, {**owner, "uid": "2"}]
    assert violations(NODE, metadata={"name": "h", "ownerReferences": both})[0].startswith("metadata.ownerReferences")
    made(NODE, metadata={"name": "h", "ownerReferences": [both[0], {**both[1], "controller": False}]})


def test_rules_of_taints() -> None:
    """A taint's key and value are a label's, and two of one key and effect are refused."""

    def bad(*taints: dict[str, str]) -> list[str]:
        return violations(NODE, metadata={"name": "h"}, spec={"taints": list(taints)})

    taint = {"key": "a", "effect": "NoSchedule"}
    assert bad({**taint, "key": "a b"})[0].startswith("spec.taints[0].key: Invalid value")
    assert bad({**taint, "value": "b c"})[0].startswith("spec.taints[0].value: Invalid value")
    assert bad(taint, {**taint, "value": "x"}) == [
        "spec.taints[1]: Duplicate value: taints must be unique by key and effect"
    ]
    made(NODE, metadata={"name": "h"}, spec={"taints": [taint, {**taint, "effect": "NoExecute"}]})
