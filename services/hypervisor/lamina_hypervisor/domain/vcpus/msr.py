"""Model-specific registers that a guest may use beyond those that its core holds. Pure.

A read of an unknown register, or a write to a read-only one, is #GP in the guest. Source: Intel SDM vol. 4.
"""

from __future__ import annotations

TSC, APIC_BASE, BIOS_SIGN, MTRR_CAP, MISC_ENABLE, PAT = 0x10, 0x1B, 0x8B, 0xFE, 0x1A0, 0x277
EFER, STAR, LSTAR, CSTAR, SFMASK = 0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084
FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX = 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103

_READ_ONLY = {APIC_BASE: 0, BIOS_SIGN: 0, MTRR_CAP: 0, MISC_ENABLE: 1}
_PAT_RESET = 0x0007_0406_0007_0406

CORE_HELD = (EFER, STAR, LSTAR, SFMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX)
"""Registers that live in the run page; the vCPU's registers answer them."""


class MsrFile:
    """The registers of one vCPU that no core holds."""

    def __init__(self) -> None:
        self._values = {PAT: _PAT_RESET, CSTAR: 0}

    def read(self, number: int) -> int | None:
        """Returns the value, None when the guest gets #GP."""
        return self._values.get(number, _READ_ONLY.get(number))

    def write(self, number: int, value: int) -> bool:
        """Stores a value; returns whether the guest may (otherwise it gets #GP)."""
        if number not in self._values:
            return False
        self._values[number] = value
        return True


def name(number: int) -> str:
    """Returns how the exit ledger names a register."""
    return f"{number:#x}" if number in _KNOWN else "unknown"


_KNOWN = frozenset((TSC, PAT, CSTAR, *_READ_ONLY, *CORE_HELD))
