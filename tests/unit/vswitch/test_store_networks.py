"""The tables of networks: what they keep through death, and what goes with ports, switches and networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lamina_net.packets.address import parse_subnet
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition, SwitchDefinition
from lamina_vswitch.domain.network.definition import (
    DhcpSettings,
    DnsSettings,
    Mode,
    NatSettings,
    NetworkDefinition,
    Reservation,
    RouteDefinition,
)
from lamina_vswitch.domain.network.dhcp.lease import FOREVER, Lease, LeaseOrigin
from lamina_vswitch.domain.network.dns.message import Type
from lamina_vswitch.domain.network.dns.zone import Change, RecordSet
from lamina_vswitch.io.store.definitions import SqliteStore
from lamina_vswitch.io.store.networks import NetworkStore

SUBNET = parse_subnet("10.0.2.0/24")
ALLOWED = parse_subnet("192.0.2.0/24")
assert SUBNET is not None and ALLOWED is not None
NETWORK = NetworkDefinition(
    *("lan", Mode.NAT, "s1", 7, SUBNET, SUBNET.network + 1, 0),
    DhcpSettings(dns=(1, 2), domain="lab"),
    DnsSettings(("lab",), ((3, 53),)),
    NatSettings(allowed_destinations=(ALLOWED,)),
    (RouteDefinition(ALLOWED, SUBNET.network + 9), RouteDefinition(SUBNET, 0, "other")),
    *(b"\x02" + bytes(5), "router.lan"),
)
PORT = PortDefinition("s1", "p1", "", True, "", 1, 1)
BY_DHCP = Lease(5, b"\x02" + bytes(5), "p1", "alice", LeaseOrigin.DHCP, 50)
BY_HAND = Lease(6, b"", "p1", "", LeaseOrigin.ALLOCATED, FOREVER)


def opened(path: Path, offset: int = 1000) -> tuple[SqliteStore, NetworkStore]:
    """Return an open store of definitions, and one of networks whose wall clock is `offset` ahead."""
    store = SqliteStore(path / "vswitch.sqlite")
    store.open()
    networks = NetworkStore(store, lambda: offset)
    networks.prepare()
    return store, networks


def filled(path: Path) -> tuple[SqliteStore, NetworkStore]:
    """Return stores with a switch, a port, a network, and everything that a network has."""
    store, networks = opened(path)
    store.add_switch(SwitchDefinition("s1"), Origin())
    store.add_port(PORT, Origin())
    networks.add(NETWORK, Origin("request", "content"))
    networks.leases_of("lan").put(BY_DHCP)
    networks.leases_of("lan").put(BY_HAND)
    networks.add_reservation("lan", Reservation(b"\x02" + bytes(5), 5, "alice"))
    networks.change_records("lan", "me", Change((RecordSet("a", Type.A, ("1.2.3.4",), 9, "me"),), (), 3))
    return store, networks


def test_everything_comes_back(tmp_path: Path) -> None:
    """What was recorded is loaded by the next start; the end of a lease keeps its place on the wall clock."""
    store, _ = filled(tmp_path)
    store.close()
    _, networks = opened(tmp_path, offset=1020)
    (found,) = networks.load()
    assert (found.definition, found.origin) == (NETWORK, Origin("request", "content"))
    assert sorted(lease.end_ns for lease in found.leases) == [FOREVER, 30]
    assert found.reservations == [Reservation(b"\x02" + bytes(5), 5, "alice")]
    assert (found.records, found.revisions) == ([RecordSet("a", Type.A, ("1.2.3.4",), 9, "me")], [("me", 3)])


def test_a_lease_that_ended_while_nobody_ran_is_over(tmp_path: Path) -> None:
    """An end before this start is no end that never comes."""
    store, _ = filled(tmp_path)
    store.close()
    _, networks = opened(tmp_path, offset=1050)
    (found,) = networks.load()
    (ended,) = [lease for lease in found.leases if lease.origin is LeaseOrigin.DHCP]
    assert not ended.live(1)


def test_a_port_takes_its_allocations_along(tmp_path: Path) -> None:
    """What DHCP gave stays and belongs to no port, also when the port goes by force with others."""
    store, networks = filled(tmp_path)
    store.remove_port(PORT)
    assert [(lease.address, lease.port) for lease in networks.load()[0].leases] == [(5, "")]


def test_a_lease_may_take_the_place_of_another(tmp_path: Path) -> None:
    """Both changes are one."""
    _, networks = filled(tmp_path)
    networks.leases_of("lan").put(Lease(9, BY_DHCP.mac, "p1", "", LeaseOrigin.DHCP, 70), instead_of=5)
    assert sorted(lease.address for lease in networks.load()[0].leases) == [6, 9]


def test_networks_and_switches_take_everything_along(tmp_path: Path) -> None:
    """Nothing of a network is left behind, whichever way it goes."""
    store, networks = filled(tmp_path)
    networks.remove("lan")
    networks.add(NETWORK, Origin())
    (again,) = networks.load()
    assert not (again.leases or again.reservations or again.records or again.revisions)
    store.remove_switch("s1")
    assert networks.load() == []


DYING = """
import os, signal, sys
from pathlib import Path
from tests.unit.vswitch.test_store_networks import BY_DHCP, filled
store, networks = filled(Path(sys.argv[1]))
networks.leases_of("lan").remove(6)
store._db.execute("BEGIN IMMEDIATE")
store._db.execute("DELETE FROM leases")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_forgets_no_lease(tmp_path: Path) -> None:
    """A process that dies within a transaction leaves the leases that were recorded before, and those alone."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", DYING, str(tmp_path)]
    died = subprocess.run(command, cwd=root, timeout=60, check=False)
    assert died.returncode == -9
    _, networks = opened(tmp_path)
    (found,) = networks.load()
    assert (found.definition, found.leases) == (NETWORK, [BY_DHCP])
