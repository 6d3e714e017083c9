"""A vCPU's registers as people look at them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.runpage import RunPage

GENERAL_NAMES = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""Order of `Registers.general`."""

_HARDWARE_ORDER = (0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15)


@dataclass(frozen=True)
class Registers:
    """A copy of the registers; `general` in the order of `GENERAL_NAMES`."""

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
        general=tuple(page.gpr[number] for number in _HARDWARE_ORDER),
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
