"""The common `Layer` service over every channel: spans, events, explanations, sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from lamina_kit.layer.owner_session import OwnerSession, handshake
from lamina_kit.layer.sessions import SessionState
from lamina_kit.rpc import status
from lamina_kit.telemetry import trace

OWNER = "h1/hypervisor"


@pytest.fixture
def stub(wire: Any) -> layer_pb2_grpc.LayerStub:
    """Returns a stub of the layer."""
    return layer_pb2_grpc.LayerStub(wire.channel)


async def error_of(call: Any) -> Any:
    """Returns the Lamina error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.rpc_error(caught.value)


async def test_another_major_revision_is_refused(stub: Any) -> None:
    """A caller of another major revision is told both revisions."""
    error = await error_of(stub.Handshake(layer_pb2.HandshakeRequest(caller="old", revision="0.9")))
    assert isinstance(error, FailedPrecondition) and error.reason == "REVISION_MISMATCH"
    assert error.metadata == {"ours": "1.0", "theirs": "0.9"}


@pytest.mark.parametrize(
    ("caller", "revision"), [("", "1.0"), ("x" * 64, "1.0"), ("x", ""), ("x", "1"), ("x", "1.0\n")]
)
async def test_a_malformed_handshake_is_refused(stub: Any, caller: str, revision: str) -> None:
    """Caller and revision are checked."""
    error = await error_of(stub.Handshake(layer_pb2.HandshakeRequest(caller=caller, revision=revision)))
    assert isinstance(error, InvalidArgument)


async def test_the_kit_s_handshake_checks_both_ways(stub: Any) -> None:
    """The helper returns what the layer says of itself."""
    assert (await handshake(stub, "test")).layer == "peer"


async def test_spans_are_listed(wire: Any, stub: Any) -> None:
    """A trace's spans come in the order of their start, with their attributes."""
    with trace.begin("root", wire.state.recorder, vm="web-1") as context:
        await stub.ListSpans(layer_pb2.ListSpansRequest())
    spans = (await stub.ListSpans(layer_pb2.ListSpansRequest(trace_id=context.trace_id))).spans
    assert [span.name for span in spans] == ["root", "lamina.common.v1.Layer/ListSpans"]
    assert [(entry.key, entry.value) for entry in spans[0].attributes] == [("vm", "web-1")]
    assert spans[1].parent_span_id == spans[0].span_id and spans[1].duration_ns >= 0
    error = await error_of(stub.ListSpans(layer_pb2.ListSpansRequest(trace_id="XYZ")))
    assert isinstance(error, InvalidArgument)


async def test_spans_are_paged(wire: Any, stub: Any) -> None:
    """Pages of a trace follow each other in the order of the spans' start, and the last one says so."""
    with trace.begin("root", wire.state.recorder) as context:
        for number in range(4):
            with trace.span(f"work {number}"):
                pass
    whole = layer_pb2.ListSpansRequest(trace_id=context.trace_id, page_size=2)
    names, tokens = [], []
    for _ in range(3):
        page = await stub.ListSpans(whole)
        names.append([span.name for span in page.spans])
        tokens.append(bool(page.next_page_token))
        whole.page_token = page.next_page_token
    assert names == [["root", "work 0"], ["work 1", "work 2"], ["work 3"]]
    assert tokens == [True, True, False]
    for wrong in ({"page_size": -1}, {"page_size": 10_001}, {"page_token": "x"}):
        assert isinstance(await error_of(stub.ListSpans(layer_pb2.ListSpansRequest(**wrong))), InvalidArgument)


async def test_events_are_paged(wire: Any, stub: Any) -> None:
    """Pages follow each other without gap or repetition, also while events are added."""
    for number in range(5):
        wire.state.events.record("hosts/h1/x", "thing.happened", number=number)
    first = await stub.ListEvents(layer_pb2.ListEventsRequest(page_size=3))
    wire.state.events.record("hosts/h1/y", "thing.happened")
    second = await stub.ListEvents(layer_pb2.ListEventsRequest(page_size=3, page_token=first.next_page_token))
    assert [event.sequence for event in first.events] == [1, 2, 3]
    assert [event.sequence for event in second.events] == [4, 5, 6]
    assert second.next_page_token == ""
    only = await stub.ListEvents(layer_pb2.ListEventsRequest(object="hosts/h1/y"))
    assert [event.sequence for event in only.events] == [6]


@pytest.mark.parametrize("request_", [{"page_size": -1}, {"page_token": "x"}, {"page_token": "9" * 30}])
async def test_a_malformed_page_is_refused(stub: Any, request_: dict[str, Any]) -> None:
    """A negative size and a token of somebody else are INVALID_ARGUMENT."""
    assert isinstance(await error_of(stub.ListEvents(layer_pb2.ListEventsRequest(**request_))), InvalidArgument)


async def test_decisions_are_explained(wire: Any, stub: Any) -> None:
    """The newest decision comes first, with its rule and inputs; nothing recorded is NOT_FOUND."""
    wire.state.events.record("hosts/h1/f", "victim.chosen", rule="lru", age=4)
    wire.state.events.record("hosts/h1/f", "victim.chosen", rule="clock", age=5)
    answer = await stub.Explain(layer_pb2.ExplainRequest(object="hosts/h1/f"))
    assert [event.rule for event in answer.decisions] == ["clock", "lru"]
    assert [(entry.key, entry.value) for entry in answer.decisions[0].inputs] == [("age", "5")]
    missing = await error_of(stub.Explain(layer_pb2.ExplainRequest(object="hosts/h1/none")))
    assert isinstance(missing, NotFound) and missing.reason == "NOTHING_RECORDED"
    for request in (layer_pb2.ExplainRequest(), layer_pb2.ExplainRequest(object="x", page_size=-1)):
        assert isinstance(await error_of(stub.Explain(request)), InvalidArgument)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_lives_as_long_as_its_stream(wire: Any, eventually: Any) -> None:
    """Opening confirms at once; closing breaks it at once and calls back."""
    broken: list[tuple[str, int]] = []
    wire.state.sessions.on_broken(lambda owner, epoch: broken.append((owner, epoch)))
    wire.state.sessions.adopted = lambda owner: 3
    session = await OwnerSession.open(wire.channel, OWNER, 7, wire.state.clock)
    assert session.is_open and session.adopted_objects == 3 and session.handshake.boot_id == "boot-1"
    assert wire.state.sessions.state(OWNER) is SessionState.OPEN
    await session.close()
    await session.close()
    await eventually(lambda: broken == [(OWNER, 7)], "the session is broken")
    assert wire.state.sessions.state(OWNER) is SessionState.BROKEN
    wire.state.sessions.close()


async def test_calls_name_their_session(wire: Any) -> None:
    """`require` finds the caller's session in the metadata."""
    async with asyncio.timeout(10):
        session = await OwnerSession.open(wire.channel, OWNER, 2, wire.state.clock)
        await wire.uu("Metadata")(_text(), metadata=session.metadata)
        assert ("lamina-session", f"{OWNER}/2") in wire.peer.seen
        await session.close()
    wire.state.sessions.close()


async def test_an_older_epoch_is_refused(wire: Any) -> None:
    """Who is not the newest of its kind is told to stop: same or lower epoch while one is open."""
    session = await OwnerSession.open(wire.channel, OWNER, 5, wire.state.clock)
    for epoch in (5, 4):
        with pytest.raises(Aborted) as caught:
            await OwnerSession.open(wire.channel, OWNER, epoch, wire.state.clock)
        assert caught.value.reason == "SESSION_EPOCH_STALE" and caught.value.metadata["newest"] == "5"
    await session.close()
    wire.state.sessions.close()


async def test_a_newer_epoch_takes_over(wire: Any, eventually: Any) -> None:
    """The older session is told, is broken at once, and does not come back."""
    broken: list[tuple[str, int]] = []
    wire.state.sessions.on_broken(lambda owner, epoch: broken.append((owner, epoch)))
    old = await OwnerSession.open(wire.channel, OWNER, 1, wire.state.clock)
    lost: list[str] = []
    old.on_lost(lambda: lost.append("lost"))
    new = await OwnerSession.open(wire.channel, OWNER, 2, wire.state.clock)
    assert broken == [(OWNER, 1)]
    await eventually(lambda: lost and old.stale, "the old owner knows")
    assert new.is_open and wire.state.sessions.epoch(OWNER) == 2
    await old.close()
    assert wire.state.sessions.state(OWNER) is SessionState.OPEN
    await new.close()
    wire.state.sessions.close()


@pytest.mark.parametrize(
    ("owner", "epoch"), [("", 1), ("UP", 1), ("a//b", 1), ("a/", 1), ("a" * 128, 1), ("a", 0), ("a", -1)]
)
async def test_a_malformed_owner_is_refused(stub: Any, owner: str, epoch: int) -> None:
    """Owner and epoch are checked before anything is kept."""
    call = stub.OpenSession(layer_pb2.OpenSessionRequest(owner=owner, epoch=epoch))
    error = await error_of(call.read())
    assert isinstance(error, InvalidArgument) and error.reason == "SESSION_MALFORMED"


def _text() -> Any:
    from google.protobuf.wrappers_pb2 import StringValue

    return StringValue()
