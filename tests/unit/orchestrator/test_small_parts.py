"""Small pure parts: patches, names, times, back-off, taints, leases."""

from __future__ import annotations

import pytest

from lamina_orchestrator.domain.controllers.node_lease import renewed_at
from lamina_orchestrator.domain.kinds.plain_object import Key, canonical, parse_path
from lamina_orchestrator.domain.kinds.timestamps import SECOND, parse_time, rfc3339, rfc3339_micro
from lamina_orchestrator.domain.objects.names import generated_name, is_label, is_subdomain, template_hash, uid
from lamina_orchestrator.domain.objects.patch import merge_patch, three_way
from lamina_orchestrator.domain.pods.backoff import Backoff, after_tries
from lamina_orchestrator.domain.scheduling.taints import seconds_tolerated, tolerates

RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"a": "b"}, ["c"], ["c"]),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "wanted"), RFC_7386)
def test_merge_patch_is_the_rfc_s(target: object, patch: object, wanted: object) -> None:
    """The examples of RFC 7386, appendix A, come out as printed there."""
    assert merge_patch(target, patch) == wanted


def test_three_way_merge() -> None:
    """What was applied and is left out goes; what others set stays; lists are replaced."""
    live = {"spec": {"a": 1, "b": 2, "byOthers": 3, "list": [1, 2]}}
    last = {"spec": {"a": 1, "b": 2, "list": [1, 2]}}
    assert three_way(last, {"spec": {"a": 9, "list": [3]}}, live) == {"spec": {"a": 9, "byOthers": 3, "list": [3]}}
    assert three_way(None, {"spec": {"a": 9}}, live)["spec"]["b"] == 2
    rolling = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    recreate = {"spec": {"strategy": {"type": "Recreate"}}}
    assert three_way(None, recreate, rolling) == recreate


def test_names() -> None:
    """Generated names stay within 63 characters; hashes depend on the template and on collisions alone."""
    assert generated_name("hello-", bytes(5)) == "hello-bbbbb"
    assert len(generated_name("x" * 100, bytes(5))) == 63
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1}) != template_hash({"a": 1, "b": 2}, 1)
    assert uid(bytes(16)) == "00000000-0000-4000-8000-000000000000"
    assert is_label("a-1") and not is_label("A") and not is_label("-a") and not is_label("a" * 64)
    assert is_subdomain("a.b-c") and not is_subdomain("a..b") and not is_subdomain("a" * 254)


def test_times() -> None:
    """Times are written in whole seconds or microseconds and read back exactly."""
    now = 1_767_225_600 * SECOND + 123_456_789
    assert rfc3339(now) == "2026-01-01T00:00:00Z"
    assert rfc3339_micro(now) == "2026-01-01T00:00:00.123456Z"
    assert parse_time("2026-01-01T00:00:00.123456789Z") == now
    assert parse_time("2026-01-01T02:00:00+02:00") == 1_767_225_600 * SECOND
    for text in ("2026-01-01", "2026-13-01T00:00:00Z", "x", "2026-01-01T00:00:00"):
        with pytest.raises(ValueError, match=r".+"):
            parse_time(text)


def test_keys_and_paths() -> None:
    """A key's path and resource name tell namespaced objects from others, and a path reads back."""
    pod, node = Key("pods", "default", "p"), Key("nodes", "", "h1")
    assert (pod.path, node.path) == ("pods/default/p", "nodes/h1")
    assert (parse_path(pod.path), parse_path(node.path)) == (pod, node)
    assert (pod.resource_name, node.resource_name) == ("namespaces/default/pods/p", "nodes/h1")
    assert Key("deployments.apps", "a", "b").resource_name == "namespaces/a/deployments/b"
    assert canonical({"b": "é", "a": [1]}) == '{"a":[1],"b":"é"}'


def test_backoff_grows_and_forgets() -> None:
    """The first try is immediate, then 10 s doubling to 5 min; a long run starts it anew."""
    backoff, now, waits = Backoff(), 0, []
    for _ in range(8):
        waits.append((backoff.ready_at(now) - now) // SECOND)
        backoff = backoff.advanced(now)
        now = backoff.ready_at(now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    later = now + 601 * SECOND
    assert backoff.ready_at(later) == later
    assert backoff.advanced(later).delay_ns == 10 * SECOND
    assert [after_tries(count, 0).delay_ns // SECOND for count in (0, 1, 2, 3, 50)] == [0, 10, 20, 40, 300]


def test_tolerations() -> None:
    """A toleration covers by key, value and effect; seconds are the least of those that cover."""
    taint = {"key": "k", "value": "v", "effect": "NoExecute"}
    assert tolerates({"key": "k", "value": "v"}, taint)
    assert tolerates({"operator": "Exists"}, taint)
    assert not tolerates({"key": "k", "value": "w"}, taint)
    assert not tolerates({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, taint)
    exists = {"key": "k", "operator": "Exists"}
    assert seconds_tolerated(taint, []) == 0
    assert seconds_tolerated(taint, [exists]) is None
    assert seconds_tolerated(taint, [{**exists, "tolerationSeconds": 30}, {**exists, "tolerationSeconds": 9}]) == 9


def test_leases_renew_in_closed_form() -> None:
    """The last renewal is the last multiple of 10 s since the node began to answer."""
    assert [renewed_at(100, 100 + s * SECOND) for s in (0, 9, 10, 25)] == [
        100, 100, 100 + 10 * SECOND, 100 + 20 * SECOND,
    ]  # fmt: skip
