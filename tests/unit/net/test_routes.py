"""Routes: the longest prefix wins, then the least metric."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_net.ip.routes import Route, RouteTable
from lamina_net.packets.address import Subnet, parse_subnet, subnet


def net(text: str) -> Subnet:
    """Return a subnet by its text."""
    found = parse_subnet(text)
    assert found is not None
    return found


DEFAULT = Route(net("0.0.0.0/0"), "up", via=0x0A000001)
LOCAL = Route(net("10.0.0.0/24"), "lan")
HOST = Route(net("10.0.0.7/32"), "tunnel", via=0x0A000002)


def test_the_longest_prefix_wins() -> None:
    """A host route goes before the subnet's, and the default last."""
    table = RouteTable()
    assert all(table.add(route) for route in (DEFAULT, LOCAL, HOST))
    assert [table.lookup(address) for address in (0x0A000007, 0x0A000008, 0x08080808)] == [HOST, LOCAL, DEFAULT]
    assert table.routes() == [HOST, LOCAL, DEFAULT]


def test_without_a_route_there_is_no_way() -> None:
    """An address that no prefix has is not reached."""
    table = RouteTable()
    table.add(LOCAL)
    assert table.lookup(0x0A000100) is None


def test_of_equal_prefixes_the_least_metric_counts() -> None:
    """When the better route goes, the other one takes its place."""
    table, backup = RouteTable(), DEFAULT._replace(interface="backup", metric=10)
    assert table.add(backup)
    assert table.add(DEFAULT)
    assert table.lookup(1) == DEFAULT
    assert table.remove(DEFAULT.subnet)
    assert table.lookup(1) == backup


def test_routes_are_there_once() -> None:
    """Adding what is there and removing what is not change nothing."""
    table = RouteTable()
    assert table.add(LOCAL)
    assert not table.add(LOCAL._replace(via=7))
    assert not table.remove(LOCAL.subnet, metric=3)
    assert not table.remove(HOST.subnet)
    assert (len(table), table.routes()) == (1, [LOCAL])


def test_an_interface_takes_its_routes_along() -> None:
    """What leaves at an interface that goes is gone."""
    table = RouteTable()
    for route in (DEFAULT, LOCAL, HOST):
        table.add(route)
    table.remove_interface("lan")
    assert table.routes() == [HOST, DEFAULT]


prefixes = st.builds(subnet, st.integers(0, 255).map(lambda byte: byte << 24 | byte << 4), st.integers(0, 32))


@given(st.lists(st.tuples(st.booleans(), prefixes, st.integers(0, 1))), st.lists(prefixes, min_size=1))
def test_a_table_is_a_list_that_is_searched(steps: list[tuple[bool, Subnet, int]], asked: list[Subnet]) -> None:
    """Whatever was added and removed, the table answers as a search through a list of the same routes."""
    table, routes = RouteTable(), dict[tuple[Subnet, int], Route]()
    for added, prefix, metric in steps:
        if added:
            route = Route(prefix, "lan", metric=metric)
            assert table.add(route) == ((prefix, metric) not in routes)
            routes.setdefault((prefix, metric), route)
        else:
            assert table.remove(prefix, metric) == (routes.pop((prefix, metric), None) is not None)
    assert len(table) == len(routes)
    for address in [prefix.network for prefix in asked]:
        fitting = [route for route in routes.values() if address in route.subnet]
        best = min(fitting, key=lambda route: (-route.subnet.length, route.metric), default=None)
        assert table.lookup(address) == best
