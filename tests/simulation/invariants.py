"""What must hold once every fault has ended and the stack had time to settle.

Each function raises AssertionError for what does not hold; `test_invariants.py` breaks each on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.container_runtime.v1 import container_runtime_pb2 as runtime_pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as runtime_rpc
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc, iommu_pb2, iommu_pb2_grpc
from lamina.hypervisor.v1 import hypervisor_pb2, hypervisor_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc
from tests.property.mmu.books import check_books

from lamina_cli.client.home import LAYERS
from lamina_cli.client.pagination import collect
from lamina_cli.demo.cluster import is_ready
from lamina_cli.output.objects import body
from lamina_kit.layer.sessions import SessionState
from lamina_mmu.domain.frames.table import Use

Inventory = dict[str, list[str]]
"""What a host has, by kind: names, in order."""


async def services_answer(client: Any) -> None:
    """Every layer introduces itself."""
    for layer in LAYERS:
        stub = client.stub(layer, layer_pb2_grpc.LayerStub)
        await stub.Handshake(layer_pb2.HandshakeRequest(caller="simulation", revision="1.0"))


async def inventory(client: Any) -> Inventory:
    """Lists everything that layers make in each other, on one host."""
    hardware = client.stub("hardware", hardware_pb2_grpc.CpuStub)
    iommu = client.stub("hardware", iommu_pb2_grpc.IommuStub)
    mmu = {name: client.stub("mmu", getattr(mmu_pb2_grpc, f"{name}Stub")) for name in ("Spaces", "Objects", "Groups")}
    switches = client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)
    ports = client.stub("vswitch", vswitch_pb2_grpc.PortsStub)
    runtime = client.stub("container-runtime", runtime_rpc.ContainersStub)
    sandboxes = client.stub("container-runtime", runtime_rpc.SandboxesStub)
    found: Inventory = {
        "contexts": _names(await collect(hardware.ListContexts, hardware_pb2.ListContextsRequest(), "contexts")),
        "run groups": _names(await collect(hardware.ListRunGroups, hardware_pb2.ListRunGroupsRequest(), "run_groups")),
        "DMA domains": _names(await collect(iommu.ListDmaDomains, iommu_pb2.ListDmaDomainsRequest(), "dma_domains")),
        "spaces": _names(await collect(mmu["Spaces"].ListSpaces, mmu_pb2.ListSpacesRequest(), "spaces")),
        "objects": _names(await collect(mmu["Objects"].ListObjects, mmu_pb2.ListObjectsRequest(), "objects")),
        "memory groups": _names(await collect(mmu["Groups"].ListGroups, mmu_pb2.ListGroupsRequest(), "groups")),
        "containers": _names(await collect(runtime.ListContainers, runtime_pb.ListContainersRequest(), "containers")),
        "sandboxes": _names(await collect(sandboxes.ListSandboxes, runtime_pb.ListSandboxesRequest(), "sandboxes")),
        "ports": [],
    }
    for switch in await collect(switches.ListSwitches, vswitch_pb2.ListSwitchesRequest(), "switches"):
        found["ports"] += _names(
            await collect(ports.ListPorts, vswitch_pb2.ListPortsRequest(parent=switch.name), "ports")
        )
    return found


def _names(items: Iterable[Any]) -> list[str]:
    return sorted(item.name for item in items)


async def no_orphans(client: Any, baseline: Inventory) -> None:
    """Whatever a layer holds for one above is known there, and a port is one that was there when trouble began."""
    found = await inventory(client)
    expected = await _claimed(client)
    for kind in ("contexts", "spaces", "run groups", "memory groups", "ports"):
        missing = expected[kind] - set(found[kind])
        orphans = set(found[kind]) - expected[kind] - set(baseline[kind])
        assert not orphans, f"{kind} without an owner: {sorted(orphans)}"
        assert not missing, f"{kind} that are gone: {sorted(missing)}"


async def _claimed(client: Any) -> dict[str, set[str]]:
    """Returns what processes, containers, sandboxes and VMs say that they have below them."""
    kinds = ("contexts", "spaces", "run groups", "memory groups", "ports")
    claimed: dict[str, set[str]] = {kind: set() for kind in kinds}
    containers = client.stub("container-runtime", runtime_rpc.ContainersStub)
    sandboxes = client.stub("container-runtime", runtime_rpc.SandboxesStub)
    listed = await collect(containers.ListContainers, runtime_pb.ListContainersRequest(), "containers")
    boxes = await collect(sandboxes.ListSandboxes, runtime_pb.ListSandboxesRequest(), "sandboxes")
    for one in (*listed, *boxes):
        claimed["run groups"].add(one.run_group)
        claimed["memory groups"].add(one.memory_group)
    for one in listed:
        request = runtime_pb.ListProcessesRequest(container=one.name)
        for process in (await containers.ListProcesses(request)).processes:
            claimed["contexts"].add(process.context)
            claimed["spaces"].add(process.space)
    cpu = client.stub("hardware", hardware_pb2_grpc.CpuStub)
    vms = client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
    for vm in await collect(vms.ListVirtualMachines, hypervisor_pb2.ListVirtualMachinesRequest(), "virtual_machines"):
        if vm.space:
            claimed["spaces"].add(vm.space)
            claimed["run groups"].add(vm.run_group)
            for vcpu in (await vms.ListVcpus(hypervisor_pb2.ListVcpusRequest(name=vm.name))).vcpus:
                found = await cpu.GetContext(hardware_pb2.GetContextRequest(handle=vcpu.context))
                claimed["contexts"].add(found.name)
    for names in claimed.values():
        names.discard("")
    return claimed


async def pods_and_sandboxes(clients: list[Any]) -> None:
    """Every sandbox and container belongs to a pod that exists, and each pod has one sandbox that is ready."""
    stub = clients[0].stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    listed = await collect(stub.ListObjects, orchestrator_pb2.ListObjectsRequest(kind="Pod"), "objects")
    uids = {body(pod)["metadata"]["uid"] for pod in listed}
    ready: list[str] = []
    for client in clients:
        sandboxes = client.stub("container-runtime", runtime_rpc.SandboxesStub)
        boxes = await collect(sandboxes.ListSandboxes, runtime_pb.ListSandboxesRequest(), "sandboxes")
        for box in boxes:
            assert box.metadata.uid in uids, f"{box.name} belongs to no pod"
            ready += [box.metadata.uid] if box.state == runtime_pb.Sandbox.STATE_READY else []
        containers = client.stub("container-runtime", runtime_rpc.ContainersStub)
        for one in await collect(containers.ListContainers, runtime_pb.ListContainersRequest(), "containers"):
            assert one.sandbox in {box.name for box in boxes}, f"{one.name} is in no sandbox"
    assert sorted(ready) == sorted(uids), f"pods {sorted(uids)} have the ready sandboxes {sorted(ready)}"


async def leases_belong_to_nodes(client: Any) -> None:
    """Every node has a lease, every lease a node, and every node is ready again."""
    stub = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    request = orchestrator_pb2.ListObjectsRequest
    nodes = [body(node) for node in await collect(stub.ListObjects, request(kind="Node"), "objects")]
    leases = [body(lease) for lease in await collect(stub.ListObjects, request(kind="Lease"), "objects")]
    names = sorted(node["metadata"]["name"] for node in nodes)
    assert sorted(lease["metadata"]["name"] for lease in leases) == names, f"the nodes {names} have leases {leases}"
    lost = [node["metadata"]["name"] for node in nodes if not is_ready(node)]
    assert not lost, f"nodes are not ready: {lost}"


async def machines_are_defined(client: Any, stack: Any, host: str) -> None:
    """No VM has power that nobody defined."""
    stub = client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
    request = hypervisor_pb2.ListVirtualMachinesRequest()
    defined = _names(await collect(stub.ListVirtualMachines, request, "virtual_machines"))
    powered = list(stack.service(host, "hypervisor")._hypervisor._machines)
    without = [name for name in powered if name not in defined]
    assert not without, f"VMs without a definition: {without}"


def books_balance(stack: Any, host: str) -> None:
    """No frame has two owners, reverse map, free list, charges and swap slots agree with the tables in RAM."""
    check_books(stack.service(host, "mmu").host.engine.machine)


def sessions_stand(stack: Any, host: str) -> None:
    """Every session is that of a layer of this host, and open: nothing waits to be claimed from a broken one."""
    for layer in ("hardware", "mmu", "vswitch"):
        sessions = stack.state(host, layer).sessions
        for owner in sessions.owners():
            assert sessions.state(owner) is SessionState.OPEN, f"the session {owner} with {layer} is broken"
            assert owner in {f"{host}/{name}" for name in LAYERS}, f"the session {owner} with {layer} is nobody's"


def cores_work(stack: Any, host: str) -> None:
    """No core stays lost."""
    arbiter = stack.service(host, "hardware").machine.engine.arbiter
    assert not any(arbiter.lost), f"cores are lost: {arbiter.lost}"


async def back_to(client: Any, stack: Any, host: str, baseline: Inventory) -> None:
    """After everything was removed nothing is left that was not there at the start, but the runtime's page cache."""
    found = await inventory(client)
    cache = stack.service(host, "container-runtime").runtime.engine.kernel.objects.names()
    for kind, names in found.items():
        left = [name for name in names if name not in baseline[kind] and name not in cache]
        assert not left, f"{kind} left behind: {left}"
    machine = stack.service(host, "mmu").host.engine.machine
    assert machine.swap.free == machine.swap.count, f"{machine.swap.count - machine.swap.free} swap slots left behind"
    used = {use.name: machine.frames.by_use[use] for use in Use if use not in (Use.FREE, Use.OBJECT)}
    assert used == {"ANONYMOUS": 0, "TABLE": 0, "ALLOCATED": 0, "RESERVED": 1, "OFFLINE": 0}, (
        f"frames left behind: {used}"
    )
