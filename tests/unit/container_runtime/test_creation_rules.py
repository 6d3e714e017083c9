"""What creators may ask for: each field just inside and just outside its range."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb

from lamina_container_runtime import convert, requests
from lamina_container_runtime.domain.containers import user_spec
from lamina_container_runtime.domain.names import Names
from lamina_kit.errors import InvalidArgument

NAMES = Names("h1")
SANDBOX = NAMES.sandbox("s-1")


def wrong(call: Any) -> list[str]:
    """Fields that a refusal names; none when it is taken."""
    try:
        call()
    except InvalidArgument as error:
        return [violation.field for violation in error.violations]
    return []


def label(key: str = "k", value: str = "v") -> pb.Label:
    """A label."""
    return pb.Label(key=key, value=value)


RESOURCES: list[tuple[dict[str, int], str]] = [
    ({"cpu_weight": 10_000}, ""), ({"cpu_weight": 10_001}, "cpu_weight"), ({"cpu_weight": -1}, "cpu_weight"),
    ({"cpu_period_ns": 1_000_000}, ""), ({"cpu_period_ns": 999_999}, "cpu_period_ns"),
    ({"cpu_period_ns": 10**9}, ""), ({"cpu_period_ns": 10**9 + 1}, "cpu_period_ns"),
    ({"cpu_quota_ns": 10**12}, ""), ({"cpu_quota_ns": 10**12 + 1}, "cpu_quota_ns"),
    ({"cpu_quota_ns": -1}, "cpu_quota_ns"),
    ({"memory_limit_bytes": 1 << 50}, ""), ({"memory_limit_bytes": (1 << 50) + 1}, "memory_limit_bytes"),
    ({"memory_limit_bytes": 1}, "memory_limit_bytes"),
    ({"swap_limit_bytes": -1}, ""), ({"swap_limit_bytes": -2}, "swap_limit_bytes"),
    ({"swap_limit_bytes": 1 << 50}, ""), ({"swap_limit_bytes": (1 << 50) + 1}, "swap_limit_bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "named"), RESOURCES)
def test_resources_have_ranges(fields: dict[str, int], named: str) -> None:
    """Weights, periods, quotas and limits have their ends, in sandboxes and in containers."""
    resources = pb.Resources(**fields)  # type: ignore[arg-type]
    sandbox = pb.Sandbox(metadata=pb.SandboxMetadata(name="p"), resources=resources)
    assert wrong(lambda: convert.sandbox_spec(sandbox)) == ([f"sandbox.resources.{named}"] if named else [])
    metadata = pb.ContainerMetadata(name="c")
    container = pb.Container(sandbox=SANDBOX, metadata=metadata, image="i", resources=resources)
    found = wrong(lambda: convert.container_spec(container, NAMES))
    assert found == ([f"container.resources.{named}"] if named else [])


@pytest.mark.parametrize(
    ("metadata", "fields", "named"),
    [
        ({}, {}, ""),
        ({"name": "n" * 253, "namespace": "s" * 63, "uid": "u" * 63, "attempt": 2**31 - 1}, {}, ""),
        ({"name": ""}, {}, "metadata.name"),
        ({"name": "n" * 254}, {}, "metadata.name"),
        ({"namespace": "s" * 64}, {}, "metadata.namespace"),
        ({"uid": "u" * 64}, {}, "metadata.uid"),
        ({"attempt": -1}, {}, "metadata.attempt"),
        ({}, {"hostname": "h" * 64, "pids_limit": 32768}, ""),
        ({}, {"hostname": "h" * 65}, "hostname"),
        ({}, {"pids_limit": 32769}, "pids_limit"),
        ({}, {"pids_limit": -1}, "pids_limit"),
        ({}, {"labels": [label("k" * 317, "v" * (256 << 10))]}, ""),
        ({}, {"labels": [label("k" * 318)]}, "labels.key"),
        ({}, {"labels": [label("")]}, "labels.key"),
        ({}, {"labels": [label("k", "v" * ((256 << 10) + 1))]}, "labels.value"),
        ({}, {"labels": [label(), label()]}, "labels"),
        ({}, {"annotations": [label(), label()]}, "annotations"),
    ],
)
def test_sandboxes_have_ranges(metadata: dict[str, Any], fields: dict[str, Any], named: str) -> None:
    """Names, numbers, labels and annotations of a sandbox have their ends, and the wrong one is named."""
    message = pb.Sandbox(metadata=pb.SandboxMetadata(**{"name": "p", **metadata}), **fields)
    assert wrong(lambda: convert.sandbox_spec(message)) == ([f"sandbox.{named}"] if named else [])


def test_defaults_of_a_sandbox() -> None:
    """What is not given has the usual value, and labels come in order."""
    metadata = pb.SandboxMetadata(name="p", namespace="n", uid="u", attempt=3)
    made = convert.sandbox_spec(pb.Sandbox(metadata=metadata, labels=[label("b"), label("a")]))
    assert (made.metadata.name, made.metadata.namespace, made.metadata.uid, made.metadata.attempt) == ("p", "n", "u", 3)
    assert made.labels == (("a", "v"), ("b", "v"))
    assert made.pids_limit > 0 and made.resources.cpu_weight > 0 and made.resources.cpu_period_ns > 0
    assert convert.sandbox_spec(pb.Sandbox(metadata=metadata, pids_limit=5)).pids_limit == 5


@pytest.mark.parametrize(
    ("metadata", "fields", "named"),
    [
        ({}, {}, ""),
        ({"name": "c" * 63, "attempt": 2**31 - 1}, {"working_dir": "/" + "w" * 4094, "user": "u" * 255}, ""),
        ({"name": ""}, {}, "metadata.name"),
        ({"name": "c" * 64}, {}, "metadata.name"),
        ({"attempt": -1}, {}, "metadata.attempt"),
        ({}, {"image": ""}, "image"),
        ({}, {"args": ["a\0b"]}, "args"),
        ({}, {"env": ["A="]}, ""),
        ({}, {"env": ["A"]}, "env"),
        ({}, {"env": ["=x"]}, "env"),
        ({}, {"working_dir": "w"}, "working_dir"),
        ({}, {"working_dir": "/" + "w" * 4095}, "working_dir"),
        ({}, {"user": "u" * 256}, "user"),
        ({}, {"args": ["x" * (convert._MAX_ARGUMENTS - 1)]}, ""),
        ({}, {"args": ["x" * convert._MAX_ARGUMENTS]}, "args"),
        ({}, {"labels": [label(), label()]}, "labels"),
        ({}, {"annotations": [label("")]}, "annotations.key"),
    ],
)
def test_containers_have_ranges(metadata: dict[str, Any], fields: dict[str, Any], named: str) -> None:
    """Names, words, places and labels of a container have their ends, and the wrong one is named."""
    known = {"sandbox": SANDBOX, "image": "i", **fields}
    message = pb.Container(metadata=pb.ContainerMetadata(**{"name": "c", **metadata}), **known)
    assert wrong(lambda: convert.container_spec(message, NAMES)) == ([f"container.{named}"] if named else [])


def test_labels_choose() -> None:
    """A choice by labels wants all of them with their values; none choose everything."""
    own = (("a", "1"), ("b", "2"))
    assert convert.has_labels(own, [])
    assert convert.has_labels(own, [label("a", "1"), label("b", "2")])
    assert not convert.has_labels(own, [label("a", "1"), label("b", "3")])
    assert not convert.has_labels(own, [label("c", "")])


def test_logs_are_asked_for_with_bounds() -> None:
    """Lines are not negative, none given means all, and streams are those of the contract."""
    name = NAMES.container("c-1")
    assert requests.log_request(pb.ReadLogsRequest(name=name), NAMES) == requests.LogRequest("c-1", None, "")
    asked = pb.ReadLogsRequest(name=name, tail_lines=0, stream=pb.LogEntry.STREAM_STDERR)
    assert requests.log_request(asked, NAMES) == requests.LogRequest("c-1", 0, "stderr")
    for fields, named in (({"tail_lines": -1}, "tail_lines"), ({"since_wall_time_ns": -1}, "since_wall_time_ns")):
        request = pb.ReadLogsRequest(name=name, **fields)  # type: ignore[arg-type]
        assert wrong(lambda request=request: requests.log_request(request, NAMES)) == [named]
    assert wrong(lambda: convert.stream_name(99)) == ["stream"]


def test_an_image_is_asked_for_in_one_way() -> None:
    """By its name or by a reference, not by both and not by neither."""
    assert requests.image_key("", "busybox", NAMES) == "busybox"
    assert wrong(lambda: requests.image_key("", "", NAMES)) == ["name"]
    assert wrong(lambda: requests.image_key(NAMES.image("0" * 64), "busybox", NAMES)) == ["name"]


async def test_an_archive_arrives_in_order() -> None:
    """An import begins with its start, goes on with chunks of at most a mebibyte, and is read from its beginning."""
    start = pb.ImportImageRequest(start=pb.ImportStart(reference="r"))
    chunk = pb.ImportImageRequest(chunk=b"x" * (1 << 20))

    async def say(*messages: pb.ImportImageRequest) -> AsyncIterator[pb.ImportImageRequest]:
        for message in messages:
            yield message

    file = io.BytesIO()
    assert await requests.receive_archive(say(start, chunk, chunk), file) == ("r", 2 << 20)
    assert (file.tell(), len(file.getvalue())) == (0, 2 << 20)
    big = pb.ImportImageRequest(chunk=b"x" * ((1 << 20) + 1))
    for messages in ((), (chunk,), (start, start), (start, big)):
        with pytest.raises(InvalidArgument) as caught:
            await requests.receive_archive(say(*messages), io.BytesIO())
        assert caught.value.reason == "REQUEST_INVALID"


def test_users_of_an_image() -> None:
    """An entry needs a home and no shell; one that is shorter is none; groups of a user are those that name it."""
    passwd = "short:x:1:1:s\nweb:x:5:6:Web:/srv\nbad:x:5x:6:Bad:/bad"
    group = "web:x:6:\nlog:x:9:root,web\nadm:x:7:web\nodd:x:y:web"
    assert user_spec.resolve("web", passwd, group) == user_spec.UserIds(5, 6, (7, 9), "/srv")
    assert user_spec.resolve("5", passwd, group).home == "/srv"
    assert user_spec.resolve("web:log", passwd, group) == user_spec.UserIds(5, 9, (), "/srv")
    assert user_spec.resolve("77:88", passwd, group) == user_spec.UserIds(77, 88, (), "")
    assert user_spec.resolve("", passwd, group) == user_spec.UserIds(0, 0, (), "")
    for spec in ("short", "bad", "web:", "web:none", "-1", "9" * 11):
        with pytest.raises(InvalidArgument) as caught:
            user_spec.resolve(spec, passwd, group)
        assert caught.value.reason == "USER_UNKNOWN"
