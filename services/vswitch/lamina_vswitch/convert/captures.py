"""Between the contract of `Captures` and the domain."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from lamina.common.v1.handle_pb2 import Handle
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2

from lamina_kit.checks import Checks
from lamina_vswitch.convert import switches
from lamina_vswitch.domain.capture.capture import Piece
from lamina_vswitch.domain.capture.expression import compile_filter
from lamina_vswitch.domain.capture.mirror import (
    MAX_SOURCE_GROUPS,
    MAX_SOURCE_PORTS,
    MAX_SOURCE_VLANS,
    MirrorDefinition,
)
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.capture.predicates import Predicate
from lamina_vswitch.domain.capture.records import FrameRecord
from lamina_vswitch.domain.capture.selection import (
    BUFFER_BYTES,
    DEFAULT_BUFFER_BYTES,
    FRAME_LIMIT,
    MAX_CAPTURE_PORTS,
    SNAP_BYTES,
    Selection,
)
from lamina_vswitch.domain.definitions.switches import MAX_REQUEST_ID_BYTES, VLAN_ID, PortDefinition
from lamina_vswitch.domain.frames.header import MAX_FRAME_BYTES
from lamina_vswitch.domain.offload.columns import HEADER_BYTES as OFFLOAD_HEADER_BYTES
from lamina_vswitch.domain.path.walk import Hop, Verdict
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.names import Names

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_DIRECTIONS = (pb.DIRECTION_UNSPECIFIED, pb.DIRECTION_INGRESS, pb.DIRECTION_EGRESS)
INT64_MAX = (1 << 63) - 1


def selection(request: pb.CaptureFramesRequest, names: Names) -> Selection:
    """Return what a capture wants to see. Raises InvalidArgument, `FILTER_MALFORMED` among it."""
    switch = names.switch(request.switch, "switch")
    with Checks() as check:
        check.that(len(request.ports) <= MAX_CAPTURE_PORTS, "ports", f"has more than {MAX_CAPTURE_PORTS} names")
        check.one_of("direction", request.direction, _DIRECTIONS)
        _check_snap(check, "snap_bytes", request.snap_bytes)
        check.range("frame_limit", request.frame_limit, *FRAME_LIMIT)
        check.range("duration_ns", request.duration_ns, 0, INT64_MAX)
        check.range("buffer_bytes", request.buffer_bytes or DEFAULT_BUFFER_BYTES, *BUFFER_BYTES)
    _ids_of_switch(request.ports, "ports", switch, names.port)
    compile_filter(request.filter)
    return Selection(
        request.switch,
        frozenset(request.ports),
        _direction(request.direction),
        request.drops,
        request.only_drops,
        request.filter,
        request.snap_bytes,
        request.frame_limit,
        request.duration_ns,
        request.buffer_bytes or DEFAULT_BUFFER_BYTES,
    )


def capture_response(piece: Piece) -> pb.CaptureFramesResponse:
    """Return a piece of a capture as a message."""
    return pb.CaptureFramesResponse(data=piece.data, frames=piece.frames, lost_frames=piece.lost)


def mirror_definition(request: pb.CreateMirrorRequest, names: Names) -> MirrorDefinition:
    """Return the mirror that a request asks for."""
    switch, wanted = names.switch(request.parent, "parent"), request.mirror
    sources = {
        "source_ports": (len(wanted.source_ports), MAX_SOURCE_PORTS),
        "source_port_groups": (len(wanted.source_port_groups), MAX_SOURCE_GROUPS),
        "source_vlan_ids": (len(wanted.source_vlan_ids), MAX_SOURCE_VLANS),
    }
    with Checks() as check:
        check.identifier("mirror_id", request.mirror_id)
        for field, (count, most) in sources.items():
            check.that(count <= most, f"mirror.{field}", f"has {count} values, more than {most}")
        for vlan in wanted.source_vlan_ids:
            check.range("mirror.source_vlan_ids", vlan, *VLAN_ID)
        check.that(
            any(count for count, _ in sources.values()),
            "mirror",
            "names nothing to copy from: ports, port groups or VLANs",
        )
        check.one_of("mirror.direction", wanted.direction, _DIRECTIONS)
        _check_snap(check, "mirror.snap_bytes", wanted.snap_bytes)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    compile_filter(wanted.filter)
    return MirrorDefinition(
        switch,
        request.mirror_id,
        _ids_of_switch(wanted.source_ports, "mirror.source_ports", switch, names.port),
        _ids_of_switch(wanted.source_port_groups, "mirror.source_port_groups", switch, names.port_group),
        tuple(dict.fromkeys(wanted.source_vlan_ids)),
        _direction(wanted.direction),
        _ids_of_switch([wanted.destination_port], "mirror.destination_port", switch, names.port)[0],
        wanted.filter,
        wanted.snap_bytes,
        wanted.drops,
    )


def mirror(
    name: str, definition: MirrorDefinition, ports: Sequence[str], groups: Sequence[str], to: str, copied: int
) -> pb.Mirror:
    """Return a mirror as a message; ports and port groups by their resource names."""
    return pb.Mirror(
        name=name,
        source_ports=ports,
        source_port_groups=groups,
        source_vlan_ids=definition.vlans,
        direction=pb.Direction.ValueType(definition.direction or 0),
        destination_port=to,
        filter=definition.filter,
        snap_bytes=definition.snap_bytes,
        drops=definition.drops,
        copied_frames=copied,
    )


def record_query(request: pb.ListFrameRecordsRequest, names: Names) -> tuple[str, str, str, Predicate]:
    """Return switch id, name of the port or nothing, trace id or nothing, and the filter."""
    switch = names.switch(request.parent, "parent")
    with Checks() as check:
        wrong = bool(request.trace_id) and not _TRACE_ID.fullmatch(request.trace_id)
        check.that(not wrong, "trace_id", "is not 32 lower-case hexadecimal digits")
    if request.port:
        _ids_of_switch([request.port], "port", switch, names.port)
    return switch, request.port, request.trace_id, compile_filter(request.filter)


def frame_record(record: FrameRecord) -> pb.FrameRecord:
    """Return a record as a message."""
    return pb.FrameRecord(
        time_ns=record.time_ns,
        port=record.port,
        head=record.head,
        length_bytes=record.length,
        trace_id=record.trace_id,
        decision=switches.trace(record.told),
    )


def traced_path(request: pb.TraceFramePathRequest) -> tuple[bytes, bytes]:
    """Return the frame to trace and its offload header, 20 bytes or none."""
    with Checks() as check:
        check.max_bytes("frame", request.frame, MAX_FRAME_BYTES)
        fits = len(request.offload_header) in (0, OFFLOAD_HEADER_BYTES)
        check.that(fits, "offload_header", f"has {len(request.offload_header)} bytes, not {OFFLOAD_HEADER_BYTES}")
    return request.frame, request.offload_header


_VERDICTS = {
    Verdict.FORWARDED: vswitch_pb2.TraceFrameResponse.VERDICT_FORWARDED,
    Verdict.FLOODED: vswitch_pb2.TraceFrameResponse.VERDICT_FLOODED,
    Verdict.DROPPED: vswitch_pb2.TraceFrameResponse.VERDICT_DROPPED,
    Verdict.CONSUMED: vswitch_pb2.TraceFrameResponse.VERDICT_CONSUMED,
}


def frame_hop(hop: Hop) -> pb.FrameHop:
    """Return a hop as a message."""
    decision = vswitch_pb2.TraceFrameResponse(
        verdict=_VERDICTS[hop.verdict],
        drop_reason=vswitch_pb2.DropReason.ValueType(hop.drop or 0),
        vlan_id=hop.vlan,
        output_ports=hop.outputs,
        output_frame=hop.frame,
        steps=[vswitch_pb2.TraceStep(stage=step.stage, rule=step.rule, detail=step.detail) for step in hop.steps],
    )
    return pb.FrameHop(object=hop.object, parent_index=hop.parent, decision=decision)


def vlan_counters(vlan: int, counted: Counters) -> pb.VlanCounters:
    """Return the counters of a VLAN as a message."""
    return pb.VlanCounters(
        vlan_id=vlan,
        received_frames=counted.received_frames,
        received_bytes=counted.received_bytes,
        sent_frames=counted.sent_frames,
        sent_bytes=counted.sent_bytes,
        flooded_frames=counted.flooded_frames,
        drops=[
            vswitch_pb2.DropCount(reason=vswitch_pb2.DropReason.ValueType(reason), frames=frames)
            for reason, frames in counted.drops_by_reason()
        ],
    )


def gone_port(name: str, port: PortDefinition) -> vswitch_pb2.Port:
    """Return what is told of a port that is gone: its name and its handle."""
    return vswitch_pb2.Port(name=name, handle=Handle(id=port.slot, generation=port.generation))


def _direction(given: int) -> Direction | None:
    return Direction(given) if given else None


def _check_snap(check: Checks, field: str, given: int) -> None:
    if given:
        check.range(field, given, *SNAP_BYTES)


def _ids_of_switch(
    names: Iterable[str], field: str, switch: str, parse: Callable[[str, str], tuple[str, str]]
) -> tuple[str, ...]:
    """Return the last parts of resource names that all have to be of a switch, without repetitions."""
    found: dict[str, None] = {}
    for name in names:
        of, identifier = parse(name, field)
        with Checks() as check:
            check.that(of == switch, field, f"is of another switch than {switch}")
        found[identifier] = None
    return tuple(found)
