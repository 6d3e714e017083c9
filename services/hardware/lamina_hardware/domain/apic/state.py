"""The state of a local APIC, apart from where it lives: taken, given to another one, and as bytes. Pure.

What was posted counts as requested, the timer as what is left of its count, in ticks of its own frequency. Identity,
mode, pages, frequency and the vectors whose ends are told belong to the configuration and stay that of the receiver.

    mode (u8) · errors (u8) · initial count (u32) · count left (u32) · the registers of `_REGISTERS` (u32 each)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic.local_apic import LVT_WRITABLE, TIMER_PERIODIC, LocalApic, Mode
from lamina_hardware.domain.apic.page import REGISTERS_END
from lamina_hardware.domain.apic.timer import divisor

_MODES = (Mode.XAPIC, Mode.X2APIC)
_WORD = 0xFFFF_FFFF
_BLOCK = range(0, 128, 16)

_REGISTERS: dict[int, int] = {
    at.TPR: 0xFF, at.LDR: 0xFF00_0000, at.DFR: _WORD, at.SVR: 0x1FF, at.ESR: 0xFF, at.ICR: 0xC_CFFF,
    at.ICR_HIGH: _WORD, at.TIMER_INITIAL: _WORD, at.TIMER_DIVIDE: 0xB,
    **{block + offset: _WORD for block in (at.ISR, at.TMR, at.IRR) for offset in _BLOCK},
    **LVT_WRITABLE,
}  # fmt: skip
"""Registers that are state, with the bits that they can have."""

_LDR = list(_REGISTERS).index(at.LDR)
_HEAD = struct.Struct("<BBII")
_BODY = struct.Struct(f"<{len(_REGISTERS)}I")
BYTES = _HEAD.size + _BODY.size


@dataclass(frozen=True, slots=True)
class ApicState:
    """`registers` are in the order of `_REGISTERS`; `left` is in ticks, at most `initial`, 0 when the timer rests."""

    mode: Mode
    errors: int
    initial: int
    left: int
    registers: tuple[int, ...]


def take(apic: LocalApic, now: int, due: bool) -> ApicState:
    """Returns the state of an APIC, which stays as it is; `due`: its timer's deadline has passed untold."""
    page, posted = apic.page, apic.posted.vectors()
    found = {register: page.get(register) & mask for register, mask in _REGISTERS.items()}
    level = page.vectors(at.TMR) & ~posted | posted & apic.end_exits
    for block, bits in ((at.IRR, page.vectors(at.IRR) | posted), (at.TMR, level)):
        for offset in _BLOCK:
            found[block + offset] = bits >> 2 * offset & _WORD
    if apic.mode is Mode.X2APIC:
        found[at.LDR] = 0  # follows from the id
    left = 1 if due else apic.timer.count(now)
    return ApicState(apic.mode, apic.esr_pending, apic.timer.initial, left, tuple(found.values()))


def give(apic: LocalApic, state: ApicState, now: int) -> None:
    """Gives an APIC of the same mode a state; its timer counts on from what was left."""
    for register in range(0, REGISTERS_END, 16):
        if register != at.VERSION:
            apic.page.put(register, 0)
    apic.posted.clear()
    for register, value in zip(_REGISTERS, state.registers, strict=True):
        apic.page.put(register, value)
    apic.put_identity()
    apic.set_task_priority(apic.page.get(at.TPR))
    apic.esr_pending = state.errors
    apic.timer.divide = divisor(apic.page.get(at.TIMER_DIVIDE))
    apic.timer.periodic = bool(apic.page.get(at.LVT_TIMER) & TIMER_PERIODIC)
    apic.timer.resume(state.initial, state.left, now)


def pack(state: ApicState) -> bytes:
    """Returns a state as bytes."""
    head = _HEAD.pack(_MODES.index(state.mode), state.errors, state.initial, state.left)
    return head + _BODY.pack(*state.registers)


def unpack(data: bytes) -> ApicState | None:
    """Returns the state in some bytes; None when no APIC has it."""
    if len(data) != BYTES:
        return None
    mode, errors, initial, left = _HEAD.unpack_from(data)
    registers = _BODY.unpack_from(data, _HEAD.size)
    if mode >= len(_MODES) or left > initial:
        return None
    if any(value & ~mask for value, mask in zip(registers, _REGISTERS.values(), strict=True)):
        return None
    if _MODES[mode] is Mode.X2APIC and registers[_LDR]:
        return None
    return ApicState(_MODES[mode], errors, initial, left, registers)
