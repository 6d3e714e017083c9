"""A lease, what keeps leases, which addresses a network has, and why one cannot be had."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

NS_PER_SECOND = 1_000_000_000
OFFER_NS = 60 * NS_PER_SECOND
"""How long an offer holds its address."""
REST_NS = 60 * NS_PER_SECOND
"""How long an address rests whose lease was ended from outside: late frames then hit nobody."""
DECLINED_NS = 600 * NS_PER_SECOND
"""How long an address rests that a device found in use: somebody has it by hand."""
FOREVER = 0
"""End of a lease that lasts as long as its port."""


class LeaseOrigin(enum.IntEnum):
    """How an address came to be out; the numbers are the contract's."""

    DHCP = 1
    ALLOCATED = 2


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that is out. `mac` is empty when nobody told it; `port` is the id of a port of the network's switch.

    `end_ns` is the time since the stack's start at which it ends, or `FOREVER`. An empty `port`: the port is gone.
    """

    address: int
    mac: bytes
    port: str
    host_name: str
    origin: LeaseOrigin
    end_ns: int

    def live(self, now_ns: int) -> bool:
        """Whether it has not ended."""
        return self.end_ns == FOREVER or now_ns < self.end_ns


class LeaseKeeper(Protocol):
    """Keeps leases through `kill -9`. Each call is one transaction, and raises when it could not be made."""

    def put(self, lease: Lease, instead_of: int | None = None) -> None:
        """Record a lease in the place of any other of the same address, and forget that of another address."""

    def remove(self, address: int) -> None:
        """Forget the lease of an address."""


class Taken(enum.Enum):
    """Why an address cannot be had."""

    OUTSIDE = "not one of the subnet's addresses for devices"
    OUT = "out to another device"
    RESERVED = "reserved for another device"
    OWN = "the router's own"
    RESTING = "in use until lately"


@dataclass(frozen=True, slots=True)
class Pool:
    """Which addresses there are: `low` to `high` of the subnet may be out, `first` to `last` are given by choice.

    `own` are the router's. `per_port` is how many one port may have.
    """

    low: int
    high: int
    first: int
    last: int
    own: tuple[int, ...]
    per_port: int
