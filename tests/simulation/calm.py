"""A calm stack: its users have what they need, and nothing fails yet. For tests that break one thing on purpose."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2, layer_pb2_grpc
from tests.simulation import invariants
from tests.simulation.actors import Frames, Guest, Pages, Workload
from tests.simulation.scenario import SETTLE_SECONDS, SIZES, World, check, users_of

from lamina_cli.stack.embedded import Settings
from lamina_kit.paging import PRESENT
from lamina_kit.rng import Rng

HOST = "h1"


@dataclass
class Calm:
    """A stack in which nothing fails, with users that have what they need.

    `bare` is what the host had before they came, `kept` what it had when they were prepared.
    """

    world: World
    client: Any
    bare: invariants.Inventory
    kept: invariants.Inventory
    workload: Workload
    guest: Guest
    pages: Pages
    frames: Frames

    def stub(self, layer: str, make: Any) -> Any:
        """Returns a stub of a layer."""
        return self.client.stub(layer, make)

    async def breaks(self, layer: str, kind: str, object: str, **parameters: object) -> str:
        """Injects a fault; returns its name."""
        given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
        wanted = faults_pb2.Fault(kind=kind, object=object, parameters=given)
        stub = self.stub(layer, faults_pb2_grpc.FaultsStub)
        return str((await stub.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))).name)

    async def mends(self, layer: str, fault: str) -> None:
        """Clears a fault."""
        stub = self.stub(layer, faults_pb2_grpc.FaultsStub)
        await stub.ClearFault(faults_pb2.ClearFaultRequest(name=fault))

    async def caused(self, layer: str, object: str, fault: str) -> list[str]:
        """Returns the events on an object whose cause is a fault, in order."""
        stub = self.stub(layer, layer_pb2_grpc.LayerStub)
        listed = await stub.ListEvents(layer_pb2.ListEventsRequest(object=object, page_size=1000))
        return [event.event for event in listed.events if event.cause == fault]

    def memory(self) -> Any:
        """Returns the state of the host's MMU."""
        return self.world.service(HOST, "mmu").host.engine.machine

    def table(self) -> Any:
        """Returns the page table of the users' space."""
        memory = self.memory()
        return next(one.table for one in memory.spaces if memory.names.space(one.number) == self.pages.space.name)

    def frame_of(self, number: int) -> int:
        """Returns the frame of a page of the users' space; 0 when it is not in RAM."""
        entry: int = self.table().load((Pages.BASE >> 12) + number)
        return entry >> 12 & 0xFF_FFFF_FFFF if entry & PRESENT else 0

    async def leave(self) -> None:
        """Has the users remove what they made, and lets the stack settle."""
        for user in (self.workload, self.guest, self.pages, self.frames):
            await user.remove()
        await asyncio.sleep(SETTLE_SECONDS)

    async def hold(self) -> None:
        """Checks everything, as after the faults of a seed."""
        await check(self.world, [self.client], [self.kept], (self.workload, self.guest, self.pages, self.frames))


@asynccontextmanager
async def calm() -> AsyncIterator[Calm]:
    """Starts a stack with users whose deployment is ready and whose pages are written, some of them swapped out."""
    with tempfile.TemporaryDirectory(prefix="lamina-") as folder:
        world = World(Settings(seed=1, clock="virtual", overrides=SIZES), Path(folder))
        await world.start()
        try:
            yield await settled(world)
        finally:
            await world.stop()


async def settled(world: World) -> Calm:
    """Brings the users to where they have what they need."""
    client = world.client(HOST)
    bare = await invariants.inventory(client)
    users = users_of([client], Rng(1))
    for user in users:
        await user.prepare()
    made = Calm(world, client, bare, await invariants.inventory(client), *users)
    await made.workload.converge()
    for number in range(Pages.COUNT):
        await made.pages.write(number)
    return made
