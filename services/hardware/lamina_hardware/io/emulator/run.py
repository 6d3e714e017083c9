"""One run of a core, from loading a context to its exit record; compiled, without the GIL.

    load registers ─► deliver what is pending ─► emulate until something stops it ─┬─► it stays inside: handle, go on
                                 ▲                                                  │   (own IDT, own LSTAR)
                                 └──────────────────────────────────────────────────┤
                                                      store registers, exit record ◄┴─► it leaves

What a stop means is in `exits.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

from lamina_hardware.io.emulator.delivery.double_fault import DOUBLE_FAULT, second_vector
from lamina_hardware.io.emulator.delivery.exceptions import keep_event, raise_exception, second_stage_exit
from lamina_hardware.io.emulator.delivery.long_mode import deliver
from lamina_hardware.io.emulator.delivery.tables import DELIVERED, SECOND_STAGE
from lamina_hardware.io.emulator.exits import (
    PAGE_ACTIVITY,
    WAIT_FOR_STARTUP,
    classify,
)
from lamina_hardware.io.emulator.hooks.breakpoints import begin, conclude, keep_trap, raise_debug
from lamina_hardware.io.emulator.instructions.cpuid_tsc import PAGE_EXIT_DATA
from lamina_hardware.io.emulator.instructions.device_access import finish_load
from lamina_hardware.io.emulator.instructions.exit_record import (
    ACKNOWLEDGE,
    ASLEEP,
    GO_ON,
    INTERRUPT_WINDOW,
    NMI,
    NMI_WINDOW,
    REARM,
    REASON,
    RETIRED,
    RIP,
    STOPPED,
    VECTOR,
    clear_record,
    record,
)
from lamina_hardware.io.emulator.instructions.intercepts import PAGE_RETIRED
from lamina_hardware.io.emulator.portable.interpreter import finish_by_hand
from lamina_hardware.io.emulator.portable.registers import pull, push
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.breakpoints import wanted
from lamina_hardware.io.emulator.state.control_block import (
    BEGAN,
    BLOCK_COUNT,
    BLOCK_SIZE,
    BREAK_HITS,
    BREAKS,
    BUDGET,
    CONSUMED,
    ENGINE,
    ENV,
    F_START,
    FAULT,
    FAULT_ACCESS,
    FAULT_NONE,
    INPUT,
    LIMIT,
    PENDING_NMI,
    PENDING_VECTOR,
    PORTABLE,
    RAISE,
    REQUEST,
    REQUEST_EVENT,
    REQUEST_NMI,
    RUN_PAGE,
    STOP,
    STOP_ERROR,
    STOP_NONE,
    WALK_SECOND_READS,
)
from lamina_hardware.io.emulator.state.exit_controls import set_intercepts, setting
from lamina_hardware.io.emulator.state.exit_table import (
    FLAG_EXTERNAL,
    FLAG_INTERRUPT_WINDOW,
    FLAG_NMI,
    FLAG_NMI_WINDOW,
    T_FLAGS,
)
from lamina_hardware.io.emulator.state.registers import flags, load, store
from lamina_hardware.io.emulator.tlb.fill import flush_tlb
from lamina_hardware.io.native import (
    Word,
    call5,
    cas64,
    compiled,
    load32,
    load64,
    put,
    store32,
    store64,
    u64,
    word,
)
from lamina_kit.bus import run_page

F = TypeVar("F", bound=Callable[..., Any])


def released(signature: str) -> Callable[[F], F]:
    """Compiles a function that gives up the GIL while it runs."""
    return cast(Callable[[F], F], numba.njit(signature, cache=True, nogil=True))


_0, _1, _2 = (u64(n) for n in (0, 1, 2))
_3, _8, _16 = u64(3), u64(8), u64(16)
_BYTE = u64(0xFF)
_FLAG_IF = u64(1 << 9)

_EVENT = u64(run_page.TSC_OFFSET + 0x20)
_EVENT_CODE = u64(run_page.TSC_OFFSET + 0x28)
_EVENT_VALID = u64(run_page.EVENT_VALID)
_EVENT_ERROR_CODE = u64(run_page.EVENT_ERROR_CODE)
_EVENT_KIND = u64(7 << 8)
_EVENT_NMI = u64(run_page.EVENT_NMI)
_NMI_VECTOR = _2


@compiled("uint64(uint64, uint64)")
def _taken(block: int, request: int) -> Word:
    """Ends the search for a moment to deliver an event: the core runs at full speed again."""
    place = block + REQUEST * _8
    while True:
        old = load64(place)
        if cas64(place, old, old & ~request) == old:
            break
    put(block, LIMIT, word(block, BUDGET))
    if load64(place) != _0:
        put(block, LIMIT, _0)
    return GO_ON


@compiled("uint64(uint64)")
def _shadowed(block: int) -> Word:
    """Returns whether STI or MOV SS holds interrupts back."""
    return load32(word(block, ENV) + at.HFLAGS) & at.HF_SHADOW


@compiled("uint64(uint64)")
def _nmi_blocked(block: int) -> Word:
    """Returns whether an NMI is being handled."""
    return load32(word(block, ENV) + at.HFLAGS2) & at.HF2_NMI


@compiled("uint64(uint64)")
def _deliver_nmi(block: int) -> Word:
    """Delivers vector 2; NMIs are held back from then on. When the second stage lacks something nothing has changed."""
    flags2 = word(block, ENV) + at.HFLAGS2
    before = load32(flags2)
    store32(flags2, before | at.HF2_NMI)
    result = deliver(block, _NMI_VECTOR, _0, _0, _0)
    if result == SECOND_STAGE:
        store32(flags2, before)
        return second_stage_exit(block)
    store64(word(block, RUN_PAGE) + PAGE_ACTIVITY, _0)
    if result == DELIVERED:
        return GO_ON
    return raise_exception(block, (result >> _2) & u64(0x3FFF), result >> _16, _0)


@compiled("uint64(uint64)")
def _local_interrupt(block: int) -> Word:
    """Delivers an NMI, or asks for the next vector of the local APIC, if one waits and may be delivered now."""
    if word(block, PENDING_NMI) != _0 and _nmi_blocked(block) == _0 and _shadowed(block) == _0:
        if setting(block, T_FLAGS) & FLAG_NMI != _0:
            put(block, PENDING_NMI, _0)
            _taken(block, REQUEST_NMI)
            record(block, VECTOR, _NMI_VECTOR)
            return NMI
        reason = _deliver_nmi(block)
        if _nmi_blocked(block) != _0:
            put(block, PENDING_NMI, _0)
            _taken(block, REQUEST_NMI)
        return reason
    if word(block, PENDING_VECTOR) != _0 and setting(block, T_FLAGS) & FLAG_EXTERNAL != _0:
        return ACKNOWLEDGE  # an interrupt that exits does so whatever RFLAGS.IF says
    if word(block, PENDING_VECTOR) != _0 and flags(block) & _FLAG_IF != _0 and _shadowed(block) == _0:
        return ACKNOWLEDGE
    return GO_ON


@compiled("uint64(uint64)")
def _deliver_event(block: int) -> Word:
    """Delivers the event that the holder asked for, when it may be delivered now; returns GO_ON or a reason."""
    page = word(block, RUN_PAGE)
    event = load64(page + _EVENT)
    if event & _EVENT_VALID == _0:
        if word(block, REQUEST) & REQUEST_EVENT != _0 and word(block, PENDING_VECTOR) == _0:
            return _taken(block, REQUEST_EVENT)
        return GO_ON
    vector = event & _BYTE
    if event & _EVENT_KIND == _0:
        if flags(block) & _FLAG_IF == _0 or _shadowed(block) != _0:
            return GO_ON
        store64(page + _EVENT, _0)
        result = deliver(block, vector, _0, _0, _0)
        if result == SECOND_STAGE:
            store64(page + _EVENT, event)
            return second_stage_exit(block)
        store64(page + PAGE_ACTIVITY, _0)
        if result == DELIVERED:
            return _taken(block, REQUEST_EVENT) if word(block, PENDING_VECTOR) == _0 else GO_ON
        return raise_exception(block, (result >> _2) & u64(0x3FFF), result >> _16, _0)
    if event & _EVENT_KIND == _EVENT_NMI:
        if _nmi_blocked(block) != _0 or _shadowed(block) != _0:
            return GO_ON
        store64(page + _EVENT, _0)
        reason = _deliver_nmi(block)
        if _nmi_blocked(block) == _0:
            store64(page + _EVENT, event)
        elif word(block, PENDING_NMI) == _0:
            _taken(block, REQUEST_NMI)
        return reason
    store64(page + PAGE_ACTIVITY, _0)
    store64(page + _EVENT, _0)
    code = load64(page + _EVENT_CODE)
    result = deliver(block, vector, code, _1 if event & _EVENT_ERROR_CODE != _0 else _0, _0)
    if result == DELIVERED:
        return GO_ON
    if result == SECOND_STAGE:
        return keep_event(block, vector, code, _1 if event & _EVENT_ERROR_CODE != _0 else _0)
    second = second_vector(vector, (result >> _2) & u64(0x3FFF))
    return raise_exception(block, second, _0 if second == DOUBLE_FAULT else result >> _16, _0)


@compiled("uint64(uint64)")
def _window(block: int) -> Word:
    """Exits when the controls want to know that an interrupt or an NMI could be taken, and it can; else looks again.

    The core then stops at every block at which one could, as for an event that waits.
    """
    wanted = setting(block, T_FLAGS) & (FLAG_INTERRUPT_WINDOW | FLAG_NMI_WINDOW)
    if wanted == _0 or word(block, CONSUMED) >= word(block, BUDGET):
        return GO_ON
    if _shadowed(block) == _0:
        if wanted & FLAG_INTERRUPT_WINDOW != _0 and flags(block) & _FLAG_IF != _0:
            return INTERRUPT_WINDOW
        if wanted & FLAG_NMI_WINDOW != _0 and _nmi_blocked(block) == _0:
            return NMI_WINDOW
    asked = REQUEST_EVENT if wanted & FLAG_INTERRUPT_WINDOW != _0 else REQUEST_NMI
    if wanted == FLAG_INTERRUPT_WINDOW | FLAG_NMI_WINDOW:
        asked = REQUEST_EVENT | REQUEST_NMI
    place = block + REQUEST * _8
    while True:
        old = load64(place)
        if cas64(place, old, old | asked) == old:
            break
    put(block, LIMIT, _0)
    return GO_ON


@compiled("uint64(uint64)")
def _emulate(block: int) -> Word:
    """Runs the emulator until it stops, once; returns GO_ON or a reason."""
    env = word(block, ENV)
    if wanted(block) != word(block, BREAKS):
        return REARM
    if word(block, BREAKS) != _0:
        begin(block)
    put(block, STOP, STOP_NONE)
    put(block, FAULT, FAULT_NONE)
    put(block, FAULT_ACCESS, _0)
    put(block, BLOCK_SIZE, _0)
    put(block, BLOCK_COUNT, _0)
    store32(env + at.OLD_EXCEPTION, at.NO_EXCEPTION)
    store32(env + at.EXCEPTION_IS_INT, _0)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) | at.HF_GUEST)
    if word(block, PORTABLE) == _0:
        put(block, STOP_ERROR, call5(word(block, F_START), word(block, ENGINE), load64(env + at.EIP), _0, _0, _0))
        if word(block, BREAKS) != _0:
            conclude(block)
        return classify(block)
    push(block)
    put(block, STOP_ERROR, call5(word(block, F_START), word(block, ENGINE), load64(env + at.EIP), _0, _0, _0))
    pull(block)
    if word(block, BREAKS) != _0:
        conclude(block)
    finish_by_hand(block)
    return classify(block)


@compiled("uint64(uint64)")
def _step(block: int) -> Word:
    """Delivers what may be delivered, then runs the emulator until it stops, unless the context sleeps."""
    activity = word(block, RUN_PAGE) + PAGE_ACTIVITY
    if load64(activity) == WAIT_FOR_STARTUP:
        return ASLEEP
    vector = word(block, RAISE)
    if vector != _0:
        put(block, RAISE, _0)
        return raise_exception(block, vector - _1, _0, _0)
    reason = _deliver_event(block)
    if reason == GO_ON:
        reason = _window(block)  # before what waits: Intel SDM vol. 3, 27.7.5 and 27.7.6
    if reason == GO_ON:
        reason = _local_interrupt(block)
    if reason == GO_ON and load64(activity) != _0:
        return ASLEEP
    return _emulate(block) if reason == GO_ON else reason


@released("uint64(uint64, uint64, uint64)")
def run(block: int, everything: int, flush: int) -> Word:
    """Runs the context in RUN_PAGE for at most BUDGET instructions; returns the reason, also in the exit record.

    `everything` loads all registers whatever the dirty word says; `flush` empties the TLB first. PAUSED means that
    someone wanted the core for a moment: the same run goes on by calling again with CONSUMED as it stands. So it does
    behind REARM, once the core's hooks are those that BREAKS_WANTED needs.
    """
    put(block, WALK_SECOND_READS, _0)  # what the last walk kept of the second stage may have changed since
    if load(block, everything) != _0 or flush != _0:
        flush_tlb(block)
    if wanted(block) != word(block, BREAKS):
        return REARM
    set_intercepts(block)
    finish_load(block)
    put(block, BEGAN, word(block, CONSUMED))
    put(block, INPUT, load64(word(block, RUN_PAGE) + PAGE_EXIT_DATA))
    clear_record(block)
    reason = GO_ON
    while reason == GO_ON:
        reason = _step(block)
        if reason == GO_ON and word(block, BREAK_HITS) != _0:
            reason = raise_debug(block, _0)
        if reason == GO_ON and word(block, CONSUMED) >= word(block, BUDGET):
            reason = STOPPED
    if word(block, BREAK_HITS) != _0:
        keep_trap(block)
    store(block)
    place = word(block, RUN_PAGE) + PAGE_RETIRED
    store64(place, load64(place) + word(block, CONSUMED) - word(block, BEGAN))
    record(block, REASON, reason)
    record(block, RIP, load64(word(block, ENV) + at.EIP))
    record(block, RETIRED, word(block, CONSUMED))
    return reason
