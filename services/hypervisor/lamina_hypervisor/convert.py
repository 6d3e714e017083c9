"""Between the contract and the domain; the only place that knows both."""

from __future__ import annotations

from lamina.common.v1 import access_pb2, handle_pb2
from lamina.common.v1.access_pb2 import WalkStep
from lamina.hardware.v1 import hardware_pb2, registers_pb2
from lamina.hypervisor.v1 import devices_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb

from lamina_hypervisor.domain.boot import protocol
from lamina_hypervisor.domain.exits.ledger import ExitLedger
from lamina_hypervisor.domain.exits.time_slices import Slice, SliceEnd
from lamina_hypervisor.domain.inventory import VCPU_NAME, VM_NAME, unknown_token
from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_hypervisor.domain.memory.ept import EptVisit
from lamina_hypervisor.domain.memory.translation import Access, GuestVisit, Outcome, Walk
from lamina_hypervisor.domain.vcpus.registers import Registers
from lamina_hypervisor.domain.vcpus.vcpu import Vcpu, VcpuState
from lamina_hypervisor.domain.vm import WITHOUT_POWER, Definition, State, Vm
from lamina_hypervisor.engines.interface import Machine
from lamina_hypervisor.unserved import SERIAL_ID, refuse_creation
from lamina_kit import paging
from lamina_kit.checks import Checks

MAX_KERNEL_IN_REQUEST = 4 << 20
MAX_SERIAL_INPUT = 4096
MAX_PAGES = 10_000
DEFAULT_PAGES = 1000
DEFAULT_SLICES = 100

_STATES = {
    State.STOPPED: pb.VirtualMachine.STATE_STOPPED,
    State.STARTING: pb.VirtualMachine.STATE_STARTING,
    State.RUNNING: pb.VirtualMachine.STATE_RUNNING,
    State.PAUSED: pb.VirtualMachine.STATE_PAUSED,
    State.STOPPING: pb.VirtualMachine.STATE_STOPPING,
    State.CRASHED: pb.VirtualMachine.STATE_CRASHED,
}
_VCPU_STATES = {
    VcpuState.RUNNABLE: pb.Vcpu.STATE_RUNNABLE,
    VcpuState.HALTED: pb.Vcpu.STATE_HALTED,
    VcpuState.WAITING_MEMORY: pb.Vcpu.STATE_WAITING_MEMORY,
    VcpuState.PAUSED: pb.Vcpu.STATE_PAUSED,
    VcpuState.OFF: pb.Vcpu.STATE_OFF,
}
_SLICE_ENDS = {
    SliceEnd.EXPIRED: pb.Slice.END_EXPIRED,
    SliceEnd.HALTED: pb.Slice.END_HALTED,
    SliceEnd.MEMORY: pb.Slice.END_MEMORY,
    SliceEnd.YIELDED: pb.Slice.END_YIELDED,
    SliceEnd.STOPPED: pb.Slice.END_STOPPED,
    SliceEnd.MOVED: pb.Slice.END_MOVED,
    SliceEnd.OPEN: pb.Slice.END_OPEN,
}
_OUTCOMES = {
    Outcome.TRANSLATED: pb.TranslateAddressResponse.OUTCOME_TRANSLATED,
    Outcome.PAGE_FAULT: pb.TranslateAddressResponse.OUTCOME_PAGE_FAULT,
    Outcome.EPT_VIOLATION: pb.TranslateAddressResponse.OUTCOME_EPT_VIOLATION,
    Outcome.NOT_CANONICAL: pb.TranslateAddressResponse.OUTCOME_NOT_CANONICAL,
}


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_create(request: pb.CreateVirtualMachineRequest) -> None:
    """Wants a well-formed creation; otherwise `InvalidArgument` with a violation for each wrong field.

    What is right by the contract and not served yet is `Unimplemented` `NOT_SERVED_YET`.
    """
    refuse_creation(request)
    vm = request.virtual_machine
    with Checks() as check:
        check.identifier("vm_id", request.vm_id)
        check.max_bytes("request_id", request.request_id, 127)
        check.max_bytes("kernel", request.kernel, MAX_KERNEL_IN_REQUEST)
        given = bool(request.kernel) != bool(vm.kernel_digest)
        check.that(given, "kernel", "is to be given as bytes or as virtual_machine.kernel_digest, one of the two")
        check.range("virtual_machine.vcpu_count", vm.vcpu_count or 1, 1, 16)
        check.range("virtual_machine.memory_bytes", vm.memory_bytes, 2 << 20, protocol.MAX_MEMORY)
        check.aligned("virtual_machine.memory_bytes", vm.memory_bytes, paging.PAGE_SIZE)
        check.max_bytes("virtual_machine.command_line", vm.command_line, protocol.MAX_COMMAND_LINE)
        printable = vm.command_line.isascii() and (vm.command_line.isprintable() or not vm.command_line)
        check.that(printable, "virtual_machine.command_line", "has characters that are not printable ASCII")
        check.range("virtual_machine.weight", vm.weight, 0, 10_000)
        check.max_bytes("virtual_machine.label", vm.label, 127)
        check.max_bytes("virtual_machine.memory_group", vm.memory_group, 255)
        _check_devices(check, list(vm.devices))


def _check_devices(check: Checks, devices: list[devices_pb2.Device]) -> None:
    check.that(len(devices) <= 1, "virtual_machine.devices", f"has {len(devices)} devices, more than one serial port")
    for number, device in enumerate(devices):
        field = f"virtual_machine.devices[{number}]"
        if check.that(device.WhichOneof("device") == "serial", field, "is of no kind that is known"):
            check.one_of(f"{field}.serial.port", device.serial.port, (0, protocol.SERIAL_PORT))


def definition(request: pb.CreateVirtualMachineRequest, digest: str) -> Definition:
    """Returns the definition that a checked request asks for."""
    vm = request.virtual_machine
    ports = tuple(device.serial.port or protocol.SERIAL_PORT for device in vm.devices) or (protocol.SERIAL_PORT,)
    return Definition(
        vm_id=request.vm_id,
        vcpu_count=vm.vcpu_count or 1,
        memory_bytes=vm.memory_bytes,
        kernel_digest=digest,
        command_line=vm.command_line,
        serial_ports=ports,
        memory_group=vm.memory_group,
        weight=vm.weight,
        label=vm.label,
    )


def check_page(page_size: int, limit: int) -> None:
    """Wants a page size of 0 to `limit`."""
    with Checks() as check:
        check.range("page_size", page_size, 0, limit)


def check_serial_input(data: bytes) -> None:
    """Wants 1 to 4096 bytes."""
    with Checks() as check:
        check.range("data", len(data), 1, MAX_SERIAL_INPUT)


def access(request: pb.TranslateAddressRequest) -> Access:
    """Returns the access that a translation checks."""
    return Access(
        write=request.access == access_pb2.ACCESS_WRITE,
        execute=request.access == access_pb2.ACCESS_EXECUTE,
        user=request.user,
    )


def page_start(token: str) -> Gpa:
    """Returns the address that a page token of `ListGuestPages` names."""
    if not token:
        return Gpa(0)
    if len(token) > 12 or not all(letter in "0123456789abcdef" for letter in token):
        raise unknown_token(token)
    return Gpa(int(token, 16))


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _serial_message(vm: str, port: int) -> devices_pb2.Device:
    name = f"{vm}/devices/{SERIAL_ID}"
    return devices_pb2.Device(name=name, id=SERIAL_ID, serial=devices_pb2.SerialDevice(port=port))


def vm_message(vm: Vm, machine: Machine | None) -> pb.VirtualMachine:
    """Returns a VM as the contract has it."""
    spec = vm.definition
    message = pb.VirtualMachine(
        name=vm.name,
        handle=handle_pb2.Handle(id=vm.slot, generation=vm.generation),
        vcpu_count=spec.vcpu_count,
        memory_bytes=spec.memory_bytes,
        kernel_digest=spec.kernel_digest,
        command_line=spec.command_line,
        devices=[_serial_message(vm.name, port) for port in spec.serial_ports],
        memory_group=spec.memory_group,
        weight=spec.run_weight,
        label=spec.label,
        state=_STATES[vm.state],
        create_wall_time_ns=vm.create_time_ns,
        start_wall_time_ns=vm.start_time_ns,
    )
    if vm.state in WITHOUT_POWER:
        message.stop_reason, message.stop_detail = vm.verdict.reason, vm.verdict.detail
        if vm.verdict.registers is not None:
            message.crash_registers.CopyFrom(registers_message(vm.verdict.registers))
    elif machine is not None and machine.space is not None:
        message.eptp, message.space, message.run_group = machine.eptp, machine.space.name, machine.run_group
        message.mapped_pages, message.table_frames = machine.mapped_pages, machine.table_frames
    return message


def registers_message(registers: Registers) -> registers_pb2.Registers:
    """Returns registers as the contract has them."""
    return registers_pb2.Registers(
        general=registers.general,
        flow=registers_pb2.FlowState(rip=registers.rip, rflags=registers.rflags, cpl=registers.cpl),
        control=registers_pb2.ControlRegisters(
            cr0=registers.cr0, cr2=registers.cr2, cr3=registers.cr3, cr4=registers.cr4, efer=registers.efer
        ),
        gdtr=registers_pb2.DescriptorTable(base=registers.gdt_base),
        idtr=registers_pb2.DescriptorTable(base=registers.idt_base),
    )


def vcpu_message(vm: str, vcpu: Vcpu, powered: bool) -> pb.Vcpu:
    """Returns a vCPU as the contract has it."""
    message = pb.Vcpu(
        name=_vcpu_name(vm, vcpu.number),
        number=vcpu.number,
        state=_VCPU_STATES[vcpu.state],
        registers=registers_message(vcpu.registers),
        last_core=vcpu.last_core,
        run_time_ns=vcpu.times.run,
        steal_time_ns=vcpu.times.steal,
        halt_time_ns=vcpu.times.halt,
        memory_wait_time_ns=vcpu.times.memory_wait,
        slices=vcpu.timer.count,
        exits=vcpu.exits,
        instructions=vcpu.instructions,
        interrupts=vcpu.interrupts,
    )
    if powered:
        message.context.id, message.context.generation = vcpu.context.id, vcpu.context.generation
    return message


def ledger_message(ledger: ExitLedger, serial_bytes: int) -> pb.ExitLedger:
    """Returns the exit ledger as the contract has it."""
    rows = [
        pb.ExitRow(
            vcpu=row.kind.vcpu,
            reason=hardware_pb2.ExitReason.ValueType(int(row.kind.reason)),
            qualifier=row.kind.qualifier,
            count=row.count,
            host_time_ns=row.host_time_ns,
        )
        for row in ledger.rows()
    ]
    return pb.ExitLedger(
        rows=rows,
        total_exits=ledger.total(),
        total_host_time_ns=ledger.total_host_time_ns(),
        serial_output_bytes=serial_bytes,
        instructions=ledger.instructions,
    )


def slice_message(entry: Slice) -> pb.Slice:
    """Returns a time slice as the contract has it."""
    return pb.Slice(
        vcpu=_vcpu_name(entry.vm, entry.vcpu),
        core=entry.core,
        start_time_ns=entry.start_ns,
        run_time_ns=entry.run_ns,
        wait_time_ns=entry.wait_ns,
        exits=entry.exits,
        instructions=entry.instructions,
        end=_SLICE_ENDS[entry.end],
    )


def walk_message(found: Walk, cr3: int, eptp: int) -> pb.TranslateAddressResponse:
    """Returns a translation with every entry visited."""
    return pb.TranslateAddressResponse(
        outcome=_OUTCOMES[found.outcome],
        guest_virtual_address=found.gva,
        guest_physical_address=found.gpa or 0,
        host_physical_address=found.hpa or 0,
        guest_steps=[_guest_step(visit, found.gva) for visit in found.visits],
        ept_steps=[_ept_step(visit, found.gpa or 0) for visit in found.ept_visits],
        error_code=found.error_code,
        page_size_bytes=found.page_bytes,
        cr3=cr3,
        eptp=eptp,
    )


def page_message(gpa: Gpa, entry: int) -> pb.GuestPage:
    """Returns a mapped guest page as the contract has it."""
    frame = (entry & paging.ADDR_MASK) >> paging.PAGE_SHIFT
    return pb.GuestPage(guest_physical_address=gpa, frame=frame, entry=entry, bits=paging.ept_bit_names(entry))


def _guest_step(visit: GuestVisit, gva: int) -> pb.GuestStep:
    step = pb.GuestStep(
        ept_steps=[_ept_step(entry, visit.entry_gpa) for entry in visit.ept],
        entry_guest_physical_address=visit.entry_gpa,
    )
    if visit.entry is not None and visit.address is not None:
        step.entry.CopyFrom(
            WalkStep(
                table=paging.TABLE_NAMES[visit.level],
                level=visit.level,
                index=visit.index,
                entry_address=visit.address,
                entry=visit.entry,
                bits=paging.bit_names(visit.entry, visit.level),
                input_address=gva,
            )
        )
    return step


def _ept_step(visit: EptVisit, gpa: int) -> WalkStep:
    return WalkStep(
        table=f"EPT {paging.TABLE_NAMES[visit.level]}",
        level=visit.level,
        index=visit.index,
        entry_address=visit.address,
        entry=visit.entry,
        bits=paging.ept_bit_names(visit.entry),
        input_address=gpa,
    )


def _vcpu_name(vm: str, number: int) -> str:
    return VCPU_NAME.format(**VM_NAME.parse(vm), vcpu=str(number))
