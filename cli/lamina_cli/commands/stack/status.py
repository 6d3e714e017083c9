"""`lamina status`: shows what is up: processes, engines, health, boot and addresses of the layers.

It asks every layer and reads what the supervisor wrote, so it works while layers are dead, and says who is missing. A
layer that serves while one below it is missing is *degraded*: what needs the missing one is refused until it is back.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from lamina_cli.client import home
from lamina_cli.client.client import Client, add_form, guarded, security_of
from lamina_cli.output import printing
from lamina_cli.stack.reachability import without

ANSWER_SECONDS = 3.0
COLUMNS = ("layer", "state", "engine", "host", "pid", "uptime", "restarts", "revision", "boot_id", "address")
SERVING, DEGRADED, MISSING = "serving", "degraded", "missing"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="which stack (default: default)")
    add_form(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: asyncio.run(status(args))))


async def status(args: argparse.Namespace) -> int:
    """Shows the stack. Returns 0 only if every layer serves."""
    record = home.running(args.stack)
    async with Client(record.targets, security=security_of(record)) as client:
        served = [layer for layer in home.LAYERS if layer in record.targets]
        layers = await asyncio.gather(*(look(client, layer, record) for layer in served))
    if args.output == "json":
        known = {"stack": record.name, "pid": record.pid, "version": record.version}
        rows = [{key: None if value == "-" else value for key, value in row.items()} for row in layers]
        printing.as_json({**known, "topology": record.topology, "clock": record.clock, "layers": rows})
    else:
        print(f"stack {record.name}: process {record.pid}, {record.topology}, {record.clock} time, {record.version}")
        printing.table([name.upper() for name in COLUMNS], ([row[name] for name in COLUMNS] for row in layers))
        for row in layers:
            if row["problem"]:
                print(f"{row['layer']}: {row['problem']}")
    return 0 if all(row["state"] == SERVING for row in layers) else 1


async def look(client: Client, layer: str, record: home.StackRecord) -> dict[str, Any]:
    """Returns what a layer says of itself, and what the supervisor says of its process."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from lamina.common.v1 import layer_pb2, layer_pb2_grpc

    from lamina_kit.layer.owner_session import REVISION
    from lamina_kit.rpc.status import rpc_error
    from lamina_kit.security.tls_probe import diagnose

    row = {**dict.fromkeys(COLUMNS, "-"), **known_process(layer, record), "without": [], "problem": ""}
    try:
        checker: Any = client.stub(layer, health_pb2_grpc.HealthStub)
        health = await checker.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
        row["state"] = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status).lower().replace("_", "-")
        answer = await client.stub(layer, layer_pb2_grpc.LayerStub).Handshake(
            layer_pb2.HandshakeRequest(caller="lamina-cli", revision=REVISION), timeout=ANSWER_SECONDS
        )
        row["without"] = await without(checker, layer, ANSWER_SECONDS) if record.processes else []
    except grpc.aio.AioRpcError as failure:
        problem = rpc_error(failure)
        if row["state"] == SERVING or problem.reason == "RPC_UNAVAILABLE":
            row["state"] = MISSING
        why = await diagnose(record.targets[layer], client.security) if row["state"] == MISSING else None
        return {**row, **missing(layer, record, (why or problem).message)}
    found = {"engine": answer.engine, "host": answer.host or "-", "revision": answer.revision}
    row = {**row, **found, "boot_id": answer.boot_id or "-"}
    if row["state"] == SERVING and row["without"]:
        names = " and ".join(row["without"])
        row |= {"state": DEGRADED, "problem": f"it does not reach {names}: what needs that is refused until it serves"}
    return row


def known_process(layer: str, record: home.StackRecord) -> dict[str, Any]:
    """Returns what the record says of a layer's process: its own, or that of the whole stack."""
    process = record.processes.get(layer, {"pid": record.pid, "start_ticks": record.start_ticks, "restarts": 0})
    alive = home.start_ticks(process["pid"]) == process["start_ticks"]
    age_s = home.age_s(process["start_ticks"]) if alive else None
    return {
        "layer": layer,
        "address": record.targets[layer],
        "pid": process["pid"] if alive else "-",
        "uptime": "-" if age_s is None else printing.span(age_s * 10**9),
        "uptime_s": age_s,
        "restarts": process["restarts"],
    }


def missing(layer: str, record: home.StackRecord, message: str) -> dict[str, Any]:
    """Returns why a layer does not serve: its process's own words, the supervisor's, or the transport's."""
    process = record.processes.get(layer)
    if process is None or (process["state"] == "starting" and not process["message"]):
        return {"problem": message}
    log = home.stack_dir(record.name) / "logs" / f"{layer}.log"
    if process["state"] == "failed":
        again = "`lamina down` and `lamina up --split` start it again"
        told = f"given up after {process['restarts']} restarts: {process['message']} Its log is {log}; {again}"
        return {"state": "failed", "problem": told}
    if process["state"] == "waiting":
        return {"problem": f"{process['message']} It is started again in a moment; its log is {log}"}
    if process["state"] == SERVING and home.start_ticks(process["pid"]) != process["start_ticks"]:
        return {"problem": f"Its process {process['pid']} has just ended; the supervisor starts it again."}
    if process["state"] == "starting":
        return {"problem": f"{process['message']} It is starting again."}
    what = f"Its process {process['pid']} does not answer at {record.targets[layer]}"
    return {"problem": process["message"] or f"{what}: {message}"}
