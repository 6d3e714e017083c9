"""Networks from the command line: making one, addresses, reservations, names, and what people and programs read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def lan(up: Any) -> Iterator[Any]:
    """Returns the command with a switch, a port and a network; in the end nothing of it is left."""
    up.here("vswitch", "create-switch", "iplan")
    up.here("vswitch", "create-port", "iplan", "a")
    made = up.run(
        "vswitch", "create-network", "iplan", "ipnet", "10.77.0.0/24", "--mode", "host-only", "--domain", "lab"
    )
    assert made.stdout.strip().endswith("/networks/ipnet")
    yield up
    up.here("vswitch", "delete-network", "ipnet", "--force")
    up.here("vswitch", "delete-port", "iplan/a")
    up.here("vswitch", "delete-switch", "iplan")


def rows(done: Any) -> list[list[str]]:
    """Return the cells of a table below its headers."""
    return [line.split() for line in done.stdout.splitlines()[1:]]


def test_networks_are_listed(lan: Any) -> None:
    """A network shows its mode, switch, subnet and router; as JSON it has every field."""
    assert ["ipnet", "host-only", "iplan", "-", "10.77.0.0/24", "10.77.0.1", "yes", "yes", "0"] in rows(
        lan.here("vswitch", "networks")
    )
    listed = json.loads(lan.here("vswitch", "networks", "-o", "json").stdout)
    (found,) = [network for network in listed if network["name"].endswith("/networks/ipnet")]
    assert (found["dhcp"]["domain"], found["dns"]["domains"]) == ("lab", ["lab"])


def test_addresses_are_taken_kept_and_ended(lan: Any) -> None:
    """What is allocated is listed with its port and name, until it is ended."""
    lan.here("vswitch", "reserve", "ipnet", "02:00:00:00:00:09", "10.77.0.9", "--host-name", "printer")
    assert rows(lan.here("vswitch", "reservations", "ipnet")) == [["10.77.0.9", "02:00:00:00:00:09", "printer"]]
    lan.here("vswitch", "allocate", "ipnet", "iplan/a", "--host-name", "web")
    lease = ["10.77.0.2/24", "-", "a", "web", "allocated", "with", "its", "port"]
    assert rows(lan.here("vswitch", "leases", "ipnet")) == [lease]
    names = rows(lan.here("vswitch", "dns", "ipnet"))
    assert ["printer.lab", "A", "10.77.0.9", "-", "lease"] in names
    assert ["web.lab", "A", "10.77.0.2", "-", "lease"] in names
    lan.here("vswitch", "end-lease", "ipnet", "10.77.0.2")
    assert rows(lan.here("vswitch", "leases", "ipnet")) == []


def test_names_are_set_and_removed(lan: Any) -> None:
    """A name has the answers that were set last, and is gone without any."""
    lan.here("vswitch", "set-name", "ipnet", "db.lab", "a", "10.77.0.20", "10.77.0.21")
    found = rows(lan.here("vswitch", "dns", "ipnet"))
    assert ["db.lab", "A", "10.77.0.20,", "10.77.0.21", "-", "cli"] in found
    assert lan.here("vswitch", "set-name", "ipnet", "db.lab", "a").stdout.strip() == "cli has 0 sets"
    assert rows(lan.here("vswitch", "neighbors", "ipnet")) == []
