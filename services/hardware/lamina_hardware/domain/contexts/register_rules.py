"""Which register values the architecture refuses. Pure.

Each function returns what is wrong with a value, or an empty text.

Source: Intel SDM vol. 3, 2.5 (control registers), 2.2.1 (EFER), 19.2 (debug registers), 27.3.1 (checks on the guest's
state); vol. 4 (model-specific registers).
"""

from __future__ import annotations

from lamina_hardware.domain.contexts.exit_controls import KEPT_MSRS

CR0_KNOWN, CR4_KNOWN, EFER_KNOWN, XCR0_KNOWN = 0xE005_003F, 0x0037_07FF, 0xD01, 0x3
RFLAGS_KNOWN = 0x3F_7FD7
RFLAGS_VM, EFER_LMA = 1 << 17, 1 << 10
ATTRIBUTES_KNOWN = 0x1_F0FF
EFER, PAT = 0xC000_0080, 0x277
_ADDRESSES = (0x175, 0x176, 0xC000_0082, 0xC000_0083, 0xC000_0100, 0xC000_0101, 0xC000_0102)
_NARROW = (0x174, 0xC000_0084, 0xC000_0103)
_PE, _NW, _CD, _PG, _PAE = 1, 1 << 29, 1 << 30, 1 << 31, 1 << 5
_LME, _LMA = 1 << 8, 1 << 10
_MEMORY_TYPES = (0, 1, 4, 5, 6, 7)
_LOW = 0xFFFF_FFFF


def canonical(address: int) -> str:
    """Wants bits 63 to 47 of an address to be equal."""
    return "" if address >> 47 in (0, 0x1FFFF) else f"is {address:#x}, not canonical"


def known(value: int, bits: int) -> str:
    """Wants no bit set but `bits`."""
    return f"is {value:#x}, with reserved bits {value & ~bits:#x}" if value & ~bits else ""


def cr0(value: int) -> str:
    """Checks CR0."""
    if value & ~CR0_KNOWN:
        return known(value, CR0_KNOWN)
    if value & _PG and not value & _PE:
        return "has PG without PE"
    return "has NW without CD" if value & _NW and not value & _CD else ""


def efer(value: int, cr0_value: int, cr4_value: int) -> str:
    """Checks EFER against CR0 and CR4: long mode is active when it is enabled and paging is on, and needs PAE."""
    if value & ~EFER_KNOWN:
        return known(value, EFER_KNOWN)
    if bool(value & _LMA) != bool(value & _LME and cr0_value & _PG):
        return "has an LMA that is not LME and CR0.PG"
    return "is in long mode without CR4.PAE" if value & _LMA and not cr4_value & _PAE else ""


def msr(number: int, value: int) -> str:
    """Checks a register that the core keeps; EFER is checked by `efer`."""
    if number in _ADDRESSES:
        return canonical(value)
    if number in _NARROW:
        return f"is {value:#x}, wider than 32 bits" if value > _LOW else ""
    if number == PAT:
        types = [(value >> 8 * n) & 0xFF for n in range(8)]
        wrong = [kind for kind in types if kind not in _MEMORY_TYPES]
        return f"has the memory type {wrong[0]}" if wrong else ""
    return known(value, EFER_KNOWN) if number == EFER else ""


def is_kept(number: int) -> bool:
    """Returns whether every context has this register."""
    return number in KEPT_MSRS
