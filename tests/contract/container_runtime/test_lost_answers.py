"""Containers when calls to the layers below are lost, answered twice or not at all, and when one is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from tests.contract.container_runtime.runtime_stack import Stack, image_of

from lamina_kit.faults.channel import FaultyChannel, PlannedFaults
from lamina_kit.faults.plan import FaultPlan
from lamina_kit.rng import Rng

CREATES = ("*/CreateRunGroup", "*/CreateGroup", "*/CreateSpace", "*/CreateObject", "*/CreateContext")
DELETES = ("*/DeleteRunGroup", "*/DeleteGroup", "*/DeleteSpace", "*/DeleteContext")


async def restarted(stack: Stack, *rules: dict[str, Any]) -> None:
    """Starts the runtime anew with a plan of faults between it and the layers below."""
    plan = FaultPlan.parse({"rule": list(rules)}, Rng(1))
    for layer in ("hardware", "mmu"):
        state = stack.states["container-runtime"]
        faults = PlannedFaults(plan, "container-runtime", layer, state.clock, state.events)
        stack.channels[layer] = FaultyChannel(stack.channels[layer], faults)
    await stack.restart_runtime()


async def left(stack: Stack) -> dict[str, int]:
    """Returns how many groups, spaces and contexts the layers below have."""
    cpu = hardware_pb2_grpc.CpuStub(stack.channels["hardware"])
    spaces, groups = (getattr(mmu_pb2_grpc, f"{name}Stub")(stack.channels["mmu"]) for name in ("Spaces", "Groups"))
    return {
        "contexts": len((await cpu.ListContexts(hardware_pb2.ListContextsRequest())).contexts),
        "run groups": len((await cpu.ListRunGroups(hardware_pb2.ListRunGroupsRequest())).run_groups),
        "spaces": len((await spaces.ListSpaces(mmu_pb2.ListSpacesRequest())).spaces),
        "groups": len((await groups.ListGroups(mmu_pb2.ListGroupsRequest())).groups),
    }


@pytest.mark.inside
@pytest.mark.parametrize(
    "rules",
    [
        [{"kind": "fail", "after": True, "method": method, "last_call": 1} for method in CREATES],
        [{"kind": "duplicate", "method": method} for method in (*CREATES, *DELETES)],
        [{"kind": "fail", "method": method, "last_call": 2} for method in (*CREATES, *DELETES)],
        [{"kind": "fail", "after": True, "method": method, "last_call": 2} for method in DELETES],
        [{"kind": "fail", "after": True, "method": "*/MapRange", "ppm": 500_000}],
    ],
    ids=["creation-unheard", "everything-twice", "unavailable", "deletion-unheard", "mapping-unheard"],
)
async def test_lost_answers_leave_nothing_behind(stack: Stack, rules: list[dict[str, Any]]) -> None:
    """A container starts, runs and is removed all the same, and below is what was there before."""
    await restarted(stack, *rules)
    before = await left(stack)
    image = await stack.import_image(image_of("writer"))
    sandbox = await stack.sandbox()
    ended = await stack.run(image, "/writer", "1", sandbox=sandbox)
    assert ended.code == 0
    await stack.sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))
    assert await left(stack) == before


async def test_a_repeated_request_waits_for_the_first(stack: Stack) -> None:
    """Two requests of one id at the same time make one sandbox and one container, and both get them as they are."""
    spec = pb.Sandbox(metadata=pb.SandboxMetadata(name="p", namespace="n", uid="u"))
    request = pb.RunSandboxRequest(sandbox=spec, request_id="same")
    first, second = await asyncio.gather(*(stack.sandboxes.RunSandbox(request) for _ in range(2)))
    assert first == second and first.state == pb.Sandbox.STATE_READY and first.run_group
    image = await stack.import_image(image_of("writer"))
    wanted = pb.Container(
        sandbox=first.name, metadata=pb.ContainerMetadata(name="c"), image=image.name, command=["/writer"]
    )
    creation = pb.CreateContainerRequest(container=wanted, request_id="same")
    one, other = await asyncio.gather(*(stack.containers.CreateContainer(creation) for _ in range(2)))
    assert one == other and one.run_group
    await stack.containers.StartContainer(pb.StartContainerRequest(name=one.name))


@pytest.mark.inside
async def test_what_is_removed_while_it_is_made_is_gone(stack: Stack) -> None:
    """Removing a sandbox whose container is still being created waits for it, and leaves nothing."""
    await restarted(stack, {"kind": "delay", "method": "*/CreateGroup", "first_call": 2, "min_ns": 30_000_000})
    before = await left(stack)
    sandbox = await stack.sandbox()
    image = await stack.import_image(image_of("writer"))
    creating = asyncio.ensure_future(stack.create(image, "/writer", sandbox=sandbox))
    while not (await stack.containers.ListContainers(pb.ListContainersRequest())).containers:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await stack.sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))
    await asyncio.gather(creating, return_exceptions=True)
    assert not (await stack.containers.ListContainers(pb.ListContainersRequest())).containers
    assert await left(stack) == before


async def test_a_killed_container_has_died_by_sigkill(stack: Stack) -> None:
    """The fault `container-kill` ends all processes of a container; who waits for it sees 137."""
    image = await stack.import_image(image_of("spin"))
    name = await stack.start_container(image, "/spin")
    stub = faults_pb2_grpc.FaultsStub(stack.channels["container-runtime"])
    wanted = faults_pb2.Fault(kind="container-kill", object=name)
    fault = await stub.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))
    assert fault.state == faults_pb2.Fault.STATE_DONE
    assert [(effect.key, effect.value) for effect in fault.effects] == [("processes", "1")]
    assert (await stack.wait(name)).exit_code == 137


async def objects_of(stack: Stack) -> list[str]:
    """Returns the memory objects that the MMU has."""
    stub = mmu_pb2_grpc.ObjectsStub(stack.channels["mmu"])
    return sorted(one.name for one in (await stub.ListObjects(mmu_pb2.ListObjectsRequest())).objects)


async def break_session(stack: Stack, eventually: Any, place: int) -> None:
    """Breaks the stream of a session of the runtime, and returns once it stands again and everybody knows."""
    runtime: Any = stack.service.runtime
    session = runtime._host.sessions[place]
    epoch = session.epoch
    session._call.cancel()
    await eventually(lambda: session.epoch > epoch and session.is_open, "the session stands again", within=60)
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.inside
@pytest.mark.parametrize("place", [0, 1], ids=["hardware", "mmu"])
async def test_a_session_that_breaks_while_nothing_runs_is_no_reboot(stack: Stack, eventually: Any, place: int) -> None:
    """A layer that has nothing of the runtime's has lost nothing: the page cache stays, and so do sandboxes."""
    image = await stack.import_image(image_of("writer"))
    sandbox = await stack.sandbox()
    for keeps_sandbox in (True, False):
        await stack.run(image, "/writer", "1", sandbox=sandbox)
        listed = (await stack.containers.ListContainers(pb.ListContainersRequest())).containers
        for container in listed:
            await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=container.name))
        if not keeps_sandbox:
            await stack.sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))
        await break_session(stack, eventually, place)
        assert not stack.has_rebooted(1)
        boxes = (await stack.sandboxes.ListSandboxes(pb.ListSandboxesRequest())).sandboxes
        assert [box.state for box in boxes] == [pb.Sandbox.STATE_READY] * keeps_sandbox
        engine: Any = stack.service.runtime.engine
        assert await objects_of(stack) == sorted(engine.kernel.objects.names()) != []
