"""Between the orchestrator and the world: agents and their pauses, the client's words, addresses, what can be set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.message import Message
from lamina.container_runtime.v1 import container_runtime_pb2 as runtime_pb
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from tests.contract.orchestrator.stepped_clock import SteppedClock

from lamina_kit.errors import Internal, InvalidArgument, LaminaError, NotFound, Unavailable, Unimplemented
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_orchestrator import convert
from lamina_orchestrator.config import OrchestratorConfig
from lamina_orchestrator.domain.kinds.kinds import NODE, POD
from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    RUNNING,
    ContainerSpec,
    ContainerState,
    Limits,
    SandboxState,
)
from lamina_orchestrator.domain.pods.effects import StopContainersCall
from lamina_orchestrator.engines.interface import ContainerSeen, Input, NodeAnswers, NodeSilent
from lamina_orchestrator.io.cluster import Cluster
from lamina_orchestrator.io.performer import Performer
from lamina_orchestrator.io.runtimes import client
from lamina_orchestrator.io.runtimes.agents import Agents
from lamina_orchestrator.io.runtimes.connector import ChannelConnector
from lamina_orchestrator.io.runtimes.runtime import LogChunk

SECOND = 10**9


class Runtime:
    """A runtime that answers as often as it is told to, and whose stream ends at once or when it is let go."""

    def __init__(self, clock: SteppedClock, answers: bool = True, stays: bool = False) -> None:
        self.clock = clock
        self.answers = answers
        self.stays = asyncio.Event() if stays else None
        self.closed = 0
        self.hellos: list[int] = []

    async def hello(self) -> None:
        """Answers or not, and keeps when it was asked."""
        self.hellos.append(self.clock.now_ns())
        if not self.answers:
            raise Unavailable("away", reason="AWAY")

    async def list_sandboxes(self) -> list[SandboxState]:
        """One sandbox."""
        return [SandboxState("s", "u", 0, True)]

    async def list_containers(self) -> tuple[list[ContainerState], int]:
        """No containers."""
        return [], 7

    async def watch_containers(self, revision: int) -> AsyncIterator[ContainerState]:
        """One change, then the end."""
        yield ContainerState("c", "s", "u", "main", 0, RUNNING, created_ns=revision)
        if self.stays is not None:
            await self.stays.wait()

    async def close(self) -> None:
        """Counts."""
        self.closed += 1


def following(runtime: Runtime) -> tuple[Agents, list[Input]]:
    """Agents that follow one node, and what they tell."""
    told: list[Input] = []
    agents = Agents(lambda address: runtime, runtime.clock, told.append)  # type: ignore[arg-type,return-value]
    agents.connect("h1", "a")
    return agents, told


async def test_a_node_that_does_not_answer_is_tried_after_growing_pauses() -> None:
    """The first pause is a tenth of a second, each longer by half, and none is longer than ten."""
    clock = SteppedClock()
    runtime = Runtime(clock, answers=False)
    agents, told = following(runtime)
    await clock.advance(60 * SECOND)
    gaps = [later - earlier for earlier, later in pairwise(runtime.hellos)]
    assert gaps[:4] == [100_000_000, 150_000_000, 225_000_000, 337_500_000]
    assert gaps[-2:] == [10 * SECOND] * 2
    assert len(told) == len(runtime.hellos) == runtime.closed
    assert all(isinstance(event, NodeSilent) and event.why for event in told)
    with pytest.raises(Unavailable, match="does not answer"):
        agents.runtime_of("h1")
    await agents.stop()


async def test_a_stream_that_stood_begins_with_a_short_pause() -> None:
    """A node whose stream ends is tried again a tenth of a second later, however often it happens."""
    clock = SteppedClock()
    runtime = Runtime(clock)
    agents, told = following(runtime)
    await clock.advance(SECOND)
    assert runtime.hellos == [number * SECOND // 10 for number in range(11)]
    assert [type(event) for event in told[:3]] == [NodeAnswers, ContainerSeen, NodeSilent]
    await agents.stop()


async def test_a_node_that_answers_can_be_reached() -> None:
    """While a stream stands its runtime is at hand and its news arrive; disconnecting ends that."""
    clock = SteppedClock()
    runtime = Runtime(clock, stays=True)
    agents, told = following(runtime)
    await clock.advance(SECOND)
    found: Any = agents.runtime_of("h1")
    assert found is runtime
    assert agents.address_of("h1") == "a"
    answered, seen = told
    assert isinstance(answered, NodeAnswers) and [one.name for one in answered.sandboxes] == ["s"]
    assert isinstance(seen, ContainerSeen) and seen.state.created_ns == 7
    agents.disconnect("h1")
    agents.disconnect("h1")
    for call in (agents.runtime_of, agents.address_of):
        with pytest.raises(LaminaError):
            call("h1")
    await agents.stop()
    await clock.advance(0)
    assert (runtime.closed, runtime.hellos) == (1, [0])


async def test_a_broken_runtime_does_not_end_its_agent() -> None:
    """An error that nobody thought of is told with its type, and the node is tried again."""
    clock = SteppedClock()
    runtime = Runtime(clock)

    async def broken() -> None:
        runtime.hellos.append(clock.now_ns())
        raise ValueError("odd")

    runtime.hello = broken  # type: ignore[method-assign]
    agents, told = following(runtime)
    await clock.advance(SECOND)
    assert isinstance(told[0], NodeSilent) and told[0].why == "ValueError: odd"
    assert len(told) > 1
    await agents.stop()


async def test_stopping_counts_what_is_gone_as_stopped() -> None:
    """Containers are stopped together; one that is gone already is no error and has no state."""
    asked: list[tuple[str, int]] = []

    class Stopping:
        async def stop_container(self, name: str, grace_ns: int) -> ContainerState:
            asked.append((name, grace_ns))
            if name == "gone":
                raise NotFound("gone", reason="CONTAINER_UNKNOWN")
            return ContainerState(name, "s", "u", "main", 0, EXITED)

    def step() -> Any:
        return (yield StopContainersCall("h1", ("a", "gone", "b"), 5))

    found: Any = await Performer(lambda node: Stopping()).run(step())  # type: ignore[arg-type,return-value]
    assert [state.name for state in found] == ["a", "b"]
    assert sorted(asked) == [("a", 5), ("b", 5), ("gone", 5)]


async def test_a_writer_that_stopped_says_so() -> None:
    """What is written when nothing acts on it is refused with a reason."""
    clock = SteppedClock()

    class Engine:
        def load(self, now_ns: int) -> None:
            """Has nothing."""

        def on_commit(self, callback: Any) -> None:
            """Tells nothing."""

    layer = LayerState("orchestrator", "", clock, Rng(1))
    cluster = Cluster(Engine(), clock, lambda address: Runtime(clock), lambda address: None, layer)  # type: ignore[arg-type,return-value]
    with pytest.raises(Internal) as caught:
        cluster.poke()
    assert caught.value.reason == "WRITER_STOPPED"
    assert cluster.idle


# ── the client's words ───────────────────────────────────────────────────────────────────────────────────────────────


def resources(**fields: int) -> runtime_pb.Resources:
    """Resources that a container is created with."""
    limits = Limits(**fields)
    return client._resources(ContainerSpec("c", 0, "i", (), (), (), "", limits, ()))


@pytest.mark.parametrize(
    ("millis", "weight"), [(0, 1), (9, 1), (10, 1), (20, 2), (1000, 100), (100_000, 10_000), (200_000, 10_000)]
)
def test_requests_become_weights(millis: int, weight: int) -> None:
    """A hundredth of a core weighs one; there is no weight below 1 nor above 10,000."""
    assert resources(cpu_request_millis=millis).cpu_weight == weight


def test_limits_become_quotas() -> None:
    """A CPU limit is a quota of a tenth of a second; without one there is no quota and no period."""
    made = resources(cpu_limit_millis=1500, memory_limit_bytes=7)
    assert (made.cpu_period_ns, made.cpu_quota_ns, made.memory_limit_bytes) == (100_000_000, 150_000_000, 7)
    none = resources()
    assert (none.cpu_period_ns, none.cpu_quota_ns, none.memory_limit_bytes) == (0, 0, 0)


def test_containers_are_read_by_their_labels() -> None:
    """A container is its pod's by its labels; digests and states are translated, and what is unknown is created."""
    labels = [runtime_pb.Label(key=key, value=value) for key, value in (
        ("io.kubernetes.pod.uid", "u"), ("io.kubernetes.container.name", "main"),
    )]  # fmt: skip
    made = client._container(runtime_pb.Container(
        name="c", sandbox="s", labels=labels, metadata=runtime_pb.ContainerMetadata(name="x", attempt=3), image="i",
        resolved_image="hosts/h/images/abc", state=runtime_pb.Container.STATE_EXITED, exit_code=2, reason="r",
        message="m", create_wall_time_ns=1, start_wall_time_ns=2, exit_wall_time_ns=3,
    ))  # fmt: skip
    assert made == ContainerState("c", "s", "u", "main", 3, EXITED, "i", "sha256:abc", 2, "r", "m", 1, 2, 3)
    bare = client._container(runtime_pb.Container(name="c", metadata=runtime_pb.ContainerMetadata(name="x")))
    assert (bare.pod_uid, bare.container, bare.state, bare.image_name) == ("", "x", CREATED, "")
    metadata = runtime_pb.SandboxMetadata(uid="u", attempt=2)
    sandbox = runtime_pb.Sandbox(
        name="s", metadata=metadata, state=runtime_pb.Sandbox.STATE_READY, create_wall_time_ns=9
    )
    assert client._sandbox(sandbox) == SandboxState("s", "u", 2, True, 9)
    stopped = runtime_pb.Sandbox(name="s", metadata=metadata, state=runtime_pb.Sandbox.STATE_NOT_READY)
    assert not client._sandbox(stopped).ready


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("container-runtime", ""), ("unix:/tmp/x.sock", ""), ("127.0.0.1:50055", ""),
        ("192.0.2.1:50055", "ADDRESS_UNSUPPORTED"), ("no address", "ADDRESS_INVALID"),
    ],
)  # fmt: skip
def test_addresses_that_can_be_reached(address: str, reason: str) -> None:
    """Known channels, UNIX sockets and loopback are reached; what is beyond the host is refused by name."""
    connector = ChannelConnector({"container-runtime": object()}, SteppedClock())  # type: ignore[dict-item]
    if not reason:
        connector.check(address)
        assert connector.link(address) is connector.link(address)
        return
    with pytest.raises(InvalidArgument) as caught:
        connector.check(address)
    assert caught.value.reason == reason


# ── what callers and operators give ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("node_cpu_millicores", 1, 10**9), ("node_memory_bytes", 1 << 20, 1 << 56), ("node_max_pods", 1, 10_000),
        ("history_revisions", 100, 1_000_000), ("toleration_seconds", 0, 86_400),
    ],
)  # fmt: skip
def test_configured_values_have_ranges(name: str, low: int, high: int) -> None:
    """Each value may be its least and its greatest, and nothing beyond, and the key is named."""
    for value in (low, high):
        assert getattr(OrchestratorConfig(**{name: value}), name) == value  # type: ignore[arg-type]
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidArgument, match=f"orchestrator.{name}") as caught:
            OrchestratorConfig(**{name: value})  # type: ignore[arg-type]
        assert caught.value.reason == "CONFIG_OUT_OF_RANGE"


def registration(**fields: Any) -> pb.RegisterNodeRequest:
    """A registration of a host."""
    return pb.RegisterNodeRequest(**{"host": "h", "cpu_millicores": 1, "memory_bytes": 1 << 20, **fields})


def test_registrations_have_ranges() -> None:
    """A host has a name, at least a thousandth of a core and a mebibyte; no number of pods means the usual one."""
    labels = [pb.NodeLabel(key="a", value="b")]
    made = convert.node(registration(runtime_address="x", labels=labels))
    assert made == ("h", "x", 1, 1 << 20, 110, {"a": "b"})
    assert convert.node(registration(max_pods=10_000, cpu_millicores=10**9, memory_bytes=1 << 56))[4] == 10_000
    convert.node(registration(labels=labels * 100))
    wrong: list[dict[str, Any]] = [
        {"host": ""}, {"host": "a b"}, {"cpu_millicores": 0}, {"cpu_millicores": 10**9 + 1},
        {"memory_bytes": (1 << 20) - 1}, {"memory_bytes": (1 << 56) + 1}, {"max_pods": 10_001}, {"max_pods": -1},
        {"labels": labels * 101},
    ]  # fmt: skip
    for fields in wrong:
        with pytest.raises(InvalidArgument) as caught:
            convert.node(registration(**fields))
        assert caught.value.reason == "OBJECT_INVALID", fields


def fails(call: Any) -> str:
    """The field that a refusal names first."""
    with pytest.raises(InvalidArgument) as caught:
        call()
    return caught.value.violations[0].field


def test_references_and_queries() -> None:
    """Names and namespaces have their lengths, and a kind without namespaces takes none."""
    reference = convert.reference(pb.ObjectReference(kind="Pod", namespace="n" * 63, name="p" * 253))
    assert reference == (POD, "n" * 63, "p" * 253)
    wrong: list[tuple[dict[str, str], str]] = [
        ({"kind": "Pod"}, "reference.name"), ({"kind": "Pod", "name": "p" * 254}, "reference.name"),
        ({"kind": "Pod", "name": "p", "namespace": "n" * 64}, "reference.namespace"),
        ({"kind": "Node", "name": "h", "namespace": "n"}, "reference.namespace"),
    ]  # fmt: skip
    for fields, named in wrong:
        assert fails(lambda fields=fields: convert.reference(pb.ObjectReference(**fields))) == named
    assert convert.query(pb.ListObjectsRequest(kind="Node")).kind == NODE
    assert convert.query(pb.WatchObjectsRequest(kind="Pod", namespace="n" * 63)).namespace == "n" * 63
    assert fails(lambda: convert.query(pb.ListObjectsRequest(kind="Pod", namespace="n" * 64))) == "namespace"
    assert fails(lambda: convert.query(pb.ListObjectsRequest(kind="Node", namespace="n"))) == "namespace"


def test_small_numbers_of_requests() -> None:
    """Page sizes, versions, subresources, propagation and lines have their ranges and defaults."""
    assert [convert.page_size(value) for value in (0, 1, 10_000, 10_001)] == [500, 1, 10_000, 10_000]
    assert fails(lambda: convert.page_size(-1)) == "page_size"
    assert [convert.version(value) for value in (0, 5)] == [0, 5]
    assert fails(lambda: convert.version(-1)) == "resource_version"
    assert convert.status_only(pb.SUBRESOURCE_STATUS) and not convert.status_only(pb.SUBRESOURCE_UNSPECIFIED)
    assert fails(lambda: convert.status_only(99)) == "subresource"
    assert convert.propagation(pb.PROPAGATION_UNSPECIFIED) == "background"
    with pytest.raises(InvalidArgument, match="propagation 99"):
        convert.propagation(99)
    assert convert.tail_lines(pb.ReadPodLogsRequest()) is None
    assert [convert.tail_lines(pb.ReadPodLogsRequest(tail_lines=value)) for value in (0, 10**6)] == [0, 10**6]
    for value in (-1, 10**6 + 1):
        assert fails(lambda value=value: convert.tail_lines(pb.ReadPodLogsRequest(tail_lines=value))) == "tail_lines"


def test_planned_fields_are_refused_when_they_are_given() -> None:
    """A field that nothing obeys is refused by its name when it is set, and not when it is not."""
    request: Message = pb.ReadPodLogsRequest(name="p", limit_bytes=5)
    convert.refuse_planned(request, "since_wall_time_ns")
    with pytest.raises(Unimplemented, match=r"ReadPodLogsRequest\.limit_bytes"):
        convert.refuse_planned(request, "since_wall_time_ns", "limit_bytes")


def test_log_chunks_name_their_stream() -> None:
    """Output and errors are told apart."""
    out, err = (convert.to_log(LogChunk(b"x", stream, 5)) for stream in ("stdout", "stderr"))
    assert (out.stream, err.stream) == (pb.ReadPodLogsResponse.STREAM_STDOUT, pb.ReadPodLogsResponse.STREAM_STDERR)
    assert (out.data, out.wall_time_ns) == (b"x", 5)
