"""The way to an address: a table of routes, of which the longest prefix that fits decides. Pure.

Source: RFC 1812, 5.2.4.3.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_net.packets.address import BROADCAST, Subnet

MAX_ROUTES = 65536


class Route(NamedTuple):
    """A route: packets to `subnet` leave at `interface`, to the router `via`, or on-link to their destination (None).

    `source` is the address to send from, 0 for the interface's own choice. Of equal prefixes the least `metric` counts.
    """

    subnet: Subnet
    interface: str
    via: int | None = None
    source: int = 0
    metric: int = 0


class RouteTable:
    """Routes by prefix, at most 65536. A lookup tries each length that occurs, the longest first."""

    def __init__(self) -> None:
        self._lengths: list[
            tuple[int, int, dict[int, list[Route]]]
        ] = []  # length, mask, routes by network, least metric first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, route: Route) -> bool:
        """Add a route, behind those that are as good. False: the interface has one like it, or the table is full."""
        routes = self._bucket(route.subnet).setdefault(route.subnet.network, [])
        if self._count >= MAX_ROUTES or any(_rank(other) == _rank(route) for other in routes):
            self._tidy(route.subnet)
            return False
        routes.append(route)
        routes.sort(key=lambda other: other.metric)
        self._count += 1
        return True

    def remove(self, subnet: Subnet, metric: int = 0, interface: str = "") -> bool:
        """Remove the first route with this prefix and metric, and interface if given. False: there is none."""
        routes = self._bucket(subnet).get(subnet.network, [])
        for route in routes:
            if route.metric == metric and interface in ("", route.interface):
                routes.remove(route)
                self._count -= 1
                self._tidy(subnet)
                return True
        self._tidy(subnet)
        return False

    def remove_interface(self, interface: str) -> None:
        """Remove every route that leaves at an interface."""
        for route in self.routes():
            if route.interface == interface:
                self.remove(route.subnet, route.metric, interface)

    def lookup(self, address: int) -> Route | None:
        """Return the route to an address, or None when no prefix fits."""
        for _, mask, networks in self._lengths:
            routes = networks.get(address & mask)
            if routes:
                return routes[0]
        return None

    def routes(self) -> list[Route]:
        """Return all routes: longest prefix first, then by network and metric."""
        return [route for _, _, networks in self._lengths for _, routes in sorted(networks.items()) for route in routes]

    def _bucket(self, subnet: Subnet) -> dict[int, list[Route]]:
        for length, _, networks in self._lengths:
            if length == subnet.length:
                return networks
        networks = {}
        self._lengths.append((subnet.length, BROADCAST << (32 - subnet.length) & BROADCAST, networks))
        self._lengths.sort(key=lambda entry: -entry[0])
        return networks

    def _tidy(self, subnet: Subnet) -> None:
        """Remove what is empty, so that lookups try no length in vain."""
        networks = self._bucket(subnet)
        if not networks.get(subnet.network, True):
            del networks[subnet.network]
        if not networks:
            self._lengths = [entry for entry in self._lengths if entry[0] != subnet.length]


def _rank(route: Route) -> tuple[int, str]:
    return route.metric, route.interface
