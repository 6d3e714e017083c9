"""Serves a layer's `FaultTable` as `lamina.common.v1.Faults`; registered for every layer, as `Layer` is."""

from __future__ import annotations

from typing import Any

from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_kit.faults.kinds import FaultKind, Parameter
from lamina_kit.faults.table import Fault, FaultTable, Wish
from lamina_kit.telemetry import trace

SERVICE_NAME = "lamina.common.v1.Faults"
MAX_PAGE = 1000
DEFAULT_PAGE = 100
_MAX_TEXT = 1024
_MAX_REQUEST_ID = 63
_MAX_PARAMETERS = 32


class FaultsServicer(faults_pb2_grpc.FaultsServicer):
    """Translates between the contract and a layer's table."""

    def __init__(self, table: FaultTable) -> None:
        self._table = table

    async def InjectFault(self, request: faults_pb2.InjectFaultRequest, context: Any) -> faults_pb2.Fault:
        """Breaks something."""
        fault = request.fault
        with Checks("FAULT_INVALID") as check:
            check.max_bytes("request_id", request.request_id, _MAX_REQUEST_ID)
            check.max_bytes("fault.kind", fault.kind, _MAX_TEXT)
            check.max_bytes("fault.object", fault.object, _MAX_TEXT)
            check.range("fault.parameters", len(fault.parameters), 0, _MAX_PARAMETERS)
        parameters = tuple((entry.key, entry.value) for entry in fault.parameters)
        wish = Wish(fault.kind, fault.object, parameters, fault.duration_ns)
        current = trace.current()
        return _fault(await self._table.inject(wish, request.request_id, current.trace_id if current else ""))

    async def ClearFault(self, request: faults_pb2.ClearFaultRequest, context: Any) -> faults_pb2.Fault:
        """Ends a fault."""
        return _fault(await self._table.clear(request.name))

    async def GetFault(self, request: faults_pb2.GetFaultRequest, context: Any) -> faults_pb2.Fault:
        """Returns a fault."""
        return _fault(self._table.get(request.name))

    async def ListFaults(self, request: faults_pb2.ListFaultsRequest, context: Any) -> faults_pb2.ListFaultsResponse:
        """Lists a page of the faults."""
        with Checks() as check:
            check.that(request.page_size >= 0, "page_size", f"is {request.page_size}, below 0")
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        after = _position(request.page_token)
        found = self._table.list(active_only=request.active_only, object=request.object, after=after)
        token = str(found[size - 1].number) if len(found) > size else ""
        return faults_pb2.ListFaultsResponse(faults=[_fault(entry) for entry in found[:size]], next_page_token=token)

    async def ListFaultKinds(
        self, request: faults_pb2.ListFaultKindsRequest, context: Any
    ) -> faults_pb2.ListFaultKindsResponse:
        """Lists what can break."""
        return faults_pb2.ListFaultKindsResponse(kinds=[_kind(kind) for kind in self._table.kinds()])


def _position(token: str) -> int:
    """Returns the number of the fault that a page token of ours stands for."""
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise InvalidArgument("page_token is not one of this layer's.", reason="PAGE_TOKEN_INVALID")
    return int(token)


def _fault(fault: Fault) -> faults_pb2.Fault:
    return faults_pb2.Fault(
        name=fault.name,
        kind=fault.kind.name,
        object=fault.breakage.object,
        parameters=_attributes(fault.parameters),
        duration_ns=fault.wish.duration_ns,
        state=faults_pb2.Fault.State.Value(f"STATE_{fault.state.name}"),
        start_time_ns=fault.start_ns,
        end_time_ns=fault.end_ns,
        effects=_attributes(fault.effects),
        cause=fault.cause,
    )


def _attributes(values: tuple[tuple[str, str], ...]) -> list[layer_pb2.Attribute]:
    return [layer_pb2.Attribute(key=key, value=value) for key, value in values]


def _kind(kind: FaultKind) -> faults_pb2.FaultKind:
    return faults_pb2.FaultKind(
        kind=kind.name,
        object_pattern=kind.objects.pattern,
        parameters=[_parameter(parameter) for parameter in kind.parameters],
        description=kind.description,
        lasting=kind.lasting,
    )


def _parameter(parameter: Parameter) -> faults_pb2.FaultParameter:
    return faults_pb2.FaultParameter(
        key=parameter.key,
        description=parameter.description,
        minimum=parameter.minimum,
        maximum=parameter.maximum,
        choices=parameter.choices,
        default_value=parameter.default,
    )
