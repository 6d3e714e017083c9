"""Hosts with real NICs of the hardware layer: a vswitch on each, wires between them, in one process or over sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from lamina.hardware.v1 import devices_pb2, devices_pb2_grpc, nics_pb2, nics_pb2_grpc, wires_pb2, wires_pb2_grpc
from tests.integration.vswitch.uplink_bench import UplinkBench

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build as build_hardware
from lamina_kit.layer.service import Environment, connect, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng


class Hardware:
    """The hardware of one host, which can be switched off and on again."""

    def __init__(self, wire: str, folder: Path, clock: Any) -> None:
        self.wire, self.folder, self.clock = wire, folder, clock
        self.address = "127.0.0.1:0"
        self._channels: list[Any] = []

    async def start(self) -> Any:
        """Start it; return the channel that a layer above gets."""
        self.folder.mkdir(parents=True, exist_ok=True)
        layer = LayerState("hardware", "h1", self.clock, Rng("hardware"))
        environment = Environment("h1", self.clock, Rng("hardware"), self.folder, layer, bus_path=self.folder / "ram")
        config = HardwareConfig(cores=1, memory_bytes=16 << 20, run_pages=4, dma_bytes=64 << 20, core_path="portable")
        self.service = build_hardware(environment, config)
        await self.service.start()
        self.served = await serve(self.service, [self.address], layer) if self.wire == "sockets" else None
        if self.served is not None:
            self.address = self.served.addresses[0]
        self.channel = connect(self.address) if self.served else local(self.service, layer)
        self._channels.append(self.channel)
        self.nics = nics_pb2_grpc.NicsStub(self.channel)
        self.devices = devices_pb2_grpc.DevicesStub(self.channel)
        self.wires = wires_pb2_grpc.WiresStub(self.channel)
        return self.channel

    async def stop(self) -> None:
        """Switch it off for good."""
        for channel in self._channels:
            await channel.close()
        await self.power_off()

    async def power_off(self) -> None:
        """Switch it off; channels to it stay, for when it is back."""
        if self.served is not None:
            await self.served.stop(0)
        await self.service.stop()

    async def connect(self, *nics: str, wire: str = "w", **wish: Any) -> None:
        """Put NICs on a wire, which is made; wires of one name are one fabric of this process."""
        made = wires_pb2.Wire(fabric=wires_pb2.FabricMedium(fabric=wire), **wish)
        await self.wires.CreateWire(wires_pb2.CreateWireRequest(wire_id=wire, wire=made))
        for nic in nics:
            request = wires_pb2.ConnectNicRequest(nic=f"hosts/h1/nics/{nic}", wire=f"hosts/h1/wires/{wire}")
            await self.wires.ConnectNic(request)

    async def cut(self, cut: bool, wire: str = "w") -> None:
        """Cut a wire or mend it."""
        changed = wires_pb2.Wire(name=f"hosts/h1/wires/{wire}", cut=cut)
        await self.wires.UpdateWire(wires_pb2.UpdateWireRequest(wire=changed, update_mask=FieldMask(paths=["cut"])))

    async def driver(self, nic: str) -> str:
        """Return who drives a NIC."""
        request = devices_pb2.GetDeviceRequest(name=f"hosts/h1/devices/{nic}")
        return str((await self.devices.GetDevice(request)).driver)

    async def counters(self, nic: str) -> nics_pb2.NicCounters:
        """Return what a NIC counted."""
        request = nics_pb2.GetNicCountersRequest(nic=f"hosts/h1/nics/{nic}")
        found: nics_pb2.NicCounters = await self.nics.GetNicCounters(request)
        return found


class NicBench(UplinkBench):
    """A switch whose uplinks drive NICs."""

    async def nic_uplink(self, name: str, nic: str = "nic0", **fields: Any) -> Any:
        """Create an uplink by a NIC."""
        return await self.create(name, nic=f"hosts/h1/nics/{nic}", backend_port=False, **fields)
