"""NAT to host sockets follows the MTU of its switch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lamina.vswitch.v1 import policies_pb2, policies_pb2_grpc
from tests.integration.vswitch.nat_bench import ALIAS, LOOPBACK, NatBench
from tests.integration.vswitch.network_bench import SWITCH

from lamina_kit.clock import RealClock
from lamina_net.tcp.interface import Status

pytestmark = pytest.mark.real_time("host sockets are of the machine, and so is their time")


@pytest.mark.parametrize("start", ["local"], indirect=True)
async def test_new_connections_have_the_mtu_of_now(start: Any, device: Any) -> None:
    """After a change the gateway offers the guest segments of the new MTU; a connection of before keeps its own."""
    start.clock = RealClock()
    bench = NatBench(await start(), device)
    await bench.open()
    await bench.nat()
    served = await asyncio.start_server(lambda _reader, _writer: None, LOOPBACK, 0)
    port = served.sockets[0].getsockname()[1]
    guest = await bench.tcp_guest()
    before = await guest.connect(ALIAS, port)
    settings = policies_pb2.SwitchSettings(name=f"{SWITCH}/settings", mtu_bytes=1400)
    stub = policies_pb2_grpc.PoliciesStub(bench.running.channel)
    await stub.UpdateSwitchSettings(policies_pb2.UpdateSwitchSettingsRequest(settings=settings))
    after = await guest.connect(ALIAS, port)
    found = [guest.tcp.status(handle) for handle in (before, after)]
    assert [each.mss for each in found if isinstance(each, Status)] == [1460, 1360]
    bench.stop()
    served.close()
