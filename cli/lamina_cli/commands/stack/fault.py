"""`lamina fault`: breaks things of a layer on purpose, and mends them."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.home import LAYERS
from lamina_cli.client.pagination import collect
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word
from lamina_kit.errors import NotFound

if TYPE_CHECKING:
    from lamina.common.v1 import faults_pb2
    from lamina.common.v1.faults_pb2_grpc import FaultsStub

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    kinds_of = verbs.add_parser("kinds", help="list what can break, with its parameters")
    kinds_of.add_argument("layer", nargs="?", choices=LAYERS, help="of one layer (default: all)")
    command(kinds_of, kinds, lists=True)
    listed = verbs.add_parser("list", help="list faults")
    listed.add_argument("layer", nargs="?", choices=LAYERS, help="of one layer (default: all)")
    listed.add_argument("--active", action="store_true", help="only those in effect")
    command(listed, faults, lists=True)
    wanted = verbs.add_parser("inject", help="break something")
    wanted.add_argument("layer", choices=LAYERS, help="layer that has it")
    wanted.add_argument("kind", help="kind of fault; `lamina fault kinds` lists them")
    wanted.add_argument("object", help="what breaks, by resource name; hosts/HOST/ in front may be left away")
    wanted.add_argument("parameters", nargs="*", type=parameter, metavar="KEY=VALUE", help="parameters of the kind")
    wanted.add_argument("--for", dest="lasts", type=duration, default=0, metavar="TIME", help="how long, such as 10s")
    wanted.add_argument("--request-id", default="", help="makes a repetition of this command harmless")
    command(wanted, inject, lists=True)
    ended = verbs.add_parser("clear", help="end a fault")
    ended.add_argument("layer", choices=LAYERS, help="layer that has it")
    ended.add_argument("fault", help="its name, in full or its last part")
    command(ended, clear, lists=True)


def parameter(text: str) -> tuple[str, str]:
    """Returns `KEY=VALUE` as a pair."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def duration(text: str) -> int:
    """Returns a time such as `500ms`, `10s` or `2h` in nanoseconds."""
    match = re.fullmatch(r"(\d{1,18})(ns|us|ms|s|m|h)", text)
    if match is None or int(match[1]) * UNITS[match[2]] >= 1 << 62:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 500ms, 10s or 2h")
    return int(match[1]) * UNITS[match[2]]


def _faults(client: Client, layer: str) -> FaultsStub:
    from lamina.common.v1 import faults_pb2_grpc

    return client.stub(layer, faults_pb2_grpc.FaultsStub)


async def kinds(client: Client, args: argparse.Namespace) -> None:
    """Lists kinds of fault."""
    from lamina.common.v1 import faults_pb2

    found: list[tuple[str, faults_pb2.FaultKind]] = []
    for layer in [args.layer] if args.layer else LAYERS:
        listed = await _faults(client, layer).ListFaultKinds(faults_pb2.ListFaultKindsRequest())
        found += [(layer, kind) for kind in listed.kinds]
    if args.output == "json":
        printing.as_json([{"layer": layer, "kind": kind} for layer, kind in found])
        return
    printing.table(
        ("LAYER", "KIND", "OBJECT", "PARAMETERS", "LASTS"),
        (
            (
                layer,
                kind.kind,
                kind.object_pattern,
                " ".join(_takes(entry) for entry in kind.parameters) or "-",
                "until cleared" if kind.lasting else "once",
            )
            for layer, kind in found
        ),
    )


def _takes(entry: faults_pb2.FaultParameter) -> str:
    """Returns what a parameter takes: `key=low..high`, `key=a|b`, with its default in brackets."""
    values = "|".join(entry.choices) if entry.choices else f"{entry.minimum}..{entry.maximum}"
    return f"{entry.key}={values}" + (f" [{entry.default_value}]" if entry.default_value else "")


async def faults(client: Client, args: argparse.Namespace) -> None:
    """Lists faults."""
    from lamina.common.v1 import faults_pb2

    found: list[tuple[str, faults_pb2.Fault]] = []
    for layer in [args.layer] if args.layer else LAYERS:
        request = faults_pb2.ListFaultsRequest(active_only=args.active)
        found += [(layer, fault) for fault in await collect(_faults(client, layer).ListFaults, request, "faults")]
    if args.output == "json":
        printing.as_json([{"layer": layer, "fault": fault} for layer, fault in found])
        return
    _table(found)


def _table(found: list[tuple[str, faults_pb2.Fault]]) -> None:
    from lamina.common.v1 import faults_pb2

    printing.table(
        ("LAYER", "FAULT", "KIND", "OBJECT", "STATE", "BEGAN", "ENDS", "PARAMETERS", "EFFECTS"),
        (
            (
                layer,
                last(fault.name),
                fault.kind,
                fault.object,
                word(faults_pb2.Fault.State, fault.state),
                printing.duration(fault.start_time_ns),
                printing.duration(fault.end_time_ns) if fault.end_time_ns else "-",
                " ".join(f"{entry.key}={entry.value}" for entry in fault.parameters) or "-",
                " ".join(f"{entry.key}={entry.value}" for entry in fault.effects) or "-",
            )
            for layer, fault in found
        ),
    )


async def inject(client: Client, args: argparse.Namespace) -> None:
    """Breaks something."""
    from lamina.common.v1 import faults_pb2, layer_pb2

    stub = _faults(client, args.layer)
    wanted = faults_pb2.Fault(
        kind=args.kind,
        object=await _object(client, args),
        duration_ns=args.lasts,
        parameters=[layer_pb2.Attribute(key=key, value=value) for key, value in args.parameters],
    )
    _one(args, await stub.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted, request_id=args.request_id)))


async def _object(client: Client, args: argparse.Namespace) -> str:
    """Returns the full name of what is to break; objects of the orchestrator are of no host."""
    from lamina.common.v1 import layer_pb2_grpc

    from lamina_kit.layer.owner_session import handshake

    name: str = args.object
    if args.layer == "orchestrator" or name.startswith("hosts/"):
        return name
    stub = client.stub(args.layer, layer_pb2_grpc.LayerStub)
    host = (await handshake(stub, "lamina-cli")).host
    return f"hosts/{host}/{name}" if name else f"hosts/{host}"


async def clear(client: Client, args: argparse.Namespace) -> None:
    """Ends a fault."""
    from lamina.common.v1 import faults_pb2

    stub = _faults(client, args.layer)
    name: str = args.fault
    if "/" not in name:
        listed: list[Any] = await collect(stub.ListFaults, faults_pb2.ListFaultsRequest(), "faults")
        name = next((fault.name for fault in listed if last(fault.name) == name), "")
        if not name:
            raise NotFound(
                f"the {args.layer} layer has no fault {args.fault}",
                reason="FAULT_UNKNOWN",
                next_step=f"`lamina fault list {args.layer}` lists its faults",
            )
    _one(args, await stub.ClearFault(faults_pb2.ClearFaultRequest(name=name)))


def _one(args: argparse.Namespace, fault: faults_pb2.Fault) -> None:
    if args.output == "json":
        printing.as_json(fault)
    else:
        _table([(args.layer, fault)])
