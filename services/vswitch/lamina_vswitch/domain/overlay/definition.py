"""What users define: overlays and the ends on other hosts; the errors about them, one function each."""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from lamina_kit.names import Pattern
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.overlay.end import Learning, Way
from lamina_vswitch.domain.overlay.remote_ends import MAX_ENDS
from lamina_vswitch.domain.overlay.vxlan import OVERHEAD_BYTES

OVERLAY_NAME = Pattern("hosts/{host}/switches/{switch}/overlays/{overlay}")
REMOTE_ENDPOINT_NAME = Pattern("hosts/{host}/switches/{switch}/overlays/{overlay}/remoteEndpoints/{address}")

MAX_OVERLAYS = 4094
"""Most overlays of a switch."""
SUBNET_LENGTH = (1, 30)
"""Lengths of the subnet of a local address."""


@dataclass(frozen=True, slots=True)
class OverlayDefinition:
    """An overlay: one end. `uplink` has the ids of switch and uplink; `mac` is its tunnel's, chosen when it is made."""

    switch: str
    overlay: str
    vni: int
    vlan: int
    uplink: tuple[str, str]
    address: int
    way: Way
    learning: Learning = field(default_factory=Learning)
    mac: bytes = b""

    @property
    def port(self) -> str:
        """Id of its port in its switch."""
        return f"overlay.{self.overlay}"

    @property
    def place(self) -> tuple[str, str, int]:
        """Where its tunnels are: switch, uplink and own address. All overlays there share one tunnel."""
        return (*self.uplink, self.address)

    @property
    def tunnel_port(self) -> str:
        """Id of the port of its tunnel in the uplink's switch."""
        return f"tunnel.{self.uplink[1]}.{address_id(self.address)}"


@dataclass(frozen=True, slots=True)
class RemoteDefinition:
    """An end on another host that was told, and the addresses behind it."""

    address: int
    macs: tuple[bytes, ...] = ()


def address_id(address: int) -> str:
    """Return an address with dots written as `-`."""
    return format_address(address).replace(".", "-")


def vni_taken(vni: int, address: int, by: str) -> AlreadyExists:
    """Return the error for a network that has an end at this address already."""
    return AlreadyExists(
        f"VNI {vni} at {format_address(address)} belongs to {by}.",
        reason="VNI_TAKEN",
        next_step="Choose another VNI, UDP port or local address, or use that overlay.",
        overlay=by,
    )


def vlan_has_overlay(vlan: int, by: str) -> AlreadyExists:
    """Return the error for a VLAN that has an overlay: two would be a loop."""
    return AlreadyExists(
        f"VLAN {vlan} is joined by {by}.",
        reason="VLAN_HAS_OVERLAY",
        next_step="Use that overlay, or choose another VLAN.",
        overlay=by,
    )


def vlan_spans_hosts(what: str, vlan: int, by: str) -> FailedPrecondition:
    """Return the error for something else, told in words, that an overlay in its VLAN rules out."""
    return FailedPrecondition(
        f"VLAN {vlan} is joined by {by}, so {what}.",
        reason="VLAN_HAS_OVERLAY",
        next_step="Leave the VLAN out, or delete that overlay.",
        overlay=by,
    )


def mtu_unsupported(uplink: str, carries: int, switch_mtu: int) -> FailedPrecondition:
    """Return the error for an uplink that carries less than the switch's MTU and what a tunnel adds."""
    return FailedPrecondition(
        f"{uplink} carries payloads of {carries} bytes, and tunnels need {switch_mtu + OVERHEAD_BYTES}.",
        reason="MTU_UNSUPPORTED",
        next_step="Raise the MTU of the uplink's switch and network, or lower that of this switch.",
        mtu_bytes=carries,
    )


def overlay_limit(switch: str) -> ResourceExhausted:
    """Return the error for one overlay too many."""
    return ResourceExhausted(
        f"{switch} has {MAX_OVERLAYS} overlays.",
        reason="OVERLAY_LIMIT",
        next_step="Delete an overlay of this switch.",
        limit=MAX_OVERLAYS,
    )


def remote_endpoint_limit(overlay: str) -> ResourceExhausted:
    """Return the error for one remote end too many."""
    return ResourceExhausted(
        f"{overlay} was told of {MAX_ENDS} remote ends.",
        reason="REMOTE_ENDPOINT_LIMIT",
        next_step="Delete a remote end of this overlay.",
        limit=MAX_ENDS,
    )
