"""Between the contract and the domain: requests to definitions, and domain objects to messages."""

from __future__ import annotations

from lamina.common.v1.handle_pb2 import Handle
from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.checks import Checks
from lamina_vswitch.domain.definitions.switches import (
    AGEING_SECONDS,
    DEFAULT_AGEING_SECONDS,
    DEFAULT_MAC_LIMIT,
    DEFAULT_MTU_BYTES,
    MAC_LIMIT,
    MAX_REQUEST_ID_BYTES,
    MTU_BYTES,
    VLAN_ID,
    PortDefinition,
    PortGroupDefinition,
    SwitchDefinition,
)
from lamina_vswitch.domain.frames.header import MAX_FRAME_BYTES, format_mac, is_station, parse_mac
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.switch.trace import Trace
from lamina_vswitch.engines.interface import MacEntryView, SwitchTally
from lamina_vswitch.names import Names

MUTABLE = ("link", "port_group")

# Requests


def switch_definition(request: pb.CreateSwitchRequest) -> SwitchDefinition:
    """Return the switch that a request asks for, defaults filled in."""
    wanted = request.switch
    definition = SwitchDefinition(
        request.switch_id,
        wanted.mtu_bytes or DEFAULT_MTU_BYTES,
        wanted.mac_ageing_seconds or DEFAULT_AGEING_SECONDS,
        wanted.mac_table_limit or DEFAULT_MAC_LIMIT,
    )
    with Checks() as check:
        check.identifier("switch_id", request.switch_id)
        check.range("switch.mtu_bytes", definition.mtu_bytes, *MTU_BYTES)
        check.range("switch.mac_ageing_seconds", definition.ageing_seconds, *AGEING_SECONDS)
        check.range("switch.mac_table_limit", definition.mac_limit, *MAC_LIMIT)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    return definition


def port_group_definition(request: pb.CreatePortGroupRequest, names: Names) -> PortGroupDefinition:
    """Return the port group that a request asks for."""
    with Checks() as check:
        check.identifier("port_group_id", request.port_group_id)
        check.range("port_group.vlan_id", request.port_group.vlan_id, *VLAN_ID)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    switch = names.switch(request.parent, "parent")
    return PortGroupDefinition(switch, request.port_group_id, request.port_group.vlan_id)


def port_definition(request: pb.CreatePortRequest, owner: str, names: Names) -> PortDefinition:
    """Return the port that a request asks for; the catalog gives it its slot and generation."""
    with Checks() as check:
        check.identifier("port_id", request.port_id)
        _check_link(check, "port.link", request.port.link)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    switch = names.switch(request.parent, "parent")
    group = _group_of_switch(request.port.port_group, switch, names)
    return PortDefinition(switch, request.port_id, group, request.port.link != pb.LINK_DOWN, owner, 0, 0)


def changed_port(request: pb.UpdatePortRequest, old: PortDefinition, names: Names) -> PortDefinition:
    """Return `old` with what the request changes."""
    wanted = request.port
    given = [field for field in MUTABLE if getattr(wanted, field)]
    paths = list(request.update_mask.paths) or given
    with Checks() as check:
        for path in paths:
            check.one_of("update_mask", path, MUTABLE)
        _check_link(check, "port.link", wanted.link)
    group = _group_of_switch(wanted.port_group, old.switch, names) if "port_group" in paths else old.port_group
    link_up = wanted.link != pb.LINK_DOWN if "link" in paths else old.link_up
    return PortDefinition(old.switch, old.port, group, link_up, old.owner, old.slot, old.generation)


def _check_link(check: Checks, field: str, link: int) -> None:
    check.one_of(field, link, (pb.LINK_UNSPECIFIED, pb.LINK_UP, pb.LINK_DOWN))


def _group_of_switch(name: str, switch: str, names: Names) -> str:
    """Return the id of a port group that has to be of this switch; empty for none."""
    if not name:
        return ""
    group_switch, group = names.port_group(name, "port.port_group")
    with Checks() as check:
        check.that(group_switch == switch, "port.port_group", f"is of another switch than {switch}")
    return group


def moved_group(request: pb.UpdatePortGroupRequest, old: PortGroupDefinition) -> PortGroupDefinition:
    """Return `old` with what the request changes."""
    wanted = request.port_group
    paths = list(request.update_mask.paths) or (["vlan_id"] if wanted.vlan_id else [])
    with Checks() as check:
        for path in paths:
            check.one_of("update_mask", path, ("vlan_id",))
        check.range("port_group.vlan_id", wanted.vlan_id, *VLAN_ID)
    return PortGroupDefinition(old.switch, old.port_group, wanted.vlan_id) if paths else old


def static_entry(request: pb.CreateMacEntryRequest, names: Names) -> tuple[str, bytes, str]:
    """Return switch id, address and port id of the entry that a request asks for."""
    switch = names.switch(request.parent, "parent")
    port_switch, port = names.port(request.mac_entry.port, "mac_entry.port")
    mac = parse_mac(request.mac_entry.mac_address)
    with Checks() as check:
        check.that(port_switch == switch, "mac_entry.port", f"is of another switch than {switch}")
        if check.that(mac is not None, "mac_entry.mac_address", "is not an address such as 02:00:00:00:00:01"):
            check.that(is_station(mac or b""), "mac_entry.mac_address", "is zero or a group address")
    return switch, mac or b"", port


def flush_scope(request: pb.FlushMacTableRequest, names: Names) -> tuple[str, int | None, str | None]:
    """Return switch id, VLAN and port id to flush; None means all."""
    switch = names.switch(request.name)
    vlan = request.vlan_id if request.HasField("vlan_id") else None
    port_switch, port = names.port(request.port, "port") if request.port else (switch, None)
    with Checks() as check:
        check.range("vlan_id", vlan or 0, *VLAN_ID)
        check.that(port_switch == switch, "port", f"is of another switch than {switch}")
    return switch, vlan, port


def traced_frame(request: pb.TraceFrameRequest) -> bytes:
    """Return the frame to trace."""
    with Checks() as check:
        check.max_bytes("frame", request.frame, MAX_FRAME_BYTES)
    return request.frame


# Responses


def switch(name: str, definition: SwitchDefinition, tally: SwitchTally, ports: int) -> pb.Switch:
    """Return a switch as a message."""
    return pb.Switch(
        name=name,
        mtu_bytes=definition.mtu_bytes,
        mac_ageing_seconds=definition.ageing_seconds,
        mac_table_limit=definition.mac_limit,
        port_count=ports,
        mac_entry_count=tally.mac_entries,
        mac_move_count=tally.mac_moves,
        mac_refused_count=tally.mac_refusals,
    )


def port(
    name: str, definition: PortDefinition, group: str, vlan: int, attached: bool, linked: bool, shut: bool
) -> pb.Port:
    """Return a port as a message; `linked` says whether its link is up, which a fault may prevent."""
    state = pb.Port.STATE_SHUT if shut else pb.Port.STATE_UP if attached else pb.Port.STATE_DETACHED
    return pb.Port(
        name=name,
        port_group=group,
        link=link(definition.link_up),
        state=state if linked else pb.Port.STATE_DOWN,
        handle=Handle(id=definition.slot, generation=definition.generation),
        vlan_id=vlan,
        owner=definition.owner,
    )


def link(up: bool) -> pb.Link.ValueType:
    """Return a link state as the contract's enum."""
    return pb.LINK_UP if up else pb.LINK_DOWN


def mac_entry(name: str, entry: MacEntryView, port_name: str) -> pb.MacEntry:
    """Return a MAC entry as a message."""
    kind = pb.MacEntry.TYPE_STATIC if entry.static else pb.MacEntry.TYPE_DYNAMIC
    mac = format_mac(entry.mac)
    return pb.MacEntry(name=name, mac_address=mac, vlan_id=entry.vlan, port=port_name, type=kind, age_ns=entry.age_ns)


def counters(port_name: str, counted: Counters) -> pb.PortCounters:
    """Return counters as a message."""
    return pb.PortCounters(
        port=port_name,
        received_frames=counted.received_frames,
        received_bytes=counted.received_bytes,
        sent_frames=counted.sent_frames,
        sent_bytes=counted.sent_bytes,
        flooded_frames=counted.flooded_frames,
        drops=[pb.DropCount(reason=_drop_reason(reason), frames=count) for reason, count in counted.drops_by_reason()],
    )


def trace(told: Trace) -> pb.TraceFrameResponse:
    """Return a trace as a message."""
    decision = told.decision
    verdict = pb.TraceFrameResponse.VERDICT_FORWARDED
    if decision.drop is not None:
        verdict = pb.TraceFrameResponse.VERDICT_DROPPED
    elif decision.flooded:
        verdict = pb.TraceFrameResponse.VERDICT_FLOODED
    return pb.TraceFrameResponse(
        verdict=verdict,
        drop_reason=_drop_reason(decision.drop or 0),
        vlan_id=told.vlan,
        output_ports=told.outputs,
        output_frame=told.frame,
        steps=[pb.TraceStep(stage=step.stage, rule=step.rule, detail=step.detail) for step in told.steps],
    )


def _drop_reason(reason: int) -> pb.DropReason.ValueType:
    """Return a drop reason as the contract's enum: the numbers are the same, which a test holds fast."""
    return pb.DropReason.ValueType(reason)
