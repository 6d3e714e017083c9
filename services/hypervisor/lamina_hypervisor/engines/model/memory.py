"""Guest memory on demand: EPT violations become wants; grants and revocations edit the EPT. Pure.

vCPU: violation at gpa ──▶ Want ──────────────▶ MMU
                                                 │ finds or makes the page (zero, swap, copy)
vCPU: runs again ◀── EPT entry by CAS ◀── Grant ─┘

MMU: needs a frame ──▶ Revocation ──▶ EPT entry cleared by CAS ──▶ shootdown ──▶ acknowledgement with A and D
"""

from __future__ import annotations

from lamina_hypervisor.domain.exits import exits
from lamina_hypervisor.domain.exits.time_slices import SliceEnd
from lamina_hypervisor.domain.memory.addresses import Frame, Gpa, Hpa, page_of
from lamina_hypervisor.domain.memory.ept import PageBits
from lamina_hypervisor.domain.memory.hold import Age, Granted, HoldMessage, Revocation
from lamina_hypervisor.domain.vcpus.vcpu import Vcpu, VcpuState
from lamina_hypervisor.domain.vm import Verdict
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_kit.effects import Step
from lamina_kit.paging import EPT_R, EPT_W, EPT_X

TABLES_AHEAD = 4
"""Spare tables that a VM keeps, so that grants can be installed the moment they arrive."""

_NEEDS = {exits.READ: EPT_R, exits.WRITE: EPT_W, exits.EXECUTE: EPT_X}


def fault_in(machine: ModelMachine, vcpu: Vcpu, gpa: Gpa, access: int) -> Step[bool]:
    """Makes an access to `gpa` possible, or ends the machine; returns whether the memory layer was asked."""
    if not 0 <= gpa < machine.vm.definition.memory_bytes:
        machine.end(_outside(machine, vcpu, gpa, access))
        return False
    page = page_of(gpa)
    need = _NEEDS.get(access, EPT_R)
    if machine.ept.entry(page) & need:
        return False
    vcpu.stand(VcpuState.WAITING_MEMORY, SliceEnd.MEMORY)
    refusal: str = yield effects.Want(machine.name, page, access)
    if refusal:
        machine.end(Verdict(refusal, f"The memory layer refuses guest page {page:#x}: {refusal}.", crashed=True))
    yield from _settle(machine)
    vcpu.state = VcpuState.RUNNABLE
    return True


def receive(machine: ModelMachine, position: int, message: HoldMessage) -> Step[None]:
    """Handles one message of the hold stream. A leaf: nothing in here waits for a vCPU."""
    if isinstance(message, Granted):
        machine.holder.granted(position, message)
    elif isinstance(message, Revocation):
        bits = machine.holder.revoked(position, message.pages, write_only=message.write_only)
        yield from _shoot(machine, bits)
        yield effects.Acknowledge(machine.name, message.revocation, bits)
    elif isinstance(message, Age):
        bits = machine.holder.aged(position, message.pages)
        if any(page.accessed for page in bits):
            yield effects.Shootdown(Hpa(machine.eptp), ())
        yield effects.SendAges(machine.name, message.sequence, bits)
    else:
        machine.holder.passed(position)


def _shoot(machine: ModelMachine, bits: tuple[PageBits, ...]) -> Step[None]:
    if bits:
        yield effects.Shootdown(Hpa(machine.eptp), tuple(page.gpa for page in bits))


def _settle(machine: ModelMachine) -> Step[None]:
    """Gets the tables that waiting grants need, and some ahead."""
    while machine.holder.waiting or machine.ept.spare < TABLES_AHEAD:
        count = machine.holder.tables_lacking() + TABLES_AHEAD
        group = machine.vm.definition.memory_group
        frames: list[Frame] = yield effects.AllocateTables(machine.owner, group, count)
        machine.holder.settle(frames)


def _outside(machine: ModelMachine, vcpu: Vcpu, gpa: Gpa, access: int) -> Verdict:
    size = machine.vm.definition.memory_bytes
    what = exits.ACCESS_NAMES.get(access, "access")
    return Verdict(
        "GUEST_ADDRESS_OUTSIDE_RAM",
        f"vCPU {vcpu.number} wants to {what} guest physical address {gpa:#x}, where there is neither RAM "
        f"(0 to {size - 1:#x}) nor a device.",
        crashed=True,
    )
