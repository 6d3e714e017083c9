"""`lamina runtime`: containers, sandboxes and processes; runs a program of the user's."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.runtime import program
from lamina_cli.commands.runtime.image import images
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.container_runtime.v1.container_runtime_pb2_grpc import ContainersStub, SandboxesStub

SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18, "STOP": 19}
LAST_SIGNAL = 64


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    program.configure(verbs.add_parser("run", help="run a static x86-64 Linux program (standard input is empty)"))
    command(verbs.add_parser("containers", help="list containers"), containers, lists=True)
    command(verbs.add_parser("sandboxes", help="list sandboxes"), sandboxes, lists=True)
    ps = verbs.add_parser("ps", help="list processes")
    ps.add_argument("container", nargs="?", default="", help="name of a container (default: all that run)")
    command(ps, processes, lists=True)
    command(verbs.add_parser("images", help="list images"), images, lists=True)
    logs = verbs.add_parser("logs", help="print what a container wrote")
    logs.add_argument("container", help="name of the container")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the container ends")
    command(logs, print_logs)
    kill = verbs.add_parser("kill", help="send a signal to a container's processes")
    kill.add_argument("container", help="name of the container")
    kill.add_argument("-s", "--signal", default="KILL", type=signal_number, help="name or number (default KILL)")
    kill.add_argument("--pid", type=parse.INT32, default=0, help="only this process (default: the first one)")
    command(kill, kill_container)
    for verb, text, work in (
        ("stop", "stop a container: TERM, and after a grace period KILL", stop),
        ("rm", "remove a container", remove),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("container", help="name of the container")
        command(sub, work)


def signal_number(text: str) -> int:
    """Returns the number of a signal given as `KILL`, `SIGKILL` or `9`."""
    number = SIGNALS.get(text.upper().removeprefix("SIG"))
    if number is None and text.isdigit() and int(text) <= LAST_SIGNAL:
        number = int(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no signal; known are {', '.join(SIGNALS)}")
    return number


def _containers(client: Client) -> ContainersStub:
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc

    return client.stub("container-runtime", container_runtime_pb2_grpc.ContainersStub)


def _sandboxes(client: Client) -> SandboxesStub:
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc

    return client.stub("container-runtime", container_runtime_pb2_grpc.SandboxesStub)


async def find(client: Client, name: str) -> str:
    """Returns the full name of a container given by its last part; a full name stays as it is."""
    if "/" in name:
        return name
    from lamina_cli.client.resource_names import full_name

    return await full_name(client, "containers", name, "container-runtime")


async def containers(client: Client, args: argparse.Namespace) -> None:
    """Lists containers."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    printing.show(
        await collect(_containers(client).ListContainers, pb.ListContainersRequest(), "containers"),
        ("CONTAINER", "NAME", "STATE", "EXIT", "REASON", "PID", "SANDBOX", "IMAGE"),
        lambda item: (
            last(item.name),
            item.metadata.name,
            word(pb.Container.State, item.state),
            item.exit_code if item.state == pb.Container.STATE_EXITED else "-",
            item.reason or "-",
            item.pid or "-",
            last(item.sandbox),
            item.image,
        ),
        form=args.output,
    )


async def sandboxes(client: Client, args: argparse.Namespace) -> None:
    """Lists sandboxes."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    printing.show(
        await collect(_sandboxes(client).ListSandboxes, pb.ListSandboxesRequest(), "sandboxes"),
        ("SANDBOX", "NAMESPACE", "NAME", "STATE", "HOSTNAME"),
        lambda item: (
            last(item.name),
            item.metadata.namespace or "-",
            item.metadata.name,
            word(pb.Sandbox.State, item.state),
            item.hostname,
        ),
        form=args.output,
    )


async def processes(client: Client, args: argparse.Namespace) -> None:
    """Lists the processes of one container, or of all that run."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    stub = _containers(client)
    if args.container:
        names = [await find(client, args.container)]
    else:
        request = pb.ListContainersRequest(state=pb.Container.STATE_RUNNING)
        names = [item.name for item in await collect(stub.ListContainers, request, "containers")]
    listed = []
    for name in names:
        listed += await collect(stub.ListProcesses, pb.ListProcessesRequest(container=name), "processes")
    printing.show(
        listed,
        ("PID", "PPID", "STATE", "SPACE", "CONTEXT", "SYSCALLS", "FAULTS", "INSTRUCTIONS", "CONTAINER", "COMMAND"),
        lambda item: (
            item.pid,
            item.ppid,
            word(pb.Process.State, item.state),
            last(item.space),
            last(item.context),
            item.syscalls,
            item.faults,
            f"{item.instructions:,}",
            last(item.container),
            " ".join(item.cmdline),
        ),
        form=args.output,
    )


async def print_logs(client: Client, args: argparse.Namespace) -> None:
    """Prints what a container wrote."""
    await program.print_logs(_containers(client), await find(client, args.container), follow=args.follow)


async def kill_container(client: Client, args: argparse.Namespace) -> None:
    """Sends a signal."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    name = await find(client, args.container)
    await _containers(client).KillContainer(pb.KillContainerRequest(name=name, signal=args.signal, pid=args.pid))
    print(f"signal {args.signal} sent to {name}")


async def stop(client: Client, args: argparse.Namespace) -> None:
    """Stops a container."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    name = await find(client, args.container)
    stopped = await _containers(client).StopContainer(pb.StopContainerRequest(name=name, grace_period_ns=10 * 10**9))
    print(f"{name} exited with {stopped.exit_code}")


async def remove(client: Client, args: argparse.Namespace) -> None:
    """Removes a container."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    name = await find(client, args.container)
    # Removing is idempotent in the contract; a person who mistypes a name wants to know.
    await _containers(client).GetContainer(pb.GetContainerRequest(name=name))
    await _containers(client).RemoveContainer(pb.RemoveContainerRequest(name=name))
    print(f"removed {name}")
