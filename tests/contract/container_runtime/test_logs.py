"""Logs: what programs write, byte for byte, from the start, from the end, and as it comes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from tests.contract.container_runtime.runtime_stack import Stack, image_of

OUT, ERR = pb.LogEntry.STREAM_STDOUT, pb.LogEntry.STREAM_STDERR


async def read(stack: Stack, name: str, **fields: Any) -> list[pb.LogEntry]:
    """Returns the entries that a request gives."""
    return [entry async for entry in stack.containers.ReadLogs(pb.ReadLogsRequest(name=name, **fields))]


async def test_entries_are_lines_with_times_and_streams(stack: Stack) -> None:
    """Each line is an entry with its newline; an end without one is marked partial; times do not go back."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.start_container(image, "/writer", "2")
    await stack.wait(name)
    entries = await read(stack, name)
    got = [(entry.stream, entry.data, entry.partial) for entry in entries]
    assert got[:2] == [(OUT, b"line 1\n", False), (OUT, b"line 2\n", False)]
    assert sorted(got[2:]) == [(OUT, b"no newline", True), (ERR, b"to stderr", True)]
    times = [entry.wall_time_ns for entry in entries]
    assert times == sorted(times)
    container = await stack.containers.GetContainer(pb.GetContainerRequest(name=name))
    assert container.create_wall_time_ns <= times[0]


async def test_tail_stream_and_time_choose_entries(stack: Stack) -> None:
    """tail_lines counts lines from the end, a stream leaves the other out, since_wall_time_ns what is older."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.start_container(image, "/writer", "5")
    await stack.wait(name)
    assert [entry.data for entry in await read(stack, name, stream=ERR)] == [b"to stderr"]
    tail = [entry.data for entry in await read(stack, name, tail_lines=2, stream=OUT)]
    assert tail[-1] == b"no newline"
    assert b"line 3\n" not in tail
    assert await read(stack, name, tail_lines=0) == []
    everything = await read(stack, name)
    later = await read(stack, name, since_wall_time_ns=everything[3].wall_time_ns)
    assert later == [entry for entry in everything if entry.wall_time_ns >= everything[3].wall_time_ns]


async def test_follow_goes_on_until_the_container_exits(stack: Stack) -> None:
    """A reader that follows gets each line as it is written, and the end when the container ends."""
    image = await stack.import_image(image_of("signals"))
    name = await stack.create(image, "/signals")
    call: Any = stack.containers.ReadLogs(pb.ReadLogsRequest(name=name, follow=True))
    await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert (await call.read()).data == b"ready\n"
    for number in (1, 2):
        await stack.containers.KillContainer(pb.KillContainerRequest(name=name, signal=15))
        assert (await call.read()).data == b"term %d\n" % number
    assert await call.read() is grpc.aio.EOF


async def test_logs_stay_until_the_container_is_removed(stack: Stack) -> None:
    """A log can be read after the exit, and is gone with the container."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.start_container(image, "/writer", "1")
    await stack.wait(name)
    assert await read(stack, name)
    await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=name))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(stack, name)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_negative_numbers_are_refused(stack: Stack) -> None:
    """Negative tails and times are INVALID_ARGUMENT."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1")
    for fields in ({"tail_lines": -1}, {"since_wall_time_ns": -1}, {"stream": 9}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(stack, name, **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
