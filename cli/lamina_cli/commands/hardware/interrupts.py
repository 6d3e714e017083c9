"""`lamina hardware apics` and `routes`: local APICs of contexts, and where interrupts of devices go."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word
from lamina_kit.errors import NotFound

if TYPE_CHECKING:
    from lamina.hardware.v1.interrupts_pb2_grpc import InterruptsStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("apics", help="list local APICs of contexts"), apics, lists=True)
    routed = verbs.add_parser("routes", help="list where interrupts of a device go")
    routed.add_argument("device", help="device, for example hosts/h1/devices/dma0")
    command(routed, routes, lists=True)


def _interrupts(client: Client) -> InterruptsStub:
    from lamina.hardware.v1 import interrupts_pb2_grpc

    return client.stub("hardware", interrupts_pb2_grpc.InterruptsStub)


async def apics(client: Client, args: argparse.Namespace) -> None:
    """Lists the local APICs, in the order of their contexts."""
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc, interrupts_pb2

    cpu = client.stub("hardware", hardware_pb2_grpc.CpuStub)
    found = []
    for context in await collect(cpu.ListContexts, hardware_pb2.ListContextsRequest(), "contexts"):
        try:
            apic = await _interrupts(client).GetApic(interrupts_pb2.GetApicRequest(handle=context.handle))
        except NotFound as error:
            if error.reason != "APIC_ABSENT":
                raise
            continue
        found.append((context, apic))
    if args.output == "json":
        printing.as_json([apic for _, apic in found])
        return
    printing.table(
        ("CONTEXT", "MODE", "ID", "DOMAIN", "REQUESTED", "IN SERVICE", "DELIVERED", "TIMER", "TICKS", "IPIS SENT"),
        [
            (
                last(context.name),
                word(interrupts_pb2.Apic.Mode, apic.mode),
                apic.apic_id,
                apic.interrupt_domain or "-",
                _vectors(apic.state.requested),
                _vectors(apic.state.in_service),
                f"{apic.state.delivered:,}",
                f"{apic.state.timer_vector:#x}" if apic.state.HasField("timer_deadline_ns") else "-",
                f"{apic.state.timer_interrupts:,}",
                f"{apic.state.ipis_sent:,}",
            )
            for context, apic in found
        ],
    )


def _vectors(vectors: Any) -> str:
    return " ".join(f"{vector:#x}" for vector in vectors) or "-"


async def routes(client: Client, args: argparse.Namespace) -> None:
    """Lists the routes of a device."""
    from lamina.hardware.v1 import interrupts_pb2

    request = interrupts_pb2.ListInterruptRoutesRequest(device=args.device)
    listed = await collect(_interrupts(client).ListInterruptRoutes, request, "routes")
    printing.show(
        listed,
        ("VECTOR", "TARGET", "INTERRUPTS"),
        lambda route: (route.device_vector, _target(route), f"{route.interrupts:,}"),
        form=args.output,
    )


def _target(route: Any) -> str:
    if route.WhichOneof("target") == "context":
        handle = route.context.handle
        return f"context {handle.id}.{handle.generation} vector {route.context.vector:#x}"
    message = route.message.message
    return f"domain {route.message.interrupt_domain or '-'} address {message.address:#x} data {message.data:#x}"
