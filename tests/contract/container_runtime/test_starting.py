"""Starting what cannot be started: missing, foreign, damaged and dynamic programs, each with a sentence that helps."""

from __future__ import annotations

import struct

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from tests.contract.container_runtime.runtime_stack import Stack, compile_test_program, image_of

from lamina_cli.guests.oci import File
from lamina_kit.rpc.status import rpc_error

WRITER = compile_test_program("writer")
FOREIGN = WRITER[:18] + struct.pack("<H", 183) + WRITER[20:]


def interpreted(program: bytes) -> bytes:
    """Returns a program whose first loadable segment claims to be its interpreter."""
    offset = struct.unpack_from("<Q", program, 32)[0]
    return program[:offset] + struct.pack("<I", 3) + program[offset + 4 :]


CASES = {
    "missing": (b"", "PROGRAM_NOT_FOUND", 127, "PATH"),
    "text": (b"hello\n", "PROGRAM_NOT_EXECUTABLE", 126, "static x86-64"),
    "empty": (b"", "PROGRAM_NOT_EXECUTABLE", 126, "static x86-64"),
    "header": (WRITER[:40], "ELF_TRUNCATED", 126, "again"),
    "truncated": (WRITER[: len(WRITER) // 8], "ELF_TRUNCATED", 126, "again"),
    "foreign": (FOREIGN, "ELF_FOREIGN", 126, "AArch64"),
    "dynamic": (interpreted(WRITER), "ELF_DYNAMIC", 126, "-static"),
    "script": (b"#!\n", "PROGRAM_NOT_EXECUTABLE", 126, "#!"),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_cannot_be_started_says_why(stack: Stack, case: str) -> None:
    """The call fails with a reason and a next step, and the container has exited as shells report it."""
    data, reason, code, hint = CASES[case]
    files = [File("program", data, mode=0o755)] if case != "missing" else []
    image = await stack.import_image(image_of(files=files))
    name = await stack.create(image, "program", env=["PATH=/"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    error = rpc_error(caught.value)
    assert error.reason == reason
    assert hint in str(error)
    ended = await stack.wait(name)
    assert (ended.state, ended.exit_code, ended.reason) == (pb.Container.STATE_EXITED, code, "StartError")


async def test_a_file_without_execute_permission_is_refused(stack: Stack) -> None:
    """A program that nobody may execute is not executed."""
    image = await stack.import_image(image_of(files=[File("program", WRITER, mode=0o644)]))
    name = await stack.create(image, "/program")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert rpc_error(caught.value).reason == "PROGRAM_NOT_EXECUTABLE"


async def test_a_limit_too_small_for_the_program_says_so(stack: Stack) -> None:
    """When memory does not suffice to load the program, the start fails or the container is killed for it."""
    image = await stack.import_image(image_of("hog"))
    ended = await stack.run(image, "/hog", "8192", resources=pb.Resources(memory_limit_bytes=128 << 10))
    assert (ended.code, ended.reason) == (137, "OOMKilled")


async def test_failed_starts_leave_nothing_behind(stack: Stack) -> None:
    """A program that cannot be loaded leaves no task counted against its sandbox."""
    image = await stack.import_image(image_of("writer", files=[File("bad", WRITER[:100], mode=0o755)]))
    sandbox = await stack.sandbox(pids_limit=1)
    for _ in range(3):
        name = await stack.create(image, "/bad", sandbox=sandbox)
        with pytest.raises(grpc.aio.AioRpcError):
            await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    ended = await stack.run(image, "/writer", "1", sandbox=sandbox)
    assert ended.code == 0


async def test_the_limit_of_tasks_holds_for_new_containers(stack: Stack) -> None:
    """A container in a sandbox that is full of tasks cannot start."""
    image = await stack.import_image(image_of("writer"))
    sandbox = await stack.sandbox(pids_limit=1)
    await stack.start_container(image, "/writer", "1", "wait", sandbox=sandbox)
    name = await stack.create(image, "/writer", "1", sandbox=sandbox)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.containers.StartContainer(pb.StartContainerRequest(name=name))
    assert rpc_error(caught.value).reason == "PIDS_LIMIT"
