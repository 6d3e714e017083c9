"""The common `Faults` service over every channel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from lamina.common.v1 import faults_pb2 as pb
from lamina.common.v1 import faults_pb2_grpc, layer_pb2

from lamina_kit.faults.kinds import FaultKind, Parameter
from lamina_kit.names import Pattern
from lamina_kit.rpc import status


@pytest.fixture
def stub(wire: Any) -> Any:
    """Returns a stub of a layer with two kinds of fault."""
    pattern = Pattern("hosts/{host}/lamps/{lamp}")
    power = Parameter("watts", "power", 0, 100, default="60")
    wire.state.faults.register(
        FaultKind("flicker", pattern, "Flickers.", lambda _: {"was": "on"}, lambda _: None, (power,))
    )
    wire.state.faults.register(FaultKind("burst", pattern, "Bursts.", lambda _: {}))
    return faults_pb2_grpc.FaultsStub(wire.channel)


def asked(kind: str = "flicker", lamp: str = "l1", **rest: Any) -> pb.InjectFaultRequest:
    """Returns a request."""
    return pb.InjectFaultRequest(fault=pb.Fault(kind=kind, object=f"hosts/h1/lamps/{lamp}", **rest))


async def test_kinds_are_listed_with_their_parameters(stub: Any) -> None:
    """Kinds come in alphabetical order with pattern, ranges and whether they last."""
    kinds = (await stub.ListFaultKinds(pb.ListFaultKindsRequest())).kinds
    assert [(kind.kind, kind.lasting) for kind in kinds] == [("burst", False), ("flicker", True)]
    assert kinds[1].object_pattern == "hosts/{host}/lamps/{lamp}"
    assert (kinds[1].parameters[0].key, kinds[1].parameters[0].maximum) == ("watts", 100)


async def test_a_fault_is_injected_got_and_cleared(stub: Any) -> None:
    """The answer has the defaults filled in, a name, a state and its effects; the name finds and ends it."""
    made = await stub.InjectFault(asked())
    assert made.name.startswith("hosts/h1/faults/f-") and made.state == pb.Fault.STATE_ACTIVE
    assert [(entry.key, entry.value) for entry in made.parameters] == [("watts", "60")]
    assert [(entry.key, entry.value) for entry in made.effects] == [("was", "on")]
    assert len(made.cause) == 32
    assert await stub.GetFault(pb.GetFaultRequest(name=made.name)) == made
    assert (await stub.ClearFault(pb.ClearFaultRequest(name=made.name))).state == pb.Fault.STATE_CLEARED


async def test_faults_are_listed_in_pages(stub: Any) -> None:
    """Pages follow each other in the order of injection, of all objects or of one, of all states or the active ones."""
    names = [(await stub.InjectFault(asked(lamp=f"l{number}"))).name for number in range(3)]
    await stub.InjectFault(asked("burst"))
    page = await stub.ListFaults(pb.ListFaultsRequest(page_size=2))
    rest = await stub.ListFaults(pb.ListFaultsRequest(page_size=2, page_token=page.next_page_token))
    assert [fault.name for fault in (*page.faults, *rest.faults)][:3] == names and not rest.next_page_token
    active = await stub.ListFaults(pb.ListFaultsRequest(active_only=True))
    assert [fault.name for fault in active.faults] == names
    of_one = await stub.ListFaults(pb.ListFaultsRequest(object="hosts/h1/lamps/l1"))
    assert [fault.kind for fault in of_one.faults] == ["flicker", "burst"]


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (asked(parameters=[layer_pb2.Attribute(key="watts", value="101")]), "INVALID_ARGUMENT", "FAULT_INVALID"),
        (asked(duration_ns=-1), "INVALID_ARGUMENT", "FAULT_INVALID"),
        (asked("melt"), "NOT_FOUND", "FAULT_KIND_UNKNOWN"),
    ],
)
async def test_a_wrong_request_is_refused(stub: Any, request_: Any, code: str, reason: str) -> None:
    """Errors carry the code and the reason that the contract documents."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.InjectFault(request_)
    assert (caught.value.code().name, status.rpc_error(caught.value).reason) == (code, reason)


async def test_bad_pages_and_names_are_refused(stub: Any) -> None:
    """A negative page size, a foreign token and an unknown name have their reasons."""
    for call, reason in (
        (stub.ListFaults(pb.ListFaultsRequest(page_size=-1)), "REQUEST_INVALID"),
        (stub.ListFaults(pb.ListFaultsRequest(page_token="x")), "PAGE_TOKEN_INVALID"),
        (stub.GetFault(pb.GetFaultRequest(name="hosts/h1/faults/f-1")), "FAULT_UNKNOWN"),
        (stub.ClearFault(pb.ClearFaultRequest(name="")), "FAULT_UNKNOWN"),
        (stub.InjectFault(pb.InjectFaultRequest(request_id="x" * 64)), "FAULT_INVALID"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert status.rpc_error(caught.value).reason == reason
