"""`lamina explain`: tells why a layer did what it did to an object."""

from __future__ import annotations

import argparse

from lamina_cli.client.client import Client, command
from lamina_cli.client.home import LAYERS
from lamina_cli.output import objects, printing
from lamina_kit.errors import NotFound


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("object", help="KIND/NAME such as deploy/hello, or a resource name such as hosts/h1/frames/9")
    parser.add_argument("-n", "--namespace", default="default", help="namespace of KIND/NAME (default: default)")
    parser.add_argument("--layer", choices=LAYERS, help="ask only this layer (default: all)")
    command(parser, explain, lists=True)


async def explain(client: Client, args: argparse.Namespace) -> None:
    """Prints the decisions about an object, newest first within each layer."""
    import grpc

    name = objects.resource_name(args.object, args.namespace)
    from lamina.common.v1 import layer_pb2, layer_pb2_grpc

    decisions: list[layer_pb2.Event] = []
    for layer in [args.layer] if args.layer else LAYERS:
        stub = client.stub(layer, layer_pb2_grpc.LayerStub)
        try:
            decisions += (await stub.Explain(layer_pb2.ExplainRequest(object=name))).decisions
        except grpc.aio.AioRpcError as failure:
            # A layer that never decided about the object has nothing to say; another one may.
            if failure.code() != grpc.StatusCode.NOT_FOUND:
                raise
    if not decisions:
        raise NotFound(
            f"no layer recorded a decision about {name}",
            reason="NOTHING_RECORDED",
            next_step="check the name: KIND/NAME for Kubernetes objects, else as lists show it with `-o json`",
        )
    printing.show(
        decisions,
        ("TIME", "LAYER", "EVENT", "RULE", "INPUTS"),
        lambda item: (
            printing.duration(item.time_ns),
            item.layer,
            item.event,
            item.rule,
            " ".join(f"{entry.key}={entry.value}" for entry in item.inputs),
        ),
        form=args.output,
    )
