"""The refusals of networks: one function an error, so that the same mistake always reads the same."""

from __future__ import annotations

from lamina_kit.errors import AlreadyExists, FailedPrecondition, LaminaError, NotFound, ResourceExhausted
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.definitions.refusals import unknown
from lamina_vswitch.domain.network.dhcp.lease import Taken


def unknown_network(name: str) -> NotFound:
    """Return the error for the name of no network."""
    return unknown("network", name)


def unknown_lease(name: str) -> NotFound:
    """Return the error for the name of no lease."""
    return unknown("lease", name)


def unknown_reservation(name: str) -> NotFound:
    """Return the error for the name of no reservation."""
    return unknown("reservation", name)


def network_exists(name: str) -> AlreadyExists:
    """Return the error for a name that is taken."""
    return AlreadyExists(
        f"{name} exists already.",
        reason="NETWORK_EXISTS",
        next_step="Choose another id, or use what is there.",
        name=name,
    )


def vlan_has_network(vlan: int, other: str) -> AlreadyExists:
    """Return the error for a second network in one VLAN."""
    return AlreadyExists(
        f"VLAN {vlan} of the switch has the network {other}.",
        reason="VLAN_HAS_NETWORK",
        next_step="Use that network, or a port group with another VLAN.",
        network=other,
    )


def no_group_in_vlan(switch: str, vlan: int) -> NotFound:
    """Return the error for a VLAN that no port group is in."""
    return NotFound(
        f"{switch} has no port group with VLAN {vlan}.",
        reason="PORT_GROUP_UNKNOWN",
        next_step="Create the port group first, or name the VLAN of one that is there.",
        vlan=vlan,
    )


def subnets_overlap(subnet: object, other: str, others: object) -> FailedPrecondition:
    """Return the error for addresses that two routed networks would share."""
    return FailedPrecondition(
        f"The subnet {subnet} has addresses of {others}, the subnet of {other}.",
        reason="SUBNET_OVERLAPS",
        next_step="Choose a subnet that no other routed network of the host has.",
        network=other,
    )


def no_uplink(switch: str) -> FailedPrecondition:
    """Return the error for a network that needs an uplink on a switch without one."""
    return FailedPrecondition(
        f"{switch} has no uplink.",
        reason="NO_UPLINK",
        next_step="Create an uplink on the switch first, or choose another mode.",
        switch=switch,
    )


def vlan_has_uplink(switch: str, vlan: int, so: str) -> FailedPrecondition:
    """Return the error for a VLAN that leaves the host by an uplink, where that rules something else out, in words."""
    return FailedPrecondition(
        f"VLAN {vlan} of {switch} is carried by an uplink, so {so}.",
        reason="VLAN_HAS_UPLINK",
        next_step="Take the VLAN off the uplink, or choose another VLAN.",
        vlan=vlan,
    )


def clock_virtual(what: str) -> FailedPrecondition:
    """Return the error for something that needs sockets of the machine, on a clock that they do not know."""
    return FailedPrecondition(
        f"{what} needs sockets or the kernel of this machine, and they know no virtual time.",
        reason="CLOCK_VIRTUAL",
        next_step="Use host-only mode, or run the stack on the real clock.",
    )


def network_limit(limit: int) -> ResourceExhausted:
    """Return the error for one network too many."""
    return ResourceExhausted(
        f"No further network can be made: the host's configuration allows {limit}.",
        reason="NETWORK_LIMIT",
        next_step="Delete a network, or raise vswitch.max_networks in the configuration.",
        limit=limit,
    )


def network_in_use(name: str, leases: int) -> FailedPrecondition:
    """Return the error for a network with addresses that are out."""
    return FailedPrecondition(
        f"{name} has {leases} addresses out.",
        reason="NETWORK_IN_USE",
        next_step="End those leases first, or set force.",
        name=name,
        leases=leases,
    )


def unrouted(name: str) -> FailedPrecondition:
    """Return the error for something that only a network with a router has."""
    return FailedPrecondition(
        f"{name} is in bridge mode and has no router.",
        reason="NETWORK_UNROUTED",
        next_step="Ask the router of the uplink's network, or use a network in NAT or host-only mode.",
        name=name,
    )


def address_taken(address: int, why: Taken) -> LaminaError:
    """Return the error for an address that somebody has."""
    return AlreadyExists(
        f"{format_address(address)} cannot be had: it is {why.value}.",
        reason="ADDRESS_TAKEN",
        next_step="Choose another address, or none to get the next free one.",
        address=format_address(address),
    )


def addresses_exhausted(name: str) -> ResourceExhausted:
    """Return the error for a network without a free address."""
    return ResourceExhausted(
        f"{name} has no free address.",
        reason="ADDRESSES_EXHAUSTED",
        next_step="Release some, or give the network a larger range.",
        name=name,
    )


def reservation_exists(mac: str, address: int) -> AlreadyExists:
    """Return the error for a MAC address with another reservation."""
    return AlreadyExists(
        f"{mac} has {format_address(address)} reserved.",
        reason="RESERVATION_EXISTS",
        next_step="Delete that reservation first.",
        address=format_address(address),
    )


def reservation_limit(limit: int) -> ResourceExhausted:
    """Return the error for one reservation too many."""
    return ResourceExhausted(
        f"The network has {limit} reservations, as many as it may.",
        reason="RESERVATION_LIMIT",
        next_step="Delete some.",
        limit=limit,
    )


def name_owned(name: str, source: str) -> FailedPrecondition:
    """Return the error for a DNS name that another source set."""
    return FailedPrecondition(
        f"{name} was set by {source}.",
        reason="NAME_OWNED",
        next_step="Have that source remove the name, or choose another one.",
        name=name,
        source=source,
    )


def record_limit(limit: int) -> ResourceExhausted:
    """Return the error for too many sets of records."""
    return ResourceExhausted(
        f"The network would have more than {limit} sets of records.",
        reason="RECORD_LIMIT",
        next_step="Remove some.",
        limit=limit,
    )
