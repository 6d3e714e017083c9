"""What a context exits for, as `Cpu.SetExitControls` says it. Pure.

The controls of VT-x, by name: exception bitmap with page-fault mask and match, instructions, port and MSR bitmaps,
guest/host masks and read shadows of CR0 and CR4, CR3 targets, windows, preemption timer, PAUSE-loop detection; and of
KVM: ranges of devices and writes that are counted instead of exited for.

Source: Intel SDM vol. 3, 25.6 (VM-execution control fields); KVM's API, KVM_IOEVENTFD.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

ALL_EXCEPTIONS = (1 << 32) - 1


class Instruction(enum.IntEnum):
    """An instruction that can be made to exit. The numbers are those of `TrappedInstruction`."""

    CPUID = 1
    SYSCALL = 2
    SYSENTER = 3
    HLT = 4
    INVLPG = 5
    PAUSE = 6
    RDTSC = 7
    RDPMC = 8
    WBINVD = 9
    MWAIT = 10
    XSETBV = 11
    DESCRIPTOR_TABLE = 12
    HYPERCALL = 13
    RDRAND = 14


@dataclass(frozen=True, slots=True)
class PostedWrite:
    """A doorbell: either a port or a guest physical address. `size` 0 and `value` None mean any."""

    slot: int
    port: int | None
    gpa: int | None
    size: int
    value: int | None


@dataclass(frozen=True, slots=True)
class ControlRegisters:
    """Masks, shadows and what else exits of CR0, CR3, CR4 and CR8."""

    cr0_mask: int = 0
    cr0_shadow: int = 0
    cr4_mask: int = 0
    cr4_shadow: int = 0
    cr3_writes: bool = False
    cr3_reads: bool = False
    cr3_targets: tuple[int, ...] = ()
    cr8_writes: bool = False
    cr8_reads: bool = False


@dataclass(frozen=True, slots=True)
class ExitControls:
    """All controls of one context. Ranges are (first, count) or (address, bytes), ascending; times in nanoseconds."""

    exceptions: int = ALL_EXCEPTIONS
    page_fault_mask: int = 0
    page_fault_match: int = 0
    instructions: tuple[Instruction, ...] = ()
    all_ports: bool = False
    ports: tuple[tuple[int, int], ...] = ()
    all_msrs: bool = False
    msr_reads: tuple[tuple[int, int], ...] = ()
    msr_writes: tuple[tuple[int, int], ...] = ()
    shadows: tuple[tuple[int, int], ...] = ()
    registers: ControlRegisters = ControlRegisters()
    debug_registers: bool = False
    external_interrupts: bool = False
    nmis: bool = False
    interrupt_window: bool = False
    nmi_window: bool = False
    preemption_timer_ns: int = 0
    pause_gap_ns: int = 0
    pause_window_ns: int = 0
    devices: tuple[tuple[int, int], ...] = ()
    posted: tuple[PostedWrite, ...] = ()

    def traps(self, instruction: Instruction) -> bool:
        """Returns whether an instruction exits."""
        return instruction in self.instructions


def missing(controls: ExitControls, capabilities: Collection[str]) -> tuple[str, str] | None:
    """Returns the first control that needs what these capabilities do not have, and that capability."""
    others = tuple(one for one in controls.instructions if one is not Instruction.HLT)
    named = f"instructions: TRAPPED_INSTRUCTION_{others[0].name}" if others else ""
    needs = (
        ("exceptions", controls.exceptions != 0, "exception-exits"),
        (named, bool(others), "instruction-exits"),
        ("control_registers", controls.registers != ControlRegisters(), "instruction-exits"),
        ("debug_registers", controls.debug_registers, "instruction-exits"),
        ("instructions: TRAPPED_INSTRUCTION_HLT left out", not controls.traps(Instruction.HLT), "halt-waits"),
        ("external_interrupts", controls.external_interrupts, "apic"),
        ("nmis", controls.nmis, "nmi-exits"),
        ("nmi_window", controls.nmi_window, "nmi-exits"),
    )
    for name, wanted, capability in needs:
        if wanted and capability not in capabilities:
            return name, capability
    return None if "exit-controls" in capabilities else ("controls", "exit-controls")


# Registers that every core keeps; all others exit of contexts without controls of their own.
KEPT_MSRS = (
    0x174, 0x175, 0x176, 0x277, 0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100,
    0xC000_0101, 0xC000_0102, 0xC000_0103,
)  # fmt: skip
_MSR_SPANS = ((0, 0x2000), (0x4000_0000, 0x1_0000), (0xC000_0000, 0x2000), (0xC001_0000, 0x2000))


def _other_msrs() -> tuple[tuple[int, int], ...]:
    """Returns the ranges in which processors have registers, without those that the core keeps."""
    found: list[tuple[int, int]] = []
    for first, count in _MSR_SPANS:
        start = first
        for kept in (*(msr for msr in KEPT_MSRS if first <= msr < first + count), first + count):
            if kept > start:
                found.append((start, kept - start))
            start = kept + 1
    return tuple(found)


_OTHER_MSRS = _other_msrs()


def implied(exceptions: int, cpuid: bool, syscall: bool) -> ExitControls:
    """Returns the controls that the creation of a context implies.

    Registers that processors do not have exit of such a context too; controls cannot say that.
    """
    wanted = [Instruction.HLT, Instruction.RDTSC, Instruction.HYPERCALL, Instruction.RDRAND]
    if cpuid:
        wanted.append(Instruction.CPUID)
    if syscall:
        wanted.append(Instruction.SYSCALL)
    return ExitControls(
        exceptions=exceptions,
        instructions=tuple(sorted(wanted)),
        all_ports=True,
        msr_reads=_OTHER_MSRS,
        msr_writes=_OTHER_MSRS,
    )
