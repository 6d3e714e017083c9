"""Accesses of a guest to its local APIC: which register, which value; compiled.

In xAPIC mode the registers lie in one page of guest physical memory, whatever the second stage has there. Software
reaches them with MOV of 32 bits, and these forms are decoded; any other access exits. In x2APIC mode they are MSRs.
What an access means is not decided here: the core leaves its compiled part, `local_apic.py` does it and comes back.

Source: Intel SDM vol. 3, 11.4.1 (the page), 11.12.1 (x2APIC register space).
"""

from __future__ import annotations

from lamina_hardware.io import apic_read
from lamina_hardware.io.emulator.code.decoder import PREFIX_66, decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    APIC_MSRS,
    APIC_REGISTER,
    APIC_TARGET,
    APIC_VALUE,
    APIC_WRITE,
    ENV,
    L_APIC_PAGE,
)
from lamina_hardware.io.emulator.state.mode import linear_rip, move_rip
from lamina_hardware.io.native import Word, compiled, linked, load32, load64, put, store32, u64, word

_0, _1, _2, _3, _4, _7, _8, _15, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 7, 8, 15, 16))
_BYTE, _LOW, _OFFSET = u64(0xFF), u64(0xFFFF_FFFF), u64(4095)
_STORE, _LOAD, _STORE_IMMEDIATE, _LOAD_OFFSET, _STORE_OFFSET = (u64(n) for n in (0x89, 0x8B, 0xC7, 0xA1, 0xA3))

TARGET_MSR, TARGET_CR8 = u64(apic_read.TARGET_MSR), u64(apic_read.TARGET_CR8)


@linked(L_APIC_PAGE)
def decode_access(block: int, address: int) -> Word:
    """Decodes the instruction at RIP, which touches the APIC page at `address`.

    Returns its length with the access in the block, or 0 for one that is not a MOV of 32 bits to a register's place.
    """
    env = word(block, ENV)
    place = code_at(block, linear_rip(env))
    found = decode(block, place) if place != _0 else _0
    length, opcode = found & _BYTE, (found >> _8) & _BYTE
    modrm, rex = (found >> u64(24)) & _BYTE, (found >> u64(32)) & _BYTE
    wide = rex & _8 != _0 or (found >> u64(40)) & PREFIX_66 != _0
    if length == _0 or (found >> _16) & _BYTE != _0 or wide or address & _15 != _0:
        return _0
    target = ((modrm >> _3) & _7) | (rex & _4) << _1
    if opcode in (_LOAD_OFFSET, _STORE_OFFSET):
        target = _0
    put(block, APIC_REGISTER, address & _OFFSET)
    put(block, APIC_TARGET, target)
    if opcode in (_LOAD, _LOAD_OFFSET):
        put(block, APIC_WRITE, _0)
        put(block, APIC_VALUE, _0)
        return length
    put(block, APIC_WRITE, _1)
    if opcode in (_STORE, _STORE_OFFSET):
        put(block, APIC_VALUE, load64(env + at.REGS + target * _8) & _LOW)
        return length
    if opcode == _STORE_IMMEDIATE and target & _7 == _0:
        put(block, APIC_VALUE, load32(place + length - _4))
        return length
    return _0


@compiled("uint64(uint64, uint64)")
def is_apic_msr(block: int, writes: int) -> Word:
    """Returns whether the MSR in ECX is a register of an APIC in x2APIC mode; the access is then in the block."""
    env = word(block, ENV)
    number = load64(env + at.REGS + _8) & _LOW
    if word(block, APIC_MSRS) == _0 or number >> _8 != _8:
        return _0
    value = (load64(env + at.REGS) & _LOW) | load64(env + at.REGS + _16) << u64(32)
    put(block, APIC_REGISTER, (number & _BYTE) << _4)
    put(block, APIC_WRITE, writes)
    put(block, APIC_VALUE, value if writes != _0 else _0)
    put(block, APIC_TARGET, TARGET_MSR)
    return _1


@compiled("uint64(uint64, uint64)")
def leave_instruction(block: int, length: int) -> Word:
    """Moves RIP behind an instruction that was done here; what it shadowed is over."""
    env = word(block, ENV)
    move_rip(env, length)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_SHADOW)
    return _0
