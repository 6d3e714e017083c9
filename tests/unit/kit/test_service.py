"""Serving a layer on sockets: addresses, ports, errors."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from lamina_kit.clock import RealClock
from lamina_kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from lamina_kit.layer.service import connect, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc import channel as channels
from lamina_kit.rpc import status
from lamina_kit.rpc.interceptor import Guard
from lamina_kit.security.transport import Security
from lamina_kit.telemetry import log

pytestmark = pytest.mark.real_time("serves sockets")


class Silent:
    """A service with one method, which never answers."""

    layer = "vswitch"
    service_names = ("t.Silent",)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the method."""
        make: Any = grpc.unary_unary_rpc_method_handler
        handler = make(self.Wait, StringValue.FromString, StringValue.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Silent", {"Wait": handler}),))

    async def Wait(self, request: StringValue, context: Any) -> StringValue:
        """Waits for ever."""
        await asyncio.get_running_loop().create_future()
        return request

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


@pytest.fixture
def state() -> LayerState:
    """Returns the state of a layer."""
    return LayerState("vswitch", "h1", RealClock(), Rng(3))


async def test_one_service_listens_on_several_addresses(state: LayerState, short_dir: Path) -> None:
    """Port 0 becomes a real port, and the addresses are those that clients use."""
    served = await serve(Silent(), ["127.0.0.1:0", f"unix:{short_dir}/a", "127.0.0.1:0"], state)
    assert len(served.ports) == 2 and all(port > 0 for port in served.ports)
    assert served.addresses == (
        f"127.0.0.1:{served.ports[0]}",
        f"unix:{short_dir}/a",
        f"127.0.0.1:{served.ports[1]}",
    )
    for address in served.addresses:
        async with connect(address) as channel:
            await channel.channel_ready()
    await served.stop(0)


async def test_a_socket_is_for_its_user_alone(state: LayerState, short_dir: Path) -> None:
    """Nobody else may connect to a UNIX socket."""
    served = await serve(Silent(), [f"unix:{short_dir}/a"], state)
    assert stat.S_IMODE(os.stat(short_dir / "a").st_mode) == 0o600
    await served.stop(0)


async def test_a_busy_port_is_refused(state: LayerState) -> None:
    """PORT_IN_USE names the port and how to choose another."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(FailedPrecondition) as caught:
            await serve(Silent(), [f"127.0.0.1:{port}"], state)
    assert caught.value.reason == "PORT_IN_USE" and caught.value.metadata["port"] == str(port)
    assert str(port) in caught.value.message and "lamina up --port" in caught.value.next_step


async def test_when_one_address_fails_none_is_kept(state: LayerState, short_dir: Path) -> None:
    """A service that cannot listen everywhere listens nowhere."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        busy = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(FailedPrecondition):
            await serve(Silent(), [f"unix:{short_dir}/a", busy], state)
    served = await serve(Silent(), [f"unix:{short_dir}/a"], state)
    await served.stop(0)


async def test_two_services_do_not_share_a_port(state: LayerState) -> None:
    """gRPC would let both bind it; each caller would reach either."""
    served = await serve(Silent(), ["127.0.0.1:0"], state)
    with pytest.raises(FailedPrecondition):
        await serve(Silent(), list(served.addresses), state)
    await served.stop(0)


async def test_a_busy_socket_is_refused_and_a_dead_one_replaced(state: LayerState, short_dir: Path) -> None:
    """A socket with somebody behind it stays theirs; one that a dead process left is taken."""
    address = f"unix:{short_dir}/a"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short_dir / "a"))
        other.listen()
        with pytest.raises(FailedPrecondition) as caught:
            await serve(Silent(), [address], state)
        assert caught.value.reason == "SOCKET_IN_USE"
    served = await serve(Silent(), [address], state)
    async with connect(address) as channel:
        await channel.channel_ready()
    await served.stop(0)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "ADDRESS_INVALID"),
        ("here", "ADDRESS_INVALID"),
        ("127.0.0.1:", "ADDRESS_INVALID"),
        ("127.0.0.1:70000", "ADDRESS_INVALID"),
        ("127.0.0.1:x", "ADDRESS_INVALID"),
        ("unix:relative", "ADDRESS_INVALID"),
        ("unix:/" + "x" * 107, "SOCKET_PATH_TOO_LONG"),
        ("unix:/" + "ü" * 60, "SOCKET_PATH_TOO_LONG"),
    ],
)
async def test_malformed_addresses_are_refused(state: LayerState, address: str, reason: str) -> None:
    """Serving and connecting check addresses alike."""
    for attempt in (lambda: connect(address), lambda: channels.check_target(address)):
        with pytest.raises(InvalidArgument) as caught:
            attempt()
        assert caught.value.reason == reason
    with pytest.raises(InvalidArgument):
        await serve(Silent(), [address], state)


async def test_unusable_addresses_say_why(state: LayerState, short_dir: Path) -> None:
    """An address of another machine, and a socket in a folder that does not exist."""
    (short_dir / "file").write_text("not a socket")
    for address in ("192.0.2.1:0", f"unix:{short_dir}/none/a", f"unix:{short_dir}/file"):
        with pytest.raises(FailedPrecondition) as caught:
            await serve(Silent(), [address], state, security=Security(plain_network=True))
        assert caught.value.reason == "ADDRESS_UNUSABLE"
    assert (short_dir / "file").read_text() == "not a socket"


def test_the_longest_path_is_accepted() -> None:
    """107 bytes are what the system takes."""
    channels.check_target("unix:/" + "x" * 106)
    channels.check_target("unix:///" + "x" * 106)
    assert channels.MAX_UNIX_PATH == 107


async def test_nobody_there_is_unavailable(short_dir: Path) -> None:
    """A call to a service that does not run fails at once and says so."""
    async with connect(f"unix:{short_dir}/nobody") as channel:
        call = channel.unary_unary("/t.Silent/Wait", StringValue.SerializeToString, StringValue.FromString)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(StringValue())
    error = status.rpc_error(caught.value)
    assert isinstance(error, Unavailable) and error.next_step


async def test_a_foreign_client_without_a_deadline_gets_one(state: LayerState) -> None:
    """The server ends a unary call that nobody limits, and says how to ask for more."""
    state_guard = Guard(state.recorder, default_timeout_s=0.05)
    server = grpc.aio.server(interceptors=[state_guard])
    Silent().register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            "/t.Silent/Wait",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(StringValue())
    assert status.rpc_error(caught.value).reason == "DEADLINE_DEFAULT"
    await server.stop(0)


def test_log_lines_are_json_with_their_trace(state: LayerState) -> None:
    """A line carries the layer and host of its work, its trace and the stack's wall time."""
    from lamina_kit.telemetry import trace

    stream = io.StringIO()
    log.configure(json=True, level="info", stream=stream, wall_ns=lambda: 1_767_225_600_123_456_789)
    try:
        with trace.begin("t", state.recorder, sampled=False) as context:
            log.logger("mmu").info("page.evicted", frame=7)
            log.logger("mmu").debug("page.kept")
    finally:
        log.configure()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines == [
        {
            "event": "page.evicted",
            "frame": 7,
            "host": state.host,
            "layer": state.layer,
            "level": "info",
            "part": "mmu",
            "time": "2026-01-01T00:00:00.123456Z",
            "trace_id": context.trace_id,
        }
    ]
