"""A vCPU's registers as people look at them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.bus.run_page import RunPage

RSP = 4
"""Index of the stack pointer in `Registers.general`."""


@dataclass(frozen=True)
class Registers:
    """A copy of the registers; `general` in the order of the numbers that instructions use: RAX, RCX, RDX, RBX, RSP."""

    general: tuple[int, ...]
    rip: int
    rflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    idt_base: int
    gdt_base: int
    cpl: int


def snapshot(page: RunPage) -> Registers:
    """Returns the registers that a run page holds."""
    return Registers(
        general=tuple(page.gpr[number] for number in range(16)),
        rip=page.rip,
        rflags=page.rflags,
        cr0=page.cr0,
        cr2=page.cr2,
        cr3=page.cr3,
        cr4=page.cr4,
        efer=page.efer,
        idt_base=page.idtr_base,
        gdt_base=page.gdtr_base,
        cpl=page.cpl,
    )
