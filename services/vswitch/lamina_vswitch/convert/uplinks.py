"""Between the contract and the domain: uplinks and teaming policies."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.vswitch.v1 import uplinks_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2

from lamina_kit.checks import Checks
from lamina_vswitch.convert.policies import changed_paths, trunk_message, trunk_of
from lamina_vswitch.domain.definitions.switches import MAX_REQUEST_ID_BYTES
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.uplink.definition import (
    MAX_UPLINKS,
    NIC_NAME,
    UPLINK_NAME,
    NicView,
    TeamingPolicy,
    UplinkDefinition,
)
from lamina_vswitch.domain.uplink.teaming import Balancing
from lamina_vswitch.names import Names

UPLINK_FIELDS = ("link", "trunk")
POLICY_FIELDS = ("balancing", "active_uplinks", "standby_uplinks", "no_failback", "announce")

# Requests


def uplink_definition(request: pb.CreateUplinkRequest, names: Names) -> tuple[UplinkDefinition, bool]:
    """Return the uplink that a request asks for, and whether its link is wanted up."""
    switch, wanted = names.switch(request.parent, "parent"), request.uplink
    if wanted.nic:
        NIC_NAME.parse(wanted.nic, "uplink.nic")
    with Checks() as check:
        check.identifier("uplink_id", request.uplink_id)
        check.that(bool(wanted.nic) != wanted.backend_port, "uplink", "needs exactly one of nic and backend_port")
        _check_link(check, wanted.link)
        carried = trunk_of(check, wanted.trunk, "uplink.trunk") if wanted.HasField("trunk") else Trunk()
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    return UplinkDefinition(switch, request.uplink_id, carried, wanted.nic), wanted.link != vswitch_pb2.LINK_DOWN


def changed_uplink(
    request: pb.UpdateUplinkRequest, old: UplinkDefinition, link_up: bool
) -> tuple[UplinkDefinition, bool]:
    """Return an uplink and its link with what the request changes."""
    wanted = request.uplink
    paths = changed_paths(request, wanted, UPLINK_FIELDS)
    carried = old.trunk
    with Checks() as check:
        _check_link(check, wanted.link)
        if "trunk" in paths:
            carried = trunk_of(check, wanted.trunk, "uplink.trunk") if wanted.HasField("trunk") else Trunk()
    if "link" in paths:
        link_up = wanted.link != vswitch_pb2.LINK_DOWN
    return UplinkDefinition(old.switch, old.uplink, carried, old.nic), link_up


def changed_policy(
    request: pb.UpdateTeamingPolicyRequest, old: TeamingPolicy, switch: str, names: Names
) -> TeamingPolicy:
    """Return how a group shares uplinks with what the request changes."""
    wanted = request.teaming_policy
    paths = changed_paths(request, wanted, POLICY_FIELDS)
    active, standby = old.active, old.standby
    with Checks() as check:
        check.one_of("teaming_policy.balancing", wanted.balancing, pb.TeamingPolicy.Balancing.values())
        for field in ("active_uplinks", "standby_uplinks"):
            count = len(getattr(wanted, field))
            check.that(count <= MAX_UPLINKS, f"teaming_policy.{field}", f"has {count} values, more than {MAX_UPLINKS}")
    if "active_uplinks" in paths:
        active = _ids(wanted.active_uplinks, "teaming_policy.active_uplinks", switch, names)
    if "standby_uplinks" in paths:
        standby = _ids(wanted.standby_uplinks, "teaming_policy.standby_uplinks", switch, names)
    both = (*active, *standby)
    with Checks() as check:
        check.that(len(set(both)) == len(both), "teaming_policy", "names an uplink twice")
    return TeamingPolicy(
        Balancing(wanted.balancing or Balancing.PORT) if "balancing" in paths else old.balancing,
        active,
        standby,
        wanted.no_failback if "no_failback" in paths else old.no_failback,
        wanted.announce if "announce" in paths else old.announce,
    )


def _ids(wanted: Sequence[str], field: str, switch: str, names: Names) -> tuple[str, ...]:
    found = [names.of("uplink", UPLINK_NAME, name, field) for name in wanted]
    with Checks() as check:
        check.that(all(each[0] == switch for each in found), field, f"names uplinks of another switch than {switch}")
    return tuple(uplink for _, uplink in found)


def _check_link(check: Checks, link: int) -> None:
    check.one_of("uplink.link", link, vswitch_pb2.Link.values())


# Responses


def uplink(
    name: str,
    definition: UplinkDefinition,
    port: str,
    link_up: bool,
    carrier: bool,
    mtu_bytes: int,
    nic: NicView | None,
) -> pb.Uplink:
    """Return an uplink as a message; `carrier` says that something is plugged in and its cable is whole."""
    state = pb.Uplink.STATE_UP if carrier else pb.Uplink.STATE_NO_CARRIER
    if nic is not None and not nic.driven:
        state = pb.Uplink.STATE_FAILED
    return pb.Uplink(
        name=name,
        nic=definition.nic,
        backend_port=not definition.nic,
        trunk=trunk_message(definition.trunk),
        link=vswitch_pb2.LINK_UP if link_up else vswitch_pb2.LINK_DOWN,
        state=state if link_up else pb.Uplink.STATE_DOWN,
        port=port,
        mtu_bytes=mtu_bytes,
        rate_bits_per_second=nic.rate_bits_per_second if nic is not None else 0,
        queue_pairs=nic.queue_pairs if nic is not None else 1,
    )


def teaming_policy(
    name: str, policy: TeamingPolicy, active: Sequence[str], standby: Sequence[str], used: Sequence[str]
) -> pb.TeamingPolicy:
    """Return how a group shares uplinks as a message; uplinks are given by their names."""
    return pb.TeamingPolicy(
        name=name,
        balancing=pb.TeamingPolicy.Balancing.ValueType(policy.balancing),
        active_uplinks=active,
        standby_uplinks=standby,
        no_failback=policy.no_failback,
        announce=policy.announce,
        used_uplinks=used,
    )
