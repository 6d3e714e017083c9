"""`lamina status`: shows what is up: process, engines, health, ports."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from lamina_cli import home, output
from lamina_cli.client import Client, add_form, guarded

ANSWER_SECONDS = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="which stack (default: default)")
    add_form(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: asyncio.run(status(args))))


async def status(args: argparse.Namespace) -> int:
    """Shows the stack. Returns 0 only if every layer is healthy."""
    record = home.running(args.stack)
    async with Client(record.targets) as client:
        layers = [await look(client, layer, record) for layer in home.LAYERS]
    if args.output == "json":
        output.as_json({"stack": record.name, "pid": record.pid, "version": record.version, "layers": layers})
    else:
        print(f"stack {record.name}: process {record.pid}, {record.topology}, {record.clock} time, {record.version}")
        output.table(
            ("LAYER", "ADDRESS", "HEALTH", "ENGINE", "REVISION", "HOST"),
            ([row[key] for key in ("layer", "address", "health", "engine", "revision", "host")] for row in layers),
        )
    return 0 if all(row["health"] == "serving" for row in layers) else 1


async def look(client: Client, layer: str, record: home.StackRecord) -> dict[str, Any]:
    """Returns what a layer says of itself; one that does not answer is named as missing."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from lamina.common.v1 import layer_pb2, layer_pb2_grpc

    from lamina_kit.session import REVISION

    row = {"layer": layer, "address": record.targets[layer], "engine": "-", "revision": "-", "host": "-"}
    try:
        checker: Any = client.stub(layer, health_pb2_grpc.HealthStub)
        health = await checker.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
        answer = await client.stub(layer, layer_pb2_grpc.LayerStub).Handshake(
            layer_pb2.HandshakeRequest(caller="lamina-cli", revision=REVISION), timeout=ANSWER_SECONDS
        )
    except grpc.aio.AioRpcError as failure:
        return {**row, "health": f"missing ({failure.code().name.lower()})"}
    serving = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status).lower().replace("_", "-")
    return {
        **row,
        "health": serving,
        "engine": answer.engine,
        "revision": answer.revision,
        "host": answer.host or "-",
    }
