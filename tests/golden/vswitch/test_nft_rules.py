"""Policies as rules of nf_tables, command by command, for people to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security, Shaping, StormControl
from lamina_vswitch.engines.linux.nft.rules import FilteredPort, changed, forgotten, made, unmade

POLICIES = {
    "kept by others: isolation, rates": PolicyInForce(
        isolated=True, ingress_shaping=Shaping(8_000_000), egress_shaping=Shaping(8_000_000)
    ),
    "forged transmits, an address given": PolicyInForce(
        security=Security(reject_forged_transmits=True), mac=bytes.fromhex("020000000001")
    ),
    "forged transmits, the first address": PolicyInForce(security=Security(reject_forged_transmits=True)),
    "guards": PolicyInForce(security=Security(dhcp_guard=True, router_guard=True)),
    "storms": PolicyInForce(storm_control=StormControl(10, 20)),
    "a limit of addresses": PolicyInForce(security=Security(mac_limit=3)),
}


def test_policies_are_these_rules(golden: Any) -> None:
    """Each policy at a port with two legs: how its rules are made, and how they go."""
    lines: list[str] = []
    for title, policy in POLICIES.items():
        port = FilteredPort(3, ("t3v10", "t3v20"), policy, 300)
        assert len(made(port)) >= len(unmade(port))
        lines += [f"# {title}", *made(port), "# and away", *unmade(port), *forgotten(3, port.reasons), ""]
    for title in ("guards", "kept by others: isolation, rates"):
        port = FilteredPort(3, ("t3v10", "t3v20"), POLICIES[title])
        watched = replace(port, watch="w3")
        lines += [f"# {title}: somebody begins to watch", *changed(port, watched)]
        lines += ["# and ceases", *changed(watched, port), ""]
    golden("\n".join(lines), Path(__file__).with_name("nft_rules.txt"))


def test_a_port_without_legs_has_no_rules() -> None:
    """Nothing is asked of the kernel for a port that no bridge has."""
    port = FilteredPort(3, (), POLICIES["guards"])
    assert (made(port), unmade(port), port.reasons) == ([], [], ())


def test_who_watches_has_nothing_forgotten() -> None:
    """Sets and counters stay when somebody begins or ceases to watch; any other change makes all anew, copies too."""
    for policy in POLICIES.values():
        port = FilteredPort(3, ("t3v0",), policy)
        watched = replace(port, watch="w3")
        commands = [*changed(port, watched), *changed(watched, port)]
        assert not [each for each in commands if " set netdev" in each or " counter netdev" in each]
        drops = sum(each.endswith(" drop") for each in made(port))
        assert sum(" dup to " in each for each in changed(port, watched)) == drops + 1
        assert not [each for each in changed(watched, port) if " dup to " in each]
        longer = replace(watched, devices=("t3v0", "t3v1"))
        assert changed(watched, longer) == unmade(watched) + made(longer)
        assert changed(None, watched) == made(watched)


def test_another_guard_forgets_nothing() -> None:
    """What the kernel noted for a rule stays while that rule does, at the same devices; what changed is made anew."""
    noted = PolicyInForce(
        security=Security(reject_forged_transmits=True, mac_limit=3), storm_control=StormControl(10, 20)
    )
    guarded = replace(noted, security=replace(noted.security, dhcp_guard=True))
    slower = replace(guarded, storm_control=StormControl(10, 5))
    old, new, last = (FilteredPort(3, ("d3",), policy) for policy in (noted, guarded, slower))
    assert not [each for each in changed(old, new) if " set netdev" in each or " limit netdev" in each]
    commands = [each for each in changed(new, last) if " set netdev" in each or " limit netdev" in each]
    assert commands == [
        "delete limit netdev lamina p3_multicast",
        "add limit netdev lamina p3_multicast { rate over 5/second burst 5 packets }",
    ]
    assert changed(last, FilteredPort(3, ("d3",), PolicyInForce())) == unmade(last)


def test_every_rule_that_drops_counts() -> None:
    """No frame is dropped without a counter, and each counter is one that is made."""
    for policy in POLICIES.values():
        commands = made(FilteredPort(3, ("t3v0",), policy))
        drops = [each for each in commands if each.endswith(" drop")]
        counters = {each.split()[-1] for each in commands if each.startswith("add counter")}
        assert {each.split('"')[-2] for each in drops} == counters
        assert all('counter name "' in each for each in drops)
        assert counters <= {f"p3_{reason.name.lower()}" for reason in DropReason}
