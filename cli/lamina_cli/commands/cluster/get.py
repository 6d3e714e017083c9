"""`lamina get`: lists objects of a kind, or shows some of them."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lamina_cli.client import home
from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.output import objects, printing


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("target", nargs="+", help="KIND, KIND NAME or KIND/NAME, for example pods or deploy/hello")
    parser.add_argument("-n", "--namespace", default="default", help="namespace (default: default)")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="list all namespaces")
    parser.add_argument("-l", "--selector", default="", help="label selector, for example app=hello")
    command(parser, get, lists=True)


async def find(client: Client, args: argparse.Namespace, kind: objects.Kind, names: list[str]) -> list[dict[str, Any]]:
    """Returns the objects that are asked for, in the order of namespace and name, or of `names`."""
    from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

    stub = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    namespace = args.namespace if kind.namespaced else ""
    if names:
        return [
            objects.body(
                await stub.GetObject(
                    orchestrator_pb2.GetObjectRequest(
                        reference=orchestrator_pb2.ObjectReference(kind=kind.kind, namespace=namespace, name=name)
                    )
                )
            )
            for name in names
        ]
    request = orchestrator_pb2.ListObjectsRequest(
        kind=kind.kind,
        namespace="" if getattr(args, "all_namespaces", False) else namespace,
        label_selector=args.selector,
    )
    return [objects.body(item) for item in await collect(stub.ListObjects, request, "objects")]


async def wall_seconds(client: Client, args: argparse.Namespace) -> float:
    """Returns the stack's Unix time in seconds, from which ages count: not the machine's on a clock of its own."""
    if home.running(args.stack).clock == "real":
        return time.time()
    from lamina.hardware.v1 import clock_pb2, clock_pb2_grpc

    clock = await client.stub("hardware", clock_pb2_grpc.ClockStub).GetClock(clock_pb2.GetClockRequest())
    return clock.wall_time_ns / 1e9


async def get(client: Client, args: argparse.Namespace) -> None:
    """Lists objects."""
    kind, names = objects.split_target(args.target)
    found = await find(client, args, kind, names)
    if args.output == "json":
        printing.as_json(found[0] if len(names) == 1 else found)
        return
    if not found:
        print(f"no {kind.words[1] if len(kind.words) > 1 else kind.words[0]} found")
        return
    now = await wall_seconds(client, args)
    scope = ("NAMESPACE",) if args.all_namespaces and kind.namespaced else ()
    printing.table(
        (*scope, "NAME", *kind.headers, "AGE"),
        (
            (
                *((value["metadata"].get("namespace", ""),) if scope else ()),
                value["metadata"]["name"],
                *kind.row(value),
                objects.age(value, now),
            )
            for value in found
        ),
    )
