"""Where a guest's read of its local APIC puts the value; without compiled code, as it is needed where none runs."""

from __future__ import annotations

from lamina_hardware.engines.interface import ApicAccess
from lamina_kit.bus.run_page import DIRTY_GPRS, RunPage

TARGET_MSR = 16
"""As a target: the value goes to EDX:EAX; below it is the number of a general register."""
TARGET_CR8 = 32
"""As a target, with the number of a general register: it takes the priority class alone, as CR8 holds it."""


def answer(page: RunPage, access: ApicAccess, value: int) -> None:
    """Gives the guest the value of the register that it read."""
    if access.target == TARGET_MSR:
        page.rax, page.rdx = value & 0xFFFF_FFFF, value >> 32
    elif access.target & TARGET_CR8:
        page.gpr[access.target & 15] = value >> 4 & 15
    else:
        page.gpr[access.target] = value & 0xFFFF_FFFF
    page.dirty |= DIRTY_GPRS
