"""What users define of networks: modes, subnets, routers, DHCP and DNS settings, routes, reservations.

Addresses are integers (`lamina_net.packets.address`). A definition is immutable; a change makes a new one. Every
default of the contract is filled in when a definition is made, so that the code behind it meets no zero that means
something else.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_kit.names import Pattern
from lamina_net.packets.address import Subnet

NETWORK_NAME = Pattern("hosts/{host}/networks/{network}")
LEASE_NAME = Pattern("hosts/{host}/networks/{network}/leases/{lease}")
RESERVATION_NAME = Pattern("hosts/{host}/networks/{network}/reservations/{reservation}")

SUBNET_LENGTH = (8, 30)
LEASE_SECONDS = (60, 31_536_000)
ADDRESSES_PER_PORT = (1, 65_536)
TTL_SECONDS = (0, 86_400)
MAX_ROUTES = 4096
MAX_DNS_SERVERS = 3
MAX_DOMAINS = 16
MAX_ALLOWED_DESTINATIONS = 64
MAX_RESERVATIONS = 65_536
MAX_UPDATED_RECORDS = 1000
MAX_RECORD_SETS = 100_000
MAX_ANSWERS = 64
FIRST_PORT = (1024, 65_535)
ENTRY_LIMIT = (16, 1_048_576)
RECORDS_SOURCE_OF_LEASES = "lease"

DEFAULT_LEASE_SECONDS = 3600
DEFAULT_ADDRESSES_PER_PORT = 4
DEFAULT_TTL_SECONDS = 5
DEFAULT_FIRST_PORT = 32_768
DEFAULT_LAST_PORT = 60_999
DEFAULT_ENTRY_LIMIT = 65_536
DEFAULT_ENTRIES_PER_ADDRESS = 8192


class Mode(enum.IntEnum):
    """How a network meets the outside; the numbers are the contract's."""

    BRIDGE = 1
    NAT = 2
    HOST_ONLY = 3


class Outside(enum.IntEnum):
    """What the outside of a translating router is; the numbers are the contract's."""

    SOCKETS = 1
    UPLINK = 2
    KERNEL = 3


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """A DHCP server. `first` and `last` are addresses of the subnet; 0 means that the subnet's own bounds hold."""

    first: int = 0
    last: int = 0
    lease_seconds: int = DEFAULT_LEASE_SECONDS
    dns: tuple[int, ...] = ()
    domain: str = ""
    addresses_per_port: int = DEFAULT_ADDRESSES_PER_PORT


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """A DNS responder: its own domains, the servers that it asks for other names as (address, port), its TTL."""

    domains: tuple[str, ...] = ()
    upstreams: tuple[tuple[int, int], ...] = ()
    ttl_seconds: int = DEFAULT_TTL_SECONDS


@dataclass(frozen=True, slots=True)
class NatSettings:
    """How a NAT network translates. `host_alias` is 0 for none; the address outside is text, `ADDRESS/LENGTH`."""

    outside: Outside = Outside.SOCKETS
    uplink: str = ""
    outside_address: str = ""
    outside_gateway: int = 0
    first_port: int = DEFAULT_FIRST_PORT
    last_port: int = DEFAULT_LAST_PORT
    entry_limit: int = DEFAULT_ENTRY_LIMIT
    entries_per_address: int = DEFAULT_ENTRIES_PER_ADDRESS
    allowed_destinations: tuple[Subnet, ...] = ()
    host_alias: int = 0


@dataclass(frozen=True, slots=True)
class RouteDefinition:
    """A way to a subnet: by a router within the network (`via`, else 0), or by another network of the host (its id)."""

    destination: Subnet
    via: int = 0
    network: str = ""


@dataclass(frozen=True, slots=True)
class NetworkDefinition:
    """A network. `subnet` is None in bridge mode only; `gateway` and `host` are 0 when there is none.

    `mac` and `port` are those of the router: six bytes, and the id of its port; empty in bridge mode.
    """

    network: str
    mode: Mode
    switch: str
    vlan: int
    subnet: Subnet | None = None
    gateway: int = 0
    host: int = 0
    dhcp: DhcpSettings | None = None
    dns: DnsSettings | None = None
    nat: NatSettings = field(default_factory=NatSettings)
    routes: tuple[RouteDefinition, ...] = ()
    mac: bytes = b""
    port: str = ""

    @property
    def routed(self) -> bool:
        """Whether the network has a router of its own."""
        return self.mode is not Mode.BRIDGE

    @property
    def inside(self) -> Subnet:
        """The subnet; of a network that has none, as only bridge mode allows, every address."""
        return self.subnet if self.subnet is not None else Subnet(0, 0)

    @property
    def own_addresses(self) -> tuple[int, ...]:
        """Addresses that the router itself answers for, without repetition."""
        return tuple(dict.fromkeys(address for address in (self.gateway, self.host) if address))


@dataclass(frozen=True, slots=True)
class Reservation:
    """An address that is kept for a MAC address, and the name that DNS gives it (empty: what the device says)."""

    mac: bytes
    address: int
    host_name: str = ""


def lease_id(address: int) -> str:
    """Return the last part of a lease's name: `10-0-2-15`."""
    return "-".join(str(byte) for byte in address.to_bytes(4, "big"))


def address_key(address: int) -> str:
    """Return a text by which addresses sort as numbers."""
    return f"{address:08x}"


def usable(subnet: Subnet) -> tuple[int, int]:
    """Return the first and the last address of a subnet that a host may have: not the network's, not broadcast."""
    return subnet.network + 1, subnet.broadcast - 1
