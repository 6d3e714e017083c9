"""The vSwitch served on the engine `linux`: its start, frames by streams, how it restarts and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc
from tests.integration.vswitch.conftest import Device
from tests.linux.vswitch.device_bench import open_files

from lamina_kit.clock import RealClock
from lamina_kit.errors import FailedPrecondition
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc import status
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.engines.linux import namespace
from lamina_vswitch.engines.linux.engine import LinuxEngine
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.nft import table as nft_table
from lamina_vswitch.server import build

pytestmark = pytest.mark.skipif(bool(LinuxEngine.missing()), reason="engine linux: " + "; ".join(LinuxEngine.missing()))

SWITCH = "hosts/h1/switches/lan"
A, B = (bytes([2, 0, 0, 0, 0, number]) for number in (1, 2))


class Served:
    """A vSwitch of this process on the engine `linux`."""

    def __init__(self, folder: Path, clock: Any) -> None:
        state = LayerState("vswitch", "h1", clock, Rng("test"), engine="linux")
        self.service: Any = build(Environment("h1", clock, Rng("test"), folder, state, {}), VswitchConfig())
        self.channel = local(self.service, state)
        self.switches, self.ports = rpc.SwitchesStub(self.channel), rpc.PortsStub(self.channel)

    async def stop(self) -> None:
        """Stops it."""
        await self.channel.close()
        await self.service.stop()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A vSwitch that has started, with a switch and the ports a and b."""
    made = Served(tmp_path, RealClock())
    await made.service.start()
    await made.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="lan"))
    for name in ("a", "b"):
        await made.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id=name))
    yield made
    await made.stop()


async def plugged(served: Served, name: str) -> Device:
    """Returns a device at a port."""
    port = await served.ports.GetPort(pb.GetPortRequest(name=f"{SWITCH}/ports/{name}"))
    return await Device(served.ports, port.handle).plug_in()


def frame(dst: bytes, src: bytes) -> bytes:
    """Returns a frame of the least length."""
    return dst + src + b"\x88\xb5" + bytes(46)


async def test_frames_cross_the_kernel_and_its_table_is_shown(served: Served) -> None:
    """Two devices at streams reach each other; the MAC table and the counters are those of the contract."""
    a, b = await plugged(served, "a"), await plugged(served, "b")
    a.send([frame(b"\xff" * 6, A)])
    assert await b.receive(1) == [frame(b"\xff" * 6, A)]
    b.send([frame(A, B)])
    assert await a.receive(1) == [frame(A, B)]
    table = await served.switches.ListMacEntries(pb.ListMacEntriesRequest(parent=SWITCH))
    assert [(entry.mac_address, entry.port.rpartition("/")[2]) for entry in table.mac_entries] == [
        ("02:00:00:00:00:01", "a"),
        ("02:00:00:00:00:02", "b"),
    ]
    told = await served.ports.TraceFrame(pb.TraceFrameRequest(port=f"{SWITCH}/ports/a", frame=frame(B, A)))
    assert list(told.output_ports) == [f"{SWITCH}/ports/b"]
    a.finish()
    b.finish()


async def test_what_is_defined_is_there_after_a_restart(served: Served, tmp_path: Path) -> None:
    """Ports and static entries are put on a new namespace's devices."""
    entry = pb.MacEntry(mac_address="02:00:00:00:00:02", port=f"{SWITCH}/ports/b")
    await served.switches.CreateMacEntry(pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=entry))
    await served.stop()
    again = Served(tmp_path, RealClock())
    await again.service.start()
    a, b = await plugged(again, "a"), await plugged(again, "b")
    a.send([frame(B, A)])
    assert await b.receive(1) == [frame(B, A)]
    counters = await again.ports.GetPortCounters(pb.GetPortCountersRequest(port=f"{SWITCH}/ports/a"))
    assert counters.flooded_frames == 0
    a.finish()
    b.finish()
    await again.stop()


async def test_a_stream_may_outlive_the_engine(served: Served) -> None:
    """The service stops while a device is attached: its stream is told so, not of an error."""
    device = await plugged(served, "a")
    await served.service.stop()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await device.next()
    assert status.rpc_error(ended.value).reason == "SERVICE_STOPPING"


def test_the_kernel_keeps_no_virtual_clock(tmp_path: Path) -> None:
    """A stack in virtual time is refused before anything is made."""
    loop = VirtualLoop(1)
    try:
        with pytest.raises(FailedPrecondition) as refused:
            Served(tmp_path, VirtualClock(loop))
        assert refused.value.reason == "ENGINE_NEEDS_REAL_TIME"
    finally:
        loop.close()


def test_what_the_kernel_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that may not be written and a protocol that is not there are reasons, and leave no file open."""
    before = open_files()
    with monkeypatch.context() as changed:
        changed.setattr(namespace, "_SETTINGS", {"net/ipv6/conf/all/disable_ipv6": "neither"})
        assert "disable_ipv6" in LinuxEngine.missing()[0]
    with monkeypatch.context() as changed:
        changed.setattr(nft_table, "Netlink", lambda _: Netlink(31))
        assert "netlink's protocol 31" in LinuxEngine.missing()[0]
    assert open_files() - before == set()
    assert LinuxEngine.missing() == []
