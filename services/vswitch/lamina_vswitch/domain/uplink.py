"""What users define: uplinks of switches, and how port groups share them."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.errors import FailedPrecondition, ResourceExhausted, Unimplemented
from lamina_kit.names import Pattern
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.teaming import Balancing

UPLINK_NAME = Pattern("hosts/{host}/switches/{switch}/uplinks/{uplink}")
NIC_NAME = Pattern("hosts/{host}/nics/{nic}")
TEAMING_POLICY_NAME = Pattern("hosts/{host}/switches/{switch}/portGroups/{port_group}/teamingPolicy")

MAX_UPLINKS = 32
"""Most uplinks of a switch, and most of a list in a teaming policy."""


EVERY_VLAN = Trunk()


@dataclass(frozen=True, slots=True)
class UplinkDefinition:
    """An uplink, whose port has its id and its link. `nic` is empty for one whose wire is plugged into its port."""

    switch: str
    uplink: str
    trunk: Trunk = EVERY_VLAN
    nic: str = ""


@dataclass(frozen=True, slots=True)
class TeamingPolicy:
    """How a port group shares uplinks, by their ids. Both lists empty: all of the switch, in the order of their ids."""

    balancing: Balancing = Balancing.PORT
    active: tuple[str, ...] = ()
    standby: tuple[str, ...] = ()
    no_failback: bool = False
    announce: bool = False


def uplink_limit(switch: str) -> ResourceExhausted:
    """Return the error for one uplink too many."""
    return ResourceExhausted(
        f"{switch} has {MAX_UPLINKS} uplinks.",
        reason="UPLINK_LIMIT",
        next_step="Delete an uplink of this switch.",
        limit=MAX_UPLINKS,
    )


def uplink_in_use(name: str, users: list[str]) -> FailedPrecondition:
    """Return the error for an uplink that others name."""
    return FailedPrecondition(
        f"{name} is named by {', '.join(users)}.",
        reason="UPLINK_IN_USE",
        next_step="Change or delete those first.",
        name=name,
    )


def vlan_host_only(vlan: int, network: str, next_step: str) -> FailedPrecondition:
    """Return the error for an uplink or overlay that would carry the frames of a host-only network away."""
    return FailedPrecondition(
        f"VLAN {vlan} belongs to {network}, which is host-only.",
        reason="VLAN_HOST_ONLY",
        next_step=next_step,
        network=network,
    )


def nics_unsupported() -> Unimplemented:
    """Return the error for an uplink by a NIC, which no engine drives yet."""
    return Unimplemented(
        "No engine of this build drives NICs of hardware.",
        reason="ENGINE_LACKS_NICS",
        next_step="Create the uplink with backend_port, and plug a backend into its port.",
    )
