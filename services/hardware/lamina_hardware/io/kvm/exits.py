"""What an exit of KVM means: an exit of the context with its record, or something that is done here.

An access that KVM hands over is either to a device, or to memory that is not mapped, or not for this access. What KVM
does by its emulator it hands over at different moments: a read before the instruction has changed anything, a write
when all but the store is done. So a store that the EPT refuses is kept, and made when the context runs again and the
EPT then allows it; RIP is behind the instruction then. KVM on hardware stops before the instruction.
"""

from __future__ import annotations

import errno
import functools
from dataclasses import replace

from lamina_hardware.domain.contexts.exit_controls import KEPT_MSRS, ExitControls
from lamina_hardware.domain.paging.walk import Access, Outcome, Walk
from lamina_hardware.io.kvm import abi, device_reads
from lamina_hardware.io.kvm.ept_violation import refused
from lamina_hardware.io.kvm.exit_state import ExitState
from lamina_hardware.io.kvm.missing_memory import operand_unreached, shutdown, unreached
from lamina_hardware.io.kvm.opcodes import length_of_outs, stores_first
from lamina_hardware.io.kvm.unfinished import Items, Kept
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import Activity, ExitReason, ExitRecord

_MSR_ERROR = 1
_TRIES = 4
_LOW32, _WHOLE = 0xFFFF_FFFF, (1 << 64) - 1
_RCX_WORD = (abi.RUN_REGS >> 3) + 2
_RDI, _RIP, _RFLAGS = 5, 16, 17
_HARDWARE_ORDER = (0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
"""Numbers that instructions use for general registers, in the order in which KVM has them."""

Exit = ExitRecord | None
"""What leaves the core, or None: it goes on."""


def handle(at: ExitState, error: int) -> Exit:
    """Handles the exit that `kvm_run` has; `error` is the number of KVM_RUN's error, 0 for none."""
    reason = at.vcpu.reason
    if error == errno.EFAULT and reason == abi.EXIT_MEMORY_FAULT:
        return _memory_fault(at)
    if error == errno.EFAULT and (found := unreached(at) or operand_unreached(at)) is not None:
        return found
    if error:
        return _failed(at, error, f"KVM_RUN fails with {errno.errorcode.get(error, str(error))}")
    if reason == abi.EXIT_IO:
        return _io(at)
    if reason == abi.EXIT_MMIO:
        return _mmio(at)
    if reason == abi.EXIT_HLT:
        return _halt(at)
    if reason in (abi.EXIT_RDMSR, abi.EXIT_WRMSR):
        return _msr(at, write=reason == abi.EXIT_WRMSR)
    if reason == abi.EXIT_IRQ_WINDOW:
        wanted = at.controls is not None and at.controls.interrupt_window
        return ExitRecord(reason=ExitReason.INTERRUPT_WINDOW) if wanted else None
    if reason == abi.EXIT_SHUTDOWN:
        return shutdown(at)
    if reason == abi.EXIT_INTERNAL_ERROR:
        return _internal(at)
    return _failed(at, reason, f"KVM leaves with reason {reason}")


def resume(at: ExitState) -> Exit:
    """Makes the access that the EPT refused at the last exit, or is refused again."""
    kept = at.vcpu.kept
    if kept is None:
        return None
    access = Access.READ if kept.data is None else Access.WRITE
    walk = at.vm.memory.walk(kept.gpa, access)
    if walk.outcome is not Outcome.TRANSLATED:
        return refused(walk, kept.gpa, access, 0)
    at.vcpu.kept = None
    _access(at, walk, kept.size, kept.data)
    return None


def _halt(at: ExitState) -> Exit:
    """Handles HLT. One with an interrupt that may be taken ends at once: KVM may tell of HLT first."""
    if at.waits and at.vcpu.takes_interrupts():
        return None
    if at.hlt:
        return ExitRecord(reason=ExitReason.HLT)
    at.page.activity = Activity.HALTED
    at.asleep = True
    return None


# ── ports ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _io(at: ExitState) -> Exit:
    vcpu = at.vcpu
    direction, size, port, count, place = abi.IO_BODY.unpack_from(vcpu.bytes, abi.RUN_BODY)
    if not direction:
        return _input(at, port, size, count, place)
    data = int.from_bytes(vcpu.bytes[place : place + size], "little")
    if at.controls is not None and (_posted(at, True, port, size, data) or not _port_exits(at.controls, port, size)):
        return None
    if not vcpu.out_is_behind:
        before = vcpu.rip
        vcpu.finish()
        vcpu.out_is_behind = vcpu.rip == before and not length_of_outs(at.code())
    if not vcpu.words[_RCX_WORD] and vcpu.rip != vcpu.plain_out:
        _end_outs(at)
    return _output(port, size, data)


def _end_outs(at: ExitState) -> None:
    """Has RIP behind a REP OUTS without items left: KVM's emulator leaves it on the instruction, to find that out."""
    vcpu = at.vcpu
    if length := length_of_outs(at.code()):
        registers = vcpu.registers()
        vcpu.put_registers((*registers[:_RIP], registers[_RIP] + length & _WHOLE, registers[_RFLAGS]))
    else:
        vcpu.plain_out = vcpu.rip


@functools.lru_cache(4096)
def _output(port: int, size: int, data: int) -> ExitRecord:
    """Returns the record of an OUT: a guest that prints has few of them."""
    return ExitRecord(reason=ExitReason.IO, port=port, io_size=size, io_direction=1, io_data=data, io_count=1)


def _input(at: ExitState, port: int, size: int, count: int, place: int) -> Exit:
    """Handles IN and INS: RIP goes behind an IN; an INS exits on itself and takes its answer when it runs again."""
    vcpu = at.vcpu
    vcpu.unfinished = True
    whole = slice(place, place + size * count)
    if not _port_exits(at.controls, port, size):
        vcpu.bytes[whole] = b"\xff" * (size * count)
        return None
    if vcpu.answer is not None:
        vcpu.bytes[whole] = (vcpu.answer & (1 << 8 * size) - 1).to_bytes(size, "little") * count
        vcpu.answer = None
        if count == 1:
            return None
    record = ExitRecord(reason=ExitReason.IO, port=port, io_size=size, io_count=1)
    if count > 1:
        vcpu.items = Items(place, size, count)
        return record
    before = vcpu.registers()
    vcpu.bytes[whole] = bytes(size)
    vcpu.finish()
    after = vcpu.registers()
    if after[_RDI] != before[_RDI]:  # INS: its item is stored again when the answer is there
        vcpu.put_registers(before)
        vcpu.asks = True
    else:
        vcpu.put_registers((before[0], *after[1:]))
    return record


def answer_input(at: ExitState) -> Exit:
    """Takes the holder's answer to an INS; returns the exit of the next item of those that KVM asked for at once."""
    vcpu, data = at.vcpu, at.page.load_exit().io_data
    if vcpu.asks:
        vcpu.asks, vcpu.answer = False, data
    items = vcpu.items
    if items is None:
        return None
    place = items.place + items.size * items.done
    vcpu.bytes[place : place + items.size] = (data & (1 << 8 * items.size) - 1).to_bytes(items.size, "little")
    items.done += 1
    if items.done == items.count:
        vcpu.items = None
        return None
    port = abi.IO_BODY.unpack_from(vcpu.bytes, abi.RUN_BODY)[2]
    return ExitRecord(reason=ExitReason.IO, port=port, io_size=items.size, io_count=1)


def _port_exits(controls: ExitControls | None, port: int, size: int) -> bool:
    if controls is None or controls.all_ports:
        return True
    return any(first < port + size and port < first + count for first, count in controls.ports)


def _posted(at: ExitState, is_port: bool, where: int, size: int, value: int) -> bool:
    """Counts a write to a doorbell in the run page; returns whether it is one."""
    for entry in at.controls.posted if at.controls is not None else ():
        place = entry.port if is_port else entry.gpa
        if place == where and entry.size in (0, size) and entry.value in (None, value):
            at.page.post(entry.slot, value)
            return True
    return False


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _mmio(at: ExitState) -> Exit:
    gpa, data, size, writes = abi.MMIO_BODY.unpack_from(at.vcpu.bytes, abi.RUN_BODY)
    at.vcpu.unfinished = True
    stored = data[:size] if writes else None
    if stored is not None and _posted(at, False, gpa, size, int.from_bytes(stored, "little")):
        return None
    if at.controls is not None and any(start <= gpa < start + count for start, count in at.controls.devices):
        return _device(at, gpa, size, stored)
    access = Access.WRITE if writes else Access.READ
    walk = at.vm.memory.walk(gpa, access)
    if walk.outcome is not Outcome.TRANSLATED:
        at.vcpu.kept = Kept(gpa, size, stored, at.vcpu.rip)
        return refused(walk, gpa, access, 0)
    _access(at, walk, size, stored)
    return None


def _access(at: ExitState, walk: Walk, size: int, data: bytes | None) -> None:
    """Makes an access that KVM handed over, in RAM, and maps the page for those that follow."""
    bus = at.vm.memory.bus
    with at.vm.lock:
        at.vm.memory.reach(walk)
    size = min(size, bus.size - walk.pa)
    if data is not None:
        bus.write(walk.pa, data[:size])
    else:
        place = abi.RUN_BODY + 8
        at.vcpu.bytes[place : place + size] = bus.read(walk.pa, size)


def _device(at: ExitState, gpa: int, size: int, stored: bytes | None) -> Exit:
    """Tells an access to a device. What a read fills is seen by what a mark as its answer changes."""
    vcpu = at.vcpu
    if stored is not None:
        value = int.from_bytes(stored, "little")
        vcpu.finish()
        return ExitRecord(
            reason=ExitReason.MMIO, gpa=gpa, access=run_page.ACCESS_WRITE, access_size=size, access_value=value
        )
    return _device_read(at, gpa, size)


def _device_read(at: ExitState, gpa: int, size: int) -> Exit:
    vcpu = at.vcpu
    record = ExitRecord(reason=ExitReason.MMIO, gpa=gpa, access=run_page.ACCESS_READ)
    before = vcpu.registers()
    byte = device_reads.mark(bytes(vcpu.bytes[abi.RUN_REGS : abi.RUN_REGS + 128]))
    vcpu.bytes[abi.RUN_BODY + 8 : abi.RUN_BODY + 16] = bytes([byte]) * 8
    vcpu.finish()
    after = vcpu.registers()
    changed = [n for n in range(16) if after[n] != before[n]]
    vcpu.put_registers(before)
    if after[_RFLAGS] != before[_RFLAGS] or len(changed) != 1:
        return record
    kept = before[changed[0]]
    found = device_reads.moves(size, byte, kept, after[changed[0]])
    if not device_reads.is_sure(found):
        found = device_reads.by_code(found, at.code())
    if not found:
        return record
    vcpu.put_registers((*before[:_RIP], after[_RIP], before[_RFLAGS]))
    register = _HARDWARE_ORDER[changed[0]]
    device_reads.wait(at.page, found[0], register, kept)
    return replace(record, access_size=size, access_register=register)


def _memory_fault(at: ExitState) -> Exit:
    """Handles a page that is not mapped, or not for this access; nothing of the instruction was done."""
    _, gpa, _ = abi.MEMORY_BODY.unpack_from(at.vcpu.bytes, abi.RUN_BODY)
    at.tries += 1
    memory = at.vm.memory
    code = at.code_walk()
    fetches = code.outcome in (Outcome.TRANSLATED, Outcome.EPT_VIOLATION) and code.gpa >> 12 == gpa >> 12
    stores = not fetches and stores_first(at.code())
    wanted = Access.EXECUTE if fetches else (Access.WRITE if stores else Access.READ)
    for access in (wanted, Access.WRITE):
        walk = memory.walk(gpa, access)
        if walk.outcome is not Outcome.TRANSLATED:
            if access is wanted or at.tries > 1:
                address = at.vcpu.rip if access is Access.EXECUTE else 0
                return refused(walk, gpa, access, address)
            walk = memory.walk(gpa, wanted)
            break
    if at.tries > _TRIES:
        return _failed(at, errno.EFAULT, f"KVM cannot reach the guest physical address {gpa:#x}")
    with at.vm.lock:
        memory.reach(walk)
    return None


def _internal(at: ExitState) -> Exit:
    """Handles what KVM could not emulate: what is not mapped yet, or what the EPT refuses; else it is an end."""
    suberror = abi.INTERNAL_BODY.unpack_from(at.vcpu.bytes, abi.RUN_BODY)[0]
    if (found := unreached(at)) is not None:
        return found
    walk = at.code_walk()
    if walk.outcome is Outcome.TRANSLATED and not at.tries:
        at.tries += 1
        with at.vm.lock:
            at.vm.memory.sync()
            at.vm.memory.reach(at.vm.memory.walk(walk.gpa, Access.EXECUTE))
        return None
    return _failed(at, suberror, f"KVM cannot emulate the instruction (suberror {suberror})")


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _msr(at: ExitState, *, write: bool) -> Exit:
    """Handles a model-specific register that the page does not hold: an exit, a shadow register, or #GP."""
    vcpu, controls = at.vcpu, at.controls
    _, _, number, value = abi.MSR_BODY.unpack_from(vcpu.bytes, abi.RUN_BODY)
    vcpu.unfinished = True
    if number in KEPT_MSRS:  # the vCPU has it, and KVM refuses the value
        vcpu.bytes[abi.RUN_BODY] = _MSR_ERROR
        return None
    if controls is not None:
        ranges = controls.msr_writes if write else controls.msr_reads
        if not controls.all_msrs and not any(first <= number < first + count for first, count in ranges):
            return _shadow(at, number, value, write)
    before = vcpu.registers()
    vcpu.bytes[abi.RUN_BODY] = 0
    vcpu.finish()
    vcpu.put_registers((*before[:_RIP], vcpu.rip, before[_RFLAGS]))
    return ExitRecord(reason=ExitReason.MSR, io_direction=int(write), io_data=value if write else 0)


def _shadow(at: ExitState, number: int, value: int, write: bool) -> Exit:
    """Reads or writes a shadow register; one that is not there raises #GP."""
    shadows = dict(at.given.shadows) if at.given is not None else {}
    error = _MSR_ERROR
    if number in shadows and at.given is not None:
        error = 0
        if write:
            at.given.set_shadow(number, value)
        else:
            value = shadows[number]
    abi.MSR_BODY.pack_into(at.vcpu.bytes, abi.RUN_BODY, error, 0, number, value)
    return None


def _failed(at: ExitState, number: int, what: str) -> ExitRecord:
    """Tells that KVM cannot go on with a context, with the bytes at RIP."""
    at.told = f"{what}; at RIP {at.vcpu.rip:#x} are the bytes {at.code().hex(' ') or 'of no memory'}"
    return ExitRecord(reason=ExitReason.ENTRY_FAILED, qualification=number & _LOW32)
