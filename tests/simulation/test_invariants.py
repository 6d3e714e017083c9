"""Every invariant of the simulation can fail: each is broken on purpose in a calm stack, and its check says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as runtime_pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as runtime_rpc
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc
from tests.simulation import invariants
from tests.simulation.actors import PAGE, Frames, Pages
from tests.simulation.calm import HOST, Calm, calm

from lamina_cli.demo import cluster
from lamina_cli.stack import virtual_run
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.layer.sessions import SessionState
from lamina_kit.paging import DIRTY, PRESENT
from lamina_mmu.domain.tables.table import exchange, update

RUNTIME = f"{HOST}/container-runtime"


def metadata(at: Calm, layer: str) -> Any:
    """Returns the call metadata of the container runtime's session with a layer."""
    epoch = at.world.state(HOST, layer).sessions.epoch(RUNTIME)
    return (("lamina-session", f"{RUNTIME}/{epoch}"),)


# ── what is broken ───────────────────────────────────────────────────────────────────────────────────────────────


async def stray_space(at: Calm) -> None:
    """Makes a space that nobody knows."""
    await at.stub("mmu", mmu_pb2_grpc.SpacesStub).CreateSpace(mmu_pb2.CreateSpaceRequest(space=mmu_pb2.Space()))


async def stray_memory_group(at: Calm) -> None:
    """Makes a memory group that nobody knows."""
    await at.stub("mmu", mmu_pb2_grpc.GroupsStub).CreateGroup(mmu_pb2.CreateGroupRequest(group_id="stray"))


async def stray_run_group(at: Calm) -> None:
    """Makes a run group that the container runtime does not know, in its name."""
    stub = at.stub("hardware", hardware_pb2_grpc.CpuStub)
    request = hardware_pb2.CreateRunGroupRequest(run_group_id="stray")
    await stub.CreateRunGroup(request, metadata=metadata(at, "hardware"))


async def stray_context(at: Calm) -> None:
    """Makes a context that the container runtime does not know, in its name."""
    stub = at.stub("hardware", hardware_pb2_grpc.CpuStub)
    request = hardware_pb2.CreateContextRequest(context=hardware_pb2.Context(label="stray"))
    await stub.CreateContext(request, metadata=metadata(at, "hardware"))


async def stray_port(at: Calm) -> None:
    """Makes a port that no device has."""
    request = vswitch_pb2.CreatePortRequest(
        parent=Frames.SWITCH, port_id="stray", port=vswitch_pb2.Port(port_group=f"{Frames.SWITCH}/portGroups/g")
    )
    await at.stub("vswitch", vswitch_pb2_grpc.PortsStub).CreatePort(request)


async def vanished_space(at: Calm) -> None:
    """Deletes the space of a running process behind its back."""
    container = (
        await at.stub("container-runtime", runtime_rpc.ContainersStub).ListContainers(
            runtime_pb.ListContainersRequest()
        )
    ).containers[0]
    listed = await at.stub("container-runtime", runtime_rpc.ContainersStub).ListProcesses(
        runtime_pb.ListProcessesRequest(container=container.name)
    )
    spaces = at.stub("mmu", mmu_pb2_grpc.SpacesStub)
    found = (await spaces.ListSpaces(mmu_pb2.ListSpacesRequest())).spaces
    handle = next(space.handle for space in found if space.name == listed.processes[0].space)
    await spaces.DeleteSpace(mmu_pb2.DeleteSpaceRequest(handle=handle))


async def stray_sandbox(at: Calm) -> None:
    """Runs a sandbox that is no pod's."""
    spec = runtime_pb.Sandbox(metadata=runtime_pb.SandboxMetadata(name="stray", namespace="default", uid="nobody"))
    stub = at.stub("container-runtime", runtime_rpc.SandboxesStub)
    await stub.RunSandbox(runtime_pb.RunSandboxRequest(sandbox=spec))


async def waiting_pod(at: Calm) -> None:
    """Creates a pod that fits no node, and so has no sandbox."""
    manifest = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: waiting}\n"
        "spec: {nodeSelector: {disk: none}, containers: [{name: c, image: lamina.local/hello:latest}]}\n"
    )
    stub = at.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    await stub.ApplyObjects(orchestrator_pb2.ApplyObjectsRequest(manifest=manifest))


async def stray_lease(at: Calm) -> None:
    """Stores a lease of a node that does not exist."""
    manifest = (
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\n"
        "metadata: {name: ghost, namespace: kube-node-lease}\nspec: {holderIdentity: ghost}\n"
    )
    stub = at.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    await stub.ApplyObjects(orchestrator_pb2.ApplyObjectsRequest(manifest=manifest))


async def lost_node(at: Calm) -> None:
    """Loses the node and leaves it so until its lease has run out."""
    await at.breaks("orchestrator", "node-lost", f"nodes/{HOST}")
    await asyncio.sleep(60)


async def undefined_machine(at: Calm) -> None:
    """Has a VM run that is no longer in the inventory."""
    await at.guest.start()
    machines = at.world.service(HOST, "hypervisor")._hypervisor._machines
    machines["hosts/h1/vms/ghost"] = machines[at.guest.name]


async def broken_session(at: Calm) -> None:
    """Leaves the hypervisor's session with the MMU broken."""
    at.world.state(HOST, "mmu").sessions._sessions[f"{HOST}/hypervisor"].state = SessionState.BROKEN


async def stray_session(at: Calm) -> None:
    """Opens a session for an owner that is no layer."""
    clock = at.world.state(HOST, "mmu").clock
    await OwnerSession.open(at.world.channels["mmu"], f"{HOST}/stranger", 1, clock)


async def lost_core(at: Calm) -> None:
    """Takes a core out and leaves it so."""
    await at.world.service(HOST, "hardware").machine.dispatcher.take_out(1)


async def missing_pod(at: Calm) -> None:
    """Scales the deployment to one pod while two are wanted."""
    await cluster.scale(at.client, "hello", 1)


async def frame_of_two(at: Calm) -> None:
    """Has the table entries of two pages name one frame."""
    resident = [number for number in range(Pages.COUNT) if at.table().load(vpn(number)) & PRESENT]
    exchange(at.table(), vpn(resident[0]), at.table().load(vpn(resident[1])))


async def lost_frame(at: Calm) -> None:
    """Takes a page's entry away while its frame stays charged to the group."""
    exchange(
        at.table(), next(vpn(number) for number in range(Pages.COUNT) if at.table().load(vpn(number)) & PRESENT), 0
    )


async def overwritten_page(at: Calm) -> None:
    """Writes other bytes to a page that is in RAM, as a write to a wrong address does."""
    number = next(number for number in range(Pages.COUNT) if at.table().load(vpn(number)) & PRESENT)
    entry = update(at.table(), vpn(number), 0, DIRTY)
    at.memory().ram.write((entry >> 12 & 0xFF_FFFF_FFFF) << 12, b"lost" * (PAGE // 4))


async def overwritten_slot(at: Calm) -> None:
    """Writes other bytes to a page that is in the swap area."""
    entry = next(entry for number in range(Pages.COUNT) if (entry := at.table().load(vpn(number))) & 3 == 2)
    slot = entry >> 12 & 0xFF_FFFF_FFFF
    area = at.world.service(HOST, "mmu").host.engine.machine.swap.area_of(slot)
    area.store.write(slot & 0xFFFF_FFFF, b"lost" * (PAGE // 4))


async def cut_cable(at: Calm) -> None:
    """Cuts the cable of a device and leaves it so."""
    await at.breaks("vswitch", "link-down", f"{Frames.SWITCH}/ports/bob")


async def closed_channel(at: Calm) -> None:
    """Closes a layer's channel."""
    await at.world.channels["vswitch"].close()


async def stray_frames(at: Calm) -> None:
    """Allocates frames that nobody gives back."""
    request = mmu_pb2.AllocateFramesRequest(count=2, owner="stray")
    await at.stub("mmu", mmu_pb2_grpc.FramesStub).AllocateFrames(request)


async def stray_object(at: Calm) -> None:
    """Makes a memory object that nobody maps."""
    request = mmu_pb2.CreateObjectRequest(object=mmu_pb2.Object(size_bytes=PAGE))
    await at.stub("mmu", mmu_pb2_grpc.ObjectsStub).CreateObject(request)


def vpn(number: int) -> int:
    """Returns the page number of a page of the users' space."""
    return (Pages.BASE >> 12) + number


BREAKS: list[tuple[Callable[[Calm], Awaitable[None]], str | None]] = [
    (stray_space, "spaces without an owner"),
    (stray_memory_group, "memory groups without an owner"),
    (stray_run_group, "run groups without an owner"),
    (stray_context, "contexts without an owner"),
    (stray_port, "ports without an owner"),
    (vanished_space, "spaces that are gone"),
    (stray_sandbox, "belongs to no pod"),
    (stray_lease, "have leases"),
    (lost_node, "ready pods|not ready"),
    (undefined_machine, "VMs without a definition"),
    (broken_session, "with mmu is broken"),
    (stray_session, "is nobody's"),
    (lost_core, "cores are lost"),
    (missing_pod, "still not 2 ready pods"),
    (frame_of_two, "reverse map of frame"),
    (lost_frame, "counts otherwise than its table"),
    (overwritten_page, "was lost"),
    (overwritten_slot, "is not what was written there"),
    (cut_cable, None),
    (closed_channel, "Channel closed"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "said"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_invariant_is_seen(broken: Callable[[Calm], Awaitable[None]], said: str | None) -> None:
    """Untouched, everything holds; with one thing broken the check fails and names it."""

    async def story() -> None:
        async with calm() as at:
            await at.hold()
            await broken(at)
            with pytest.raises((AssertionError, grpc.aio.AioRpcError, TimeoutError), match=said):
                await at.hold()

    virtual_run.run(1, story())


@pytest.mark.slow
def test_a_pod_without_a_sandbox_is_seen() -> None:
    """A pod whose sandbox is missing is named, apart from the count of replicas that it would upset first."""

    async def story() -> None:
        async with calm() as at:
            await invariants.pods_and_sandboxes([at.client])
            await waiting_pod(at)
            with pytest.raises(AssertionError, match="have the ready sandboxes"):
                await invariants.pods_and_sandboxes([at.client])

    virtual_run.run(1, story())


LEFT: list[tuple[Callable[[Calm], Awaitable[None]], str]] = [
    (stray_space, "spaces left behind"),
    (stray_memory_group, "memory groups left behind"),
    (stray_run_group, "run groups left behind"),
    (stray_context, "contexts left behind"),
    (stray_object, "objects left behind"),
    (stray_sandbox, "left behind: .*sb-"),
    (stray_frames, "frames left behind"),
]


@pytest.mark.slow
def test_what_is_left_behind_is_seen() -> None:
    """After everything was removed nothing is left; whatever is made then is named, one thing after the other."""

    async def look(at: Calm) -> None:
        await invariants.back_to(at.client, at.world, HOST, at.bare)

    async def story() -> None:
        for left, said in LEFT:
            async with calm() as at:
                await at.leave()
                await look(at)
                await left(at)
                with pytest.raises(AssertionError, match=said):
                    await look(at)

    virtual_run.run(1, story())
