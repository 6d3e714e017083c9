"""What can break for a cluster: a node cannot be reached.

The kit serves it as `lamina.common.v1.Faults` (`kit/lamina_kit/faults/table.py`); here is what it does.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina_kit.faults.channel import Link
from lamina_kit.faults.kinds import Breakage, FaultKind
from lamina_kit.faults.table import FaultTable
from lamina_kit.names import Pattern
from lamina_orchestrator.io.runtimes.agents import Agents
from lamina_orchestrator.io.runtimes.connector import ChannelConnector

NODE = Pattern("nodes/{node}")


class OrchestratorFaults:
    """Breaks the connections to nodes."""

    def __init__(self, agents: Agents, connector: ChannelConnector) -> None:
        self._agents = agents
        self._connector = connector
        self._cut_links: dict[str, Link] = {}  # by fault: the node may be gone, or elsewhere, when it ends

    def register(self, table: FaultTable) -> None:
        """Adds the kind to the layer's table."""
        table.register(
            FaultKind(
                "node-lost",
                NODE,
                "The network between the orchestrator and a node is gone: calls are lost, streams break, what runs on "
                "the node goes on unseen. The node becomes NotReady, and its pods move when their tolerations run out.",
                self._cut,
                self._mend,
            )
        )

    def _cut(self, breakage: Breakage) -> Mapping[str, object]:
        link = self._connector.link(self._agents.address_of(breakage.ids["node"]))
        self._cut_links[breakage.name] = link
        return {"streams_broken": link.cut()}

    def _mend(self, breakage: Breakage) -> None:
        self._cut_links.pop(breakage.name).mend()
