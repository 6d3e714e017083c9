"""Kubernetes objects as people name and see them."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_cli.output import objects
from lamina_kit.errors import InvalidArgument


@pytest.mark.parametrize(("word", "kind"), [("po", "Pod"), ("Deployments", "Deployment"), ("rs", "ReplicaSet")])
def test_short_words_mean_kinds(word: str, kind: str) -> None:
    """A kind is known by its singular, plural and short word, whatever the case."""
    assert objects.kind_of(word).kind == kind


def test_an_unknown_kind_names_the_near_one() -> None:
    """A misspelt kind is refused with what was probably meant."""
    with pytest.raises(InvalidArgument) as caught:
        objects.kind_of("deploymnt")
    assert caught.value.reason == "KIND_UNKNOWN"
    assert "deployment" in caught.value.next_step


def test_targets_split_with_slash_or_blank() -> None:
    """`deploy/hello` and `deploy hello` name the same object."""
    assert objects.split_target(["deploy/hello"]) == objects.split_target(["deploy", "hello"])


def test_a_name_is_required_for_writes() -> None:
    """A write without a name is refused with how to find one."""
    with pytest.raises(InvalidArgument, match="which pod"):
        objects.required(objects.kind_of("pod"), [])


def make_pod(**status: Any) -> dict[str, Any]:
    """Returns a pod with one container."""
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}, "status": status}


@pytest.mark.parametrize(
    ("pod", "state"),
    [
        (make_pod(phase="Running"), "Running"),
        (make_pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
         "CrashLoopBackOff"),
        (make_pod(phase="Failed", containerStatuses=[{"state": {"terminated": {"reason": "OOMKilled"}}}]), "OOMKilled"),
        ({**make_pod(phase="Running"), "metadata": {"name": "p", "deletionTimestamp": "now"}}, "Terminating"),
    ],
)  # fmt: skip
def test_a_pods_state_is_what_kubectl_shows(pod: dict[str, Any], state: str) -> None:
    """The reason of a container that waits or ended stands before the phase; deletion stands before both."""
    assert objects.pod_state(pod) == state


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (130, "2m"), (7300, "2h"), (200000, "2d")])
def test_age_is_rounded_as_kubectl_does(seconds: int, text: str) -> None:
    """Age has one unit."""
    value = {"metadata": {"creationTimestamp": "1970-01-01T00:00:00Z"}}
    assert objects.age(value, float(seconds)) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("deploy/hello", "namespaces/default/deployments/hello"),
        ("pod/hello-1", "namespaces/default/pods/hello-1"),
        ("node/h1", "nodes/h1"),
        ("hosts/h1/frames/9", "hosts/h1/frames/9"),
        ("namespaces/default/pods/a", "namespaces/default/pods/a"),
    ],
)
def test_kubernetes_words_become_resource_names(text: str, name: str) -> None:
    """KIND/NAME is what the orchestrator's decisions are filed under; other names stay."""
    assert objects.resource_name(text, "default") == name
