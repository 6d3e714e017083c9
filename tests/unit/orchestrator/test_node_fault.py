"""The fault `node-lost`: the link that was cut is the one that is mended."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.errors import NotFound
from lamina_kit.faults.table import FaultState, FaultTable, Wish
from lamina_kit.rng import Rng
from lamina_kit.telemetry.events import EventLog
from lamina_orchestrator.faults import OrchestratorFaults
from lamina_orchestrator.io.runtimes.agents import Agents
from lamina_orchestrator.io.runtimes.connector import ChannelConnector

WISH = Wish("node-lost", "nodes/n")
HERE, THERE = "unix:/nowhere/here.sock", "unix:/nowhere/there.sock"


async def test_a_node_that_left_or_moved_is_mended_where_it_was_cut(manual_clock: Any) -> None:
    """A node that is gone cannot break; one that came back elsewhere does not keep its old address cut for ever."""
    connector = ChannelConnector({}, manual_clock)
    agents = Agents(connector, manual_clock, lambda event: None)
    table = FaultTable("", manual_clock, Rng(1), EventLog("orchestrator", "", manual_clock))
    OrchestratorFaults(agents, connector).register(table)
    agents.connect("n", HERE)
    fault = await table.inject(WISH)
    assert connector.link(HERE).is_cut
    agents.disconnect("n")
    with pytest.raises(NotFound, match="no node n"):
        agents.address_of("n")
    agents.connect("n", THERE)
    await table.clear(fault.name)
    assert fault.state is FaultState.CLEARED
    assert not connector.link(HERE).is_cut and not connector.link(THERE).is_cut
    await agents.stop()
