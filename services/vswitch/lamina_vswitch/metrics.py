"""What the vswitch layer tells of itself in numbers, when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable

from lamina_kit.clock import Clock
from lamina_kit.telemetry.metrics import Family, by_label, counter, gauge, tally
from lamina_vswitch.switches.catalog import Catalog

STATES = ("up", "down", "detached")


def families(catalog: Catalog, clock: Clock) -> Iterable[Family]:
    """Yield switches, ports by state, and entries of the MAC tables."""
    switches, engine = catalog.switches(), catalog.engine
    yield gauge("lamina_vswitch_switches", "Switches.", len(switches))
    states = [
        "detached" if not engine.attached(port.slot) else "up" if engine.link(port.slot) else "down"
        for switch in switches
        for port in catalog.ports(switch.switch)
    ]
    text = "Ports: with a carrier and a link, with a carrier and without, without a carrier."
    yield by_label("lamina_vswitch_ports", text, "state", tally(states, STATES))
    tallies = [engine.tally(catalog.switch_name(switch.switch), clock.now_ns()) for switch in switches]
    entries = sum(found.mac_entries for found in tallies)
    yield gauge("lamina_vswitch_mac_entries", "Live entries of all MAC tables.", entries)


def defects(count: int) -> Family:
    """Return how many tasks of the switches failed by a defect of Lamina."""
    return counter("lamina_vswitch_defects_total", "Tasks of the switches that failed by a defect of Lamina.", count)
