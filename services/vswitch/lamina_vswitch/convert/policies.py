"""Between the contract and the domain: policies of switches, groups and ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.vswitch.v1 import policies_pb2 as pb
from lamina.vswitch.v1 import uplinks_pb2

from lamina_kit.checks import Checks
from lamina_vswitch.domain.definitions.switches import AGEING_SECONDS, MAC_LIMIT, MTU_BYTES, VLAN_ID, SwitchDefinition
from lamina_vswitch.domain.frames.header import format_mac, is_station, parse_mac
from lamina_vswitch.domain.policy.settings import (
    BURST_BYTES,
    DEFAULT_PROBE_INTERVAL_NS,
    MAX_NS,
    PORT_MAC_LIMIT,
    PROBE_INTERVAL_NS,
    SHAPING_RATE,
    STORM_RATE,
    GroupPolicy,
    LoopDetection,
    PolicyInForce,
    PortPolicy,
    Security,
    Shaping,
    StormControl,
)
from lamina_vswitch.domain.policy.trunk import MAX_RANGES, Trunk
from lamina_vswitch.domain.switch.topology import Shut

SETTINGS = ("mtu_bytes", "mac_ageing_seconds", "mac_table_limit", "loop_detection")
PARTS = ("security", "storm_control", "ingress_shaping", "egress_shaping")
GROUP_FIELDS = ("trunk", *PARTS, "isolated")
PORT_FIELDS = ("mac_address", *PARTS)

_SECURITY = (
    *("promiscuous", "reject_forged_transmits", "reject_mac_changes", "dhcp_guard", "router_guard", "source_guard"),
    *("mac_limit", "shut_at_mac_limit"),
)

# Requests


def changed_settings(
    request: pb.UpdateSwitchSettingsRequest, old: SwitchDefinition, old_loop: LoopDetection | None
) -> tuple[SwitchDefinition, LoopDetection | None]:
    """Return a switch's definition and loop detection with what the request changes."""
    wanted = request.settings
    paths = changed_paths(request, wanted, SETTINGS)
    with Checks() as check:
        mtu = wanted.mtu_bytes if "mtu_bytes" in paths else old.mtu_bytes
        ageing = wanted.mac_ageing_seconds if "mac_ageing_seconds" in paths else old.ageing_seconds
        limit = wanted.mac_table_limit if "mac_table_limit" in paths else old.mac_limit
        check.range("settings.mtu_bytes", mtu, *MTU_BYTES)
        check.range("settings.mac_ageing_seconds", ageing, *AGEING_SECONDS)
        check.range("settings.mac_table_limit", limit, *MAC_LIMIT)
        loop = old_loop
        if "loop_detection" in paths:
            loop = _loop(check, wanted.loop_detection) if wanted.HasField("loop_detection") else None
    return SwitchDefinition(old.switch, mtu, ageing, limit), loop


def changed_group(request: pb.UpdatePortGroupPolicyRequest, old: GroupPolicy) -> GroupPolicy:
    """Return a group's policy with what the request changes."""
    wanted = request.policy
    paths = changed_paths(request, wanted, GROUP_FIELDS)
    with Checks() as check:
        parts = _parts(check, wanted, paths, old)
        trunk = old.trunk
        if "trunk" in paths:
            trunk = trunk_of(check, wanted.trunk, "policy.trunk") if wanted.HasField("trunk") else None
    return GroupPolicy(trunk, *parts, wanted.isolated if "isolated" in paths else old.isolated)


def changed_port(request: pb.UpdatePortPolicyRequest, old: PortPolicy) -> PortPolicy:
    """Return a port's own policy with what the request changes."""
    wanted = request.policy
    paths = changed_paths(request, wanted, PORT_FIELDS)
    mac = old.mac
    with Checks() as check:
        parts = _parts(check, wanted, paths, old)
        if "mac_address" in paths:
            mac = _mac(check, wanted.mac_address)
    return PortPolicy(mac, *parts)


def changed_paths(request: Any, wanted: Any, fields: Sequence[str]) -> list[str]:
    """Return the fields that a request changes: those of its mask, or those that are set."""
    paths = list(request.update_mask.paths)
    with Checks() as check:
        for path in paths:
            check.one_of("update_mask", path, fields)
    return paths or [field.name for field, _ in wanted.ListFields() if field.name in fields]


def _parts(
    check: Checks, wanted: Any, paths: list[str], old: GroupPolicy | PortPolicy
) -> tuple[Security | None, StormControl | None, Shaping | None, Shaping | None]:
    """Return the parts that groups and ports both have; one that is named and absent is None."""

    def given(field: str) -> Any:
        return getattr(wanted, field) if wanted.HasField(field) else None

    security, storm = old.security, old.storm_control
    ingress, egress = old.ingress_shaping, old.egress_shaping
    if "security" in paths:
        security = _security(check, given("security"))
    if "storm_control" in paths:
        storm = _storm(check, given("storm_control"))
    if "ingress_shaping" in paths:
        ingress = _shaping(check, given("ingress_shaping"), "policy.ingress_shaping")
    if "egress_shaping" in paths:
        egress = _shaping(check, given("egress_shaping"), "policy.egress_shaping")
    return security, storm, ingress, egress


def _loop(check: Checks, wanted: pb.LoopDetection) -> LoopDetection:
    interval_ns = wanted.probe_interval_ns or DEFAULT_PROBE_INTERVAL_NS
    check.range("settings.loop_detection.probe_interval_ns", interval_ns, *PROBE_INTERVAL_NS)
    check.range("settings.loop_detection.reopen_after_ns", wanted.reopen_after_ns, 0, MAX_NS)
    return LoopDetection(interval_ns, wanted.reopen_after_ns)


def trunk_of(check: Checks, wanted: uplinks_pb2.VlanTrunk, field: str) -> Trunk:
    """Return the VLANs of a trunk, which a message has in `field`."""
    check.that(len(wanted.ranges) <= MAX_RANGES, f"{field}.ranges", f"has more than {MAX_RANGES} ranges")
    check.range(f"{field}.native_vlan_id", wanted.native_vlan_id, *VLAN_ID)
    for number, each in enumerate(wanted.ranges[:MAX_RANGES]):
        at = f"{field}.ranges[{number}]"
        check.range(f"{at}.first_vlan_id", each.first_vlan_id, *VLAN_ID)
        check.range(f"{at}.last_vlan_id", each.last_vlan_id, max(each.first_vlan_id, 0), VLAN_ID[1])
    ranges = tuple((each.first_vlan_id, each.last_vlan_id) for each in wanted.ranges)
    return Trunk(ranges, wanted.native_vlan_id, wanted.provider_tags)


def _security(check: Checks, wanted: pb.SecurityPolicy | None) -> Security | None:
    if wanted is None:
        return None
    check.range("policy.security.mac_limit", wanted.mac_limit, *PORT_MAC_LIMIT)
    return Security(**{field: getattr(wanted, field) for field in _SECURITY})


def _storm(check: Checks, wanted: pb.StormControl | None) -> StormControl | None:
    if wanted is None:
        return None
    names = ("broadcast", "multicast", "unknown_unicast")
    rates = [getattr(wanted, f"{name}_frames_per_second") for name in names]
    for name, rate in zip(names, rates, strict=True):
        check.range(f"policy.storm_control.{name}_frames_per_second", rate, *STORM_RATE)
    check.range("policy.storm_control.shut_after_ns", wanted.shut_after_ns, 0, MAX_NS)
    return StormControl(rates[0], rates[1], rates[2], wanted.shut_after_ns)


def _shaping(check: Checks, wanted: pb.Shaping | None, field: str) -> Shaping | None:
    if wanted is None:
        return None
    average, peak, burst = wanted.average_bits_per_second, wanted.peak_bits_per_second, wanted.burst_bytes
    check.range(f"{field}.average_bits_per_second", average, *SHAPING_RATE)
    if peak:
        check.range(f"{field}.peak_bits_per_second", peak, max(average, 1), MAX_NS)
    if burst:
        check.range(f"{field}.burst_bytes", burst, *BURST_BYTES)
    return Shaping(average, peak, burst)


def _mac(check: Checks, text: str) -> bytes:
    if not text:
        return b""
    mac = parse_mac(text)
    if check.that(mac is not None, "policy.mac_address", "is not an address such as 02:00:00:00:00:01"):
        check.that(is_station(mac or b""), "policy.mac_address", "is zero or a group address")
    return mac or b""


# Responses


def settings(name: str, switch: SwitchDefinition, loop: LoopDetection | None) -> pb.SwitchSettings:
    """Return the settings of a switch as a message."""
    return pb.SwitchSettings(
        name=name,
        mtu_bytes=switch.mtu_bytes,
        mac_ageing_seconds=switch.ageing_seconds,
        mac_table_limit=switch.mac_limit,
        loop_detection=None
        if loop is None
        else pb.LoopDetection(probe_interval_ns=loop.probe_interval_ns, reopen_after_ns=loop.reopen_after_ns),
    )


def group_policy(name: str, policy: GroupPolicy | PolicyInForce) -> pb.PortGroupPolicy:
    """Return a group's policy, or what holds for a port, as a message."""
    return pb.PortGroupPolicy(
        name=name,
        trunk=None if policy.trunk is None else trunk_message(policy.trunk),
        **_part_messages(policy),
        isolated=policy.isolated,
    )


def port_policy(
    name: str, policy: PortPolicy, effective: PolicyInForce, group_policy_name: str, shut: Shut | None
) -> pb.PortPolicy:
    """Return a port's policy as a message."""
    return pb.PortPolicy(
        name=name,
        mac_address=format_mac(policy.mac) if policy.mac else "",
        **_part_messages(policy),
        effective=group_policy(group_policy_name, effective),
        shut_reason=shut_reason(shut),
        shut_time_ns=shut.since_ns if shut is not None else 0,
        loop_peer=shut.peer if shut is not None else "",
    )


def shut_reason(shut: Shut | None) -> pb.ShutReason.ValueType:
    """Return why a port is shut as the contract's enum: the numbers are the same, which a test holds fast."""
    return pb.ShutReason.ValueType(shut.reason if shut is not None else 0)


def _part_messages(policy: GroupPolicy | PortPolicy | PolicyInForce) -> dict[str, Any]:
    storm, security = policy.storm_control, policy.security
    return {
        "security": security and pb.SecurityPolicy(**{field: getattr(security, field) for field in _SECURITY}),
        "storm_control": storm
        and pb.StormControl(
            broadcast_frames_per_second=storm.broadcast,
            multicast_frames_per_second=storm.multicast,
            unknown_unicast_frames_per_second=storm.unknown_unicast,
            shut_after_ns=storm.shut_after_ns,
        ),
        "ingress_shaping": _shaping_message(policy.ingress_shaping),
        "egress_shaping": _shaping_message(policy.egress_shaping),
    }


def _shaping_message(shaping: Shaping | None) -> pb.Shaping | None:
    if shaping is None:
        return None
    return pb.Shaping(
        average_bits_per_second=shaping.average, peak_bits_per_second=shaping.peak, burst_bytes=shaping.burst
    )


def trunk_message(trunk: Trunk) -> uplinks_pb2.VlanTrunk:
    """Return VLANs of a trunk as a message."""
    return uplinks_pb2.VlanTrunk(
        ranges=[uplinks_pb2.VlanRange(first_vlan_id=first, last_vlan_id=last) for first, last in trunk.ranges],
        native_vlan_id=trunk.native,
        provider_tags=trunk.provider_tags,
    )
