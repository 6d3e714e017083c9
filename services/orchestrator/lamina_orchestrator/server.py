"""The orchestrator as a service: wires store, engine, writer and servicers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import grpc
from lamina.orchestrator.v1 import orchestrator_pb2_grpc as rpc

from lamina_kit.layer.service import Environment
from lamina_orchestrator.config import OrchestratorConfig
from lamina_orchestrator.engines.interface import Store
from lamina_orchestrator.engines.model.engine import ModelEngine
from lamina_orchestrator.faults import OrchestratorFaults
from lamina_orchestrator.io.cluster import Cluster
from lamina_orchestrator.io.journal import LayerJournal
from lamina_orchestrator.io.runtimes.agents import Connector
from lamina_orchestrator.io.runtimes.connector import ChannelConnector
from lamina_orchestrator.io.store.memory import MemoryStore
from lamina_orchestrator.io.store.sqlite import SqliteStore
from lamina_orchestrator.metrics import families
from lamina_orchestrator.servicers import Nodes, Objects, Pods

LAYER = "orchestrator"
RUNTIME_CHANNEL = "container-runtime"
STORE_FILE = "orchestrator.sqlite"
_SERVICES = ("Objects", "Pods", "Nodes")


class OrchestratorService:
    """The layer's service; see `lamina_kit.layer.service.Service`.

    `connector` makes runtimes from addresses; it is given by tests, and made from the environment's channels otherwise.
    """

    layer = LAYER

    def __init__(
        self, environment: Environment, config: OrchestratorConfig, connector: Connector | None = None
    ) -> None:
        self._environment = environment
        self._config = config
        self._store = _store(environment, config)
        engine = ModelEngine(
            self._store,
            environment.rng.child(f"{LAYER}/{self._store.revision}"),  # a start of the same seed draws new names
            LayerJournal(environment.layer),
            history=config.history_revisions,
            toleration_seconds=config.toleration_seconds,
        )
        environment.layer.capabilities = engine.capabilities
        below = environment.channels
        reached = {name: below[name] for name in below if name.startswith(RUNTIME_CHANNEL)}
        channels = ChannelConnector(reached, environment.clock, environment.security)
        check: Callable[[str], None] = channels.check if connector is None else _any_address
        environment.layer.metrics.add(partial(families, engine, self._store))
        self.cluster = Cluster(engine, environment.clock, connector or channels, check, environment.layer)
        if connector is None:
            OrchestratorFaults(self.cluster.agents, channels).register(environment.layer.faults)
        self._local = RUNTIME_CHANNEL in environment.channels or connector is not None

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the layer's servicers."""
        rpc.add_ObjectsServicer_to_server(Objects(self.cluster), server)
        rpc.add_PodsServicer_to_server(Pods(self.cluster), server)
        rpc.add_NodesServicer_to_server(Nodes(self.cluster), server)

    @property
    def service_names(self) -> tuple[str, ...]:
        """Full names of the services."""
        return tuple(f"lamina.orchestrator.v1.{name}" for name in _SERVICES)

    async def start(self) -> None:
        """Takes in what is stored, adds the local host as a node if its runtime is at hand, and starts to work."""
        self.cluster.start()
        if self._local:
            config = self._config
            room = (config.node_cpu_millicores, config.node_memory_bytes, config.node_max_pods)
            self.cluster.register(self._environment.host, RUNTIME_CHANNEL, *room, {})
        self.cluster.poke()

    async def stop(self) -> None:
        """Stops to work and closes the store; containers go on running. Idempotent."""
        await self.cluster.stop()
        self._store.close()


def _store(environment: Environment, config: OrchestratorConfig) -> Store:
    if config.store == "memory":
        return MemoryStore()
    environment.state_dir.mkdir(parents=True, exist_ok=True)
    return SqliteStore(environment.state_dir / STORE_FILE)


def _any_address(address: str) -> None:
    """Leaves it to the given connector which addresses it takes."""


def build(
    environment: Environment, config: OrchestratorConfig | None = None, connector: Connector | None = None
) -> OrchestratorService:
    """Builds the service. `config` defaults to the environment's, and that to the defaults.

    Raises FailedPrecondition `STORE_IN_USE` or `STORE_FORMAT` and DataLoss `STORE_CORRUPT` for the store's file.
    """
    return OrchestratorService(environment, config or environment.config or OrchestratorConfig(), connector)
