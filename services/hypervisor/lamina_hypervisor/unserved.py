"""What requests may ask for by the contract and no engine does yet: refused by name, never passed over."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.hypervisor.v1 import devices_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

from lamina_kit.errors import Unimplemented

SETTINGS = ("boot", "cpu", "memory", "power", "io")
"""Fields of a VM that must be absent."""

SERIAL_ID = "serial0"
"""Id of the one device that VMs have."""


def refuse_creation(request: pb.CreateVirtualMachineRequest) -> None:
    """Wants a VM of what is served: default settings and at most one serial port; otherwise `NOT_SERVED_YET`."""
    vm = request.virtual_machine
    asked = [field.name for field, _ in vm.ListFields() if field.name in SETTINGS]
    asked += _devices(vm.devices)
    if asked:
        raise _not_served([f"virtual_machine.{field}" for field in asked])


def refuse_kind(request: pb.UploadImageRequest) -> None:
    """Wants a kernel; otherwise `NOT_SERVED_YET`."""
    if request.kind not in (pb.Image.KIND_UNSPECIFIED, pb.Image.KIND_KERNEL):
        raise _not_served(["kind"])


def _devices(devices: Sequence[devices_pb2.Device]) -> list[str]:
    """Returns the paths of devices that are well known and not served."""
    asked, serial_ports = [], 0
    for number, device in enumerate(devices):
        kind = device.WhichOneof("device")
        serial_ports += kind == "serial"
        if kind not in (None, "serial") or serial_ports > 1:
            asked.append(f"devices[{number}].{kind}")
        elif device.id not in ("", SERIAL_ID):
            asked.append(f"devices[{number}].id")
    return asked


def _not_served(fields: list[str]) -> Unimplemented:
    return Unimplemented(
        f"The request asks for what is not served yet: {', '.join(fields)}.",
        reason="NOT_SERVED_YET",
        next_step="Leave these fields out; docs/systems.md says what stands.",
        fields=",".join(fields),
    )
