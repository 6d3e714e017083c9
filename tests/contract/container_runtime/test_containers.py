"""The life of containers: create, start, stop, kill, wait, remove, and what watchers see of it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from tests.contract.container_runtime.runtime_stack import Stack, image_of

from lamina_kit.rpc.status import rpc_error

STATES = pb.Container


async def reason_of(call: object) -> tuple[str, str]:
    """Returns the code name and the reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code().name, rpc_error(caught.value).reason


async def test_container_runs_from_image_to_exit_code(stack: Stack) -> None:
    """A program of an image runs, its output is its log, and its exit code is the container's."""
    image = await stack.import_image(image_of("writer"))
    ended = await stack.run(image, "/writer", "2")
    assert (ended.code, ended.reason) == (0, "Completed")
    assert ended.out == b"line 1\nline 2\nno newline"
    assert ended.err == b"to stderr"


async def test_container_goes_through_its_states(stack: Stack) -> None:
    """A container is created, running, exited; times and the process id follow."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1", "wait")
    created = await stack.containers.GetContainer(pb.GetContainerRequest(name=name))
    assert (created.state, created.start_wall_time_ns, created.pid) == (STATES.STATE_CREATED, 0, 0)
    started = await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert (started.state, started.pid) == (STATES.STATE_RUNNING, 1)
    assert started.start_wall_time_ns >= created.create_wall_time_ns > 0
    await stack.containers.KillContainer(pb.KillContainerRequest(name=name))
    ended = await stack.wait(name)
    assert (ended.state, ended.exit_code, ended.signaled) == (STATES.STATE_EXITED, 137, True)
    assert ended.exit_wall_time_ns >= started.start_wall_time_ns


async def test_starting_twice_is_refused(stack: Stack) -> None:
    """A container that was started before cannot be started again."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.start_container(image, "/writer", "1")
    await stack.wait(name)
    again = stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert await reason_of(again) == ("FAILED_PRECONDITION", "CONTAINER_NOT_CREATED")


async def test_stop_gives_the_program_its_grace(stack: Stack, eventually: object) -> None:
    """StopContainer sends SIGTERM first: a program that handles it ends with its own exit code."""
    image = await stack.import_image(image_of("signals"))
    name = await stack.start_container(image, "/signals")
    await until_output(stack, name, b"ready\n")
    await stack.containers.KillContainer(pb.KillContainerRequest(name=name, signal=15))
    await until_output(stack, name, b"ready\nterm 1\n")
    request = pb.StopContainerRequest(name=name, grace_period_ns=20 * 10**9)
    ended = await stack.containers.StopContainer(request)
    assert (ended.exit_code, ended.reason) == (3, "Error")


async def test_stop_kills_who_does_not_listen(stack: Stack) -> None:
    """When the grace period is over the container is killed: process 1 without a handler ignores SIGTERM."""
    image = await stack.import_image(image_of("spin"))
    name = await stack.start_container(image, "/spin")
    request = pb.StopContainerRequest(name=name, grace_period_ns=50_000_000)
    ended = await stack.containers.StopContainer(request)
    assert (ended.exit_code, ended.signaled, ended.message) == (137, True, "killed by SIGKILL")


async def test_stopping_a_container_that_never_started_ends_it(stack: Stack) -> None:
    """A created container that is stopped has exited and cannot be started."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1")
    ended = await stack.containers.StopContainer(pb.StopContainerRequest(name=name))
    assert ended.state == STATES.STATE_EXITED
    start = stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert (await reason_of(start))[1] == "CONTAINER_NOT_CREATED"


async def test_signals_reach_handlers(stack: Stack) -> None:
    """A signal from outside runs the program's handler, and the program goes on behind it."""
    image = await stack.import_image(image_of("signals"))
    name = await stack.start_container(image, "/signals")
    await until_output(stack, name, b"ready\n")
    for number in (1, 2, 3):
        await stack.containers.KillContainer(pb.KillContainerRequest(name=name, signal=10))
        await until_output(stack, name, b"ready\n" + b"".join(b"user %d\n" % turn for turn in range(1, number + 1)))
    await stack.containers.StopContainer(pb.StopContainerRequest(name=name))


async def test_killing_what_does_not_run_is_refused(stack: Stack) -> None:
    """Signals to a container that does not run, to a missing process, and unknown signals are refused."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1", "wait")
    kill = stack.containers.KillContainer
    idle = kill(pb.KillContainerRequest(name=name))
    assert await reason_of(idle) == ("FAILED_PRECONDITION", "CONTAINER_NOT_RUNNING")
    await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert await reason_of(kill(pb.KillContainerRequest(name=name, pid=77))) == ("NOT_FOUND", "PROCESS_UNKNOWN")
    assert (await reason_of(kill(pb.KillContainerRequest(name=name, signal=65))))[0] == "INVALID_ARGUMENT"
    await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=name))


async def test_creating_is_idempotent_by_request_id(stack: Stack) -> None:
    """A repeated request makes nothing new; the same id with another request is refused."""
    image = await stack.import_image(image_of("writer"))
    sandbox = await stack.sandbox()
    wanted = pb.Container(sandbox=sandbox.name, metadata=pb.ContainerMetadata(name="a"), image=image.name)
    request = pb.CreateContainerRequest(container=wanted, request_id="r-1")
    first = await stack.containers.CreateContainer(request)
    second = await stack.containers.CreateContainer(request)
    assert first == second
    request.container.args.append("more")
    other = stack.containers.CreateContainer(request)
    assert await reason_of(other) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


async def test_creating_checks_what_it_is_given(stack: Stack) -> None:
    """Unknown sandboxes, images, users and directories, names in use and missing commands have errors of their own."""
    image = await stack.import_image(image_of(files=()))
    sandbox = await stack.sandbox()

    async def create(**fields: Any) -> tuple[str, str]:
        wanted = pb.Container(
            **{"sandbox": sandbox.name, "metadata": pb.ContainerMetadata(name="x"), "image": image.name, **fields}
        )
        return await reason_of(stack.containers.CreateContainer(pb.CreateContainerRequest(container=wanted)))

    assert await create(sandbox="hosts/h1/sandboxes/none", command=["/a"]) == ("NOT_FOUND", "SANDBOX_UNKNOWN")
    assert await create(sandbox="nonsense") == ("INVALID_ARGUMENT", "NAME_MALFORMED")
    assert await create(image="absent", command=["/a"]) == ("NOT_FOUND", "IMAGE_UNKNOWN")
    assert await create() == ("INVALID_ARGUMENT", "COMMAND_MISSING")
    assert await create(command=["/a"], user="nobody") == ("INVALID_ARGUMENT", "USER_UNKNOWN")
    assert (await create(command=["/a"], working_dir="relative"))[0] == "INVALID_ARGUMENT"
    assert (await create(command=["/a"], resources=pb.Resources(memory_limit_bytes=-1)))[0] == "INVALID_ARGUMENT"
    assert (await create(command=["/a"], env=["NOVALUE"]))[0] == "INVALID_ARGUMENT"
    await stack.create(image, "/a", sandbox=sandbox)
    stack.names -= 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.create(image, "/a", sandbox=sandbox)
    assert rpc_error(caught.value).reason == "CONTAINER_EXISTS"


async def test_watchers_see_each_change_once_in_order(stack: Stack) -> None:
    """A watch from a revision sees created, started, stopped and deleted, with revisions that count up by one."""
    image = await stack.import_image(image_of("writer"))
    sandbox = await stack.sandbox()
    listed = await stack.containers.ListContainers(pb.ListContainersRequest())
    name = await stack.start_container(image, "/writer", "1", sandbox=sandbox)
    await stack.wait(name)
    await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=name))
    seen = []
    request = pb.WatchContainersRequest(revision=listed.revision, sandbox=sandbox.name)
    async for event in stack.containers.WatchContainers(request):
        seen.append(event)
        if event.type == pb.ContainerEvent.TYPE_DELETED:
            break
    kinds = pb.ContainerEvent
    assert [event.type for event in seen] == [
        kinds.TYPE_CREATED,
        kinds.TYPE_STARTED,
        kinds.TYPE_STOPPED,
        kinds.TYPE_DELETED,
    ]
    first = listed.revision + 1
    assert [event.revision for event in seen] == list(range(first, first + 4))
    assert seen[2].container.exit_code == 0


async def test_watch_follows_and_refuses_the_future(stack: Stack) -> None:
    """A watch from 0 begins with what is there and goes on; a revision that does not exist yet is refused."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1")
    call: Any = stack.containers.WatchContainers(pb.WatchContainersRequest())
    first = await call.read()
    assert (first.container.name, first.type) == (name, pb.ContainerEvent.TYPE_CREATED)
    await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert (await call.read()).type == pb.ContainerEvent.TYPE_STARTED
    call.cancel()
    future = stack.containers.WatchContainers(pb.WatchContainersRequest(revision=10_000))
    assert await reason_of(future.read()) == ("OUT_OF_RANGE", "REVISION_FUTURE")


async def test_wait_ends_when_the_container_is_removed(stack: Stack) -> None:
    """Who waits for a container that is removed learns that it is gone."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1")
    waiting = asyncio.ensure_future(stack.wait(name))
    await asyncio.sleep(0)
    await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=name))
    done = await asyncio.gather(waiting, return_exceptions=True)
    ended = done[0]
    gone = isinstance(ended, grpc.aio.AioRpcError) and ended.code().name == "NOT_FOUND"
    assert gone or (isinstance(ended, pb.Container) and ended.state == STATES.STATE_EXITED)


async def test_a_wait_that_is_cancelled_leaves_the_container_alone(stack: Stack) -> None:
    """A caller that stops waiting changes nothing; the next one can wait."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.start_container(image, "/writer", "1", "wait")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.containers.WaitContainer(pb.WaitContainerRequest(name=name), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await stack.containers.KillContainer(pb.KillContainerRequest(name=name))
    assert (await stack.wait(name)).exit_code == 137


async def test_remove_kills_and_frees_everything_below(stack: Stack) -> None:
    """Removing a running container leaves no space and no memory group behind, and removing it twice is fine."""
    image = await stack.import_image(image_of("spin"))
    name = await stack.start_container(image, "/spin")
    space = (await stack.processes(name))[0].space
    request = pb.RemoveContainerRequest(name=name)
    await stack.containers.RemoveContainer(request)
    await stack.containers.RemoveContainer(request)
    from lamina.mmu.v1 import mmu_pb2

    gone = stack.spaces.GetSpace(mmu_pb2.GetSpaceRequest(name=space))
    assert (await reason_of(gone))[0] == "NOT_FOUND"
    missing = stack.containers.GetContainer(pb.GetContainerRequest(name=name))
    assert await reason_of(missing) == ("NOT_FOUND", "CONTAINER_UNKNOWN")
    assert await stack.events("object.left_behind") == []


async def test_lists_are_ordered_paged_and_filtered(stack: Stack) -> None:
    """Containers are listed in the order of their names, in pages, by label, sandbox and state."""
    image = await stack.import_image(image_of("writer"))
    sandbox = await stack.sandbox()
    names = sorted([await stack.create(image, "/writer", "1", sandbox=sandbox) for _ in range(3)])
    other = await stack.create(image, "/writer", "1", labels=[pb.Label(key="app", value="web")])
    first = await stack.containers.ListContainers(pb.ListContainersRequest(sandbox=sandbox.name, page_size=2))
    assert [item.name for item in first.containers] == names[:2]
    request = pb.ListContainersRequest(sandbox=sandbox.name, page_size=2, page_token=first.next_page_token)
    second = await stack.containers.ListContainers(request)
    assert ([item.name for item in second.containers], second.next_page_token) == (names[2:], "")
    wanted = [pb.Label(key="app", value="web")]
    labelled = await stack.containers.ListContainers(pb.ListContainersRequest(labels=wanted))
    assert [item.name for item in labelled.containers] == [other]
    running = await stack.containers.ListContainers(pb.ListContainersRequest(state=STATES.STATE_RUNNING))
    assert list(running.containers) == []
    bad = stack.containers.ListContainers(pb.ListContainersRequest(page_token="nonsense"))
    assert await reason_of(bad) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    huge = stack.containers.ListContainers(pb.ListContainersRequest(page_size=1001))
    assert (await reason_of(huge))[0] == "INVALID_ARGUMENT"


async def until_output(stack: Stack, name: str, wanted: bytes) -> None:
    """Reads a container's log as it grows until it begins with `wanted`."""
    seen = b""
    async for entry in stack.containers.ReadLogs(pb.ReadLogsRequest(name=name, follow=True)):
        seen += entry.data
        if seen.startswith(wanted):
            return
        assert wanted.startswith(seen[: len(wanted)]), seen
    pytest.fail(f"the container ended with {seen!r}")
