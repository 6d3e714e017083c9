"""How a portable core gets into a mode other than 64-bit at ring 0 or 3: by running code that goes there; compiled.

The emulator's public interface has no bases, limits and sizes of segments. So the core runs a few instructions of its
own, in a page far above RAM: they load the data segments from a descriptor table made of the context's, and IRETQ goes
to its code and stack segments. The first fetch behind it finds no page, and the emulator stops with the segments that
are wanted. Then the other registers are written through the interface. CR0.PG is withheld outside IA-32e mode: the
emulator would go there by it, and translates nothing by itself anyway.

Source: Intel SDM vol. 3, 3.4.5 (segment descriptors); vol. 2, IRET.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ENGINE,
    ENV,
    F_START,
    STOP,
    STOP_BUDGET,
    STUB_PAGE,
    STUB_RUNS,
)
from lamina_hardware.io.emulator.tlb.fill import flush_tlb
from lamina_hardware.io.native import Word, call5, compiled, load32, load64, put, store16, store64, u64, word

_0, _1, _2, _3, _5, _8, _12, _16 = (u64(n) for n in (0, 1, 2, 3, 5, 8, 12, 16))
_FLAGS, _LIMIT = u64(20), u64(16)
_PRESENT = u64(0x80)
_CODE, _DATA = u64(0x99), u64(0x93)
_SIZES = u64(0xC000)  # G, D/B
_KEPT_OF_CODE, _KEPT_OF_STACK = u64(0xC006), u64(0xC004)

STUB = u64(1 << 46)
"""Virtual and physical address of the page."""
SELECTORS, FRAME, TABLE, BYTES = u64(0x300), u64(0x400), u64(0x1000), u64(0x1_1000)
"""Offsets in the page: selectors of ES, DS, FS, GS; what IRETQ takes; a descriptor table of 64 KiB; its end."""
CODE_BYTES = bytes.fromhex("8e05fa0200008e1df60200008e25f20200008e2dee02000048cf")
"""mov es, [rip + …]; mov ds, …; mov fs, …; mov gs, …; iretq: the selectors stand at `SELECTORS`, 2 bytes each."""
SLOTS = u64(0xFFC0)
"""Selector of segment 0 (ES) in the table; the others follow."""


@compiled("uint64(uint64, uint64, uint64)")
def _descriptor(base: int, limit: int, attributes: int) -> Word:
    """Returns a descriptor; a limit that 20 bits do not hold is given in pages."""
    attributes &= ~u64(0x8000)
    if limit > u64(0xF_FFFF):
        limit >>= _12
        attributes |= u64(0x8000)
    low = limit & u64(0xFFFF) | (base & u64(0xFF_FFFF)) << _16 | (attributes & u64(0xFF)) << u64(40)
    high = (limit >> _16) & u64(15) | (attributes >> _8) & u64(0xF0)
    return low | high << u64(48) | ((base >> u64(24)) & u64(0xFF)) << u64(56)


@compiled("uint64(uint64, uint64, uint64)")
def _segment(env: int, number: int, cpl: int) -> Word:
    """Returns the descriptor of a segment as the stub can load it; 0 for one that is not usable."""
    place = env + at.SEGMENTS + number * at.SEGMENT_STRIDE
    attributes = (load32(place + _FLAGS) >> _8) & u64(0xF0FF)
    if number == _1:
        attributes = attributes & _KEPT_OF_CODE | _CODE | cpl << _5
    elif number == _2:
        attributes = attributes & _KEPT_OF_STACK | _DATA | cpl << _5
    elif attributes & _PRESENT == _0:
        return _0
    else:
        attributes = attributes & (_SIZES | u64(0x0E)) | _DATA | u64(0x60)
    return _descriptor(load64(place + _8), load32(place + _LIMIT), attributes)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _offer(env: int, page: int, number: int, cpl: int) -> Word:
    """Puts a segment's descriptor into the table, and its selector where the code takes it from.

    The selectors of FS and GS cannot be written through the interface afterwards, so their descriptors stand where the
    context's own selectors say; those that name the LDT are seen as others.
    """
    own = load32(env + at.SEGMENTS + number * at.SEGMENT_STRIDE) & u64(0xFFFF)
    selector = SLOTS + number * _8
    if number >= u64(4) and own & u64(0xFFFC) != _0 and own & u64(4) == _0 and own < SLOTS:
        selector = own
    descriptor = _segment(env, number, cpl)
    store64(page + TABLE + (selector & u64(0xFFF8)), descriptor)
    if number not in (_1, _2):
        order = _0 if number == _0 else number - _2  # ES DS FS GS
        store16(page + SELECTORS + order * _2, selector if descriptor != _0 else _0)
    return _0


@compiled("uint64(uint64)")
def enter_mode(block: int) -> Word:
    """Makes the emulator, which is at ring 0 in 64-bit mode, take the segments and the level of the register file."""
    env, page = word(block, ENV), word(block, STUB_PAGE)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    number = _0
    while number < u64(6):
        _offer(env, page, number, cpl)
        number += _1
    store64(page + FRAME, _0)
    store64(page + FRAME + _8, SLOTS + _8 | cpl)
    store64(page + FRAME + _16, _2)
    store64(page + FRAME + u64(24), _0)
    store64(page + FRAME + u64(32), SLOTS + _16 | cpl)
    stop = word(block, STOP)
    put(block, STOP, STOP_BUDGET)  # the callbacks look away
    put(block, STUB_RUNS, _1)
    flush_tlb(block)
    call5(word(block, F_START), word(block, ENGINE), STUB, _0, _0, _0)
    flush_tlb(block)
    put(block, STUB_RUNS, _0)
    put(block, STOP, stop)
    return _0
