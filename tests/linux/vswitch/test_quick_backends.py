"""Backends at devices of the kernel through the service: it loads the plane, and they go on by it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import backends_pb2, backends_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc
from tests.linux.hardware.network import Network, needs_network

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.plane.switching import Plane
from lamina_vswitch.ports import backends
from lamina_vswitch.server import build

A = bytes.fromhex("020000000001")


@pytest.fixture
def network() -> Iterator[Network]:
    """Return a pair of interfaces."""
    needs_network()
    made = Network(1500)
    yield made
    made.close()


async def test_a_backend_of_the_service_goes_by_the_plane(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """Soon after it was made the plane is loaded and the backend uses it; frames come in, and deleting ends it."""
    opened: list[Any] = []

    clock = RealClock()
    state = LayerState("vswitch", "h1", clock, Rng("test"))
    service = build(Environment("h1", clock, Rng("test"), tmp_path, state, {}), VswitchConfig())
    await service.start()
    channel = local(service, state)
    switch = await rpc.SwitchesStub(channel).CreateSwitch(pb.CreateSwitchRequest(switch_id="s"))
    ports = rpc.PortsStub(channel)
    port = await ports.CreatePort(pb.CreatePortRequest(parent=switch.name, port_id="p"))
    wanted = backends_pb2.Backend(packet=backends_pb2.PacketBackend(interface="right"))
    stub = backends_pb2_grpc.BackendsStub(channel)
    original = backends.BackendTable._open

    def opening(table: Any, definition: Any, **options: Any) -> Any:
        opened.append(network.do(lambda: original(table, definition, **options)))
        return opened[-1]

    monkeypatch.setattr(backends.BackendTable, "_open", opening)
    made = await stub.CreateBackend(backends_pb2.CreateBackendRequest(parent=port.name, backend=wanted))
    await eventually(lambda: opened[0].quick, "the plane is loaded")
    assert isinstance(opened[0]._fast[0], Plane)  # it was compiled when this file was imported: no clock runs for that
    with network.end("left") as peer:
        peer.send(b"\xff" * 6 + A + b"\x88\xb5" + bytes(46))
        asked = pb.GetPortCountersRequest(port=port.name)
        async with asyncio.timeout(20):
            while not (await ports.GetPortCounters(asked)).received_frames:
                pass
    await stub.DeleteBackend(backends_pb2.DeleteBackendRequest(name=made.name))
    listed = await stub.ListBackends(backends_pb2.ListBackendsRequest(parent=switch.name))
    assert (list(listed.backends), len(opened)) == ([], 1)
    await service.stop()
