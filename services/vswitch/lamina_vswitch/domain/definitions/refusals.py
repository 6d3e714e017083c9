"""The catalog's refusals: one function an error, so that the same mistake always reads the same."""

from __future__ import annotations

from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted

_LIST_CALLS = {
    "switch": "ListSwitches",
    "port_group": "ListPortGroups",
    "port": "ListPorts",
    "mac_entry": "ListMacEntries",
    "backend": "ListBackends",
    "network": "ListNetworks",
    "lease": "ListLeases",
    "reservation": "ListReservations",
    "mirror": "ListMirrors",
    "uplink": "ListUplinks",
    "port_forward": "ListPortForwards",
    "overlay": "ListOverlays",
    "remote_endpoint": "ListRemoteEndpoints",
}


def unknown(kind: str, name: str) -> NotFound:
    """Return the error for a name that nothing has; `kind` is one of those above."""
    return NotFound(
        f"{name} does not exist.",
        reason=f"{kind.upper()}_UNKNOWN",
        next_step=f"Compare the name with what {_LIST_CALLS[kind]} returns.",
        name=name,
    )


def exists(kind: str, name: str) -> AlreadyExists:
    """Return the error for a name that is taken."""
    return AlreadyExists(
        f"{name} exists already.",
        reason=f"{kind.upper()}_EXISTS",
        next_step="Choose another id, or use what is there.",
        name=name,
    )


def over_limit(kind: str, limit: int) -> ResourceExhausted:
    """Return the error for one object too many."""
    return ResourceExhausted(
        f"No further {kind} can be made: the host's configuration allows {limit}.",
        reason=f"{kind.upper()}_LIMIT",
        next_step=f"Delete a {kind}, or raise the limit in the configuration.",
        limit=limit,
    )


def in_use(kind: str, name: str, ports: int) -> FailedPrecondition:
    """Return the error for something that still has ports."""
    move = "Delete those ports, or move them to another group."
    return FailedPrecondition(
        f"{name} has {ports} ports.",
        reason=f"{kind.upper()}_IN_USE",
        next_step=move if kind == "port_group" else "Delete its ports first, or set force.",
        name=name,
        ports=ports,
    )


def internal(name: str) -> FailedPrecondition:
    """Return the error for a change of a port that this layer made for itself."""
    return FailedPrecondition(
        f"{name} belongs to a network or another part of the switch itself.",
        reason="PORT_INTERNAL",
        next_step="Change or delete that; its port goes with it.",
        name=name,
    )


def stale(slot: int, generation: int) -> FailedPrecondition:
    """Return the error for a handle whose port is gone."""
    return FailedPrecondition(
        f"No port has the handle {slot}, generation {generation}: the port is gone.",
        reason="HANDLE_STALE",
        next_step="Look the port up by its name and use the handle found there.",
        id=slot,
        generation=generation,
    )


def not_held(port: str) -> FailedPrecondition:
    """Return the error for a port that nobody holds: `PORT_NOT_HELD`."""
    return FailedPrecondition(
        f"{port} is not held.",
        reason="PORT_NOT_HELD",
        next_step="Hold it with QuiescePort first.",
        port=port,
    )


def port_attached(name: str) -> FailedPrecondition:
    """Return the error for a port with something else plugged in, or kept for the NIC of its uplink."""
    return FailedPrecondition(
        f"{name} has something else plugged in already.",
        reason="PORT_ATTACHED",
        next_step="End that first, or plug into another port.",
    )
