"""Parts of a switch from the command line: made and deleted by either way to name them, links, fixed addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

MAC = "02:00:00:00:00:01"


@pytest.fixture(scope="module")
def parts(up: Any) -> Iterator[Any]:
    """Returns the command with a switch for jumbo frames that has port `a`; in the end nothing of it is left."""
    up.here("vswitch", "create-switch", "par", "--mtu", "9000")
    assert up.here("vswitch", "create-port", "par/a").stdout.strip().endswith("switches/par/ports/a")
    yield up
    up.here("vswitch", "delete-switch", "par", "--force")


def test_a_group_is_made_and_deleted(parts: Any) -> None:
    """SWITCH/GROUP names a group in every verb; a port alone names no switch, and the error says what does."""
    assert "9000" in parts.here("vswitch", "settings", "par").stdout
    parts.here("vswitch", "create-group", "par/web", "--vlan", "7")
    assert parts.here("vswitch", "group-policy", "par/web").stdout.split()[:2] == ["GROUP", "web"]
    assert parts.here("vswitch", "delete-group", "par/web").stdout.strip().endswith("par/portGroups/web")
    refused = parts.here("vswitch", "delete-port", "a", expect=1).stderr
    assert "'a' names no switch" in refused and "SWITCH/NAME" in refused


def test_a_part_to_be_made_is_named_in_three_ways(parts: Any) -> None:
    """SWITCH NAME, SWITCH/NAME and in full; a switch alone, in either way, names nothing to make."""
    full = parts.here("vswitch", "create-port", "par", "b").stdout.strip().removesuffix("b") + "c"
    assert parts.here("vswitch", "create-port", full).stdout.strip() == full
    for alone, told in (("par", "names no switch"), ("par/", "is a switch"), (full[: -len("/ports/c")], "is a switch")):
        assert told in parts.here("vswitch", "create-port", alone, expect=1).stderr
    for name in ("b", "c"):
        parts.here("vswitch", "delete-port", f"par/{name}")


def test_a_link_goes_down_and_up(parts: Any) -> None:
    """The port's state after it is told."""
    assert parts.here("vswitch", "link", "par/a", "down").stdout.strip().endswith("ports/a is down")
    assert parts.here("vswitch", "link", "par/a", "up").stdout.strip().endswith("ports/a is detached")


def test_an_address_is_fixed_and_freed(parts: Any) -> None:
    """A fixed address is a static entry until it is deleted."""
    parts.here("vswitch", "add-mac", "par/a", MAC)
    assert parts.here("vswitch", "macs", "par").stdout.splitlines()[1].split()[:4] == [MAC, "-", "a", "static"]
    parts.here("vswitch", "delete-mac", "par", MAC)
    assert "MAC_ENTRY_UNKNOWN" in parts.here("vswitch", "delete-mac", "par", MAC, expect=1).stderr


def test_a_virtual_server_is_set_and_deleted(parts: Any) -> None:
    """Each backend is a line; a server of the same source can be deleted, as can a kept address."""
    parts.here("vswitch", "create-network", "par", "parnet", "10.77.0.0/24")
    parts.here("vswitch", "virtual-server", "parnet", "10.77.0.100:80", "10.77.0.15:8080", "--for", "web")
    lines = parts.here("vswitch", "virtual-servers", "parnet").stdout.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["10.77.0.15:8080"]
    parts.here("vswitch", "delete-virtual-server", "parnet", "10.77.0.100:80")
    assert len(parts.here("vswitch", "virtual-servers", "parnet").stdout.splitlines()) == 1
    parts.here("vswitch", "reserve", "parnet", MAC, "10.77.0.50")
    assert parts.here("vswitch", "unreserve", "parnet", MAC).stdout.strip().endswith("reservations/020000000001")
    parts.here("vswitch", "delete-network", "parnet")
