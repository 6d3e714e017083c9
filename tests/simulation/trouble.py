"""The trouble of one seed: a plan of RPC faults, and physical faults at moments of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from lamina.common.v1 import faults_pb2 as pb
from lamina.common.v1 import faults_pb2_grpc, layer_pb2
from lamina.container_runtime.v1 import container_runtime_pb2, container_runtime_pb2_grpc

from lamina_kit.rng import Rng

MS, SECOND = 10**6, 10**9
BEGINS_NS = 2 * SECOND
"""When trouble begins: the scenario's baseline is measured before."""
LASTS_NS = 25 * SECOND

CALLERS = ("mmu", "vswitch", "hypervisor", "container-runtime", "orchestrator")
KINDS = (
    "core-lost", "bit-flip", "swap-full", "swap-io-error", "vm-crash", "port-flap", "link-down", "frame-loss",
    "container-kill", "container-kill", "node-lost",
)  # fmt: skip
OPERATIONS = ("read", "write", "both")
STREAMS = (
    "Layer/OpenSession",
    "Cpu/Run",
    "Spaces/Hold",
    "Containers/WatchContainers",
)


def plan_of(rng: Rng) -> dict[str, Any]:
    """Returns a plan of one to five rules for calls between layers; of 0.2 to 5 percent, or thrice that."""
    times = rng.choice((1, 1, 3))
    rules = [_rule(rng, times) for _ in range(rng.randint(1, 5))]
    for rule in rules:
        rule["after_ns"] = BEGINS_NS
        rule["until_ns"] = BEGINS_NS + LASTS_NS
    return {"rule": rules}


def _rule(rng: Rng, times: int) -> dict[str, Any]:
    kind = rng.choice(("delay", "drop", "duplicate", "fail", "answer", "break"))
    rule: dict[str, Any] = {"caller": rng.choice((*CALLERS, "*")), "ppm": times * rng.randint(2_000, 50_000)}
    if kind == "delay":
        rule |= {"kind": "delay", "min_ns": 0, "max_ns": rng.choice((MS, 50 * MS, SECOND)), "ppm": 200_000}
    elif kind == "answer":
        rule |= {"kind": "fail", "after": True}
    elif kind == "break":
        method = rng.choice(STREAMS)
        rule |= {"kind": "drop", "method": method, "min_ns": 10 * MS, "max_ns": 8 * SECOND, "ppm": 300_000}
    else:
        rule["kind"] = kind
        if kind == "duplicate":
            rule["max_ns"] = rng.choice((0, 10 * MS))
    return rule


@dataclass
class Physical:
    """What breaks physically while trouble lasts. `log` says what was tried and how it ended."""

    client: Any
    rng: Rng
    hosts: tuple[str, ...]
    log: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Breaks something every second or so."""
        end = asyncio.get_running_loop().time() + LASTS_NS / 1e9
        while True:
            await asyncio.sleep(self.rng.randint(50, 3000) / 1000)
            if asyncio.get_running_loop().time() >= end:
                return
            await self._one()

    async def _one(self) -> None:
        layer, kind, object, parameters, lasts = await self._choose()
        if not object:
            return
        given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
        wanted = pb.Fault(kind=kind, object=object, parameters=given, duration_ns=lasts)
        stub = self.client.stub(layer, faults_pb2_grpc.FaultsStub)
        try:
            await stub.InjectFault(pb.InjectFaultRequest(fault=wanted))
            self.log.append(f"{kind} {object}")
        except grpc.aio.AioRpcError as error:
            self.log.append(f"{kind} {object}: {error.details()}")

    async def _choose(self) -> tuple[str, str, str, dict[str, object], int]:
        rng = self.rng
        lasts = rng.randint(20, 6000) * MS
        kind = rng.choice(KINDS)
        if kind == "core-lost":
            return "hardware", kind, f"hosts/h1/cores/{rng.randint(0, 1)}", {}, lasts
        if kind == "bit-flip":  # in the last MiB of RAM, which nobody uses: a bit of a page would be a page lost
            address = (64 << 20) - rng.randint(1, 1 << 20)
            return "hardware", kind, "hosts/h1", {"address": address, "bit": rng.randint(0, 7)}, 0
        if kind == "swap-full":
            return "mmu", kind, "hosts/h1/swap", {}, lasts
        if kind == "swap-io-error":
            return "mmu", kind, "hosts/h1/swap", {"operation": OPERATIONS[lasts // MS % len(OPERATIONS)]}, lasts
        if kind == "vm-crash":
            return "hypervisor", kind, "hosts/h1/vms/guest", {}, 0
        if kind in ("port-flap", "link-down"):
            port = f"hosts/h1/switches/sim/ports/{rng.choice(('alice', 'bob'))}"
            return "vswitch", kind, port, {"down_ns": 30 * MS} if kind == "port-flap" else {}, lasts
        if kind == "frame-loss":
            return "vswitch", kind, "hosts/h1/switches/sim/portGroups/g", {"ppm": rng.randint(1, 10**6)}, lasts
        if kind == "container-kill":
            return "container-runtime", kind, await self._container(), {}, 0
        return "orchestrator", kind, f"nodes/{rng.choice(self.hosts)}", {}, lasts

    async def _container(self) -> str:
        stub = self.client.stub("container-runtime", container_runtime_pb2_grpc.ContainersStub)
        found = (await stub.ListContainers(container_runtime_pb2.ListContainersRequest())).containers
        running = [one.name for one in found if one.state == container_runtime_pb2.Container.STATE_RUNNING]
        return self.rng.choice(running) if running else ""


async def mend(client: Any, layers: tuple[str, ...]) -> None:
    """Ends every physical fault that is active."""
    for layer in layers:
        stub = client.stub(layer, faults_pb2_grpc.FaultsStub)
        for fault in (await stub.ListFaults(pb.ListFaultsRequest(active_only=True, page_size=1000))).faults:
            await stub.ClearFault(pb.ClearFaultRequest(name=fault.name))
