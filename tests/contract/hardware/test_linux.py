"""The engine `linux`: facts and devices of the machine below, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import (
    devices_pb2_grpc,
    hardware_pb2,
    iommu_pb2,
    iommu_pb2_grpc,
    performance_pb2,
    performance_pb2_grpc,
    topology_pb2,
)
from tests.contract.hardware.conftest import power_on
from tests.contract.hardware.device_bench import DMA0, Driver, Owner, Tables, reason
from tests.unit.hardware.host_trees import PCI, two_sockets, write

from lamina_hardware.domain.devices.pci import PciIdentity, configuration
from lamina_hardware.io.kvm import abi
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.engines import engines_of
from lamina_kit.errors import FailedPrecondition

pytestmark = [
    pytest.mark.inside,
    pytest.mark.real_time("the engine is of the real machine"),
    pytest.mark.skipif(
        bool(engines_of("hardware")["linux"].missing()), reason="; ".join(engines_of("hardware")["linux"].missing())
    ),
]

NIC_ADDRESS = "0000:5e:00.0"
NIC = "hosts/h1/devices/pci-0000-5e-00-0"
SATA = "hosts/h1/devices/pci-0000-00-1f-2"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns the root of a machine with two sockets."""
    made = write(tmp_path / "machine", two_sockets())
    space = configuration(PciIdentity(NIC_ADDRESS, 0x8086, 0x10FB, 0x020000), 64, driven=True)
    (made / PCI / NIC_ADDRESS / "config").write_bytes(space)
    return made


@pytest.fixture
async def bench(tmp_path: Path, root: Path) -> AsyncIterator[Any]:
    """Returns that machine, running."""
    service, found = await power_on(tmp_path, "linux", host_root=str(root))
    yield found
    await service.stop()


def devices(bench: Any) -> Any:
    """Returns the stub."""
    return devices_pb2_grpc.DevicesStub(bench.channel)


async def test_the_topology_is_that_of_the_kernel(bench: Any) -> None:
    """Sockets, cores, caches, nodes with their distances, pools and reasons are those of the tree."""
    found = await bench.hosts.GetTopology(topology_pb2.GetTopologyRequest())
    assert (found.cpu_model, len(found.threads), len(found.caches)) == ("Intel(R) Xeon(R) Gold 6130", 8, 14)
    assert {thread.socket for thread in found.threads} == {0, 1}
    assert [list(node.distances) for node in found.nodes] == [[10, 21], [21, 10]]
    assert [(node.memory_blocks, node.online_memory_blocks) for node in found.nodes] == [(4, 4), (4, 3)]
    assert found.memory_block_bytes == 2 << 30
    assert sum(pool.pages for pool in found.huge_page_pools if pool.page_bytes == 2 << 20) == 1024
    [kvm] = [facility for facility in found.facilities if facility.name == "kvm"]
    assert (kvm.usable, kvm.detail) == (True, "/dev/kvm, by kvm_intel")


@pytest.mark.skipif(bool(abi.missing()), reason="; ".join(abi.missing()))
async def test_processors_of_the_host_have_its_name(tmp_path: Path, root: Path) -> None:
    """Over the engine `kvm` the cores have the name of the host's processor, in a machine that is Lamina's."""
    service, found = await power_on(tmp_path, "kvm", host_root=str(root), cores=2)
    told = await found.hosts.GetTopology(topology_pb2.GetTopologyRequest())
    await service.stop()
    assert (told.cpu_model, len(told.threads)) == ("Intel(R) Xeon(R) Gold 6130", 2)
    [kvm] = [facility for facility in told.facilities if facility.name == "kvm"]
    assert kvm.usable and abi.DEVICE in kvm.detail


async def test_facts_are_read_anew(bench: Any, root: Path) -> None:
    """What changed in the machine shows in the next answer: a processor that was switched off."""
    (root / "sys/devices/system/cpu/online").write_text("0-6\n")
    found = await bench.hosts.GetTopology(topology_pb2.GetTopologyRequest())
    assert ([thread.number for thread in found.threads], list(found.offline_threads)) == (list(range(7)), [7])


async def test_devices_of_the_kernel_are_shown(bench: Any) -> None:
    """They have their address, group and driver; Lamina's own lie in a segment and groups that the kernel has not."""
    listed = (await devices(bench).ListDevices(pb.ListDevicesRequest())).devices
    kernels = [device for device in listed if device.kind == pb.Device.KIND_OTHER]
    assert [(d.name, d.iommu_group, d.driver, d.state) for d in kernels] == [
        (SATA, 7, "(linux)", pb.Device.STATE_IDLE),
        (NIC, 12, "(linux/ixgbe)", pb.Device.STATE_DRIVEN),
        ("hosts/h1/devices/pci-0000-5e-00-1", 12, "(linux/vfio-pci)", pb.Device.STATE_DRIVEN),
    ]
    assert (kernels[1].pci_address, kernels[1].vector_count) == (NIC_ADDRESS, 64)
    own = [device for device in listed if device.kind != pb.Device.KIND_OTHER]
    assert own and not {device.iommu_group for device in own} & {device.iommu_group for device in kernels}
    assert {device.pci_address[:5] for device in own} == {"ffff:"}


async def test_configuration_spaces_are_the_kernels(bench: Any, root: Path) -> None:
    """They are read when they are asked for; too few bytes, or none any more, are told apart."""
    read = devices(bench).ReadConfiguration
    data = (await read(pb.ReadConfigurationRequest(name=NIC))).data
    assert (len(data), data[:4]) == (256, bytes.fromhex("8680fb10"))
    (root / PCI / NIC_ADDRESS / "config").write_bytes(data[:64])
    assert await reason(read(pb.ReadConfigurationRequest(name=NIC))) == (
        "PERMISSION_DENIED",
        "CONFIGURATION_NEEDS_PRIVILEGE",
    )
    (root / PCI / NIC_ADDRESS / "config").unlink()
    assert await reason(read(pb.ReadConfigurationRequest(name=NIC))) == ("ABORTED", "DEVICE_REMOVED")


@pytest.mark.parametrize("name", [NIC, SATA])
async def test_devices_of_the_kernel_stay_the_kernels(bench: Any, name: str) -> None:
    """Nobody drives, resets, attaches or breaks them, whatever the session is called."""
    iommu = iommu_pb2_grpc.IommuStub(bench.channel)
    faults = faults_pb2_grpc.FaultsStub(bench.channel)
    async with Owner(bench) as owner:
        domain = await Tables(bench, owner).create()
        driver = Driver(bench, owner, name)
        assert await reason(driver.open()) == ("ALREADY_EXISTS", "DEVICE_DRIVEN")
        call = devices(bench).ResetDevice(pb.ResetDeviceRequest(name=name), metadata=owner.metadata)
        assert await reason(call) == ("FAILED_PRECONDITION", "DEVICE_DRIVEN")
        request = iommu_pb2.AttachDeviceRequest(handle=domain.handle, device=name)
        assert await reason(iommu.AttachDevice(request, metadata=owner.metadata)) == (
            "FAILED_PRECONDITION",
            "DEVICE_DRIVEN",
        )
    for kind in ("device-failed", "device-removed", "dma-fault"):
        inject = faults.InjectFault(faults_pb2.InjectFaultRequest(fault=faults_pb2.Fault(kind=kind, object=name)))
        assert await reason(inject) == ("UNIMPLEMENTED", "DEVICE_NOT_MODELLED")
    assert (await devices(bench).GetDevice(pb.GetDeviceRequest(name=name))).kind == pb.Device.KIND_OTHER


async def test_devices_of_lamina_work_beside_them(bench: Any) -> None:
    """A modelled device is driven and does DMA as on the model engine."""
    async with Owner(bench) as owner, Driver(bench, owner, DMA0) as driver:
        assert driver.opened.device.state == pb.Device.STATE_DRIVEN


async def test_contexts_run_on_the_processor(bench: Any) -> None:
    """Where KVM is, cores are the host's processors; a guest runs to its HLT."""
    if abi.missing():
        pytest.skip("; ".join(abi.missing()))
    host = await bench.hosts.GetHost(hardware_pb2.GetHostRequest())
    assert (host.engine, host.core_path) == ("linux", "kvm")
    assert host.core_count == len((await bench.cpu.ListCores(hardware_pb2.ListCoresRequest())).cores) == 4
    guest = await bench.guest("hlt", intercepts=hardware_pb2.Intercepts(exceptions=0, cpuid=False, syscall=False))
    assert (await guest.run()).reason == ExitReason.HLT


async def test_a_machine_without_kvm_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it has no cores, and why; contexts are refused; groups and RAM are there."""
    monkeypatch.setattr(abi, "missing", lambda: ["KVM is switched off."])
    service, bench = await power_on(tmp_path, "linux")
    host = await bench.hosts.GetHost(hardware_pb2.GetHostRequest())
    assert (host.engine, host.core_count, host.core_path) == ("linux", 0, "none")
    assert "KVM is switched off" in host.core_path_reason
    assert not (await bench.cpu.ListCores(hardware_pb2.ListCoresRequest())).cores
    assert await reason(bench.create()) == ("UNIMPLEMENTED", "CORES_ABSENT")
    counters = performance_pb2_grpc.PerformanceStub(bench.channel)
    assert not (await counters.GetPerformance(performance_pb2.GetPerformanceRequest())).instructions
    call = counters.ListTlbEntries(performance_pb2.ListTlbEntriesRequest(core=0))
    assert await reason(call) == ("OUT_OF_RANGE", "CORE_UNKNOWN")
    await bench.cpu.Shootdown(hardware_pb2.ShootdownRequest(root=4096))
    [cores] = [one for one in bench.environment.layer.metrics.families() if one.name == "lamina_hardware_cores"]
    assert not any(sample.value for sample in cores.samples)
    await bench.cpu.CreateRunGroup(hardware_pb2.CreateRunGroupRequest(run_group_id="b"))
    await bench.memory.WriteMemory(hardware_pb2.WriteMemoryRequest(address=4096, data=b"ram"))
    assert bench.bus.read(4096, 3) == b"ram"
    await service.stop()


async def test_a_clock_that_somebody_moves_is_refused(tmp_path: Path, manual_clock: Any) -> None:
    """The engine does not start on it, and says why."""
    with pytest.raises(FailedPrecondition) as refused:
        await power_on(tmp_path, "linux", manual_clock)
    assert refused.value.reason == "ENGINE_NEEDS_REAL_TIME"
