"""Configuration of the orchestrator: section `orchestrator` of the file, `LAMINA_ORCHESTRATOR_*` in the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lamina_kit.checks import Checks


@dataclass(frozen=True)
class OrchestratorConfig:
    """What can be set. Raises InvalidArgument `CONFIG_OUT_OF_RANGE` for values outside their ranges.

    `store`: `sqlite` keeps objects in the state directory, `memory` forgets them with the process. `node_…`: capacity
    of the local host as a node: thousandths of a core, bytes, pods. `history_revisions`: how far a watcher may lag
    behind, 100 to 1,000,000. `toleration_seconds`: how long a pod that says nothing stays on a lost node (Kubernetes:
    300).
    """

    store: Literal["sqlite", "memory"] = "sqlite"
    node_cpu_millicores: int = 4000
    node_memory_bytes: int = 8 << 30
    node_max_pods: int = 110
    history_revisions: int = 20_000
    toleration_seconds: int = 300

    def __post_init__(self) -> None:
        with Checks(reason="CONFIG_OUT_OF_RANGE") as check:
            check.range("orchestrator.node_cpu_millicores", self.node_cpu_millicores, 1, 10**9)
            check.range("orchestrator.node_memory_bytes", self.node_memory_bytes, 1 << 20, 1 << 56)
            check.range("orchestrator.node_max_pods", self.node_max_pods, 1, 10_000)
            check.range("orchestrator.history_revisions", self.history_revisions, 100, 1_000_000)
            check.range("orchestrator.toleration_seconds", self.toleration_seconds, 0, 86_400)
