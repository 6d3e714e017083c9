"""Resource names of this host: ids out of names. A name of another host is a name that nothing here has."""

from __future__ import annotations

import re

from lamina_kit.errors import InvalidArgument
from lamina_kit.names import Pattern
from lamina_net.packets.address import parse_address
from lamina_vswitch.domain.backend.definition import BACKEND_NAME
from lamina_vswitch.domain.definitions.refusals import unknown
from lamina_vswitch.domain.definitions.switches import (
    MAC_ENTRY_NAME,
    PORT_GROUP_NAME,
    PORT_GROUP_POLICY_NAME,
    PORT_NAME,
    PORT_POLICY_NAME,
    SETTINGS_NAME,
    SWITCH_NAME,
)
from lamina_vswitch.domain.nat.flows.forwards import PORT_FORWARD_NAME
from lamina_vswitch.domain.network.definition import LEASE_NAME, NETWORK_NAME, RESERVATION_NAME
from lamina_vswitch.domain.overlay.definition import REMOTE_ENDPOINT_NAME

_MAC_ID = re.compile(r"[0-9a-f]{12}")
_MAC_ENTRY_ID = re.compile(r"v(0|[1-9][0-9]{0,3})-([0-9a-f]{12})")


class Names:
    """Parses the names that requests carry."""

    def __init__(self, host: str) -> None:
        self._host = host

    def switch(self, name: str, field: str = "name") -> str:
        """Return the switch id of a switch's name."""
        return self._ids("switch", SWITCH_NAME, name, field)[0]

    def port_group(self, name: str, field: str = "name") -> tuple[str, str]:
        """Return switch id and port group id."""
        switch, port_group = self._ids("port_group", PORT_GROUP_NAME, name, field)
        return switch, port_group

    def port(self, name: str, field: str = "name") -> tuple[str, str]:
        """Return switch id and port id."""
        switch, port = self._ids("port", PORT_NAME, name, field)
        return switch, port

    def settings(self, name: str, field: str = "name") -> str:
        """Return the switch id of the name of a switch's settings."""
        return self._ids("switch", SETTINGS_NAME, name, field)[0]

    def port_group_policy(self, name: str, field: str = "name") -> tuple[str, str]:
        """Return switch id and port group id of the name of a group's policy."""
        switch, port_group = self._ids("port_group", PORT_GROUP_POLICY_NAME, name, field)
        return switch, port_group

    def port_policy(self, name: str, field: str = "name") -> tuple[str, str]:
        """Return switch id and port id of the name of a port's policy."""
        switch, port = self._ids("port", PORT_POLICY_NAME, name, field)
        return switch, port

    def of(self, kind: str, pattern: Pattern, name: str, field: str = "name") -> tuple[str, str]:
        """Return switch id and id of something else that belongs to a switch, whose names have a pattern."""
        switch, identifier = self._ids(kind, pattern, name, field)
        return switch, identifier

    def mac_entry(self, name: str, field: str = "name") -> tuple[str, int, bytes]:
        """Return switch id, VLAN and address."""
        switch, entry = self._ids("mac_entry", MAC_ENTRY_NAME, name, field)
        match = _MAC_ENTRY_ID.fullmatch(entry)
        if match is None:
            raise InvalidArgument(
                f"{field} ends in {entry!r}, which is not v{{vlan}}-{{mac}}, for example v100-020000000001.",
                reason="NAME_MALFORMED",
                next_step="Take names of MAC entries from ListMacEntries.",
            )
        return switch, int(match[1]), bytes.fromhex(match[2])

    def backend(self, name: str, field: str = "name") -> tuple[str, str]:
        """Return switch id and port id of a backend's name."""
        switch, port = self._ids("backend", BACKEND_NAME, name, field)
        return switch, port

    def network(self, name: str, field: str = "name") -> str:
        """Return the network id of a network's name."""
        return self._ids("network", NETWORK_NAME, name, field)[0]

    def lease(self, name: str, field: str = "name") -> tuple[str, int]:
        """Return network id and address of a lease's name."""
        network, lease = self._ids("lease", LEASE_NAME, name, field)
        address = parse_address(lease.replace("-", "."))
        if address is None:
            raise _malformed(field, lease, "an address with dots written as '-', for example 10-0-2-15", "ListLeases")
        return network, address

    def reservation(self, name: str, field: str = "name") -> tuple[str, bytes]:
        """Return network id and MAC address of a reservation's name."""
        network, reservation = self._ids("reservation", RESERVATION_NAME, name, field)
        if not _MAC_ID.fullmatch(reservation):
            raise _malformed(field, reservation, "twelve hexadecimal digits", "ListReservations")
        return network, bytes.fromhex(reservation)

    def port_forward(self, name: str, field: str = "name") -> tuple[str, str]:
        """Return network id and id of a forwarded port."""
        network, port_forward = self._ids("port_forward", PORT_FORWARD_NAME, name, field)
        return network, port_forward

    def remote_endpoint(self, name: str, field: str = "name") -> tuple[str, str, int]:
        """Return switch id, overlay id and address of a remote end."""
        switch, overlay, remote = self._ids("remote_endpoint", REMOTE_ENDPOINT_NAME, name, field)
        address = parse_address(remote.replace("-", "."))
        if address is None:
            wanted = "an address with dots written as '-', for example 192-0-2-1"
            raise _malformed(field, remote, wanted, "ListRemoteEndpoints")
        return switch, overlay, address

    def _ids(self, kind: str, pattern: Pattern, name: str, field: str) -> list[str]:
        host, *ids = pattern.parse(name, field).values()
        if host != self._host:
            raise unknown(kind, name)
        return ids


def _malformed(field: str, last: str, wanted: str, listed_by: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} ends in {last!r}, which is not {wanted}.",
        reason="NAME_MALFORMED",
        next_step=f"Take such names from {listed_by}.",
    )
