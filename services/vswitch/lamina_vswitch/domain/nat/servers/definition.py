"""Virtual servers: addresses that stand for several backends, who set them, and which backend a flow gets.

A flow takes a backend by weight, with the seed's chance; the flow's entry in the table then keeps it. With affinity a
client's next flow takes the backend of its last one, for so long after that flow began, unless that backend takes no
new flows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import accumulate

from lamina_kit.rng import Rng
from lamina_vswitch.domain.nat.flows.entry import Endpoint
from lamina_vswitch.domain.nat.packets.tracking import SECOND_NS

ServerKey = tuple[int, int, int]
"""Address, protocol number (TCP before UDP, as the contract lists them), port."""

SERVERS = 10_000
BACKENDS = 100_000
AFFINE_CLIENTS = 65_536
"""Clients that one server remembers; the one that was longest away goes first."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One that a server stands for. Weight 0 to 1000; 0 takes no new flows."""

    address: int
    port: int
    weight: int

    @property
    def endpoint(self) -> Endpoint:
        """Its address and port."""
        return self.address, self.port


@dataclass(frozen=True, slots=True)
class ServerDefinition:
    """A virtual server as its source set it. Affinity 0 to 86400 s."""

    address: int
    protocol: int
    port: int
    backends: tuple[Backend, ...]
    affinity_seconds: int = 0
    description: str = ""
    source: str = ""

    @property
    def key(self) -> ServerKey:
        """What names it."""
        return self.address, self.protocol, self.port

    @property
    def endpoint(self) -> Endpoint:
        """Its address and port."""
        return self.address, self.port


@dataclass(slots=True)
class Server:
    """A virtual server at work: its definition, its counts, and the clients that it remembers."""

    definition: ServerDefinition
    flows: int = 0
    refused: int = 0
    flows_of: dict[Endpoint, int] = field(default_factory=dict)
    _shares: list[int] = field(default_factory=list)
    _affine: OrderedDict[int, tuple[Endpoint, int]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._shares = list(accumulate(each.weight for each in self.definition.backends))

    def redefine(self, definition: ServerDefinition) -> set[Endpoint]:
        """Take a new definition; counts of backends that stay are kept. Return the backends that are gone."""
        old = {each.endpoint for each in self.definition.backends}
        new = {each.endpoint for each in definition.backends}
        self.definition = definition
        self._shares = list(accumulate(each.weight for each in definition.backends))
        self.flows_of = {place: count for place, count in self.flows_of.items() if place in new}
        return old - new

    def choose(self, client: int, rng: Rng, now_ns: int) -> Endpoint | None:
        """Return the backend of a new flow, or None when none takes flows."""
        if not self._shares or not self._shares[-1]:
            self.refused += 1
            return None
        chosen = self._kept(client, now_ns)
        if chosen is None:
            place = bisect_right(self._shares, rng.randrange(self._shares[-1]))
            chosen = self.definition.backends[place].endpoint
        self._remember(client, chosen, now_ns)
        self.flows += 1
        self.flows_of[chosen] = self.flows_of.get(chosen, 0) + 1
        return chosen

    def _kept(self, client: int, now_ns: int) -> Endpoint | None:
        chosen, since_ns = self._affine.get(client, ((0, 0), 0))
        if client not in self._affine or now_ns - since_ns >= self.definition.affinity_seconds * SECOND_NS:
            return None
        takes_flows = any(each.endpoint == chosen and each.weight for each in self.definition.backends)
        return chosen if takes_flows else None

    def _remember(self, client: int, backend: Endpoint, now_ns: int) -> None:
        if not self.definition.affinity_seconds:
            return
        self._affine[client] = (backend, now_ns)
        self._affine.move_to_end(client)
        if len(self._affine) > AFFINE_CLIENTS:
            self._affine.popitem(last=False)
