"""The registers of one context, as calls read and write them: its run page, and the engine's own part of it.

The page is the truth (ADR 0012): nothing is kept here.
"""

from __future__ import annotations

import struct

from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import DIRTY_MSRS, DIRTY_SEGMENTS, RunPage

_ENGINE = run_page.ENGINE_OFFSET >> 3
_ENGINE_WORDS = 12
_SAVED_TIME = slice(run_page.TSC_OFFSET, run_page.TSC_OFFSET + 0x30)
_EXIT = slice(run_page.EXIT_OFFSET, run_page.EXIT_OFFSET + 18 * 8)
_OWN = slice(run_page.ENGINE_OFFSET, run_page.ENGINE_OFFSET + 8 * _ENGINE_WORDS)
_ANSWERS = slice(run_page.CPUID_OFFSET - 8, run_page.POSTED_OFFSET)
_CPUID = struct.Struct("<6I")
_COUNT = struct.Struct("<I")
_RANDOM = _ENGINE + 11
_FS, _GS = 0xC000_0100, 0xC000_0101

_WORDS = {
    0x174: _ENGINE,
    0x175: _ENGINE + 1,
    0x176: _ENGINE + 2,
    0xC000_0083: _ENGINE + 3,
    0x277: _ENGINE + 4,
    0xC000_0080: (run_page.CONTROL_OFFSET + 0x28) >> 3,
    0xC000_0081: (run_page.CONTROL_OFFSET + 0x30) >> 3,
    0xC000_0082: (run_page.CONTROL_OFFSET + 0x38) >> 3,
    0xC000_0084: (run_page.CONTROL_OFFSET + 0x40) >> 3,
    0xC000_0102: (run_page.CONTROL_OFFSET + 0x48) >> 3,
    0xC000_0103: (run_page.TSC_OFFSET + 0x10) >> 3,
    _FS: (run_page.SEGMENTS_OFFSET + 24 * 4) >> 3,
    _GS: (run_page.SEGMENTS_OFFSET + 24 * 5) >> 3,
}
"""Where in the page each model-specific register of a core lies, as the number of a 64-bit word."""

DEFAULT_PAT = 0x0007_0406_0007_0406
"""PAT after a reset. Source: Intel SDM vol. 3, 13.12.4."""


def seed(page: RunPage, value: int) -> None:
    """Gives a new context the state of its random number generator, and PAT as after a reset."""
    page.words[_RANDOM] = value
    page.words[_WORDS[0x277]] = DEFAULT_PAT


def read_msr(page: RunPage, number: int) -> int:
    """Returns a register that every context has."""
    return page.words[_WORDS[number]]


def write_msr(page: RunPage, number: int, value: int) -> None:
    """Writes a register that every context has, and marks it as changed."""
    page.words[_WORDS[number]] = value
    if number in (_FS, _GS):
        page.dirty |= DIRTY_SEGMENTS
    elif number == 0xC000_0080:
        page.dirty |= run_page.DIRTY_CONTROL
    else:
        page.dirty |= DIRTY_MSRS


def save(page: RunPage) -> bytes:
    """Returns all that a context is beyond its controls: registers, time, event, CPUID answers, the latest exit."""
    answers = page.cpuid()
    table = b"".join(
        _CPUID.pack(entry.leaf, entry.subleaf, entry.eax, entry.ebx, entry.ecx, entry.edx) for entry in answers
    )
    parts = (page.save(), bytes(page.view[_SAVED_TIME]), bytes(page.view[_EXIT]), bytes(page.view[_OWN]))
    return b"".join((*parts, _COUNT.pack(len(answers)), table))


def restore(page: RunPage, state: bytes) -> bool:
    """Gives a page what `save` returned and marks all of it as changed; returns whether the bytes were that."""
    lengths = [len(page.save()), *(part.stop - part.start for part in (_SAVED_TIME, _EXIT, _OWN)), _COUNT.size]
    if len(state) < sum(lengths):
        return False
    parts, at = [], 0
    for length in lengths:
        parts.append(state[at : at + length])
        at += length
    registers, time, record, own, count_bytes = parts
    count = _COUNT.unpack(count_bytes)[0]
    if count > run_page.CPUID_ENTRIES or len(state) != at + count * _CPUID.size:
        return False
    entries = [run_page.CpuidEntry(*_CPUID.unpack_from(state, at + n * _CPUID.size)) for n in range(count)]
    page.restore(registers)
    page.view[_SAVED_TIME], page.view[_EXIT], page.view[_OWN] = time, record, own
    page.view[_ANSWERS] = bytes(_ANSWERS.stop - _ANSWERS.start)
    page.set_cpuid(tuple(entries))
    return True


def scratch() -> RunPage:
    """Returns a page of its own, to try a state on."""
    return RunPage(memoryview(bytearray(run_page.PAGE_BYTES)))
