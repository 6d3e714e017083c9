"""What every hypervisor engine must do, through its contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from lamina.hardware.v1 import hardware_pb2
from lamina.hypervisor.v1 import devices_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
STATE = pb.VirtualMachine
SPIN, CLI_HLT = b"\xeb\xfe", b"\xfa\xf4"
KernelOf = Callable[[bytes], bytes]


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, list[str]]:
    """Returns (reason, fields that are wrong) of an error."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    reason, fields = "", []
    for detail in status_pb2.Status.FromString(bytes(raw)).details:
        info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(wrong):
            fields = [violation.field for violation in wrong.field_violations]
    return reason, fields


async def refused(call: Any) -> tuple[str, str, list[str]]:
    """Returns (code, reason, wrong fields) of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    reason, fields = reason_of(caught.value)
    return caught.value.code().name, reason, fields


async def test_a_new_vm_has_its_definition_and_no_power(lab: Any) -> None:
    """Defaults are filled in; nothing of it is in the layers below."""
    name = await lab.create(command_line="quiet", label="a test", memory=8 << 20)
    vm = await lab.get(name)
    assert (vm.state, vm.stop_reason) == (STATE.STATE_STOPPED, "CREATED")
    assert (vm.vcpu_count, vm.memory_bytes, vm.weight) == (1, 8 << 20, 100)
    assert (vm.command_line, vm.label) == ("quiet", "a test")
    assert [device.serial.port for device in vm.devices] == [0x3F8]
    assert vm.kernel_digest.startswith("sha256:")
    assert (vm.eptp, vm.space, vm.run_group, vm.start_wall_time_ns) == (0, "", "", 0)
    assert vm.handle.id > 0 and vm.handle.generation > 0
    assert vm.create_wall_time_ns > 10**18


async def test_every_wrong_field_is_named_at_once(lab: Any) -> None:
    """Negative, huge, misaligned and unprintable values come back as one list of violations."""
    request = pb.CreateVirtualMachineRequest(
        vm_id="Not An Id",
        virtual_machine=pb.VirtualMachine(
            vcpu_count=17, memory_bytes=-4097, weight=-1, command_line="a\nb", label="x" * 200,
            devices=[devices_pb2.Device(serial=devices_pb2.SerialDevice(port=0x80)), devices_pb2.Device()],
        ),
    )  # fmt: skip
    code, reason, fields = await refused(lab.vms.CreateVirtualMachine(request))
    assert (code, reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert fields == [
        "vm_id",
        "kernel",
        "virtual_machine.vcpu_count",
        "virtual_machine.memory_bytes",
        "virtual_machine.memory_bytes",
        "virtual_machine.command_line",
        "virtual_machine.weight",
        "virtual_machine.label",
        "virtual_machine.devices",
        "virtual_machine.devices[0].serial.port",
        "virtual_machine.devices[1]",
    ]


async def test_creation_is_idempotent_by_request_id(lab: Any) -> None:
    """The same request made twice is one VM; a name in use is refused."""
    request = pb.CreateVirtualMachineRequest(
        vm_id="twice", virtual_machine=pb.VirtualMachine(memory_bytes=8 << 20), kernel=lab.kernel, request_id="r-1"
    )
    first = await lab.vms.CreateVirtualMachine(request)
    assert await lab.vms.CreateVirtualMachine(request) == first
    request.request_id = "r-2"
    assert (await refused(lab.vms.CreateVirtualMachine(request)))[:2] == ("ALREADY_EXISTS", "VM_EXISTS")
    request.vm_id, request.request_id = "another", "r-1"
    assert (await refused(lab.vms.CreateVirtualMachine(request)))[:2] == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


@pytest.mark.parametrize("image", [b"", b"MZ garbage", b"\x7fELF\x02\x01\x01" + bytes(80)])
async def test_an_image_that_is_no_kernel_is_refused(lab: Any, image: bytes) -> None:
    """Garbage, a foreign format and an empty upload never become a VM."""
    pieces = [pb.UploadImageRequest(data=image)]
    code, reason, _ = await refused(lab.vms.UploadImage(iter(pieces)))
    assert code == "INVALID_ARGUMENT"
    assert reason == ("KERNEL_MALFORMED" if image else "IMAGE_EMPTY")


async def test_an_upload_is_checked_against_its_digest(lab: Any) -> None:
    """The right digest is confirmed, a wrong one refused, and an unknown one is no kernel for a VM."""
    image = await lab.vms.UploadImage(iter([pb.UploadImageRequest(data=lab.kernel)]))
    again = await lab.vms.UploadImage(iter([pb.UploadImageRequest(digest=image.digest, data=lab.kernel)]))
    assert again == image
    other = "sha256:" + "0" * 64
    wrong = lab.vms.UploadImage(iter([pb.UploadImageRequest(digest=other, data=lab.kernel)]))
    assert (await refused(wrong))[:2] == ("INVALID_ARGUMENT", "DIGEST_MISMATCH")
    assert (await refused(lab.create(kernel=b"", kernel_digest=other)))[:2] == ("NOT_FOUND", "IMAGE_UNKNOWN")


async def test_a_kernel_must_fit_into_the_vm_s_memory(lab: Any, kernel_of: KernelOf) -> None:
    """A kernel that reaches beyond RAM is refused when the VM is made, not when it starts."""
    code, reason, _ = await refused(lab.create(kernel=kernel_of(bytes(2 << 20)), memory=2 << 20))
    assert (code, reason) == ("INVALID_ARGUMENT", "KERNEL_MALFORMED")


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("GetVirtualMachine", pb.GetVirtualMachineRequest),
        ("StartVirtualMachine", pb.StartVirtualMachineRequest),
        ("StopVirtualMachine", pb.StopVirtualMachineRequest),
        ("PauseVirtualMachine", pb.PauseVirtualMachineRequest),
        ("ResumeVirtualMachine", pb.ResumeVirtualMachineRequest),
        ("DeleteVirtualMachine", pb.DeleteVirtualMachineRequest),
        ("GetExitLedger", pb.GetExitLedgerRequest),
        ("ListVcpus", pb.ListVcpusRequest),
        ("ListSlices", pb.ListSlicesRequest),
        ("ListGuestPages", pb.ListGuestPagesRequest),
        ("TranslateAddress", pb.TranslateAddressRequest),
    ],
)
async def test_an_unknown_or_malformed_name_is_told_apart(lab: Any, method: str, request_type: Any) -> None:
    """Every method that names a VM answers `VM_UNKNOWN` or `NAME_MALFORMED`."""
    call = getattr(lab.vms, method)
    assert (await refused(call(request_type(name="hosts/h1/vms/nobody"))))[:2] == ("NOT_FOUND", "VM_UNKNOWN")
    assert (await refused(call(request_type(name="nonsense"))))[:2] == ("INVALID_ARGUMENT", "NAME_MALFORMED")


async def test_methods_refuse_the_wrong_state(lab: Any, kernel_of: KernelOf) -> None:
    """Without power there is nothing to pause, type to or translate; with it, nothing to start or delete."""
    name = await lab.create(kernel=kernel_of(SPIN))
    wrong = ("FAILED_PRECONDITION", "VM_STATE")
    assert (await refused(lab.vms.PauseVirtualMachine(pb.PauseVirtualMachineRequest(name=name))))[:2] == wrong
    assert (await refused(lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=b"x"))))[:2] == wrong
    assert (await refused(lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name))))[:2] == wrong
    await lab.start_vm(name)
    assert (await refused(lab.start_vm(name)))[:2] == wrong
    assert (await refused(lab.vms.ResumeVirtualMachine(pb.ResumeVirtualMachineRequest(name=name))))[:2] == wrong
    assert (await refused(lab.vms.DeleteVirtualMachine(pb.DeleteVirtualMachineRequest(name=name))))[:2] == wrong
    await lab.stop_vm(name)
    assert (await lab.stop_vm(name)).state == STATE.STATE_STOPPED
    await lab.vms.DeleteVirtualMachine(pb.DeleteVirtualMachineRequest(name=name))
    assert (await refused(lab.get(name)))[:2] == ("NOT_FOUND", "VM_UNKNOWN")


async def test_vms_are_listed_in_pages_by_name(lab: Any) -> None:
    """Every VM comes once, in order; sizes and tokens that are not ours are refused."""
    for _ in range(3):
        await lab.create(memory=8 << 20)
    names, token = [], ""
    while True:
        request = pb.ListVirtualMachinesRequest(page_size=2, page_token=token)
        listed = await lab.vms.ListVirtualMachines(request)
        names += [vm.name for vm in listed.virtual_machines]
        token = listed.next_page_token
        if not token:
            break
    assert names == sorted(set(names)) and len(names) >= 3
    for wrong in (pb.ListVirtualMachinesRequest(page_size=-1), pb.ListVirtualMachinesRequest(page_token="7")):
        assert (await refused(lab.vms.ListVirtualMachines(wrong)))[0] == "INVALID_ARGUMENT"


async def test_a_vm_starts_stops_and_starts_again(lab: Any) -> None:
    """Each power-on begins a new serial log and a new ledger; what the last one left can be read until then."""
    name, output = await lab.boot()
    running = await lab.get(name)
    assert running.state == STATE.STATE_RUNNING
    assert running.eptp and running.space and running.run_group and running.mapped_pages
    await lab.stop_vm(name)
    assert await lab.serial(name) == output
    ledger = await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))
    assert ledger.serial_output_bytes == len(output)
    vcpus = (await lab.vms.ListVcpus(pb.ListVcpusRequest(name=name))).vcpus
    assert [vcpu.state for vcpu in vcpus] == [pb.Vcpu.STATE_OFF]
    assert vcpus[0].registers.control.cr3 and not vcpus[0].HasField("context")
    await lab.start_vm(name)
    again = await lab.until(name, b"> ")
    assert again.split(b"booted")[0] == output.split(b"booted")[0]
    await lab.stop_vm(name)


async def test_the_ledger_names_what_the_guest_did(lab: Any) -> None:
    """A boot has exits for ports, memory, HLT, and what cores leave of the rest, each with a count and host time."""
    name, _ = await lab.boot()
    await lab.command(name, "ps")
    ledger = await lab.vms.GetExitLedger(pb.GetExitLedgerRequest(name=name))
    kinds = {(row.reason, row.qualifier) for row in ledger.rows}
    assert (hardware_pb2.EXIT_REASON_IO, "in 0x3fd lsr") in kinds
    traps = await lab.traps()
    assert ((hardware_pb2.EXIT_REASON_CPUID, "leaf 0x40000000") in kinds) == traps
    assert ((hardware_pb2.EXIT_REASON_TIMESTAMP, "") in kinds) == traps
    assert (hardware_pb2.EXIT_REASON_EPT_VIOLATION, "write") in kinds
    assert (hardware_pb2.EXIT_REASON_HLT, "interrupts on") in kinds
    assert all(row.count > 0 and row.vcpu == 0 for row in ledger.rows)
    takes_time = lab.clock.mode == "real"  # in virtual time handling an exit is an instant
    assert all((row.host_time_ns > 0) == takes_time for row in ledger.rows)
    assert ledger.total_host_time_ns == sum(row.host_time_ns for row in ledger.rows)
    await lab.stop_vm(name)


async def test_serial_offsets_count_from_the_power_on(lab: Any) -> None:
    """Reading resumes at any offset, and one beyond the end is refused with where the end is."""
    name, output = await lab.boot()
    pieces = [piece async for piece in lab.vms.ReadSerial(pb.ReadSerialRequest(name=name, offset=7))]
    assert pieces[0].offset == 7
    assert b"".join(piece.data for piece in pieces) == output[7:]
    call = lab.vms.ReadSerial(pb.ReadSerialRequest(name=name, offset=len(output) + 1))
    assert (await refused(call.read()))[:2] == ("OUT_OF_RANGE", "SERIAL_OFFSET")
    await lab.stop_vm(name)


async def test_serial_input_is_bounded(lab: Any, kernel_of: KernelOf) -> None:
    """Empty and huge writes are refused, and a guest that never reads fills its port."""
    name = await lab.create(kernel=kernel_of(SPIN))
    await lab.start_vm(name)
    for data in (b"", bytes(4097)):
        wrong = lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=data))
        assert (await refused(wrong))[:2] == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    request = pb.WriteSerialRequest(name=name, data=bytes(4096))
    for written in range(1, 17):
        assert (await lab.vms.WriteSerial(request)).pending_bytes == 4096 * written
    full = await refused(lab.vms.WriteSerial(request))
    assert full[:2] == ("RESOURCE_EXHAUSTED", "SERIAL_INPUT_FULL")
    await lab.stop_vm(name)


async def test_a_follower_ends_with_the_power(lab: Any, kernel_of: KernelOf) -> None:
    """A reader that follows gets the end of the stream when the VM has no power, and not before."""
    name = await lab.create(kernel=kernel_of(CLI_HLT))
    await lab.start_vm(name)
    read = [piece async for piece in lab.vms.ReadSerial(pb.ReadSerialRequest(name=name, follow=True))]
    assert read == []
    vm = await lab.get(name)
    assert (vm.state, vm.stop_reason) == (STATE.STATE_STOPPED, "HALTED")


async def test_a_vcpu_that_does_not_exist_is_refused(lab: Any) -> None:
    """A translation names the vCPU whose tables it uses."""
    name, _ = await lab.boot()
    for vcpu in (-1, 1):
        wrong = lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name, vcpu=vcpu))
        assert (await refused(wrong))[:2] == ("OUT_OF_RANGE", "VCPU_UNKNOWN")
    await lab.stop_vm(name)


async def test_guest_pages_refuse_tokens_that_are_not_theirs(lab: Any) -> None:
    """A page token is an address in hexadecimal, and the size has a limit."""
    name, _ = await lab.boot()
    wrong = lab.vms.ListGuestPages(pb.ListGuestPagesRequest(name=name, page_token="0x10"))
    assert (await refused(wrong))[:2] == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    wrong = lab.vms.ListGuestPages(pb.ListGuestPagesRequest(name=name, page_size=10_001))
    assert (await refused(wrong))[0] == "INVALID_ARGUMENT"
    await lab.stop_vm(name)


async def test_a_deadline_that_passes_leaves_the_vm_as_it_is(lab: Any) -> None:
    """A reader whose deadline passes gets that code, and the guest goes on."""
    name, output = await lab.boot()
    request = pb.ReadSerialRequest(name=name, follow=True, offset=len(output))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await lab.vms.ReadSerial(request, timeout=0.05).read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "fine" in await lab.command(name, "echo fine")
    await lab.stop_vm(name)
