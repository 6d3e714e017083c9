"""What of a guest KVM could not reach when it ended without a way on: a triple fault, a failed emulation, EFAULT.

Where KVM walks by software, it takes what it cannot reach of a guest's own tables (page tables, IDT, GDT, TSS, the
stack of a handler) for a fault of the guest, and shuts down when it finds no way to deliver that. Code that is not
there it cannot emulate, or run. Nothing of the instruction was done in any of these, so the exit is the EPT violation
that a processor would have had, and the instruction is made again once the page is there.

Source: Intel SDM vol. 3, 7.8 (64-bit IDT and TSS), 7.14.2 (stack of an interrupt handler).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from lamina_hardware.domain.paging.walk import Access, Outcome, Walk
from lamina_hardware.io.kvm import abi
from lamina_hardware.io.kvm.ept_violation import KIND, REFUSED, refused
from lamina_hardware.io.kvm.exit_state import CODE_BYTES, ExitState
from lamina_hardware.io.kvm.opcodes import stores_first
from lamina_hardware.io.kvm.operands import addresses
from lamina_kit.bus.run_page import ExitReason, ExitRecord
from lamina_kit.paging import PAGE_SIZE

_PAGE_FAULT = 14
_VECTOR = abi.RUN_EVENTS + 1
_SS_DPL, _TR, _GDT, _IDT = 24 * 5 + 16, 24 * 6, 192, 208
_GATE = struct.Struct("<HHB")  # offset, selector, number of the stack in the TSS
_GATE_BYTES, _FRAME_BYTES = 16, 64
_RSP_WORD = (abi.RUN_REGS >> 3) + 6
_PAGE_SHIFT = 12
_MOST_BYTES = 16
"""Bytes of an operand that are looked at."""
_WHOLE = (1 << 64) - 1


def shutdown(at: ExitState) -> ExitRecord:
    """Returns the exit of a triple fault: SHUTDOWN, or an access that the EPT refuses.

    A refusal leaves CR2 as it was: as the page has it, unless the run was stopped between the fault and its delivery.
    """
    found = unreached(at)
    if found is None:
        return ExitRecord(reason=ExitReason.SHUTDOWN)
    at.vcpu.put_cr2(at.vcpu.settled_cr2)
    return found


def unreached(at: ExitState) -> ExitRecord | None:
    """Returns the exit for the first page that is refused of what the instruction and its exception need, or None."""
    rip = at.vcpu.rip
    for place in (rip, rip + CODE_BYTES - 1 & -PAGE_SIZE):
        if place == rip or place >> _PAGE_SHIFT != rip >> _PAGE_SHIFT:
            walk = at.walk_code(place & _WHOLE)
            if walk.outcome in REFUSED:
                return refused(walk, walk.gpa, Access.EXECUTE, place) if at.is_page(walk) else _of_table(walk)
    faults = at.vcpu.bytes[_VECTOR] == _PAGE_FAULT
    if faults and (data := at.faulting_walk()) is not None and data.outcome in REFUSED:
        return _of_table(data)
    return next((_of_table(walk) for walk in _delivery(at) if walk.outcome in REFUSED), None)


def operand_unreached(at: ExitState) -> ExitRecord | None:
    """Returns the exit for an operand of the instruction that is refused, or None.

    An instruction that only stores is told as a store, any other as a read first, and then as a store.
    """
    code = at.code()
    for access in (Access.WRITE,) if stores_first(code) else (Access.READ, Access.WRITE):
        for address in addresses(code, at.operand_registers()):
            for place in (address, address + _MOST_BYTES - 1 & _WHOLE & -PAGE_SIZE):
                walk = at.walk_data(place, access) if place >= address else None
                if walk is not None and walk.outcome in REFUSED:
                    return refused(walk, walk.gpa, access, place) if at.is_page(walk) else _of_table(walk)
    return None


def _of_table(walk: Walk) -> ExitRecord:
    """Returns the exit for a table, which is read and written."""
    found = refused(walk, walk.gpa, Access.WRITE, 0)
    if walk.outcome is Outcome.EPT_MISCONFIGURATION:
        return found
    return replace(found, qualification=found.qualification | KIND[Access.READ])


def _delivery(at: ExitState) -> Iterator[Walk]:
    """Yields the walks of what delivers the exception: gate, code segment, stack of the TSS, stack."""
    gate_at = at.vcpu.sregs_word(_IDT) + _GATE_BYTES * at.vcpu.bytes[_VECTOR]
    yield at.system_walk(gate_at)
    gate = at.system_read(gate_at, _GATE_BYTES)
    if gate is None:
        return
    _, selector, stack = _GATE.unpack_from(gate)
    yield at.system_walk(at.vcpu.sregs_word(_GDT) + (selector & ~7))
    task, rsp = at.vcpu.sregs_word(_TR), at.vcpu.words[_RSP_WORD]
    place = task + 0x1C + 8 * (stack & 7) if stack & 7 else task + 4
    if stack & 7 or at.vcpu.sregs_byte(_SS_DPL) == 3:
        yield at.system_walk(place)
        found = at.system_read(place, 8)
        if found is None:
            return
        rsp = int.from_bytes(found, "little")
    yield at.system_walk((rsp & ~15) - 1 & _WHOLE)
    yield at.system_walk((rsp & ~15) - _FRAME_BYTES & _WHOLE)
