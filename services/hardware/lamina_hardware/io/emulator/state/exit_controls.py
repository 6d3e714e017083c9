"""What a context's exit controls say about one port, register, address or value; compiled.

Word CONTROLS of the control block is the address of the context's table (`exit_table.py`), 0 for a context that has
what its creation implies. Every count is bounded by the table's own sizes, which `SetExitControls` checked.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    CONTROLS,
    CONTROLS_SERIAL,
    ENV,
    L_POST,
    LIMIT,
    MSR_DEFAULT,
    MSR_MAP,
    PORTABLE,
    REQUEST,
    REQUEST_PAUSE,
    RUN_PAGE,
)
from lamina_hardware.io.emulator.state.exit_table import (
    FLAG_ALL_MSRS,
    FLAG_ALL_PORTS,
    FLAG_WATCHED,
    MSR_MAP_BYTES,
    POST_WORDS,
    T_CR_READS,
    T_DEVICE,
    T_DEVICES,
    T_FLAGS,
    T_MSR_MAP,
    T_PORT_MAP,
    T_POST,
    T_POSTED,
    T_READ,
    T_READS,
    T_SERIAL,
    T_SHADOW,
    T_SHADOWS,
    T_WRITE,
    T_WRITES,
)
from lamina_hardware.io.emulator.state.mode import in_pae
from lamina_hardware.io.native import (
    Word,
    cas64,
    compiled,
    linked,
    load8,
    load64,
    put,
    store16,
    store64,
    u64,
    word,
)
from lamina_kit.bus import run_page

_0, _1, _2, _3, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 7, 8, 16))
_POSTED = u64(run_page.POSTED_OFFSET)
_MSR_MAP_BYTES = u64(MSR_MAP_BYTES)

MSR_EXITS, MSR_SHADOW, MSR_REFUSED = u64(0), u64(1), u64(2)
"""What becomes of an MSR access that the emulator handed over; a shadow's index is in bits 8 and above."""


@compiled("uint64(uint64, uint64)")
def setting(block: int, index: int) -> Word:
    """Returns a word of the context's control table; 0 without one."""
    table = word(block, CONTROLS)
    return _0 if table == _0 else load64(table + index * _8)


@compiled("uint64(uint64, uint64, uint64)")
def traps(block: int, instruction: int, otherwise: int) -> Word:
    """Returns whether an instruction exits; `otherwise` is the answer for a context without controls of its own."""
    if word(block, CONTROLS) == _0:
        return otherwise
    return (setting(block, T_FLAGS) >> instruction) & _1


@compiled("uint64(uint64, uint64)")
def _set_msr_map(block: int, serial: int) -> Word:
    """Gives the emulator the bitmap of this context's controls."""
    source = word(block, MSR_DEFAULT) if serial == _0 else setting(block, T_MSR_MAP)
    target = word(block, MSR_MAP)
    i = _0
    while i < _MSR_MAP_BYTES:
        store64(target + i, load64(source + i))
        i += _8
    return _0


@compiled("uint64(uint64)")
def set_intercepts(block: int) -> Word:
    """Tells the emulator which instructions to hand over: those that the controls name and those that we do.

    A table never changes after it was made, so nothing is done when the core ran by this one last.
    """
    serial = setting(block, T_SERIAL)
    if word(block, PORTABLE) != _0 or word(block, CONTROLS_SERIAL) == serial:
        return _0
    put(block, CONTROLS_SERIAL, serial)
    _set_msr_map(block, serial)
    env = word(block, ENV)
    flags = setting(block, T_FLAGS)
    wanted = at.INTERCEPT_MSR | at.INTERCEPT_SHUTDOWN | at.INTERCEPT_RDPMC
    if (flags >> u64(5)) & _1 != _0:
        wanted |= at.INTERCEPT_INVLPG
    if (flags >> u64(6)) & _1 != _0:
        wanted |= at.INTERCEPT_PAUSE
    if (flags >> u64(9)) & _1 != _0:
        wanted |= at.INTERCEPT_WBINVD
    if (flags >> u64(12)) & _1 != _0:
        wanted |= at.INTERCEPT_TABLES
    store64(env + at.INTERCEPTS, wanted)
    writes = u64(1 << 0 | 1 << 4 | 1 << 8)
    if (flags >> u64(40)) & _1 != _0 or in_pae(env) != _0:
        writes |= _8
    store16(env + at.INTERCEPT_CR_READ, setting(block, T_CR_READS) | u64(1 << 8))
    store16(env + at.INTERCEPT_CR_WRITE, writes)
    store16(env + at.INTERCEPT_DR_READ, u64(0xFFFF))
    store16(env + at.INTERCEPT_DR_WRITE, u64(0xFFFF))
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def port_exits(block: int, port: int, size: int) -> Word:
    """Returns whether an access to `size` ports from `port` exits."""
    table = word(block, CONTROLS)
    if table == _0 or load64(table) & FLAG_ALL_PORTS != _0:
        return _1
    bits = load64(table + T_PORT_MAP * _8)
    i = _0
    while i < size:
        n = (port + i) & u64(0xFFFF)
        if (load8(bits + (n >> _3)) >> (n & _7)) & _1 != _0:
            return _1
        i += _1
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _within(table: int, start: int, count: int, number: int) -> Word:
    """Returns whether a number lies in one of `count` ranges (first, how many) at word `start`."""
    place = table + start * _8
    i = _0
    while i < count:
        if number - load64(place) < load64(place + _8):
            return _1
        place += _16
        i += _1
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def msr_verdict(block: int, number: int, writes: int) -> Word:
    """Returns what becomes of an access to an MSR that the emulator does not answer: MSR_… and a shadow's index."""
    table = word(block, CONTROLS)
    if table == _0 or load64(table) & FLAG_ALL_MSRS != _0:
        return MSR_EXITS
    if writes != _0:
        listed = _within(table, T_WRITE, load64(table + T_WRITES * _8), number)
    else:
        listed = _within(table, T_READ, load64(table + T_READS * _8), number)
    if listed != _0:
        return MSR_EXITS
    count = load64(table + T_SHADOWS * _8)
    i = _0
    while i < count:
        if load64(table + (T_SHADOW + i * _2) * _8) == number:
            return MSR_SHADOW | i << _8
        i += _1
    return MSR_REFUSED


@compiled("uint64(uint64, uint64)")
def shadow_place(block: int, index: int) -> Word:
    """Returns the address of the value of a shadow register."""
    return word(block, CONTROLS) + (T_SHADOW + index * _2 + _1) * _8


@compiled("uint64(uint64, uint64)")
def is_device(block: int, gpa: int) -> Word:
    """Returns whether a guest physical address lies in a device range."""
    table = word(block, CONTROLS)
    if table == _0:
        return _0
    count = load64(table + T_DEVICES * _8)
    place = table + T_DEVICE * _8
    i = _0
    while i < count:
        if load64(place) <= gpa and gpa < load64(place + _8):
            return _1
        place += _16
        i += _1
    return _0


@compiled("uint64(uint64)")
def _pause_oneself(block: int) -> Word:
    """Makes this core stop at its next block for a moment, so that who waits is told."""
    place = block + REQUEST * _8
    while True:
        old = load64(place)
        if cas64(place, old, old | REQUEST_PAUSE) == old:
            break
    put(block, LIMIT, _0)
    return _0


@linked(L_POST)
def post(block: int, kind: int, where: int, size: int, value: int) -> Word:
    """Counts a write to a doorbell; returns whether it is one."""
    table = word(block, CONTROLS)
    if table == _0:
        return _0
    count = load64(table + T_POSTED * _8)
    place = table + T_POST * _8
    i = _0
    while i < count:
        right = load64(place + _8) == kind and load64(place + _16) == where
        wide = load64(place + u64(24))
        wanted = load64(place + u64(32)) == _0 or load64(place + u64(40)) == value
        if right and wide in (_0, size) and wanted:
            slot = word(block, RUN_PAGE) + _POSTED + (load64(place) & u64(15)) * _16
            store64(slot, load64(slot) + _1)
            store64(slot + _8, value)
            if load64(table) & FLAG_WATCHED != _0:
                _pause_oneself(block)
            return _1
        place += POST_WORDS * _8
        i += _1
    return _0
