"""The MMU layer as a service: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from functools import partial

import grpc
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from lamina.mmu.v1 import policies_pb2_grpc, replay_pb2_grpc, swap_pb2_grpc

from lamina_kit.layer.service import Environment, Service
from lamina_mmu.config import MmuConfig
from lamina_mmu.faults import MmuFaults
from lamina_mmu.host import MmuHost
from lamina_mmu.metrics import families
from lamina_mmu.serving.frames import FramesServicer
from lamina_mmu.serving.groups import GroupsServicer
from lamina_mmu.serving.objects import ObjectsServicer
from lamina_mmu.serving.policies import PoliciesServicer
from lamina_mmu.serving.replays import ReplaysServicer
from lamina_mmu.serving.spaces import SpacesServicer
from lamina_mmu.serving.swap import SwapServicer


def build(environment: Environment, config: MmuConfig | None = None) -> Service:
    """Returns the service. `environment.layer.engine` names its engine; nothing is opened before `start`."""
    return MmuService(environment, config or MmuConfig())


class MmuService:
    """The memory of one host."""

    layer = "mmu"
    service_names = (
        "lamina.mmu.v1.Spaces",
        "lamina.mmu.v1.Objects",
        "lamina.mmu.v1.Frames",
        "lamina.mmu.v1.Groups",
        "lamina.mmu.v1.Policies",
        "lamina.mmu.v1.Replays",
        "lamina.mmu.v1.Swap",
    )

    def __init__(self, environment: Environment, config: MmuConfig) -> None:
        self.host = MmuHost(environment, config)
        MmuFaults(self.host).register(environment.layer.faults)
        self.replays = ReplaysServicer(environment.state_dir / "replays", environment.rng)
        environment.layer.metrics.add(partial(families, self.host))

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the layer's services to a server."""
        rpc.add_SpacesServicer_to_server(SpacesServicer(self.host), server)
        rpc.add_ObjectsServicer_to_server(ObjectsServicer(self.host), server)
        rpc.add_FramesServicer_to_server(FramesServicer(self.host), server)
        rpc.add_GroupsServicer_to_server(GroupsServicer(self.host), server)
        policies_pb2_grpc.add_PoliciesServicer_to_server(PoliciesServicer(self.host), server)
        replay_pb2_grpc.add_ReplaysServicer_to_server(self.replays, server)
        swap_pb2_grpc.add_SwapServicer_to_server(SwapServicer(self.host), server)

    async def start(self) -> None:
        """Learns the RAM from the hardware, opens it and the swap file."""
        await self.host.start()

    async def stop(self) -> None:
        """Ends holds, closes RAM and swap. Idempotent."""
        await self.host.stop()
