"""CPUID and the time stamp counter, answered from the run page without an exit; compiled."""

from __future__ import annotations

from lamina_hardware.io.emulator.code.instruction_bytes import count_between
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    BLOCK_COUNT,
    BLOCK_PC,
    CONSUMED,
    CONTROLS,
    ENV,
    L_ANSWER_CPUID,
    L_ANSWER_TIMESTAMP,
    L_RETIRED,
    RUN_PAGE,
)
from lamina_hardware.io.emulator.state.mode import linear_rip
from lamina_hardware.io.native import Word, compiled, linked, load32, load64, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _3, _8 = (u64(n) for n in (0, 1, 2, 3, 8))
_32 = u64(32)
_LOW = u64(0xFFFF_FFFF)

PAGE_EXIT_DATA = u64(run_page.EXIT_OFFSET + 12 * 8)
"""Word `io_data` of the exit record: where a holder puts what an INS reads."""

PAGE_INPUT_WAITS = u64(run_page.ENGINE_OFFSET + 0x28)
"""Word of the engine's own: 1 when the INS at RIP was reported, and takes the holder's answer when it runs again."""

_PAGE_TSC = u64(run_page.TSC_OFFSET)
_PAGE_CPUID = u64(run_page.CPUID_OFFSET)
_PAGE_CPUID_COUNT = u64(run_page.CPUID_OFFSET - 8)
_RDTSC = u64(7)  # bit of the control table's first word
_CPUID_ENTRY = u64(24)
_CPUID_ENTRIES = u64(run_page.CPUID_ENTRIES)


@compiled("uint64(uint64)")
def _has_subleaves(leaf: int) -> Word:
    """Returns whether the answer to a CPUID leaf depends on ECX. Source: Intel SDM vol. 2, CPUID."""
    for known in (0x4, 0x7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1F, 0x8000_001D):
        if leaf == u64(known):
            return _1
    return _0


@linked(L_ANSWER_CPUID)
def answer_cpuid(block: int) -> Word:
    """Puts the page's answer to the leaf in EAX (and ECX) into the registers; returns 0 when it has none."""
    env = word(block, ENV)
    page = word(block, RUN_PAGE)
    leaf = load64(env + at.REGS) & _LOW
    subleaf = load64(env + at.REGS + _8) & _LOW if _has_subleaves(leaf) != _0 else _0
    count = min(load64(page + _PAGE_CPUID_COUNT), _CPUID_ENTRIES)
    i = _0
    while i < count:
        entry = page + _PAGE_CPUID + i * _CPUID_ENTRY
        if load32(entry) == leaf and load32(entry + u64(4)) == subleaf:
            store64(env + at.REGS, load32(entry + _8))
            store64(env + at.REGS + _3 * _8, load32(entry + u64(12)))
            store64(env + at.REGS + _8, load32(entry + u64(16)))
            store64(env + at.REGS + _2 * _8, load32(entry + u64(20)))
            return _1
        i += _1
    return _0


@linked(L_RETIRED)
def retired(block: int) -> Word:
    """Returns how many instructions this run has behind it when the one at RIP begins."""
    left = word(block, BLOCK_COUNT)
    if left == _0:
        return word(block, CONSUMED)
    done = count_between(block, word(block, BLOCK_PC), linear_rip(word(block, ENV)))
    return word(block, CONSUMED) - left + done


@linked(L_ANSWER_TIMESTAMP)
def answer_timestamp(block: int, with_aux: int) -> Word:
    """Puts the page's counter, advanced by the instructions of this run, into EDX:EAX; returns 0 when it exits.

    It does when the page says so, or when the context's controls do, which come before the page.
    """
    page = word(block, RUN_PAGE)
    controls = word(block, CONTROLS)
    if controls == _0 and load64(page + _PAGE_TSC + u64(24)) == _0:
        return _0
    if controls != _0 and (load64(controls) >> _RDTSC) & _1 != _0:
        return _0
    env = word(block, ENV)
    value = load64(page + _PAGE_TSC) + load64(page + _PAGE_TSC + _8) + retired(block)
    store64(env + at.REGS, value & _LOW)
    store64(env + at.REGS + _2 * _8, value >> _32)
    if with_aux != _0:
        store64(env + at.REGS + _8, load64(page + _PAGE_TSC + u64(16)) & _LOW)
    return _1
