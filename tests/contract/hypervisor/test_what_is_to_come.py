"""What the contract says and no engine does yet is refused by name, never passed over."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from lamina.hypervisor.v1 import (
    devices_pb2,
    migration_pb2,
    migration_pb2_grpc,
    settings_pb2,
    snapshots_pb2,
    snapshots_pb2_grpc,
)
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def not_served(call: Any) -> dict[str, str]:
    """Returns the metadata of the error of a call that must be refused as not served yet."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    raw = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(bytes(raw)).details)
    assert (caught.value.code().name, info.reason) == ("UNIMPLEMENTED", "NOT_SERVED_YET")
    return dict(info.metadata)


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        (pb.VirtualMachine(boot=settings_pb2.Boot()), "virtual_machine.boot"),
        (pb.VirtualMachine(cpu=settings_pb2.CpuSettings(nested=True)), "virtual_machine.cpu"),
        (pb.VirtualMachine(memory=settings_pb2.MemorySettings(sharing=True)), "virtual_machine.memory"),
        (pb.VirtualMachine(io=settings_pb2.IoSettings(weight=7)), "virtual_machine.io"),
        (
            pb.VirtualMachine(
                power=settings_pb2.PowerSettings(start_with_host=True),
                devices=[
                    devices_pb2.Device(serial=devices_pb2.SerialDevice(port=0x3F8)),
                    devices_pb2.Device(nic=devices_pb2.NicDevice(model=devices_pb2.NicDevice.MODEL_VMXNET3)),
                ],
            ),
            "virtual_machine.power,virtual_machine.devices[1].nic",
        ),
        (
            pb.VirtualMachine(devices=[devices_pb2.Device(serial=devices_pb2.SerialDevice())] * 2),
            "virtual_machine.devices[1].serial",
        ),
        (
            pb.VirtualMachine(devices=[devices_pb2.Device(id="console", serial=devices_pb2.SerialDevice())]),
            "virtual_machine.devices[0].id",
        ),
    ],
)
async def test_a_vm_that_wants_more_is_refused(lab: Any, wanted: pb.VirtualMachine, fields: str) -> None:
    """Settings and devices that nothing obeys are named in the refusal, and no VM is made."""
    wanted.memory_bytes = 8 << 20
    request = pb.CreateVirtualMachineRequest(vm_id="wants-more", virtual_machine=wanted, kernel=lab.kernel)
    assert (await not_served(lab.vms.CreateVirtualMachine(request)))["fields"] == fields
    listed = await lab.vms.ListVirtualMachines(pb.ListVirtualMachinesRequest(page_size=1000))
    assert not any(vm.name.endswith("/wants-more") for vm in listed.virtual_machines)


async def test_only_kernels_are_uploaded(lab: Any) -> None:
    """A kernel may be called one, and is; a RAM disk is refused."""
    kernel = pb.UploadImageRequest(data=lab.kernel, kind=pb.Image.KIND_KERNEL)
    assert (await lab.vms.UploadImage(iter([kernel]))).kind == pb.Image.KIND_KERNEL
    disk = pb.UploadImageRequest(data=lab.kernel, kind=pb.Image.KIND_INITRD)
    assert (await not_served(lab.vms.UploadImage(iter([disk]))))["fields"] == "kind"


async def test_the_serial_port_has_a_name(lab: Any) -> None:
    """The one device that a VM has today is named as all devices will be, and may be asked for by that id."""
    port = devices_pb2.Device(id="serial0", serial=devices_pb2.SerialDevice())
    wanted = pb.VirtualMachine(memory_bytes=8 << 20, devices=[port])
    request = pb.CreateVirtualMachineRequest(vm_id="named-port", virtual_machine=wanted, kernel=lab.kernel)
    made = await lab.vms.CreateVirtualMachine(request)
    assert [(device.name, device.id) for device in made.devices] == [(f"{made.name}/devices/serial0", "serial0")]


@pytest.mark.inside  # a refused stream may end on a socket before its details come
async def test_planned_services_say_what_they_wait_for(lab: Any) -> None:
    """Calls of services that nothing serves yet name the systems: a unary one and a stream between hypervisors."""
    channel = lab.channels["hypervisor"]
    snapshots = snapshots_pb2_grpc.SnapshotsStub(channel)
    refused = await not_served(snapshots.CreateSnapshot(snapshots_pb2.CreateSnapshotRequest(parent="hosts/h1/vms/a")))
    assert refused["systems"] == "S-18"
    peer = migration_pb2_grpc.MigrationPeerStub(channel)
    stream = peer.Migrate(iter([migration_pb2.MigrateRequest(open=migration_pb2.MigrationOpen())]))
    assert (await not_served(anext(aiter(stream))))["systems"] == "S-22"
