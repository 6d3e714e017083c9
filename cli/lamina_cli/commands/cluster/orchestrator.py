"""`lamina orchestrator`: nodes and objects of the cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lamina_cli.client.client import Client, command
from lamina_cli.commands.cluster import apply, delete, get, logs, scale
from lamina_cli.commands.cluster.get import get as get_objects

if TYPE_CHECKING:
    from lamina.orchestrator.v1.orchestrator_pb2_grpc import NodesStub


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands; the first ones are those of `lamina apply`, `get`, `logs`, `scale` and `delete`."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for word, module in (("apply", apply), ("get", get), ("logs", logs), ("scale", scale), ("delete", delete)):
        module.configure(verbs.add_parser(word, help=f"as `lamina {word}`"))
    nodes = verbs.add_parser("nodes", help="list nodes")
    nodes.set_defaults(target=["nodes"], namespace="", all_namespaces=False, selector="")
    command(nodes, get_objects, lists=True)
    for verb, text, work in (
        ("cordon", "give a node no new pods", cordon),
        ("uncordon", "give a node new pods again", uncordon),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("node", help="name of the node")
        command(sub, work)


def _nodes(client: Client) -> NodesStub:
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc

    return client.stub("orchestrator", orchestrator_pb2_grpc.NodesStub)


async def cordon(client: Client, args: argparse.Namespace) -> None:
    """Marks a node unschedulable."""
    from lamina.orchestrator.v1 import orchestrator_pb2

    await _nodes(client).CordonNode(orchestrator_pb2.CordonNodeRequest(name=args.node))
    print(f"node/{args.node} cordoned")


async def uncordon(client: Client, args: argparse.Namespace) -> None:
    """Marks a node schedulable."""
    from lamina.orchestrator.v1 import orchestrator_pb2

    await _nodes(client).UncordonNode(orchestrator_pb2.UncordonNodeRequest(name=args.node))
    print(f"node/{args.node} uncordoned")
