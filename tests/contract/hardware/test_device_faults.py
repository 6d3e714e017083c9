"""What breaks in devices: transfers that are refused, devices that fail or are pulled out."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import faults_pb2 as faults
from lamina.common.v1 import faults_pb2_grpc, layer_pb2
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc
from lamina.hardware.v1 import iommu_pb2 as iommu
from tests.contract.hardware.device_bench import (  # noqa: F401 (variant is a fixture)
    DMA0,
    DMA1,
    PAGE,
    Driver,
    Owner,
    Tables,
    descriptor,
    reason,
    refusal,
    variant,
)

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before


class Breaker:
    """Injects and clears faults of devices."""

    def __init__(self, bench: Any) -> None:
        self.stub = faults_pb2_grpc.FaultsStub(bench.channel)

    async def inject(self, kind: str, device: str = DMA0, **parameters: object) -> faults.Fault:
        """Injects a fault."""
        given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
        request = faults.InjectFaultRequest(fault=faults.Fault(kind=kind, object=device, parameters=given))
        made: faults.Fault = await self.stub.InjectFault(request)
        return made

    async def clear(self, fault: faults.Fault) -> None:
        """Clears a fault."""
        await self.stub.ClearFault(faults.ClearFaultRequest(name=fault.name))


@pytest.fixture
def breaker(bench: Any) -> Breaker:
    """Returns what injects faults."""
    return Breaker(bench)


async def test_the_next_transfers_are_refused(bench: Any, breaker: Breaker) -> None:
    """As many as the fault says, with what is mapped; logged, counted, told to the driver; then all is well again."""
    async with Owner(bench) as owner, Driver(bench, owner) as driver:
        tables = Tables(bench, owner)
        pa = bench.frames()
        await tables.mapped((0, pa, PAGE))
        await breaker.inject("dma-fault", transfers=2)
        for _ in range(2):
            assert (await refusal(tables.read(8, 4))).metadata["outcome"] == "NOT_PRESENT"
        await tables.read(8, 4)
        told = (await driver.read()).fault
        assert (told.iova, told.write) == (8, False)
        assert [entry.iova for entry in await tables.faults(DMA0)] == [8, 8]
        await breaker.inject("dma-fault")
        bench.bus.write(pa, descriptor(64, 128, 8))
        await driver.ring(1)
        while (told := (await driver.read()).fault).iova != 0:
            pass
        assert driver.page.head(0) == 0
    events = bench.environment.layer.events.list("hosts/h1/devices/dma0", limit=1000)
    causes = {event.cause for event in events if event.event == "dma.refused"}
    assert len(causes) == 2
    assert all(cause for cause in causes)


async def test_a_device_that_fails(bench: Any, breaker: Breaker) -> None:
    """Its driver's stream ends with DEVICE_FAILED, nobody can open it, its domain is left; cleared, it works again."""
    devices = devices_pb2_grpc.DevicesStub(bench.channel)
    async with Owner(bench) as owner:
        tables = Tables(bench, owner)
        domain = await tables.mapped((0, bench.frames(), PAGE))
        async with Driver(bench, owner) as driver:
            fault = await breaker.inject("device-failed")
            assert await reason(driver.read()) == ("ABORTED", "DEVICE_FAILED")
        device = await devices.GetDevice(pb.GetDeviceRequest(name=DMA0))
        assert (device.state, device.driver, device.dma_domain) == (pb.Device.STATE_FAILED, "", "")
        assert not (await tables.get(domain)).devices
        assert await reason(Driver(bench, owner).open()) == ("ABORTED", "DEVICE_FAILED")
        assert await reason(breaker.inject("device-failed")) == ("FAILED_PRECONDITION", "FAULT_ACTIVE")
        assert await reason(breaker.inject("device-removed")) == ("FAILED_PRECONDITION", "DEVICE_FAILED")
        await breaker.clear(fault)
        async with Driver(bench, owner) as driver:
            assert driver.opened.device.state == pb.Device.STATE_DRIVEN


async def test_a_device_that_is_pulled_out(bench: Any, breaker: Breaker) -> None:
    """It is not there any more; what comes into its place has another generation, and no domain."""
    devices = devices_pb2_grpc.DevicesStub(bench.channel)
    before = await devices.GetDevice(pb.GetDeviceRequest(name=DMA1))
    async with Owner(bench) as owner:
        tables = Tables(bench, owner)
        await tables.mapped((0, bench.frames(), PAGE), device=DMA1)
        async with Driver(bench, owner, DMA1) as driver:
            fault = await breaker.inject("device-removed", DMA1)
            assert await reason(driver.read()) == ("ABORTED", "DEVICE_REMOVED")
        gone = devices.GetDevice(pb.GetDeviceRequest(name=DMA1))
        assert await reason(gone) == ("NOT_FOUND", "DEVICE_UNKNOWN")
        assert await reason(breaker.inject("dma-fault", DMA1)) == ("NOT_FOUND", "DEVICE_UNKNOWN")
        await breaker.clear(fault)
        after = await devices.GetDevice(pb.GetDeviceRequest(name=DMA1))
        assert (after.handle.id, after.handle.generation) == (before.handle.id, before.handle.generation + 1)
        assert after.dma_domain == ""
        walked = await tables.stub.TranslateDma(iommu.TranslateDmaRequest(device=DMA1))
        assert walked.outcome == iommu.DMA_OUTCOME_NO_DOMAIN
        async with Driver(bench, owner, DMA1) as driver:
            assert driver.page.head(0) == 0
