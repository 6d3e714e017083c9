"""The refusals of translations: one function an error, so that the same mistake always reads the same."""

from __future__ import annotations

from lamina_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    LaminaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.definitions.refusals import unknown
from lamina_vswitch.domain.nat.flows.entry import Endpoint
from lamina_vswitch.domain.nat.sockets.host import HostError


def unknown_forward(name: str) -> NotFound:
    """Return the error for the name of no forwarded port."""
    return unknown("port_forward", name)


def forward_exists(name: str) -> AlreadyExists:
    """Return the error for a name that is taken."""
    return AlreadyExists(
        f"{name} exists already.",
        reason="PORT_FORWARD_EXISTS",
        next_step="Choose another id, or use what is there.",
        name=name,
    )


def not_nat(name: str) -> FailedPrecondition:
    """Return the error for a network that has no outside to forward from."""
    return FailedPrecondition(
        f"{name} is not in NAT mode, so no port of an outside leads into it.",
        reason="NETWORK_NOT_NAT",
        next_step="Use a network in NAT mode.",
        name=name,
    )


def not_loopback(address: int) -> FailedPrecondition:
    """Return the error for a port that other machines could reach."""
    return FailedPrecondition(
        f"{format_address(address)} is not a loopback address: other machines could reach the port.",
        reason="ADDRESS_NOT_LOOPBACK",
        next_step="Set allow_remote if they may, or use 127.0.0.1.",
        address=format_address(address),
    )


def outside_not_in_engine(engine: str) -> FailedPrecondition:
    """Return the error for an outside that the engine of the switches has no way to."""
    return FailedPrecondition(
        f"The engine {engine} of the vSwitch has no way into the kernel of this machine.",
        reason="OUTSIDE_NOT_IN_ENGINE",
        next_step="Start the service with the engine linux, or use OUTSIDE_SOCKETS.",
        engine=engine,
    )


def port_taken(at: Endpoint, name: str = "") -> FailedPrecondition:
    """Return the error for a port that the forward `name`, or else a program of this machine, has."""
    owner = name or "a program of this machine"
    return FailedPrecondition(
        f"{format_address(at[0])}:{at[1]} belongs to {owner}.",
        reason="OUTSIDE_PORT_TAKEN",
        next_step="Choose another port outside, or 0 for a free one.",
        port=at[1],
    )


def port_not_had(at: Endpoint, error: HostError) -> LaminaError:
    """Return the error for a port outside that this machine does not give."""
    place = f"{format_address(at[0])}:{at[1]}"
    if error is HostError.IN_USE:
        return port_taken(at)
    if error is HostError.FORBIDDEN:
        return PermissionDenied(
            f"This process may not listen at {place}.",
            reason="OUTSIDE_PORT_FORBIDDEN",
            next_step="Choose a port above 1023, or start the service with the privilege.",
            port=at[1],
        )
    if error is HostError.EXHAUSTED:
        return ResourceExhausted(
            f"The machine has no socket left for {place}.",
            reason="HOST_SOCKETS_EXHAUSTED",
            next_step="Raise the limit of open files of the service, or end some flows.",
        )
    return Unavailable(
        f"The machine does not let anybody listen at {place} now: {error.value}.",
        reason="HOST_SOCKETS_UNAVAILABLE",
        next_step="Try again, or choose another address.",
    )
