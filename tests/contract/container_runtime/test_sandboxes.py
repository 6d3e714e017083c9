"""Sandboxes: run, stop, remove, list."""

from __future__ import annotations

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from tests.contract.container_runtime.runtime_stack import Stack, image_of

from lamina_kit.rpc.status import rpc_error


async def test_sandbox_is_ready_with_groups_below(stack: Stack) -> None:
    """A sandbox has a run group and a memory group of its own, with its limits, and its containers' hang below."""
    limits = pb.Resources(cpu_weight=50, memory_limit_bytes=64 << 20)
    sandbox = await stack.sandbox(resources=limits)
    assert sandbox.state == pb.Sandbox.STATE_READY
    groups = mmu_pb2_grpc.GroupsStub(stack.channels["mmu"])
    group = await groups.GetGroup(mmu_pb2.GetGroupRequest(name=sandbox.memory_group))
    assert group.max_bytes == 64 << 20
    image = await stack.import_image(image_of("writer"))
    own = pb.Resources(memory_limit_bytes=1 << 20)
    name = await stack.create(image, "/writer", "1", sandbox=sandbox, resources=own)
    container = await stack.containers.GetContainer(pb.GetContainerRequest(name=name))
    inner = await groups.GetGroup(mmu_pb2.GetGroupRequest(name=container.memory_group))
    assert (inner.parent, inner.max_bytes) == (sandbox.memory_group, 1 << 20)


async def test_running_is_idempotent_by_request_id(stack: Stack) -> None:
    """A repeated request makes nothing new; the same id with another request is refused."""
    request = pb.RunSandboxRequest(sandbox=pb.Sandbox(metadata=pb.SandboxMetadata(name="a")), request_id="r")
    first = await stack.sandboxes.RunSandbox(request)
    assert await stack.sandboxes.RunSandbox(request) == first
    request.sandbox.metadata.name = "b"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.sandboxes.RunSandbox(request)
    assert rpc_error(caught.value).reason == "REQUEST_ID_REUSED"


async def test_stopping_kills_and_closes(stack: Stack) -> None:
    """Stopping a sandbox kills its containers; nothing can be created in it then; stopping twice is fine."""
    image = await stack.import_image(image_of("spin"))
    sandbox = await stack.sandbox()
    name = await stack.start_container(image, "/spin", sandbox=sandbox)
    for _ in range(2):
        stopped = await stack.sandboxes.StopSandbox(pb.StopSandboxRequest(name=sandbox.name))
        assert stopped.state == pb.Sandbox.STATE_NOT_READY
    assert (await stack.wait(name)).exit_code == 137
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.create(image, "/spin", sandbox=sandbox)
    assert rpc_error(caught.value).reason == "SANDBOX_NOT_READY"


async def test_removing_takes_everything_along(stack: Stack) -> None:
    """Removing a sandbox removes its containers and groups; removing it twice is fine."""
    image = await stack.import_image(image_of("spin"))
    sandbox = await stack.sandbox()
    name = await stack.start_container(image, "/spin", sandbox=sandbox)
    for _ in range(2):
        await stack.sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))
    for call in (
        stack.sandboxes.GetSandbox(pb.GetSandboxRequest(name=sandbox.name)),
        stack.containers.GetContainer(pb.GetContainerRequest(name=name)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    groups = mmu_pb2_grpc.GroupsStub(stack.channels["mmu"])
    listed = await groups.ListGroups(mmu_pb2.ListGroupsRequest())
    assert sandbox.memory_group not in [group.name for group in listed.groups]
    assert await stack.events("object.left_behind") == []


async def test_sandboxes_are_listed_by_label_and_state(stack: Stack) -> None:
    """Lists are ordered by name and filtered by labels and state."""
    web = await stack.sandbox(labels=[pb.Label(key="app", value="web"), pb.Label(key="a", value="1")])
    await stack.sandbox(labels=[pb.Label(key="app", value="db")])
    request = pb.ListSandboxesRequest(labels=[pb.Label(key="app", value="web")])
    found = await stack.sandboxes.ListSandboxes(request)
    assert [item.name for item in found.sandboxes] == [web.name]
    assert [label.key for label in found.sandboxes[0].labels] == ["a", "app"]
    await stack.sandboxes.StopSandbox(pb.StopSandboxRequest(name=web.name))
    ready = await stack.sandboxes.ListSandboxes(pb.ListSandboxesRequest(state=pb.Sandbox.STATE_READY))
    assert len(ready.sandboxes) == 1


async def test_malformed_sandboxes_name_each_field(stack: Stack) -> None:
    """All wrong fields of a request are named together."""
    wanted = pb.Sandbox(pids_limit=-1, resources=pb.Resources(cpu_weight=99999), labels=[pb.Label(), pb.Label()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.sandboxes.RunSandbox(pb.RunSandboxRequest(sandbox=wanted))
    fields = {violation.field for violation in rpc_error(caught.value).violations}
    assert {"sandbox.metadata.name", "sandbox.pids_limit", "sandbox.resources.cpu_weight", "sandbox.labels"} <= fields
