"""The hardware layer as a service: parses requests, calls the machine, converts the answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from grpc import aio
from lamina.hardware.v1 import (
    clock_pb2_grpc,
    devices_pb2_grpc,
    disks_pb2_grpc,
    interrupts_pb2_grpc,
    iommu_pb2_grpc,
    nics_pb2_grpc,
    performance_pb2_grpc,
    wires_pb2_grpc,
)
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.config import HardwareConfig
from lamina_hardware.machine import Machine
from lamina_hardware.metrics import families
from lamina_hardware.serving import clock
from lamina_hardware.serving.cpu import CpuServicer
from lamina_hardware.serving.devices import DevicesServicer
from lamina_hardware.serving.disks import DisksServicer
from lamina_hardware.serving.hosts import HostsServicer
from lamina_hardware.serving.interrupts import InterruptsServicer
from lamina_hardware.serving.iommu import IommuServicer
from lamina_hardware.serving.memory import MemoryServicer
from lamina_hardware.serving.nics import NicsServicer
from lamina_hardware.serving.performance import PerformanceServicer
from lamina_hardware.serving.wires import WiresServicer
from lamina_kit.layer.service import Environment, Service

Context = aio.ServicerContext[Any, Any]


def build(environment: Environment, config: HardwareConfig) -> Service:
    """Returns the service; `start` makes the memory bus at `environment.bus_path` and the cores."""
    return HardwareService(environment, config)


class HardwareService:
    """The machine of one host."""

    layer = "hardware"
    service_names = (
        "lamina.hardware.v1.Hosts",
        "lamina.hardware.v1.Memory",
        "lamina.hardware.v1.Cpu",
        "lamina.hardware.v1.Interrupts",
        "lamina.hardware.v1.Devices",
        "lamina.hardware.v1.Iommu",
        "lamina.hardware.v1.Disks",
        "lamina.hardware.v1.Nics",
        "lamina.hardware.v1.Wires",
        "lamina.hardware.v1.Performance",
        clock.SERVICE_NAME,
    )

    def __init__(self, environment: Environment, config: HardwareConfig) -> None:
        self.machine = Machine(environment, config)
        environment.layer.metrics.add(partial(families, self.machine))

    def register(self, server: aio.Server) -> None:
        """Adds the layer's services to a server."""
        rpc.add_HostsServicer_to_server(HostsServicer(self.machine), server)
        rpc.add_MemoryServicer_to_server(MemoryServicer(self.machine), server)
        rpc.add_CpuServicer_to_server(CpuServicer(self.machine), server)
        interrupts_pb2_grpc.add_InterruptsServicer_to_server(InterruptsServicer(self.machine), server)
        devices_pb2_grpc.add_DevicesServicer_to_server(DevicesServicer(self.machine), server)
        iommu_pb2_grpc.add_IommuServicer_to_server(IommuServicer(self.machine), server)
        disks_pb2_grpc.add_DisksServicer_to_server(DisksServicer(self.machine), server)
        nics_pb2_grpc.add_NicsServicer_to_server(NicsServicer(self.machine), server)
        wires_pb2_grpc.add_WiresServicer_to_server(WiresServicer(self.machine), server)
        performance_pb2_grpc.add_PerformanceServicer_to_server(PerformanceServicer(self.machine), server)
        clock_pb2_grpc.add_ClockServicer_to_server(clock.ClockServicer(self.machine.clock), server)

    async def start(self) -> None:
        """Powers the machine on."""
        await self.machine.start()

    async def stop(self) -> None:
        """Powers the machine off. Idempotent."""
        await self.machine.stop()
