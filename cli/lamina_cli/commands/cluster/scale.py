"""`lamina scale`: changes the number of replicas."""

from __future__ import annotations

import argparse

from lamina_cli.client.client import Client, command
from lamina_cli.input import parse
from lamina_cli.output import objects


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("target", nargs="+", help="KIND NAME or KIND/NAME, for example deploy/hello")
    parser.add_argument("--replicas", type=parse.INT32, required=True, help="how many there shall be")
    parser.add_argument("-n", "--namespace", default="default", help="namespace (default: default)")
    command(parser, scale)


async def scale(client: Client, args: argparse.Namespace) -> None:
    """Scales objects."""
    from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

    kind, names = objects.split_target(args.target)
    stub = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    for name in objects.required(kind, names):
        reference = orchestrator_pb2.ObjectReference(kind=kind.kind, namespace=args.namespace, name=name)
        await stub.ScaleObject(orchestrator_pb2.ScaleObjectRequest(reference=reference, replicas=args.replicas))
        print(f"{kind.words[0]}/{name} scaled to {args.replicas}")
