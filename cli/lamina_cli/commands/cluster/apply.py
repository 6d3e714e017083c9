"""`lamina apply`: makes the objects of a manifest exist as written."""

from __future__ import annotations

import argparse

from lamina_cli.client.client import Client, command
from lamina_cli.input.files import read_text
from lamina_cli.output.enum_words import word


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("-f", "--filename", required=True, help="manifest in YAML or JSON; - reads standard input")
    parser.add_argument("-n", "--namespace", default="default", help="namespace of objects that name none")
    parser.add_argument("--dry-run", action="store_true", help="check and answer, and write nothing")
    command(parser, apply)


async def apply(client: Client, args: argparse.Namespace) -> None:
    """Applies a manifest."""
    from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

    manifest = read_text("manifest", args.filename, "check the path, for example `lamina apply -f examples/hello.yaml`")
    stub = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
    response = await stub.ApplyObjects(
        orchestrator_pb2.ApplyObjectsRequest(manifest=manifest, dry_run=args.dry_run, default_namespace=args.namespace)
    )
    for result in response.results:
        action = word(orchestrator_pb2.AppliedObject.Action, result.action)
        print(f"{result.object.kind.lower()}/{result.object.name} {action}{' (dry run)' if args.dry_run else ''}")
