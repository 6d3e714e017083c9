"""What the emulator calls while an observed context runs: each access, a TLB that counts its hits, a queue; compiled.

    instruction ─► on_fetch ─► emulator's TLB emptied if the one before filled it
                                │ ─► a fetch: look_up, note
    access ─► fill (va, pa) ─► on_access (pa only) ─► the address, from the fills of this instruction ─► look_up, note

The emulator tells of an access where it lies in physical memory. So that each has its virtual address, its TLB holds
nothing from one instruction to the next and every access comes through `fill.fill`, which notes the pair.

The TLB that is counted is kept here: sets of ways with least-recently-used replacement, one for instructions and data,
entries of the size of their page, tagged with both roots and, under CR4.PCIDE, the process-context identifier. MOV CR3,
INVLPG and their like empty what the manual says or more. Nothing here changes what the program does.

The head of an observation and its entries are words (`observation/layout.py`); `observation/queue.py` allocates them.
"""

from __future__ import annotations

import numba  # noqa: F401 (compiles when imported; `lamina_tools.warm` looks for it)

from lamina_hardware.io.emulator.hooks.walker import callback
from lamina_hardware.io.emulator.observation.layout import (
    BASE,
    CAPACITY,
    COUNT,
    ENTRY_WORDS,
    FILLED,
    FILLS,
    FORGET,
    INDEX,
    KEY,
    LOST,
    MOST_FILLS,
    OWNER,
    PLACE,
    QUEUE,
    ROOT,
    SECOND,
    SETS,
    SIZES,
    TABLE,
    TICK,
    USED,
    WAYS,
)  # fmt: skip
from lamina_hardware.io.emulator.portable.registers import look
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    BLOCK_COUNT,
    BLOCK_PC,
    CONSUMED,
    ENV,
    EPTP,
    FAULT,
    FAULT_NONE,
    L_LOOK_UP,
    OBSERVATION,
    PORTABLE,
    RAM_BASE,
    RIGHT_EXECUTE,
    RIGHT_WRITE,
    STOP,
    STOP_NONE,
    TLB_HITS,
    WALK_LEAF,
    WALK_PA,
    WALK_RIGHTS,
    WALK_SECOND_SHIFT,
    WALK_SHIFT,
)
from lamina_hardware.io.emulator.tlb.fill import count_walk, flush_tlb, walk_live
from lamina_hardware.io.emulator.walks.steps import CR0_WP, CR4_SMAP, CR4_SMEP, NO_EFFECT
from lamina_hardware.io.native import Word, compiled, linked, load8, load32, load64, put, store64, u64, word

_0, _1, _2, _3, _4, _5, _7, _8, _9, _12, _24 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 24))
_BYTE, _OFFSET = u64(0xFF), u64(4095)
_FRAME = u64(0x000F_FFFF_FFFF_F000)
_NO_FLUSH = u64(1 << 63)
_PCID = u64(0xFFF)
_ENTRY_BYTES = u64(ENTRY_WORDS * 8)
_CR4_PCIDE = u64(1 << 17)
_FLAG_AC = u64(1 << 18)
_LEAF_RW, _LEAF_US, _LEAF_G = _2, _4, u64(1 << 8)
# Bits of PLACE beside the page: RIGHT_…, then those of the leaf.
_FLAG_RW, _FLAG_US, _FLAG_G = u64(1 << 3), u64(1 << 4), u64(1 << 5)
_TYPE_WRITE = 17


@compiled("uint64(uint64, int64)")
def _get(head: int, index: int) -> Word:
    return load64(head + u64(index) * _8)


@compiled("uint64(uint64, int64, uint64)")
def _set(head: int, index: int, value: int) -> Word:
    store64(head + u64(index) * _8, value)
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def _forget(head: int, keep_global: int, owner: int) -> Word:
    """Empties the TLB; keeps global entries, or all but those of `owner` (a root and its identifier) when not 0."""
    place = _get(head, TABLE)
    end = place + _get(head, SETS) * _get(head, WAYS) * _ENTRY_BYTES
    while place < end:
        is_global = _get(place, PLACE) & _FLAG_G != _0
        others = owner != _0 and (_get(place, OWNER) ^ owner) & _PCID != _0
        if not (keep_global != _0 and is_global) and not others:
            store64(place, _0)
        place += _ENTRY_BYTES
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def _owner(head: int, env: int, cr4: int) -> Word:
    """Returns root and identifier of the first stage; without CR4.PCIDE another root empties what is not global."""
    cr3 = load64(env + at.CR3) & ~_NO_FLUSH
    if cr4 & _CR4_PCIDE != _0:
        return cr3
    cr3 &= _FRAME
    if _get(head, ROOT) != cr3:
        if _get(head, ROOT) != ~_0:
            _forget(head, _1, _0)
        _set(head, ROOT, cr3)
    return cr3


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _find(head: int, va: int, owner: int, second: int) -> Word:
    """Returns the entry that translates `va`, or 0."""
    sizes, ways = _get(head, SIZES), _get(head, WAYS)
    shift = _12
    while sizes != _0:
        if sizes & _1 != _0:
            number = va >> shift
            place = _get(head, TABLE) + (number % _get(head, SETS)) * ways * _ENTRY_BYTES
            end = place + ways * _ENTRY_BYTES
            while place < end:
                mine = _get(place, OWNER) == owner or _get(place, PLACE) & _FLAG_G != _0
                if _get(place, KEY) == (number << _8 | shift) and mine and _get(place, SECOND) == second:
                    return place
                place += _ENTRY_BYTES
        sizes >>= _1
        shift += _9
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _permits(flags: int, access: int, user: int, cr0: int, cr4: int) -> Word:
    """Returns whether an entry allows the access without another walk."""
    for_user = flags & _FLAG_US != _0
    if user != _0 and not for_user:
        return _0
    if access == ACCESS_EXECUTE:
        return _0 if flags & RIGHT_EXECUTE == _0 or (user == _0 and for_user and cr4 & CR4_SMEP != _0) else _1
    if user == _0 and for_user and cr4 & CR4_SMAP != _0:
        return _0
    if access == ACCESS_READ:
        return _1
    free = user == _0 and cr0 & CR0_WP == _0
    return _1 if flags & RIGHT_WRITE != _0 and (free or flags & _FLAG_RW != _0) else _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _insert(block: int, head: int, va: int, owner: int, second: int) -> Word:
    """Puts what the last walk found into the TLB, over the entry of its set that was not used for longest."""
    shift = min(word(block, WALK_SHIFT), word(block, WALK_SECOND_SHIFT))
    _set(head, SIZES, _get(head, SIZES) | _1 << ((shift - _12) // _9))
    number = va >> shift
    place = _get(head, TABLE) + (number % _get(head, SETS)) * _get(head, WAYS) * _ENTRY_BYTES
    end = place + _get(head, WAYS) * _ENTRY_BYTES
    victim = place
    while place < end:
        if _get(place, KEY) == _0 or (_get(place, KEY) == (number << _8 | shift) and _get(place, OWNER) == owner):
            victim = place
            break
        if _get(place, USED) < _get(victim, USED):
            victim = place
        place += _ENTRY_BYTES
    leaf = word(block, WALK_LEAF)
    flags = word(block, WALK_RIGHTS) & _7
    flags |= (_FLAG_RW if leaf & _LEAF_RW != _0 else _0) | (_FLAG_US if leaf & _LEAF_US != _0 else _0)
    flags |= _FLAG_G if leaf & _LEAF_G != _0 else _0
    page = word(block, WALK_PA) & ~((_1 << shift) - _1)
    _set(victim, KEY, number << _8 | shift)
    _set(victim, OWNER, owner)
    _set(victim, SECOND, second)
    _set(victim, PLACE, page | flags)
    return victim


@linked(L_LOOK_UP)
def look_up(block: int, va: int, access: int) -> Word:
    """Looks an address up in the TLB that is counted, with a walk on a miss.

    Returns where the byte lies in this process; 0: the access will fault.
    """
    head, env = word(block, OBSERVATION), word(block, ENV)
    if _get(head, FORGET) != _0:
        _set(head, FORGET, _0)
        _forget(head, _0, _0)
    user = _1 if (load32(env + at.HFLAGS) & at.HF_CPL) == _3 else _0
    cr4 = load64(env + at.CR4)
    owner, second = _owner(head, env, cr4), word(block, EPTP)
    if load64(env + at.EFLAGS) & _FLAG_AC != _0:
        cr4 &= ~CR4_SMAP
    place = _find(head, va, owner, second)
    if place != _0 and _permits(_get(place, PLACE), access, user, load64(env + at.CR0), cr4) != _0:
        put(block, TLB_HITS, word(block, TLB_HITS) + _1)
    else:
        ended = walk_live(block, va, access, NO_EFFECT)
        if ended != FAULT_NONE:
            put(block, FAULT, FAULT_NONE)
            return _0
        count_walk(block, ended)
        place = _insert(block, head, va, owner, second)
    _set(head, TICK, _get(head, TICK) + _1)
    _set(place, USED, _get(head, TICK))
    mask = (_1 << (_get(place, KEY) & _BYTE)) - _1
    return word(block, RAM_BASE) + ((_get(place, PLACE) & _FRAME & ~mask) | (va & mask))


@compiled("uint64(uint64, uint64, uint64)")
def _note(block: int, va: int, kind: int) -> Word:
    """Puts an access into the queue, with the number of instructions retired before it; counts it when it is full."""
    head = word(block, OBSERVATION)
    count = _get(head, COUNT)
    if count >= _get(head, CAPACITY):
        return _set(head, LOST, _get(head, LOST) + _1)
    place = _get(head, QUEUE) + count * _24
    retired = word(block, CONSUMED) - _1
    if word(block, PORTABLE) == _0:
        retired = word(block, CONSUMED) - word(block, BLOCK_COUNT) + _get(head, INDEX)
    store64(place, va)
    store64(place + _8, kind)
    store64(place + u64(16), _get(head, BASE) + retired)
    return _set(head, COUNT, count + _1)


@compiled("uint64(uint64, uint64)")
def _watch_for_flushes(block: int, place: int) -> Word:
    """Empties the TLB when the instruction at `place` is about to make a processor do so; sees only ring 0."""
    env, head = word(block, ENV), word(block, OBSERVATION)
    if load32(env + at.HFLAGS) & at.HF_CPL != _0:
        return _0
    rex = _0
    if load8(place) & u64(0xF0) == u64(0x40):
        rex = load8(place)
        place += _1
    if load8(place) == u64(0x66) and load8(place + _1) == u64(0x0F) and load8(place + _2) == u64(0x38):
        return _forget(head, _0, _0) if load8(place + _3) == u64(0x82) else _0  # INVPCID
    if load8(place) != u64(0x0F):
        return _0
    opcode, modrm = load8(place + _1), load8(place + _2)
    field = (modrm >> _3) & _7
    if opcode == u64(0x01) and field == _7 and modrm < u64(0xC0):
        return _forget(head, _0, _0)  # INVLPG: all, where one page would do
    if opcode != u64(0x22) or (field != _0 and field != _3 and field != _4):
        return _0
    if field != _3:
        return _forget(head, _0, _0)  # MOV to CR0 or CR4
    value = load64(env + at.REGS + ((modrm & _7) | (rex & _1) << _3) * _8)
    if load64(env + at.CR4) & _CR4_PCIDE == _0:
        return _forget(head, _1, _0)
    return _0 if value & _NO_FLUSH != _0 else _forget(head, _1, value)


@callback("void(uint64, uint64, uint32, uint64)")
def on_fetch(engine: int, pc: int, size: int, block: int) -> None:
    """Sees an instruction before it runs."""
    head = word(block, OBSERVATION)
    if head == _0 or word(block, STOP) != STOP_NONE:
        return
    if word(block, PORTABLE) != _0:
        look(block)
    if _get(head, FILLED) != _0:
        _set(head, FILLED, _0)
        flush_tlb(block)
    _set(head, INDEX, _0 if pc == word(block, BLOCK_PC) else _get(head, INDEX) + _1)
    place = look_up(block, pc, ACCESS_EXECUTE)
    last = pc + u64(size) - _1
    if place == _0 or ((pc ^ last) & ~_OFFSET != _0 and look_up(block, last, ACCESS_EXECUTE) == _0):
        return
    _note(block, pc, ACCESS_EXECUTE)
    if (pc & _OFFSET) < u64(4092):
        _watch_for_flushes(block, place)


@callback("void(uint64, int32, uint64, int32, int64, uint64)")
def on_access(engine: int, type_: int, pa: int, size: int, value: int, block: int) -> None:
    """Sees a load or a store of the program."""
    head = word(block, OBSERVATION)
    if head == _0 or word(block, STOP) != STOP_NONE:
        return
    kind = ACCESS_WRITE if type_ == _TYPE_WRITE else ACCESS_READ
    number = min(_get(head, FILLED), u64(MOST_FILLS))
    while number != _0:
        number -= _1
        place = head + (u64(FILLS) + number * _3) * _8
        if load64(place + _8) == pa & ~_OFFSET and load64(place + u64(16)) == kind:
            va = load64(place) | (pa & _OFFSET)
            last = va + u64(size) - _1
            if look_up(block, va, kind) == _0:
                return
            if (va ^ last) & ~_OFFSET != _0 and look_up(block, last, kind) == _0:
                return
            _note(block, va, kind)
            return
    _set(head, LOST, _get(head, LOST) + _1)
