"""The event log: what is made, changed and deleted is told there, object by object and in its order."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import devices_pb2 as devices
from lamina.hardware.v1 import devices_pb2_grpc, disks_pb2, iommu_pb2, iommu_pb2_grpc, nics_pb2, wires_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import interrupts_pb2 as interrupts
from tests.contract.hardware.device_bench import DMA0, Driver, Owner
from tests.contract.hardware.device_bench import variant_with_cores as variant  # noqa: F401 (a fixture)
from tests.contract.hardware.disk_bench import DISK, make, mask, stub
from tests.contract.hardware.nic_bench import NIC0, WIRE, nics, wire_stub

pytestmark = pytest.mark.inside  # it reads the log of the machine itself

GROUP = "hosts/h1/runGroups/g"


def told(bench: Any, name: str) -> list[str]:
    """Returns the events of an object."""
    return [entry.event for entry in bench.environment.layer.events.list(name, limit=1000)]


async def test_contexts_and_run_groups(bench: Any) -> None:
    """Both are told from their making to their end; a call that is repeated makes nothing, and tells nothing."""
    for _ in range(2):
        await bench.cpu.CreateRunGroup(pb.CreateRunGroupRequest(run_group_id="g", request_id="g"))
    context = await bench.create(run_group=GROUP)
    wish = pb.UpdateContextRequest(context=context, update_mask=mask("label"))
    await bench.cpu.UpdateContext(wish)
    await bench.apic(context, 0)
    await bench.interrupts.ConfigureApic(
        interrupts.ConfigureApicRequest(apic=interrupts.Apic(handle=context.handle, mode=interrupts.Apic.MODE_NONE))
    )
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=context.handle))
    await bench.cpu.UpdateRunGroup(pb.UpdateRunGroupRequest(run_group=pb.RunGroup(name=GROUP, weight=7)))
    await bench.cpu.DeleteRunGroup(pb.DeleteRunGroupRequest(name=GROUP))
    assert told(bench, context.name) == [
        "context.created", "context.changed", "apic.configured", "apic.removed", "context.deleted",
    ]  # fmt: skip
    assert told(bench, GROUP) == ["run_group.created", "run_group.changed", "run_group.deleted"]
    assert "core_path.chosen" in told(bench, "hosts/h1")


async def test_devices_and_their_domains(bench: Any) -> None:
    """A domain with what is attached to it, and a driver from its coming to its going."""
    iommu = iommu_pb2_grpc.IommuStub(bench.channel)
    wish = iommu_pb2.DmaDomain(kind=iommu_pb2.DmaDomain.KIND_IDENTITY)
    async with Owner(bench) as owner:
        common: dict[str, Any] = {"metadata": owner.metadata}
        domain = await iommu.CreateDmaDomain(iommu_pb2.CreateDmaDomainRequest(dma_domain=wish), **common)
        async with Driver(bench, owner) as driver:
            for _ in range(2):
                await iommu.AttachDevice(iommu_pb2.AttachDeviceRequest(handle=domain.handle, device=DMA0), **common)
            reset = devices.ResetDeviceRequest(name=DMA0)
            await devices_pb2_grpc.DevicesStub(bench.channel).ResetDevice(reset, **common)
            route = interrupts.InterruptRoute(device_vector=0)
            await bench.interrupts.SetInterruptRoutes(
                interrupts.SetInterruptRoutesRequest(device=DMA0, routes=[route]), **common
            )
            for _ in range(2):
                await iommu.DetachDevice(iommu_pb2.DetachDeviceRequest(device=DMA0), **common)
            await driver.stream.done_writing()
            while await driver.stream.read():
                pass
        await iommu.DeleteDmaDomain(iommu_pb2.DeleteDmaDomainRequest(handle=domain.handle), **common)
    assert told(bench, DMA0) == [
        "device.opened", "device.attached", "device.reset", "interrupt_routes.set", "device.detached", "device.closed",
    ]  # fmt: skip
    assert told(bench, domain.name) == ["dma_domain.created", "dma_domain.deleted"]


async def test_disks(bench: Any) -> None:
    """A disk is told when it is made, changed and deleted."""
    await make(bench)
    change = disks_pb2.UpdateDiskRequest(disk=disks_pb2.Disk(name=DISK, queue_depth=4), update_mask=mask("queue_depth"))
    await stub(bench).UpdateDisk(change)
    await stub(bench).DeleteDisk(disks_pb2.DeleteDiskRequest(name=DISK))
    assert told(bench, DISK) == ["disk.created", "disk.changed", "disk.deleted"]


async def test_wires_and_nics(bench: Any) -> None:
    """A wire with who is on it, and the link of a NIC that follows it."""
    wires = wire_stub(bench)
    await wires.CreateWire(wires_pb2.CreateWireRequest(wire_id="w"))
    for _ in range(2):
        await wires.ConnectNic(wires_pb2.ConnectNicRequest(nic=NIC0, wire=WIRE))
    change = wires_pb2.UpdateWireRequest(wire=wires_pb2.Wire(name=WIRE, cut=True), update_mask=mask("cut"))
    await wires.UpdateWire(change)
    await nics(bench).GetNic(nics_pb2.GetNicRequest(name=NIC0))
    for _ in range(2):
        await wires.DisconnectNic(wires_pb2.DisconnectNicRequest(nic=NIC0))
    await wires.DeleteWire(wires_pb2.DeleteWireRequest(name=WIRE))
    assert told(bench, WIRE) == [
        "wire.created", "nic.connected", "wire.changed", "nic.disconnected", "wire.deleted",
    ]  # fmt: skip
    assert told(bench, NIC0) == ["link.up", "link.down"]
