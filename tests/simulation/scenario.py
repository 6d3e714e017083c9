"""One seed: a stack in virtual time, users, trouble, and the checks once trouble has ended."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import invariants, trouble
from tests.simulation.actors import FAILURES, Frames, Guest, Pages, Workload

from lamina_cli.client.home import LAYERS
from lamina_cli.stack import virtual_run
from lamina_cli.stack.embedded import Settings, Stack
from lamina_kit.rng import Rng
from lamina_kit.telemetry.events import EventRecord

SETTLE_SECONDS = 120.0
"""Longer than any grace period and any deadline that a lost call may have to wait for."""
TWO_HOSTS_EVERY = 4
SIZES = {
    "LAMINA_HARDWARE_CORES": "2",
    "LAMINA_HARDWARE_MEMORY_BYTES": str(64 << 20),
    "LAMINA_HARDWARE_RUN_PAGES": "256",
    "LAMINA_MMU_SWAP_BYTES": str(4 << 20),
    "LAMINA_ORCHESTRATOR_TOLERATION_SECONDS": "30",
    "LAMINA_ORCHESTRATOR_STORE": "memory",
}


@dataclass
class Report:
    """What a seed did: how many RPC faults, which physical ones, how much virtual time, how many callbacks."""

    seed: int
    plan: dict[str, Any] = field(default_factory=dict)
    rpc_faults: int = 0
    physical: list[str] = field(default_factory=list)
    seconds: float = 0.0
    callbacks: int = 0


class World(Stack):
    """A stack whose inside the checks may look at."""

    def service(self, host: str, layer: str) -> Any:
        """Returns a layer's service."""
        return self._services[host, layer]

    def state(self, host: str, layer: str) -> Any:
        """Returns a layer's state."""
        return self._states[host, layer]


def simulate(seed: int, sink: Callable[[EventRecord], None] | None = None) -> Report:
    """Runs one seed; raises AssertionError for an invariant that does not hold."""
    report = Report(seed)
    virtual_run.run(seed, _simulate(report, sink))
    return report


async def _simulate(report: Report, sink: Callable[[EventRecord], None] | None) -> None:
    rng = Rng(f"simulation/{report.seed}")
    report.plan = trouble.plan_of(rng.child("plan"))
    hosts = 2 if report.seed % TWO_HOSTS_EVERY == 0 else 1
    settings = Settings(seed=report.seed, clock="virtual", hosts=hosts, overrides=SIZES, fault_plan=report.plan)
    loop: Any = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="lamina-") as folder:
        world = World(settings, Path(folder), sink)
        try:
            await world.start()
            await _story(world, rng, report)
        finally:
            report.seconds, report.callbacks = loop.now_ns / 1e9, loop.callbacks
            report.rpc_faults = world.fault_plan.injected if world.fault_plan is not None else 0
            await world.stop()


def users_of(clients: list[Any], rng: Rng) -> tuple[Workload, Guest, Pages, Frames]:
    """Returns who uses the stack; the first client's host has the VM, the space and the switch."""
    client = clients[0]
    workload, guest = Workload(client, rng.child("workload"), clients), Guest(client, rng.child("guest"))
    return workload, guest, Pages(client, rng.child("pages")), Frames(client, rng.child("frames"))


async def _story(world: World, rng: Rng, report: Report) -> None:
    clients = [world.client(host) for host in world.hosts]
    client = clients[0]
    baselines = [await invariants.inventory(one) for one in clients]
    users = users_of(clients, rng)
    for user in users:
        await user.prepare()
    kept = [await invariants.inventory(one) for one in clients]
    await asyncio.sleep(max(0.0, trouble.BEGINS_NS / 1e9 - asyncio.get_running_loop().time()))
    physical = trouble.Physical(client, rng.child("physical"), tuple(world.hosts))
    report.physical = physical.log
    await _trouble(users, physical)
    assert world.fault_plan is not None
    world.fault_plan.end()
    await trouble.mend(client, LAYERS)
    await asyncio.sleep(SETTLE_SECONDS)
    await check(world, clients, kept, users)
    for user in users:
        await user.remove()
    await asyncio.sleep(SETTLE_SECONDS)
    for host, one, baseline in zip(world.hosts, clients, baselines, strict=True):
        await invariants.back_to(one, world, host, baseline)
        invariants.books_balance(world, host)


async def _trouble(users: tuple[Any, ...], physical: trouble.Physical) -> None:
    """Lets users work while things break; a user's assertion ends the run."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(user.run()) for user in users]
    await physical.run()
    for task in tasks:
        task.cancel()
    for task in tasks:
        try:
            await task
        except asyncio.CancelledError:
            continue
        except FAILURES as error:
            raise AssertionError(f"a user met {error!r}") from error


async def check(
    world: World, clients: list[Any], kept: list[invariants.Inventory], users: tuple[Workload, Guest, Pages, Frames]
) -> None:
    """Checks every invariant, and that everything works. `kept` is what each host had when trouble began."""
    workload, guest, pages, frames = users
    await invariants.services_answer(clients[0])
    for host in world.hosts:
        invariants.sessions_stand(world, host)
        invariants.cores_work(world, host)
        invariants.books_balance(world, host)
    await workload.converge()
    await invariants.pods_and_sandboxes(clients)
    await invariants.leases_belong_to_nodes(clients[0])
    await guest.works()
    await pages.verify()
    await frames.works()
    for host, client, baseline in zip(world.hosts, clients, kept, strict=True):
        await invariants.machines_are_defined(client, world, host)
        await invariants.no_orphans(client, baseline)
        invariants.books_balance(world, host)
