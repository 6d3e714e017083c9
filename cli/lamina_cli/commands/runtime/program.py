"""`lamina runtime run FILE [ARGS]`: runs one static program, with its output and exit code as natively.

The program travels as an image of one layer with one file; the runtime runs it as it runs any container. When no stack
is up, a private one is started for it and ends with it. The program's standard input is empty.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina_cli.client import home
from lamina_cli.client.client import Client, add_options, attempt, client_of, guarded, traced
from lamina_cli.input import parse
from lamina_cli.input.files import read_bytes

if TYPE_CHECKING:
    from lamina.container_runtime.v1 import container_runtime_pb2
    from lamina.container_runtime.v1.container_runtime_pb2_grpc import ContainersStub

SIGNAL_EXIT = 128
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--memory", type=parse.size, default=0, help="most memory, for example 64M (default no limit)")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="environment variable")
    add_options(parser)
    parser.add_argument("file", help="the program: a static x86-64 ELF file")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    parser.set_defaults(run=lambda args: guarded(lambda: asyncio.run(run(args))))


async def run(args: argparse.Namespace) -> int:
    """Runs the program on the stack that is up, else on a private one. Returns the program's exit code."""
    program = read_bytes("program", args.file, "give the path of a static x86-64 ELF file")
    # A private stack is gone before anybody could ask for its traces.
    record = home.running(args.stack) if args.trace else home.read_record(args.stack)
    if record is not None and record.is_alive():
        async with client_of(record, args.host, args.tls_dir) as client:
            return await traced(args, run_on(client, args, program))
    from lamina_cli.stack.embedded import private_stack

    async with private_stack() as stack:
        return await attempt(run_on(stack.client(), args, program))


async def run_on(client: Client, args: argparse.Namespace, program: bytes) -> int:
    """Runs the program in a container of its own on the stack behind `client`, and removes all traces of it."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc as services

    image = await import_program(client, args.file, program)
    sandboxes = client.stub("container-runtime", services.SandboxesStub)
    containers = client.stub("container-runtime", services.ContainersStub)
    sandbox = await sandboxes.RunSandbox(
        pb.RunSandboxRequest(sandbox=pb.Sandbox(metadata=pb.SandboxMetadata(name=f"run-{os.getpid()}")))
    )
    try:
        container = await containers.CreateContainer(
            pb.CreateContainerRequest(
                container=pb.Container(
                    sandbox=sandbox.name,
                    metadata=pb.ContainerMetadata(name="program"),
                    image=image.digest,
                    command=[f"/{Path(args.file).name}", *args.args],
                    env=args.env,
                    killable=True,
                    resources=pb.Resources(memory_limit_bytes=args.memory),
                )
            )
        )
        return await follow(containers, container.name)
    finally:
        await sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))
        images = client.stub("container-runtime", services.ImagesStub)
        await images.DeleteImage(pb.DeleteImageRequest(name=image.name))


async def import_program(client: Client, path: str, program: bytes) -> container_runtime_pb2.Image:
    """Imports a program as an image. Returns the image."""
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc as services

    from lamina_cli.guests.images import one_program, send

    # An image of its own, or a run of the same program at the same time would share it and its end.
    layout = one_program(Path(path).name, program, run=os.urandom(8).hex())
    response = await send(client.stub("container-runtime", services.ImagesStub), io.BytesIO(layout), "")
    return response.images[0]


async def follow(containers: ContainersStub, name: str) -> int:
    """Starts a container, passes on what it writes and what signals come, and returns its exit code."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    async def passed_on(number: int) -> None:
        await containers.KillContainer(pb.KillContainerRequest(name=name, signal=number))

    await containers.StartContainer(pb.StartContainerRequest(name=name))
    with signals_to(passed_on):
        await print_logs(containers, name, follow=True)
        # A program may run for days; the wait has no deadline of its own.
        ended = await containers.WaitContainer(pb.WaitContainerRequest(name=name), timeout=None)
    if ended.message and ended.exit_code >= SIGNAL_EXIT:
        print(f"lamina: {ended.reason}: {ended.message}", file=sys.stderr)
    return ended.exit_code


@contextmanager
def signals_to(receive: Callable[[int], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Gives the signals that would end this command to the program instead, so that it ends and is cleaned up."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()

    def received(number: int) -> None:
        task = loop.create_task(receive(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in PASSED_ON:
        loop.add_signal_handler(number, received, int(number))
    try:
        yield
    finally:
        for number in PASSED_ON:
            loop.remove_signal_handler(number)


async def print_logs(containers: ContainersStub, name: str, *, follow: bool) -> None:
    """Prints what a container wrote, standard error to standard error."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    async for entry in containers.ReadLogs(pb.ReadLogsRequest(name=name, follow=follow)):
        stream = sys.stderr.buffer if entry.stream == pb.LogEntry.STREAM_STDERR else sys.stdout.buffer
        stream.write(entry.data)
        stream.flush()
