"""What survives: a runtime that starts anew on its state, over sockets and after the end of what was below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc
from tests.contract.container_runtime.runtime_stack import Stack, image_of

from lamina_kit.layer.service import serve
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error

Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


async def test_a_restarted_runtime_knows_what_was(stack: Stack) -> None:
    """Images, exit codes and logs are there; what ran is reported as lost, and its sandbox is not used again."""
    image = await stack.import_image(image_of("writer", "spin"), "kept:1")
    done = await stack.start_container(image, "/writer", "2")
    await stack.wait(done)
    sandbox = await stack.sandbox()
    running = await stack.start_container(image, "/spin", sandbox=sandbox)
    listed = await stack.containers.ListContainers(pb.ListContainersRequest())
    await stack.restart_runtime()
    assert (await stack.images.GetImage(pb.GetImageRequest(reference="kept:1"))).name == image.name
    assert (await stack.output(done))[0] == b"line 1\nline 2\nno newline"
    lost = await stack.wait(running)
    assert (lost.state, lost.exit_code, lost.reason) == (pb.Container.STATE_EXITED, 137, "RUNTIME_RESTARTED")
    again = await stack.sandboxes.GetSandbox(pb.GetSandboxRequest(name=sandbox.name))
    assert again.state == pb.Sandbox.STATE_NOT_READY
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.create(image, "/spin", sandbox=sandbox)
    assert rpc_error(caught.value).reason == "SANDBOX_NOT_READY"
    call = stack.containers.WatchContainers(pb.WatchContainersRequest(revision=listed.revision))
    event: Any = await call.read()
    assert (event.type, event.container.name) == (pb.ContainerEvent.TYPE_STOPPED, running)
    call.cancel()
    ended = await stack.run(image, "/writer", "1")
    assert ended.code == 0
    await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=running))
    await stack.sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))


async def test_containers_end_when_the_hardware_does(stack: Stack) -> None:
    """When the layers below stop, running containers are reported as lost instead of hanging."""
    image = await stack.import_image(image_of("spin"))
    name = await stack.start_container(image, "/spin")
    await stack.services[0].stop()
    lost = await stack.wait(name)
    assert (lost.exit_code, lost.reason) == (137, "RUNTIME_RESTARTED")


async def test_everything_works_over_sockets(stack: Stack) -> None:
    """A client on a socket imports, runs, reads logs and waits as one in the process does."""
    served = await serve(stack.service, ["127.0.0.1:0"], stack.states["container-runtime"])
    channel = connect(f"127.0.0.1:{served.ports[0]}")
    try:
        archive = image_of("writer")

        async def messages() -> AsyncIterator[pb.ImportImageRequest]:
            yield pb.ImportImageRequest(start=pb.ImportStart(reference="far"))
            yield pb.ImportImageRequest(chunk=archive)

        await rpc.ImagesStub(channel).ImportImage(messages())
        sandboxes, containers = rpc.SandboxesStub(channel), rpc.ContainersStub(channel)
        wanted = pb.Sandbox(metadata=pb.SandboxMetadata(name="far"))
        sandbox = await sandboxes.RunSandbox(pb.RunSandboxRequest(sandbox=wanted))
        container = await containers.CreateContainer(
            pb.CreateContainerRequest(
                container=pb.Container(
                    sandbox=sandbox.name, metadata=pb.ContainerMetadata(name="m"), image="far", args=["2"]
                )
            )
        )
        await containers.StartContainer(pb.StartContainerRequest(name=container.name))
        assert (await containers.WaitContainer(pb.WaitContainerRequest(name=container.name))).exit_code == 0
        data = [entry.data async for entry in containers.ReadLogs(pb.ReadLogsRequest(name=container.name, follow=True))]
        assert data[:2] == [b"line 1\n", b"line 2\n"]
    finally:
        await channel.close()
        await served.stop()


async def test_a_traced_start_shows_all_layers(stack: Stack) -> None:
    """A sampled StartContainer records its own span, exec, runs, system calls, and the calls below."""
    from lamina_kit.telemetry import trace

    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1")
    runtime = stack.states["container-runtime"]
    with trace.begin("test", runtime.recorder) as root:
        await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
        await stack.wait(name)
    own = {span.name for span in runtime.spans.list(root.trace_id)}
    assert {"container.exec", "core.run", "syscall write"} <= own
    mmu = {span.name for span in stack.states["mmu"].spans.list(root.trace_id)}
    assert any(name.endswith("/MapRange") for name in mmu)
    assert any(name.endswith("/Fault") for name in mmu)
    assert stack.states["hardware"].spans.list(root.trace_id)


async def test_a_rebooted_host_is_used_anew(split_stack: Stack, eventually: Eventually) -> None:
    """After the host's loss of power what ran is lost, its sandboxes are not ready, and new ones work."""
    stack = split_stack
    image = await stack.import_image(image_of("spin", "writer"))
    sandbox = await stack.sandbox()
    name = await stack.start_container(image, "/spin", sandbox=sandbox)
    boot_id = stack.states["container-runtime"].boot_id
    await stack.reboot_host()
    assert (await stack.wait(name)).reason == "RUNTIME_RESTARTED"
    await eventually(lambda: stack.states["container-runtime"].boot_id != boot_id, "the reboot is noticed")
    await eventually(lambda: stack.has_rebooted(2), "both sessions stand again")
    found = await stack.sandboxes.GetSandbox(pb.GetSandboxRequest(name=sandbox.name))
    assert found.state == pb.Sandbox.STATE_NOT_READY
    ended = await stack.run(image, "/writer", "1")
    assert (ended.code, ended.out) == (0, b"line 1\nno newline")
