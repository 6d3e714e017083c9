"""`lamina logs`: prints what a pod's container wrote."""

from __future__ import annotations

import argparse
import sys

from lamina_cli.client.client import Client, command
from lamina_cli.input import parse


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("pod", help="name of the pod")
    parser.add_argument("-n", "--namespace", default="default", help="namespace (default: default)")
    parser.add_argument("-c", "--container", default="", help="name of the container, when the pod has several")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container ends")
    parser.add_argument("--tail", type=parse.INT64, help="only the last lines")
    parser.add_argument("-p", "--previous", action="store_true", help="of the container before its last restart")
    command(parser, logs)


async def logs(client: Client, args: argparse.Namespace) -> None:
    """Prints a pod's output, standard error to standard error."""
    from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

    request = orchestrator_pb2.ReadPodLogsRequest(
        namespace=args.namespace,
        name=args.pod.removeprefix("pod/"),
        container=args.container,
        follow=args.follow,
        tail_lines=args.tail,
        previous=args.previous,
    )
    stderr = orchestrator_pb2.ReadPodLogsResponse.STREAM_STDERR
    async for piece in client.stub("orchestrator", orchestrator_pb2_grpc.PodsStub).ReadPodLogs(request):
        stream = sys.stderr.buffer if piece.stream == stderr else sys.stdout.buffer
        stream.write(piece.data)
        stream.flush()
