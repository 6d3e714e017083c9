"""What the machine consists of, and what happens to it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc
from lamina.hardware.v1 import hardware_pb2
from lamina.hardware.v1 import topology_pb2 as pb
from tests.contract.hardware.device_bench import reason, variant  # noqa: F401 (variant is a fixture)
from tests.contract.hardware.nic_bench import NIC0, make_wire

pytestmark = pytest.mark.inside  # events of a machine that nobody used before

CORE = "hosts/h1/cores/1"


async def test_the_topology(bench: Any) -> None:
    """Threads are the cores and the memory node is RAM when modelled; lists are in order, and facilities say why."""
    found = await bench.hosts.GetTopology(pb.GetTopologyRequest())
    if (await bench.hosts.GetHost(hardware_pb2.GetHostRequest())).engine != "linux":
        assert [thread.number for thread in found.threads] == [0, 1]
        assert [(node.address, node.size_bytes) for node in found.nodes] == [(0, bench.bus.size)]
    numbers = [thread.number for thread in found.threads]
    assert numbers and numbers == sorted(dict.fromkeys(numbers))
    assert [node.number for node in found.nodes] == sorted(dict.fromkeys(node.number for node in found.nodes))
    assert list(found.page_sizes_bytes) == sorted(found.page_sizes_bytes)
    assert list(found.cpu_features) == sorted(found.cpu_features)
    names = [facility.name for facility in found.facilities]
    assert names == sorted(names)
    assert all(facility.detail for facility in found.facilities)


async def lose(bench: Any) -> Any:
    """Loses a core; returns what gives it back."""
    faults = faults_pb2_grpc.FaultsStub(bench.channel)
    made = await faults.InjectFault(
        faults_pb2.InjectFaultRequest(fault=faults_pb2.Fault(kind="core-lost", object=CORE))
    )

    async def back() -> None:
        await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))

    return back


async def until_current(stream: Any) -> tuple[list[pb.MachineEvent], pb.MachineEvent]:
    """Returns the events before `current`, and that."""
    told: list[pb.MachineEvent] = []
    while True:
        event = await stream.read()
        if event.WhichOneof("event") == "current":
            return told, event
        told.append(event)


async def test_watching_the_machine(bench: Any) -> None:
    """The present state comes first, then `current`, then news; who was cut off goes on where it was."""
    if not (await bench.hosts.GetHost(hardware_pb2.GetHostRequest())).core_count:
        assert await reason(lose(bench)) == ("NOT_FOUND", "CORE_UNKNOWN")
        return
    back = await lose(bench)
    stream = bench.hosts.WatchMachine(pb.WatchMachineRequest())
    told, current = await until_current(stream)
    [lost] = [event for event in told if event.WhichOneof("event") == "core"]
    assert (lost.core.core, lost.core.lost) == (1, True)
    assert current.sequence >= lost.sequence
    await back()
    news = await stream.read()
    assert (news.core.core, news.core.lost, news.sequence) == (1, False, current.sequence + 1)
    stream.cancel()
    again = bench.hosts.WatchMachine(pb.WatchMachineRequest(after_sequence=current.sequence))
    assert await again.read() == news
    assert (await again.read()).WhichOneof("event") == "current"
    again.cancel()
    late = bench.hosts.WatchMachine(pb.WatchMachineRequest())
    told, _ = await until_current(late)
    assert not [event for event in told if event.WhichOneof("event") == "core"]
    late.cancel()


async def test_devices_come_go_and_fail(bench: Any) -> None:
    """A device's state and its link are part of the present state; changes are news."""
    stream = bench.hosts.WatchMachine(pb.WatchMachineRequest())
    told, _ = await until_current(stream)
    devices = {(event.device.device, event.device.change) for event in told if event.WhichOneof("event") == "device"}
    assert ("hosts/h1/devices/nic0", pb.DeviceChange.CHANGE_ADDED) in devices
    faults = faults_pb2_grpc.FaultsStub(bench.channel)
    failed = faults_pb2.Fault(kind="device-failed", object="hosts/h1/devices/dma0")
    made = await faults.InjectFault(faults_pb2.InjectFaultRequest(fault=failed))
    await make_wire(bench, NIC0)
    await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))
    news = [(await stream.read()).device for _ in range(3)]
    assert [(change.device.rpartition("/")[2], change.change) for change in news] == [
        ("dma0", pb.DeviceChange.CHANGE_FAILED),
        ("nic0", pb.DeviceChange.CHANGE_LINK_UP),
        ("dma0", pb.DeviceChange.CHANGE_RECOVERED),
    ]
    stream.cancel()


async def test_numbers_of_another_life(bench: Any) -> None:
    """A number that was never given, or a negative one, is refused."""
    future = bench.hosts.WatchMachine(pb.WatchMachineRequest(after_sequence=1 << 40))
    assert await reason(future.read()) == ("OUT_OF_RANGE", "EVENTS_FORGOTTEN")
    negative = bench.hosts.WatchMachine(pb.WatchMachineRequest(after_sequence=-1))
    assert await reason(negative.read()) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_the_stream_ends_with_the_machine(power: Any) -> None:
    """When the machine is powered off the stream ends without an error."""
    service, bench = await power(cores=2)
    stream = bench.hosts.WatchMachine(pb.WatchMachineRequest())
    await until_current(stream)
    await service.stop()
    assert await stream.read() is grpc.aio.EOF
