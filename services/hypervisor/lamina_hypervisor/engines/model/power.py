"""Power on and power off: what a VM is made of in the layers below, and how it is given back. Pure.

    tables (EPT)  ──▶  space (guest RAM)  ──▶  hold  ──▶  kernel and boot tables  ──▶  run group  ──▶  contexts

Power off goes the other way: no core may use the EPT when its frames are freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lamina_hypervisor.domain.boot import protocol
from lamina_hypervisor.domain.boot.elf import Kernel
from lamina_hypervisor.domain.exits.time_slices import SliceLedger, SliceTimer
from lamina_hypervisor.domain.memory.addresses import Frame, Gpa, Hpa
from lamina_hypervisor.domain.memory.ept import Ept
from lamina_hypervisor.domain.vcpus import cpuid
from lamina_hypervisor.domain.vcpus.processor import Processor
from lamina_hypervisor.domain.vcpus.vcpu import Context, Vcpu
from lamina_hypervisor.domain.vm import Vm
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.model.machine import Host, ModelMachine, table_owner
from lamina_hypervisor.engines.model.memory import receive
from lamina_kit.bus.run_page import DIRTY_ALL, RunPage, Segment
from lamina_kit.effects import Effect, Step
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng

FIRST_TABLES = 8
"""Table frames that a VM starts with: the root and enough for its first gigabyte's upper levels."""

WRITE_BYTES = 1 << 20
"""Bytes written to guest RAM at once."""

_FLAT = 0xFFFF_FFFF


def build(host: Host, slices: SliceLedger, rng: Rng, vm: Vm, kernel: Kernel, now_ns: int) -> Step[ModelMachine]:
    """Makes everything that a VM needs; on an error, what was made is given back and the error goes on."""
    definition = vm.definition
    owner = table_owner(vm, now_ns)
    processor: Processor = yield effects.LookAtProcessor()
    frames: list[Frame] = yield effects.AllocateTables(owner, definition.memory_group, FIRST_TABLES)
    ept = Ept(host, frames[0])
    ept.add_tables(frames[1:])
    machine = ModelMachine(vm, host, processor, ept, rng, now_ns)
    try:
        yield from _make_ram(machine, kernel)
        yield from _make_vcpus(machine, slices, kernel)
    except GeneratorExit:
        raise
    except BaseException:
        yield from release(machine)
        raise
    return machine


def release(machine: ModelMachine) -> Step[list[LaminaError]]:
    """Gives back whatever the machine has; returns the errors of layers that have lost it already."""
    errors: list[LaminaError] = []
    for vcpu in machine.vcpus:
        vcpu.retire()
    for effect in list(_parts(machine)):
        try:
            yield effect
        except LaminaError as error:
            errors.append(error)
    machine.space, machine.run_group, machine.holding = None, "", False
    return errors


def _parts(machine: ModelMachine) -> Iterator[Effect]:
    """Yields what gives each part back, in the order in which that is safe."""
    for vcpu in machine.vcpus:
        yield effects.DeleteContext(vcpu.context)
    if machine.holding:
        yield effects.CloseHold(machine.name)
    if machine.space is not None:
        yield effects.DeleteSpace(machine.space)
    yield effects.FreeTables(machine.owner, tuple(machine.ept.all_table_frames()))
    if machine.run_group:
        yield effects.DeleteRunGroup(machine.run_group)


def _make_ram(machine: ModelMachine, kernel: Kernel) -> Step[None]:
    definition = machine.vm.definition
    label = f"vm {definition.vm_id} ram"
    machine.space = yield effects.CreateSpace(definition.memory_bytes, definition.memory_group, label)
    assert machine.space is not None
    yield effects.OpenHold(machine.name, machine.space, Hpa(machine.eptp), partial(receive, machine))
    machine.holding = True
    size, count, hz = definition.memory_bytes, definition.vcpu_count, machine.processor.tsc_hz
    for piece in protocol.pieces(kernel, size, count, definition.command_line, hz):
        for at in range(0, len(piece.data), WRITE_BYTES):
            yield effects.WriteRam(machine.space, Gpa(piece.gpa + at), piece.data[at : at + WRITE_BYTES])


def _make_vcpus(machine: ModelMachine, slices: SliceLedger, kernel: Kernel) -> Step[None]:
    definition, processor = machine.vm.definition, machine.processor
    machine.run_group = yield effects.CreateRunGroup(definition.vm_id, definition.run_weight)
    for number in range(definition.vcpu_count):
        label = f"vm {definition.vm_id} vcpu {number}"
        context: Context = yield effects.CreateContext(
            machine.run_group, machine.name, Hpa(machine.eptp), label, processor.traps
        )
        page = RunPage(machine.host.run_page(context.run_page))
        page.set_cpuid(cpuid.table(number, definition.vcpu_count, processor))
        set_start(page, protocol.registers(kernel, number), number)
        machine.vcpus.append(Vcpu(number, context, page, SliceTimer(slices, machine.name, number)))


def set_start(page: RunPage, start: protocol.BootRegisters, number: int) -> None:
    """Writes the registers of the boot protocol into a run page."""
    for register in range(16):
        page.gpr[register] = 0
    page.rip, page.rsp, page.rdi, page.rsi = start.rip, start.rsp, start.rdi, start.rsi
    page.rflags, page.cpl = protocol.RFLAGS, 0
    page.cr0, page.cr2, page.cr3, page.cr4, page.cr8 = protocol.CR0, 0, protocol.PML4, protocol.CR4, 0
    page.efer = protocol.EFER
    page.star = page.lstar = page.sfmask = page.kernel_gs_base = 0
    page.gdtr_base, page.gdtr_limit, page.idtr_base, page.idtr_limit = protocol.GDT, 23, 0, 0
    page.set_segment("cs", Segment(protocol.CODE_SELECTOR, 0, _FLAT, protocol.CODE_ATTRIBUTES))
    for name in ("ss", "ds", "es", "fs", "gs"):
        page.set_segment(name, Segment(protocol.DATA_SELECTOR, 0, _FLAT, protocol.DATA_ATTRIBUTES))
    page.set_segment("ldtr", Segment(0, 0, 0, protocol.UNUSABLE))
    page.set_segment("tr", Segment(0, 0, 0xFFFF, protocol.BUSY_TSS))
    page.fxsave[:] = bytes(len(page.fxsave))
    page.fxsave[0:2] = (0x037F).to_bytes(2, "little")
    page.fxsave[24:32] = (0x0000_FFFF_0000_1F80).to_bytes(8, "little")
    page.tsc_answered, page.tsc_aux, page.event, page.event_error_code = 0, number, 0, 0
    page.dirty = DIRTY_ALL
