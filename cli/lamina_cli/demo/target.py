"""What the story is told against: a private stack of either topology, or one that is up."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import grpc

from lamina_cli.client import home
from lamina_cli.client.client import Client, client_of
from lamina_cli.demo import cluster, guest, pods
from lamina_cli.demo.host import SWITCH
from lamina_cli.output.enum_words import last
from lamina_cli.stack.embedded import Progress, Settings, Sink, private_stack
from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError, Unavailable
from lamina_kit.rpc import status

EMBEDDED, SPLIT, COMPOSE = "embedded", "split", "compose"
COMPOSE_HOST = "127.0.0.1"


@asynccontextmanager
async def opened(name: str, settings: Settings, progress: Progress, sink: Sink | None) -> AsyncIterator[Client]:
    """Yields a client of the target `name`. A private stack goes with the `with` block, the demo's objects with any.

    Raises:
        FailedPrecondition: `STACK_NOT_UP`, or `STACK_NOT_EMPTY`: somebody runs something in the story's namespace.
        Unavailable: `STACK_NOT_UP`, no container answers.
        InvalidArgument: `TOPOLOGY_UNSUPPORTED`, the target does not have what the other options ask for.
    """
    if name == EMBEDDED:
        async with private_stack(settings, progress, sink) as stack:
            yield stack.client()
        return
    if sink is not None:
        raise InvalidArgument(
            "The merged event log is that of an embedded stack.",
            reason="TOPOLOGY_UNSUPPORTED",
            next_step="Leave --event-log away; each layer of a split stack has its own ListEvents.",
        )
    if name == SPLIT:
        from lamina_cli.stack.split import private_split

        async with private_split(settings, progress) as split, split.client() as client:
            yield client
        return
    async with Client(published(os.environ)) if name == COMPOSE else client_of(home.running(name)) as client:
        try:
            await _check_empty(client, name)
            await clear(client)
        except grpc.aio.AioRpcError as error:
            raise _missing(status.rpc_error(error), name) from error
        try:
            yield client
        finally:
            await clear(client)


def published(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns where `docker compose` publishes each layer: the port of `LAMINA_PORT_<LAYER>`, or the usual one."""
    variables = {layer: f"LAMINA_PORT_{layer.upper().replace('-', '_')}" for layer in home.PORTS}
    return {layer: f"{COMPOSE_HOST}:{environ.get(variables[layer], port)}" for layer, port in home.PORTS.items()}


def _missing(problem: LaminaError, name: str) -> LaminaError:
    """Returns an error that says how to start the containers, when it is them who do not answer."""
    if name != COMPOSE or problem.reason != "RPC_UNAVAILABLE":
        return problem
    return Unavailable(
        f"No stack of containers answers: {problem.message}.",
        reason="STACK_NOT_UP",
        next_step="Start one with `docker compose up --wait`.",
    )


async def _check_empty(client: Client, name: str) -> None:
    from lamina.orchestrator.v1 import orchestrator_pb2 as pb
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

    stub = client.stub("orchestrator", services.ObjectsStub)
    for kind in ("Deployment", "Pod"):
        found = (await stub.ListObjects(pb.ListObjectsRequest(kind=kind, namespace="default"))).objects
        if found:
            word = f"{kind.lower()}/{found[0].name}"
            others = f" and {len(found) - 1} more of its kind" if len(found) > 1 else ""
            raise FailedPrecondition(
                f"The stack {name} has {word}{others} in the namespace default, where the story makes its own.",
                reason="STACK_NOT_EMPTY",
                next_step=f"Delete it with `lamina delete {word}`, or tell it on a private stack: `lamina demo`.",
            )


async def clear(client: Client) -> None:
    """Removes what a story made: deployment, machine and switch."""
    from lamina.hypervisor.v1 import hypervisor_pb2, hypervisor_pb2_grpc
    from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
    from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc

    objects = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    reference = orchestrator_pb2.ObjectReference(kind="Deployment", namespace="default", name=pods.DEPLOYMENT)
    found = await objects.ListObjects(orchestrator_pb2.ListObjectsRequest(kind="Deployment", namespace="default"))
    if pods.DEPLOYMENT in [item.name for item in found.objects]:
        await objects.DeleteObject(orchestrator_pb2.DeleteObjectRequest(reference=reference))
        await cluster.until(client, "Pod", lambda left: not left, "the demo's pods to be gone")
    machines = client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
    for vm in (await machines.ListVirtualMachines(hypervisor_pb2.ListVirtualMachinesRequest())).virtual_machines:
        if last(vm.name) == guest.VM:
            await machines.StopVirtualMachine(hypervisor_pb2.StopVirtualMachineRequest(name=vm.name))
            await machines.DeleteVirtualMachine(hypervisor_pb2.DeleteVirtualMachineRequest(name=vm.name))
    switches = client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)
    for switch in (await switches.ListSwitches(vswitch_pb2.ListSwitchesRequest())).switches:
        if last(switch.name) == SWITCH:
            await switches.DeleteSwitch(vswitch_pb2.DeleteSwitchRequest(name=switch.name, force=True))
