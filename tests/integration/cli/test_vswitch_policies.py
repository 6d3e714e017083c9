"""Policies from the command line: what people and programs read, and what changes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def guarded(up: Any) -> Iterator[Any]:
    """Returns the command with a switch, a group and a port in it; in the end nothing of it is left."""
    up.here("vswitch", "create-switch", "pol")
    up.here("vswitch", "create-group", "pol", "web")
    up.here("vswitch", "create-port", "pol", "a", "--group", "web")
    yield up
    assert "SWITCH_IN_USE" in up.here("vswitch", "delete-switch", "pol", expect=1).stderr
    up.here("vswitch", "delete-switch", "pol", "--force")
    assert "/pol" not in up.here("vswitch", "switches").stdout


def rows(done: Any) -> dict[str, str]:
    """Return a table of two columns as names and values."""
    return {line[:15].strip(): line[15:].strip() for line in done.stdout.splitlines()[1:]}


def test_a_port_follows_its_group_until_it_is_told_otherwise(guarded: Any) -> None:
    """Options change parts and keep the rest of them; a cleared part is the group's again."""
    guarded.here(
        "vswitch", "group-policy", "pol", "web", "--dhcp-guard", "yes", "--broadcast", "100", "--isolated", "yes"
    )
    found = rows(guarded.here("vswitch", "policy", "pol/a", "--mac-limit", "2", "--egress", "1000000:2000000"))
    assert found == {
        "trunk": "-",
        "security": "dhcp guard, 2 addresses",
        "storm control": "100 broadcast a second",
        "ingress": "-",
        "egress": "1,000,000 bits a second, 2,000,000 at most",
        "isolated": "yes",
        "own": "security, egress_shaping",
        "address": "-",
    }
    guarded.here("vswitch", "policy", "pol/a", "--clear", "security", "--clear", "egress-shaping")
    told = json.loads(guarded.here("vswitch", "policy", "pol/a", "-o", "json").stdout)
    assert "security" not in told
    assert told["effective"]["security"]["dhcp_guard"] is True


def test_a_group_becomes_a_trunk_and_back(guarded: Any) -> None:
    """Ranges and the native VLAN are shown; an access group has a VLAN instead."""
    found = rows(guarded.here("vswitch", "trunk", "pol", "web", "10-20,30", "--native", "5"))
    assert found["trunk"] == "10-20,30, native 5"
    assert rows(guarded.here("vswitch", "trunk", "pol/web", "--off"))["trunk"] == "-"
    assert guarded.here("vswitch", "set-vlan", "pol", "web", "7").stdout.strip().endswith("is in VLAN 7")
    guarded.here("vswitch", "set-vlan", "pol/web", "0")
    assert "GROUP_MISSING" in guarded.here("vswitch", "trunk", "pol", expect=1).stderr
    for more in (("10-20",), ("--native", "5"), ("--provider-tags",)):
        refused = guarded.here("vswitch", "trunk", "pol/web", "--off", *more, expect=1).stderr
        assert "OPTION_WITHOUT_EFFECT" in refused


def test_settings_are_shown_and_changed(guarded: Any) -> None:
    """Without options they are shown, with some they change."""
    assert "watched" not in guarded.here("vswitch", "settings", "pol").stdout
    changed = guarded.here(
        "vswitch", "settings", "pol", "--mtu", "9000", "--loop-detection", "on", "--reopen-after", "10s"
    )
    assert changed.stdout.splitlines()[1].split() == ["pol", "9000", "300", "s", "8192", "watched"]
    guarded.here("vswitch", "settings", "pol", "--loop-detection", "off")
    for more in ((), ("--loop-detection", "off")):
        refused = guarded.here("vswitch", "settings", "pol", "--reopen-after", "10s", *more, expect=1).stderr
        assert "OPTION_WITHOUT_EFFECT" in refused and "--loop-detection on" in refused


def test_reopening_an_open_port_says_so(guarded: Any) -> None:
    """Nothing happens to a port that is not shut."""
    assert guarded.here("vswitch", "reopen", "pol/a").stdout.strip() == "a was not shut"
