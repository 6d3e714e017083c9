"""Between the contract and the domain: the only module that knows both."""

from __future__ import annotations

from google.protobuf.message import Message
from lamina.orchestrator.v1 import orchestrator_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument, Unimplemented
from lamina_orchestrator.domain.controllers.deletion import BACKGROUND_POLICY, FOREGROUND_POLICY, ORPHAN_POLICY
from lamina_orchestrator.domain.kinds.kinds import Kind, kind_named
from lamina_orchestrator.domain.kinds.plain_object import name_of, namespace_of, revision_of, uid_of
from lamina_orchestrator.engines.interface import Applied, Listing, Query, Stored, WatchEvent
from lamina_orchestrator.io.runtimes.runtime import STDERR, LogChunk

MAX_PAGE = 10_000
DEFAULT_PAGE = 500
MAX_TAIL = 1_000_000
DEFAULT_MAX_PODS = 110
_MAX_NAME = 253

_ACTIONS = {
    "created": pb.AppliedObject.ACTION_CREATED,
    "configured": pb.AppliedObject.ACTION_CONFIGURED,
    "unchanged": pb.AppliedObject.ACTION_UNCHANGED,
}
_TYPES = {
    "ADDED": pb.WatchObjectsResponse.TYPE_ADDED,
    "MODIFIED": pb.WatchObjectsResponse.TYPE_MODIFIED,
    "DELETED": pb.WatchObjectsResponse.TYPE_DELETED,
    "BOOKMARK": pb.WatchObjectsResponse.TYPE_BOOKMARK,
}
_PROPAGATION = {
    pb.PROPAGATION_UNSPECIFIED: BACKGROUND_POLICY,
    pb.PROPAGATION_BACKGROUND: BACKGROUND_POLICY,
    pb.PROPAGATION_FOREGROUND: FOREGROUND_POLICY,
    pb.PROPAGATION_ORPHAN: ORPHAN_POLICY,
}


def to_object(stored: Stored) -> pb.Object:
    """An object as the contract sends it."""
    obj = stored.obj
    return pb.Object(
        api_version=obj.get("apiVersion", ""),
        kind=obj.get("kind", ""),
        namespace=namespace_of(obj),
        name=name_of(obj),
        uid=uid_of(obj),
        resource_version=revision_of(obj),
        json=stored.text,
    )


def to_applied(applied: Applied) -> pb.AppliedObject:
    """What became of one object of a manifest."""
    return pb.AppliedObject(object=to_object(applied.stored), action=_ACTIONS[applied.action])


def to_listing(listing: Listing) -> pb.ListObjectsResponse:
    """A page of objects."""
    return pb.ListObjectsResponse(
        objects=[to_object(stored) for stored in listing.objects],
        next_page_token=listing.next_token,
        resource_version=listing.revision,
    )


def to_event(event: WatchEvent) -> pb.WatchObjectsResponse:
    """One event of a watch."""
    return pb.WatchObjectsResponse(type=_TYPES[event.type], object=to_object(event.stored))


def to_log(chunk: LogChunk) -> pb.ReadPodLogsResponse:
    """A piece of output."""
    stream = pb.ReadPodLogsResponse.STREAM_STDERR if chunk.stream == STDERR else pb.ReadPodLogsResponse.STREAM_STDOUT
    return pb.ReadPodLogsResponse(data=chunk.data, stream=stream, wall_time_ns=chunk.time_ns)


def refuse_planned(request: Message, *fields: str) -> None:
    """Raises Unimplemented `NOT_SERVED_YET` when a request sets one of these: none may pass for obeyed."""
    given = {field.name for field, _ in request.ListFields()}
    for name in fields:
        if name in given:
            raise Unimplemented(
                f"{request.DESCRIPTOR.name}.{name} is part of the contract, but this version does not obey it.",
                reason="NOT_SERVED_YET",
                next_step="Leave the field out.",
                field=name,
            )


def reference(value: pb.ObjectReference) -> tuple[Kind, str, str]:
    """Kind, namespace and name of a reference. Raises InvalidArgument `KIND_UNKNOWN` or `REQUEST_INVALID`."""
    kind = kind_named(value.kind, value.api_version)
    with Checks() as check:
        check.that(0 < len(value.name) <= _MAX_NAME, "reference.name", f"is not 1 to {_MAX_NAME} characters")
        check.that(len(value.namespace) <= 63, "reference.namespace", "has more than 63 characters")
        check.that(kind.namespaced or not value.namespace, "reference.namespace", f"is given, but {kind.name} has none")
    return kind, value.namespace, value.name


def query(value: pb.ListObjectsRequest | pb.WatchObjectsRequest) -> Query:
    """What a listing or watch selects."""
    kind = kind_named(value.kind, value.api_version)
    with Checks() as check:
        check.that(len(value.namespace) <= 63, "namespace", "has more than 63 characters")
        check.that(kind.namespaced or not value.namespace, "namespace", f"is given, but {kind.name} has none")
    return Query(kind, value.namespace, value.label_selector, value.field_selector)


def page_size(value: int) -> int:
    """The size of a page. Raises InvalidArgument for a negative one."""
    with Checks() as check:
        check.that(value >= 0, "page_size", f"is {value}, below 0")
    return min(value or DEFAULT_PAGE, MAX_PAGE)


def status_only(value: int) -> bool:
    """Whether a write is to the status. Raises InvalidArgument for a value that this version does not know."""
    with Checks() as check:
        check.one_of("subresource", value, (pb.SUBRESOURCE_UNSPECIFIED, pb.SUBRESOURCE_STATUS))
    return value == pb.SUBRESOURCE_STATUS


def propagation(value: int) -> str:
    """What happens to dependents. Raises InvalidArgument for a value that this version does not know."""
    found = _PROPAGATION.get(value)  # type: ignore[call-overload]
    if found is None:
        raise InvalidArgument(f"propagation {value} is unknown.", reason="REQUEST_INVALID")
    return str(found)


def version(value: int) -> int:
    """A resource version. Raises InvalidArgument for a negative one."""
    with Checks() as check:
        check.that(value >= 0, "resource_version", f"is {value}, below 0")
    return value


def tail_lines(value: pb.ReadPodLogsRequest) -> int | None:
    """How many lines are wanted from the end; None for all."""
    if not value.HasField("tail_lines"):
        return None
    with Checks() as check:
        check.range("tail_lines", value.tail_lines, 0, MAX_TAIL)
    return value.tail_lines


def node(value: pb.RegisterNodeRequest) -> tuple[str, str, int, int, int, dict[str, str]]:
    """Host, address, capacity and labels of a node. Raises InvalidArgument `OBJECT_INVALID`."""
    with Checks(reason="OBJECT_INVALID") as check:
        check.identifier("host", value.host)
        check.range("cpu_millicores", value.cpu_millicores, 1, 10**9)
        check.range("memory_bytes", value.memory_bytes, 1 << 20, 1 << 56)
        check.range("max_pods", value.max_pods, 0, 10_000)
        check.that(len(value.labels) <= 100, "labels", "has more than 100 entries")
    labels = {label.key: label.value for label in value.labels}
    room = (value.cpu_millicores, value.memory_bytes, value.max_pods or DEFAULT_MAX_PODS)
    return value.host, value.runtime_address, *room, labels
