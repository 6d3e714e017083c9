"""What users define: uplinks of switches, and how port groups share them."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.errors import FailedPrecondition, ResourceExhausted, Unavailable, Unimplemented
from lamina_kit.names import Pattern
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.uplink.teaming import Balancing

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
class NicView:
    """The NIC of an uplink as it is now: whether it is driven, its rate (0: not told) and the queue pairs in use."""

    driven: bool
    rate_bits_per_second: int = 0
    queue_pairs: int = 0


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
    """Return the error for an uplink by a NIC where no hardware is below."""
    return Unimplemented(
        "This vswitch has no hardware below it whose NICs it could drive.",
        reason="ENGINE_LACKS_NICS",
        next_step="Create the uplink with backend_port, and plug a backend into its port.",
    )


def nic_in_use(nic: str, user: str) -> FailedPrecondition:
    """Return the error for a NIC that another uplink, or somebody else, has."""
    return FailedPrecondition(
        f"{nic} is in use: {user}",
        reason="NIC_IN_USE",
        next_step="Free it there, or choose another NIC.",
        nic=nic,
    )


def mtu_unsupported(nic: str, mtu_bytes: int) -> FailedPrecondition:
    """Return the error for a NIC that carries less than the switch's MTU."""
    return FailedPrecondition(
        f"{nic} does not carry frames of {mtu_bytes} bytes of payload, the MTU of the switch.",
        reason="MTU_UNSUPPORTED",
        next_step="Lower the MTU of the switch, or choose another NIC.",
        mtu_bytes=mtu_bytes,
    )


def hardware_unreachable(nic: str) -> Unavailable:
    """Return the error for hardware that does not answer."""
    return Unavailable(
        f"The hardware that has {nic} does not answer.",
        reason="HARDWARE_UNREACHABLE",
        next_step="Try again later.",
        nic=nic,
    )
