"""What a core does between two instructions of a context with breakpoints; compiled.

Before each instruction the core looks whether the one before hit something, and whether this one is armed. RFLAGS.RF
holds an armed instruction back once: the emulator clears it at the end of a block only, so it is cleared here, and set
again when the instruction did not come to its end and so begins anew.

Source: Intel SDM vol. 3, 18.3.1.1 (instruction breakpoints, RF), 18.3.1.2 (data and I/O breakpoints).
"""

from __future__ import annotations

import numba  # noqa: F401 (compiles when imported; `lamina_tools.warm` looks for it)

from lamina_hardware.io.emulator.code.decoder import PREFIX_F2, PREFIX_F3, decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at
from lamina_hardware.io.emulator.delivery.exceptions import raise_exception
from lamina_hardware.io.emulator.hooks.walker import callback
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.breakpoints import (
    ARMED_CODE,
    PAGE_DR6,
    PAGE_DR7,
    address,
    note_access,
    note_crossing,
)
from lamina_hardware.io.emulator.state.control_block import (
    BREAK_CROSSES,
    BREAK_FILLED,
    BREAK_HITS,
    BREAK_RESUMED,
    BREAK_SEEN,
    BREAKS,
    ENGINE,
    ENV,
    F_STOP,
    FAULT,
    FAULT_NONE,
    L_BREAKS_BEFORE,
    RUN_PAGE,
    STOP,
    STOP_A,
    STOP_BREAK,
    STOP_C,
    STOP_CODE_WRITE,
    STOP_FAULT,
    STOP_INTERRUPT,
    STOP_INVALID,
    STOP_NONE,
)
from lamina_hardware.io.emulator.state.mode import linear_rip
from lamina_hardware.io.emulator.tlb.fill import flush_tlb
from lamina_hardware.io.native import Word, call1, compiled, linked, load64, put, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _4, _8, _16 = (u64(n) for n in (0, 1, 2, 4, 8, 16))
_BYTE = u64(0xFF)
_FLAG_RF = u64(1 << 16)
_NOWHERE = ~_0
_DR6_HITS = u64(15)
_DR7_DETECT = u64(1 << 13)
_TYPE_WRITE = 17
_EVENT = u64(run_page.TSC_OFFSET + 0x20)
_EVENT_VALID, _EVENT_EXCEPTION = u64(run_page.EVENT_VALID), u64(run_page.EVENT_EXCEPTION)


@compiled("uint64(uint64)")
def begin(block: int) -> Word:
    """Forgets the instruction before; the next one's accesses are looked up."""
    for place in (BREAK_FILLED, BREAK_CROSSES, BREAK_SEEN):
        put(block, place, _0)
    put(block, BREAK_RESUMED, _NOWHERE)
    return flush_tlb(block)


@compiled("uint64(uint64, uint64)")
def _repeats(block: int, pc: int) -> Word:
    """Returns whether the instruction at `pc` is a string instruction with REP, which goes on with its next item."""
    place = code_at(block, pc)
    found = decode(block, place) if place != _0 else _0
    opcode = (found >> _8) & _BYTE
    is_string = (opcode >= u64(0xA4) and opcode <= u64(0xAF)) or (opcode >= u64(0x6C) and opcode <= u64(0x6F))
    return _1 if is_string and (found >> _16) & _BYTE == _0 and (found >> u64(40)) & (PREFIX_F2 | PREFIX_F3) else _0


@linked(L_BREAKS_BEFORE)
def before_instruction(block: int, pc: int, resume: int) -> Word:
    """Returns whether the core stops in front of the instruction at linear `pc`; why is in the block.

    `resume` is not 0 when RFLAGS.RF is set.
    """
    note_crossing(block)
    if word(block, BREAK_FILLED) != _0:
        put(block, BREAK_FILLED, _0)
        flush_tlb(block)
    if word(block, BREAK_HITS) != _0:
        put(block, STOP, STOP_BREAK)
        put(block, STOP_A, _0)
        return _1
    put(block, BREAK_SEEN, _1)
    if resume != _0 or (pc == word(block, BREAK_RESUMED) and _repeats(block, pc) != _0):
        put(block, BREAK_RESUMED, pc)
        return _0
    put(block, BREAK_RESUMED, _NOWHERE)
    hits = _0
    i = _0
    while i < _4:
        if (word(block, BREAKS) >> i) & _1 != _0 and address(block, i) == pc:
            hits |= _1 << i
        i += _1
    if hits == _0:
        return _0
    put(block, STOP, STOP_BREAK)
    put(block, STOP_A, hits)
    return _1


@callback("void(uint64, uint64, uint32, uint64)")
def on_instruction(engine: int, pc: int, size: int, block: int) -> None:
    """Stops a walker core in front of an instruction."""
    if word(block, BREAKS) == _0 or word(block, STOP) != STOP_NONE:
        return
    place = word(block, ENV) + at.EFLAGS
    resume = load64(place) & _FLAG_RF
    store64(place, load64(place) & ~_FLAG_RF)
    if before_instruction(block, pc, resume) != _0:
        store64(place, load64(place) | resume)
        call1(word(block, F_STOP), word(block, ENGINE))


@callback("void(uint64, int32, uint64, int32, int64, uint64)")
def on_data(engine: int, type_: int, pa: int, size: int, value: int, block: int) -> None:
    """Sees a load or a store of the program."""
    if word(block, BREAKS) != _0 and word(block, STOP) == STOP_NONE:
        note_access(block, pa, u64(size), _1 if type_ == _TYPE_WRITE else _0)


@compiled("uint64(uint64)")
def _began_only(block: int) -> Word:
    """Returns whether the instruction at RIP began and did not come to its end."""
    stop = word(block, STOP)
    if stop == STOP_NONE:
        return _1 if word(block, FAULT) != FAULT_NONE else _0
    if stop == STOP_INTERRUPT:
        return _1 if word(block, STOP_C) == _0 and word(block, STOP_A) != _1 else _0
    return _1 if stop in (STOP_FAULT, STOP_INVALID, STOP_CODE_WRITE) else _0


@compiled("uint64(uint64)")
def conclude(block: int) -> Word:
    """Settles RFLAGS.RF and what was hit, now that the emulator stopped."""
    if word(block, BREAK_SEEN) == _0:
        return _0
    place = word(block, ENV) + at.EFLAGS
    began = _began_only(block) != _0
    if began:  # it begins anew, and hits anew
        put(block, BREAK_HITS, _0)
    note_crossing(block)
    if word(block, STOP) == STOP_BREAK:
        return _0
    resumed = began and word(block, BREAK_RESUMED) == linear_rip(word(block, ENV))
    store64(place, (load64(place) & ~_FLAG_RF) | (_FLAG_RF if resumed else _0))
    return _0


@compiled("uint64(uint64, uint64)")
def raise_debug(block: int, causes: int) -> Word:
    """Raises #DB for what was hit, and `causes` as DR6 has them; returns GO_ON or a reason."""
    hits = word(block, BREAK_HITS)
    put(block, BREAK_HITS, _0)
    place = word(block, RUN_PAGE) + PAGE_DR6
    kept = load64(place)
    if (hits | causes) & _DR6_HITS != _0:
        kept &= ~_DR6_HITS
    store64(place, kept | hits | causes)
    detect = word(block, RUN_PAGE) + PAGE_DR7
    store64(detect, load64(detect) & ~_DR7_DETECT)
    return raise_exception(block, _1, _0, _0)


@compiled("uint64(uint64)")
def keep_trap(block: int) -> Word:
    """Leaves a trap behind a port access that exits to the next run: DR6 tells it, an event delivers it.

    Where the holder's event waits already DR6 alone does.
    """
    page = word(block, RUN_PAGE)
    place = page + PAGE_DR6
    store64(place, (load64(place) & ~_DR6_HITS) | word(block, BREAK_HITS))
    put(block, BREAK_HITS, _0)
    if load64(page + _EVENT) & _EVENT_VALID == _0:
        store64(page + _EVENT, _1 | _EVENT_EXCEPTION | _EVENT_VALID)
    return _0


@compiled("uint64(uint64)")
def break_exit(block: int) -> Word:
    """Handles STOP_BREAK: an armed instruction faults, with RF in the flags that are pushed; a trap comes later."""
    hits = word(block, STOP_A) & ARMED_CODE
    if hits == _0:
        return _0
    place = word(block, ENV) + at.EFLAGS
    store64(place, load64(place) | _FLAG_RF)
    return raise_debug(block, hits)
