"""How a command reaches the layers of a stack that is up, and what becomes of an error on the way."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lamina_cli.client import home
from lamina_cli.output import printing
from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument, LaminaError, NotFound, Unavailable
from lamina_kit.security.transport import PLAIN, Security, TlsFiles, bare

if TYPE_CHECKING:
    from types import TracebackType

    from lamina_kit.telemetry.trace import Recorder

StubT = TypeVar("StubT")
Work = Callable[["Client", argparse.Namespace], Awaitable[int | None]]


class Client:
    """Channels to the six layers of one stack: those given, and others opened to `targets` when first used.

    The layers are those of one host, and the orchestrator. `hosts` has a client for each host of the stack by name,
    empty when there is one. `recorder` makes the traces that the client begins; without one their ids are random.
    """

    def __init__(
        self,
        targets: Mapping[str, str],
        channels: Mapping[str, Any] | None = None,
        recorder: Recorder | None = None,
        hosts: Mapping[str, Client] | None = None,
        security: Security = PLAIN,
    ) -> None:
        self.targets = targets
        self.recorder = recorder
        self.hosts = dict(hosts or {})
        self.security = security
        self._given = dict(channels or {})
        self._channels: dict[str, Any] = {}

    def channel(self, layer: str) -> Any:
        """Returns the channel to a layer. A channel that was given stays open when the client closes.

        Raises:
            InvalidArgument: `LAYER_ADDRESS_MISSING`, only some layers have an address and this one has none.
        """
        if layer in self._given:
            return self._given[layer]
        from lamina_kit.rpc.channel import connect

        if layer not in self.targets:
            raise InvalidArgument(
                f"the command calls the {layer} layer, whose address is not known",
                reason="LAYER_ADDRESS_MISSING",
                next_step=f"give --at {layer}=HOST:PORT too, or use a stack that has the layer: `lamina status`",
            )
        if layer not in self._channels:
            self._channels[layer] = connect(self.targets[layer], security=self.security)
        return self._channels[layer]

    def stub(self, layer: str, stub_class: Callable[[Any], StubT]) -> StubT:
        """Returns a stub of a layer's service."""
        return stub_class(self.channel(layer))

    def at(self, name: str) -> Client:
        """Returns the client of the host that a resource name (`hosts/h2/…`) lies on; this one when there is one."""
        return self.hosts.get(name.split("/")[1], self) if name.startswith("hosts/") else self

    def everywhere(self) -> tuple[Client, ...]:
        """Returns a client for each host of the stack."""
        return tuple(self.hosts.values()) or (self,)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        for client in self.hosts.values():
            await client.__aexit__(kind, error, trace)


def security_of(record: home.StackRecord, tls_dir: str = "") -> Security:
    """Returns what a command calls a stack with: the certificates in `tls_dir`, else the stack's own."""
    folder = tls_dir or os.environ.get("LAMINA_TLS_DIR", "") or record.tls_dir
    return Security(TlsFiles.of(Path(folder)) if folder else None, record.plain_network)


def client_of(record: home.StackRecord, host: str = "", tls_dir: str = "") -> Client:
    """Returns a client of a stack that is up; its lower layers are those of `host`, or of the first one.

    Raises:
        NotFound: `HOST_UNKNOWN`, the stack has no such host.
    """
    security = security_of(record, tls_dir)
    own = {layer: target for layer, target in record.targets.items() if "/" not in layer}
    if not host and len(own) == len(record.targets):
        return Client(own, security=security)
    hosts = {record.host: Client(own, security=security)}
    for name in dict.fromkeys(key.partition("/")[0] for key in record.targets if "/" in key):
        theirs = {layer: record.targets[f"{name}/{layer}"] for layer in own if f"{name}/{layer}" in record.targets}
        hosts[name] = Client({**own, **theirs}, security=security)
    if not host:
        return Client(own, hosts=hosts, security=security)
    if host not in hosts:
        raise NotFound(
            f"stack {record.name!r} has no host {host!r}",
            reason="HOST_UNKNOWN",
            next_step=f"its hosts are {', '.join(hosts)}",
        )
    return hosts[host]


def add_options(parser: argparse.ArgumentParser, *, lists: bool = False) -> None:
    """Adds the options that every command has which talks to a stack."""
    parser.add_argument("--stack", default="default", metavar="NAME", help="which stack (default: default)")
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="LAYER=ADDRESS",
        help="call this layer there, whoever serves it, and no stack; repeatable",
    )
    parser.add_argument("--host", default="", metavar="NAME", help="which of its hosts, where it has several")
    parser.add_argument(
        "--tls-dir", default="", metavar="DIR", help="certificates to call it with, where it is beyond this host"
    )
    parser.add_argument("--trace", action="store_true", help="record this call in every layer and print the trace's id")
    if lists:
        add_form(parser)


def add_form(parser: argparse.ArgumentParser) -> None:
    """Adds `-o table|json`."""
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="table for people, json for programs"
    )


def command(parser: argparse.ArgumentParser, work: Work, *, lists: bool = False) -> None:
    """Makes `work` what the parser runs, with a client of the stack that is up."""
    add_options(parser, lists=lists)
    parser.set_defaults(run=lambda args: _run(work, args))


def _run(work: Work, args: argparse.Namespace) -> int:
    return guarded(lambda: asyncio.run(_with_client(work, args)))


def guarded(body: Callable[[], int]) -> int:
    """Runs `body` and turns its errors into a message with the next step and exit status 1."""
    from lamina_kit.telemetry.log import configure

    configure(level="warning")
    try:
        return body()
    except LaminaError as problem:
        printing.error(problem)
        return 1


async def _with_client(work: Work, args: argparse.Namespace) -> int:
    record = addressed(args.at) if args.at else home.running(args.stack)
    async with client_of(record, args.host, args.tls_dir) as client:
        try:
            return await traced(args, work(client, args))
        except Unavailable as problem:
            raise await explained(problem, record, client.security) from problem


def addressed(words: Sequence[str]) -> home.StackRecord:
    """Returns the record of a stack of which only the addresses `LAYER=ADDRESS` are known; it has no name.

    Raises:
        InvalidArgument: `ADDRESS_MALFORMED`, a word is not of that form or an address is none.
    """
    from lamina_kit.rpc.channel import check_target

    targets = {}
    for word in words:
        layer, _, target = word.partition("=")
        if layer not in home.LAYERS or not target:
            raise InvalidArgument(
                f"--at takes LAYER=ADDRESS, not {shown(word)}",
                reason="ADDRESS_MALFORMED",
                next_step=f"layers are {', '.join(home.LAYERS)}; an address is HOST:PORT, tls:HOST:PORT or unix:/path",
            )
        check_target(target)
        targets[layer] = target
    return home.StackRecord(name="", pid=0, start_ticks=0, host="", targets=targets, engines={})


async def explained(problem: Unavailable, record: home.StackRecord, security: Security) -> LaminaError:
    """Returns an error of the transport as what is wrong with a certificate, or as the layer that does not answer."""
    from lamina_kit.security.tls_probe import diagnose

    if problem.reason == "RPC_UNAVAILABLE":
        for target in dict.fromkeys(record.targets.values()):
            if bare(target) in problem.message and (found := await diagnose(target, security)) is not None:
                return found
    return naming_layer(problem, record)


def naming_layer(problem: Unavailable, record: home.StackRecord) -> Unavailable:
    """Returns an error of the transport as one that names the layer which does not answer; any other as it is."""
    layer = next((name for name, target in record.targets.items() if bare(target) in problem.message), "")
    if problem.reason != "RPC_UNAVAILABLE" or not layer:
        return problem
    whose = f" of stack {record.name!r}" if record.name else ""
    shows = "`lamina status` shows who is missing and why; try" if record.name else "try"
    return Unavailable(
        f"the {layer} layer{whose} does not answer at {record.targets[layer]}",
        reason="LAYER_MISSING",
        next_step=f"{shows} again when it serves",
        layer=layer,
    )


async def traced(args: argparse.Namespace, work: Awaitable[int | None]) -> int:
    """Awaits a command's work; with `--trace`, as a trace that every layer records and whose id is printed."""
    if not args.trace:
        return await attempt(work)
    from lamina_kit.telemetry import trace

    with trace.begin(f"lamina {args.word}", recorder()) as context:
        print(f"trace {context.trace_id}; print it with `lamina trace {context.trace_id}`", file=sys.stderr)
        return await attempt(work)


def recorder() -> Recorder:
    """Returns a recorder for the command's own spans; its ids are random, since a command starts its own traces."""
    from lamina_kit.clock import RealClock
    from lamina_kit.rng import Rng
    from lamina_kit.telemetry.trace import Recorder, SpanRing

    return Recorder("cli", RealClock(), Rng(int.from_bytes(os.urandom(8))), SpanRing())


async def attempt(work: Awaitable[int | None]) -> int:
    """Awaits a command's work; a gRPC error becomes the Lamina error that it carries."""
    import grpc

    from lamina_kit.rpc.status import rpc_error

    try:
        return await work or 0
    except grpc.aio.AioRpcError as failure:
        raise rpc_error(failure) from failure
