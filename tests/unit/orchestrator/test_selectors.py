"""Label and field selectors."""

from __future__ import annotations

import pytest

from lamina_kit.errors import InvalidArgument
from lamina_orchestrator.domain.kinds.kinds import EVENT, NODE, POD
from lamina_orchestrator.domain.objects.selectors import label_selector, parse_field_selector, parse_label_selector

LABELS = {"app": "hello", "tier": "web"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("", True), ("app=hello", True), ("app==x", False), ("tier!=db", True), ("no!=x", True), ("app", True),
     ("!app", False), ("!no", True), ("app in (a, hello)", True), ("app notin (hello,b)", False),
     ("no notin (a)", True), ("app=hello,tier in (db,web),!x", True), ("app=", False)],
)  # fmt: skip
def test_label_selectors(text: str, wanted: bool) -> None:
    """Each form selects as kubectl's does."""
    assert parse_label_selector(text).matches(LABELS) is wanted


@pytest.mark.parametrize("text", ["=x", "a in (", "a in b", "a=b=c", "a b", "é=1", "a=b c", ",", "x" * 5000])
def test_malformed_selectors_are_refused(text: str) -> None:
    """What is no selector is refused."""
    with pytest.raises(InvalidArgument) as caught:
        parse_label_selector(text)
    assert caught.value.reason == "SELECTOR_MALFORMED"


def test_selectors_of_workloads() -> None:
    """matchLabels and matchExpressions all have to hold."""
    expressions = [{"key": "tier", "operator": "In", "values": ["web"]}, {"key": "x", "operator": "DoesNotExist"}]
    selector = label_selector({"matchLabels": {"app": "hello"}, "matchExpressions": expressions})
    assert selector.matches(LABELS)
    assert not selector.matches({**LABELS, "x": "1"})


def test_field_selectors() -> None:
    """Fields are compared as text; absent ones are empty; unknown ones are refused with the known ones."""
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "h1"}, "status": {"phase": "Running"}}
    assert parse_field_selector("spec.nodeName=h1,status.phase!=Failed", POD).matches(pod)
    assert parse_field_selector("metadata.namespace=", POD).matches(pod)
    event = {"metadata": {}, "involvedObject": {"uid": "u"}, "source": {"component": "kubelet"}}
    assert parse_field_selector("involvedObject.uid=u,source=kubelet", EVENT).matches(event)
    assert parse_field_selector("spec.unschedulable=false", NODE).matches({"metadata": {}, "spec": {}})
    with pytest.raises(InvalidArgument, match=r"its fields are metadata\.name"):
        parse_field_selector("spec.hostname=x", POD)
    with pytest.raises(InvalidArgument, match="FIELD=VALUE"):
        parse_field_selector("spec.nodeName", POD)
