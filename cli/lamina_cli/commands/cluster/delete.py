"""`lamina delete`: deletes objects."""

from __future__ import annotations

import argparse

from lamina_cli.client.client import Client, command
from lamina_cli.input import parse
from lamina_cli.output import objects


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("target", nargs="+", help="KIND NAME or KIND/NAME, for example deploy/hello")
    parser.add_argument("-n", "--namespace", default="default", help="namespace (default: default)")
    parser.add_argument("--grace-period", type=parse.INT64, metavar="SECONDS", help="time a pod has to stop by itself")
    command(parser, delete)


async def delete(client: Client, args: argparse.Namespace) -> None:
    """Deletes objects; what they own follows in the background."""
    from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

    kind, names = objects.split_target(args.target)
    stub = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    for name in objects.required(kind, names):
        reference = orchestrator_pb2.ObjectReference(
            kind=kind.kind, namespace=args.namespace if kind.namespaced else "", name=name
        )
        request = orchestrator_pb2.DeleteObjectRequest(reference=reference, grace_period_seconds=args.grace_period)
        response = await stub.DeleteObject(request)
        print(f"{kind.words[0]}/{name} {'deleted' if response.gone else 'is being deleted'}")
