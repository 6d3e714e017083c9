"""A call over loopback whose caller is asked after, beside the same call without, interleaved in one run.

    python bench/stack/caller_check.py [--calls 2000] [--rounds 15]

Two servers of the common services of a layer, by the same code; one knows no rule of callers. The aim is at most 2 % of
a call. The differences of single rounds are larger than what is measured, so the median of all pairs counts, and the
check is also timed by itself: what a known connection costs each call, and what a new one costs once.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import time
from typing import Any

import grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Served, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import connect
from lamina_kit.security.callers import Callers

AIM_PERCENT = 2.0
REQUEST = layer_pb2.ListSpansRequest(trace_id="0" * 32)


class Silent:
    """A layer with nothing of its own."""

    layer = "bench"
    service_names: tuple[str, ...] = ()

    def register(self, server: grpc.aio.Server) -> None:
        """Adds nothing: a layer's common services are enough to call."""

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


class Caller:
    """The context of a call from a socket's place."""

    def __init__(self, end: socket.socket) -> None:
        self._peer = "ipv4:{}:{}".format(*end.getsockname())

    def peer(self) -> str:
        """Returns the place as gRPC writes it."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """Returns nothing that was seen."""
        return {}


async def served(asks: bool) -> Served:
    """Serves on loopback, with the rule of callers or without any."""
    made = await serve(Silent(), ["127.0.0.1:0"], LayerState("bench", "h1", RealClock(), Rng(1)))
    if not asks and made.admission is not None:
        made.admission._callers = None
    return made


async def timed(stub: Any, calls: int) -> float:
    """Returns microseconds a call."""
    began = time.perf_counter()
    for _ in range(calls):
        await stub.ListSpans(REQUEST)
    return (time.perf_counter() - began) / calls * 1e6


def alone(calls: int) -> tuple[float, float]:
    """Returns microseconds of a check of a known connection, and of one of a new connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as end,
        server.accept()[0],
    ):
        caller, callers = Caller(end), Callers("bench")
        first = []
        for _ in range(50):
            callers = Callers("bench")
            began = time.perf_counter()
            callers.check(caller)
            first.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(calls):
            callers.check(caller)
        return (time.perf_counter() - began) / calls * 1e6, statistics.median(first) * 1e6


async def main(calls: int, rounds: int) -> None:
    """Measures and prints."""
    servers = [await served(asks) for asks in (True, False)]
    channels = [connect(server.addresses[0]) for server in servers]
    stubs = [layer_pb2_grpc.LayerStub(channel) for channel in channels]
    for stub in stubs:
        await timed(stub, calls // 4)
    pairs = []
    for number in range(rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        took = {index: await timed(stubs[index], calls) for index in order}
        pairs.append((took[0], took[1]))
    asked, unasked = (statistics.median(column) for column in zip(*pairs, strict=True))
    each = statistics.median(a / b for a, b in pairs)
    known, new = alone(20 * calls)
    print(f"a call over loopback: {asked:.0f} µs with the check, {unasked:.0f} µs without; median of pairs {each:.3f}×")
    print(f"the check alone: {known:.2f} µs a call, {known / unasked * 100:.2f} % (aim {AIM_PERCENT} %)")
    print(f"                 {new:.0f} µs once a connection")
    for channel in channels:
        await channel.close()
    for server in servers:
        await server.stop(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="calls a round (default 2000)")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of rounds (default 15)")
    given = parser.parse_args()
    asyncio.run(main(given.calls, given.rounds))
