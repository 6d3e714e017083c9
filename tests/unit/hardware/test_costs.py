"""Prices of counts: exact, and the past stays as it was priced."""

from __future__ import annotations

import pytest

from lamina_hardware.domain.contexts.costs import Cost, CostTable, exit_event
from lamina_hardware.domain.contexts.counts import COUNTERS, EVENTS, Counts
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.errors import InvalidArgument


def counted(instructions: int, fills: int = 0, exits: int = 0) -> Counts:
    """Returns counters with these values."""
    counts = Counts(instructions=instructions)
    counts.count([fills if place == EVENTS.index("tlb_fills") else 0 for place in range(COUNTERS)])
    counts.exits[ExitReason.IO] = exits
    return counts


def test_every_cost_has_a_source() -> None:
    """No figure of the default table is without its source."""
    assert all(0 < len(cost.source) <= 255 for cost in CostTable().costs.values())


def test_a_price_is_a_sum() -> None:
    """Counts times costs, in whole thousandths of a cycle; exits are told by reason as well."""
    table = CostTable()
    table.update({"instruction": Cost(250, "x"), "tlb.miss": Cost(7_001, "x"), "exit.io": Cost(5, "x")}, None, ())
    price = table.price("a", counted(3, 2, 4))
    assert price.total == 3 * 250 + 2 * 7_001 + 4 * 5
    assert price.exits[ExitReason.IO] == 20


def test_a_new_table_leaves_the_past() -> None:
    """What a subject spent until the change stays; what comes later has the new price, also after two changes."""
    table, counts = CostTable(), counted(10)
    table.update({"instruction": Cost(1_000, "x")}, None, ())
    for cost in (5_000, 9_000):
        table.update({"instruction": Cost(cost, "x")}, 2_000_000_000, [("a", counts)])
        counts.instructions += 1
    assert table.price("a", counts).total == 10 * 1_000 + 5_000 + 9_000
    assert table.price("b", counts).total == 12 * 9_000
    assert table.frequency_hz == 2_000_000_000


def test_an_unknown_event_changes_nothing() -> None:
    """One event that is not in the table refuses the whole change."""
    table = CostTable()
    with pytest.raises(InvalidArgument) as error:
        table.update({"instruction": Cost(1, "x"), "exit.magic": Cost(1, "x")}, None, ())
    assert error.value.reason == "COST_EVENT_UNKNOWN"
    assert table.costs["instruction"].millicycles == 1_000
    assert exit_event(ExitReason.HLT) in table.costs
