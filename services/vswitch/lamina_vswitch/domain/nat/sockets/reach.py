"""Which destinations host sockets may reach, and whom a guest means by an address."""

from __future__ import annotations

from lamina_net.packets.address import LOOPBACK, Subnet, is_unicast
from lamina_vswitch.domain.nat.flows.entry import Endpoint
from lamina_vswitch.domain.network.definition import NatSettings

_NAMED_ONLY = (Subnet(0x7F000000, 8), Subnet(0xA9FE0000, 16))
"""Loopback and link-local: what a machine offers to itself and to its cloud. Reached only where a subnet within is
named; `0.0.0.0/0` names neither."""


class Reach:
    """What the settings of a network allow."""

    def __init__(self, settings: NatSettings) -> None:
        self._allowed = settings.allowed_destinations
        self.alias = settings.host_alias or None
        """Address at which guests find this machine."""

    def peer(self, dialled: Endpoint) -> Endpoint | None:
        """Return whom a guest means by an address and port, or None when sockets may not reach it."""
        address = LOOPBACK if dialled[0] == self.alias else dialled[0]
        return (address, dialled[1]) if self._allows(address) else None

    def _allows(self, address: int) -> bool:
        # 0.0.0.0/8 is this machine to Linux, whatever it is to the guest; is_unicast leaves it out.
        if not is_unicast(address):
            return False
        for special in _NAMED_ONLY:
            if address in special:
                return any(address in each and each.network in special for each in self._allowed)
        return not self._allowed or any(address in each for each in self._allowed)
