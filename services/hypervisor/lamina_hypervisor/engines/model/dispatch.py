"""The exit dispatcher: what each VM exit means, and what happens with the vCPU then. Pure.

A handler reads the run page, answers the guest by writing registers to it, and returns what comes next together with
the qualifier under which the exit ledger counts the exit.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from lamina_hypervisor.domain.boot import protocol
from lamina_hypervisor.domain.exits import exits
from lamina_hypervisor.domain.vcpus import cpuid, msr
from lamina_hypervisor.domain.vcpus.registers import RSP, snapshot
from lamina_hypervisor.domain.vcpus.vcpu import Vcpu
from lamina_hypervisor.domain.vm import Verdict
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_kit.bus.run_page import (
    DIRTY_CONTROL,
    DIRTY_GPRS,
    DIRTY_MSRS,
    DIRTY_RIP,
    DIRTY_SEGMENTS,
    EVENT_ERROR_CODE,
    EVENT_EXCEPTION,
    EVENT_VALID,
    ExitReason,
    RunPage,
)


class Next(enum.Enum):
    """What comes after an exit."""

    RESUME = "resume"
    OUTPUT = "resume, and the serial log has grown"
    EXPIRED = "resume in a new slice"
    YIELD = "give the rest of the slice away"
    STOPPED = "look at what the vCPU was stopped for"
    HALT = "wait for an interrupt"
    OFF = "off"
    MEMORY = "get the page that the exit record names"
    WAKE = "wake the vCPU that RBX names"
    END = "the machine ends"


Handled = tuple[Next, str]

CALL_POWER_OFF, CALL_YIELD, CALL_WAKE = 0, 1, 2
NO_SUCH_CALL, NOT_PERMITTED = -1000 & (1 << 64) - 1, -1 & (1 << 64) - 1
_MASK64 = (1 << 64) - 1
_LONG_MODE = 0x500
"""LME and LMA: a guest cannot leave long mode."""
_GENERAL_PROTECTION = 13

_MSR_WORDS = {
    msr.STAR: ("star", DIRTY_MSRS),
    msr.LSTAR: ("lstar", DIRTY_MSRS),
    msr.SFMASK: ("sfmask", DIRTY_MSRS),
    msr.KERNEL_GS_BASE: ("kernel_gs_base", DIRTY_MSRS),
    msr.TSC_AUX: ("tsc_aux", DIRTY_MSRS),
    msr.FS_BASE: ("fs_base", DIRTY_SEGMENTS),
    msr.GS_BASE: ("gs_base", DIRTY_SEGMENTS),
}


class Dispatcher:
    """Handles exits of all VMs of one engine."""

    def __init__(self) -> None:
        self._handlers: dict[ExitReason, Callable[[ModelMachine, Vcpu, int], Handled]] = {
            ExitReason.IO: self._io,
            ExitReason.HLT: self._hlt,
            ExitReason.CPUID: self._cpuid,
            ExitReason.EPT_VIOLATION: self._ept_violation,
            ExitReason.BUDGET: lambda machine, vcpu, now: (Next.EXPIRED, ""),
            ExitReason.CANCELED: lambda machine, vcpu, now: (Next.STOPPED, ""),
            ExitReason.HYPERCALL: self._hypercall,
            ExitReason.MSR: self._msr,
            ExitReason.TIMESTAMP: self._timestamp,
            ExitReason.RANDOM: self._random,
            ExitReason.PAGE_FAULT: self._exception,
            ExitReason.EXCEPTION: self._exception,
            ExitReason.SHUTDOWN: self._shutdown,
        }

    def handle(self, machine: ModelMachine, vcpu: Vcpu, reason: ExitReason, detail: str, now_ns: int) -> Handled:
        """Returns what comes next and the ledger's qualifier. A reason without a handler ends the machine."""
        handler = self._handlers.get(reason)
        if handler is None:
            machine.end(Verdict("CORE_REFUSED", f"The core returned {reason.name} {detail}.".strip(), crashed=True))
            return Next.END, detail.lower()
        return handler(machine, vcpu, now_ns)

    def _io(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        words = vcpu.page.words
        port, size = words[exits.PORT], words[exits.IO_SIZE]
        out = words[exits.IO_DIRECTION] == exits.OUT
        if port == cpuid.CALL_PORT and out:
            following, name = self._call(machine, vcpu)
            return following, f"out {port:#x} {name}"
        qualifier = machine.ports.qualifier(port, write=out)
        if not out:
            self._answer_in(vcpu.page, machine.ports.read(port, size), size)
            return Next.RESUME, qualifier
        machine.ports.write(port, size, words[exits.IO_DATA])
        output = machine.serial.take_output()
        if not output:
            return Next.RESUME, qualifier
        machine.serial_log.append(output)
        return (Next.OUTPUT if machine.followers else Next.RESUME), qualifier

    @staticmethod
    def _answer_in(page: RunPage, value: int, size: int) -> None:
        """Gives what was read to the guest: to RAX, or, for an INS, to the core, which stores it in memory."""
        page.words[exits.IO_DATA] = value
        if not page.words[exits.ADDRESS]:
            page.rax = exits.merge(page.rax, value, size)
            page.dirty |= DIRTY_GPRS

    def _hlt(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        return (Next.HALT, "interrupts on") if vcpu.page.rflags & exits.IF else (Next.OFF, "interrupts off")

    def _cpuid(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        page = vcpu.page
        leaf, count = page.rax & 0xFFFF_FFFF, machine.vm.definition.vcpu_count
        page.rax, page.rbx, page.rcx, page.rdx = cpuid.answer(leaf, vcpu.number, count, machine.processor)
        page.dirty |= DIRTY_GPRS
        return Next.RESUME, f"leaf {leaf:#x}"

    def _ept_violation(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        return Next.MEMORY, exits.ACCESS_NAMES.get(vcpu.page.words[exits.ACCESS], "read")

    def _hypercall(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        return self._call(machine, vcpu)

    @staticmethod
    def _call(machine: ModelMachine, vcpu: Vcpu) -> Handled:
        """Answers a hypercall, which came by VMCALL or by its port; the qualifier is its name."""
        page = vcpu.page
        number = page.rax
        page.dirty |= DIRTY_GPRS
        if page.cpl != 0:
            page.rax = NOT_PERMITTED
            return Next.RESUME, "not permitted"
        if number == CALL_POWER_OFF:
            machine.end(Verdict("GUEST_POWER_OFF", f"vCPU {vcpu.number} asked for power off."))
            return Next.END, "power off"
        if number == CALL_YIELD:
            page.rax = 0
            return Next.YIELD, "yield"
        if number == CALL_WAKE and page.rbx < len(machine.vcpus):
            page.rax = 0
            return Next.WAKE, "wake"
        page.rax = NO_SUCH_CALL
        return Next.RESUME, "unknown"

    def _msr(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        page = vcpu.page
        number = page.rcx & 0xFFFF_FFFF
        if page.words[exits.IO_DIRECTION] == exits.OUT:
            value = (page.rdx & 0xFFFF_FFFF) << 32 | page.rax & 0xFFFF_FFFF
            allowed = _write_msr(vcpu, number, value)
            qualifier = f"write {msr.name(number)}"
        else:
            found = _read_msr(vcpu, number, machine.processor.ticks(now_ns - machine.start_ns))
            allowed = found is not None
            if found is not None:
                page.rax, page.rdx = found & 0xFFFF_FFFF, found >> 32
                page.dirty |= DIRTY_GPRS
            qualifier = f"read {msr.name(number)}"
        if not allowed:
            return _general_protection(vcpu), qualifier
        return Next.RESUME, qualifier

    def _timestamp(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        page = vcpu.page
        ticks = machine.processor.ticks(now_ns - machine.start_ns)
        page.rax, page.rdx = ticks & 0xFFFF_FFFF, ticks >> 32
        page.dirty |= DIRTY_GPRS
        return Next.RESUME, ""

    def _random(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        words = vcpu.page.words
        size = words[exits.ACCESS_SIZE] or 8
        exits.set_register(vcpu.page, words[exits.ACCESS_REGISTER] & 15, machine.rng.getrandbits(64), size)
        vcpu.page.rflags = vcpu.page.rflags & ~0x8D5 | 1
        vcpu.page.dirty |= DIRTY_GPRS | DIRTY_RIP
        return Next.RESUME, ""

    def _exception(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        vector = vcpu.page.words[exits.VECTOR]
        registers = snapshot(vcpu.page)
        detail = f"vCPU {vcpu.number} at rip {registers.rip:#x} has event {vector:#x} and no table to take it through."
        machine.end(Verdict("UNHANDLED_EXCEPTION", detail, crashed=True, registers=registers))
        return Next.END, f"vector {vector}"

    def _shutdown(self, machine: ModelMachine, vcpu: Vcpu, now_ns: int) -> Handled:
        registers = snapshot(vcpu.page)
        detail = (
            f"vCPU {vcpu.number} had an exception that it could not deliver: rip {registers.rip:#x}, "
            f"rsp {registers.general[RSP]:#x}, cr2 {registers.cr2:#x}, cr3 {registers.cr3:#x}."
        )
        machine.end(Verdict("TRIPLE_FAULT", detail, crashed=True, registers=registers))
        return Next.END, ""


def _general_protection(vcpu: Vcpu) -> Next:
    """Makes the two-byte instruction that just ended raise #GP instead: RIP goes back onto it."""
    page = vcpu.page
    page.rip = page.rip - 2 & _MASK64
    page.event = _GENERAL_PROTECTION | EVENT_EXCEPTION | EVENT_ERROR_CODE | EVENT_VALID
    page.event_error_code = 0
    page.dirty |= DIRTY_RIP
    return Next.RESUME


def _read_msr(vcpu: Vcpu, number: int, ticks: int) -> int | None:
    page = vcpu.page
    if number in _MSR_WORDS:
        return int(getattr(page, _MSR_WORDS[number][0]))
    if number == msr.EFER:
        return int(page.efer)
    return ticks if number == msr.TSC else vcpu.msrs.read(number)


def _write_msr(vcpu: Vcpu, number: int, value: int) -> bool:
    page: RunPage = vcpu.page
    if number == msr.EFER:
        if value & ~protocol.EFER:
            return False
        page.efer = value | protocol.EFER & _LONG_MODE
        page.dirty |= DIRTY_CONTROL
        return True
    if number not in _MSR_WORDS:
        return vcpu.msrs.write(number, value)
    word, group = _MSR_WORDS[number]
    setattr(page, word, value)
    page.dirty |= group
    return True
