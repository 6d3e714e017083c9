"""Translation by the kernel as rules of nf_tables, for people to read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition
from lamina_vswitch.domain.nat.packets.packet import TCP, UDP
from lamina_vswitch.engines.linux.nat.rules import NatWanted, ruleset

PLAIN = NatWanted("lnat-00c0ffee", 0x0A050001, (Subnet(0x0A050000, 24),), 32768, 60999, 65536, 8192)
FULL = replace(
    PLAIN,
    inside=(*PLAIN.inside, Subnet(0x0A060000, 16)),
    allowed=(Subnet(0xC0000200, 24), Subnet(0xA9FEA9FE, 32)),
    forwards=(
        ForwardDefinition("net", "web", TCP, (0x7F000001, 8080), (0x0A050009, 80)),
        ForwardDefinition("net", "names-2", UDP, (0, 5353), (0x0A050009, 53), allow_remote=True),
    ),
    alone=True,
)


def test_networks_are_these_tables(golden: Any) -> None:
    """A network with every default, and one with every setting."""
    batches = ["# every default", ruleset(PLAIN, "before: a=0"), "# every setting", ruleset(FULL, "", recount=True)]
    assert batches[1] != batches[3]
    golden("\n".join(batches), Path(__file__).with_name("nat_rules.txt"))


def test_every_packet_of_a_network_that_is_dropped_is_counted() -> None:
    """But for what is no network's: 127.0.0.0/8, redirects, and what others would forward."""
    uncounted = [line for line in ruleset(FULL, "").splitlines() if re.search(r"drop$|admin-prohibited$", line)]
    uncounted = [line.strip() for line in uncounted if "counter" not in line]
    assert [line.split()[-2] for line in uncounted] == ["127.0.0.0/8", "127.0.0.0/8", '"lnat-*"', "redirect"]


def test_a_first_port_at_the_bottom_leaves_its_range_to_both_sides() -> None:
    """Where no ports are below those of the network, what comes in from here uses the same."""
    batch = ruleset(replace(PLAIN, first_port=1024), "")
    assert "snat to 10.5.0.1:1024-60999" in batch
    assert "snat to 10.5.0.1:1024-32767" in ruleset(PLAIN, "")
