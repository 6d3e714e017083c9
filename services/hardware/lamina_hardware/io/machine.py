"""One run of a core, from loading a context to its exit record; compiled, without the GIL.

    load registers ─► deliver a pending event ─► emulate until something stops it ─┬─► it stays inside: handle, go on
                                 ▲                                                  │   (own IDT, own LSTAR)
                                 └──────────────────────────────────────────────────┤
                                                      store registers, exit record ◄┴─► it leaves

Exceptions that the context does not intercept are delivered through its own IDT. An exception on the way to a handler
becomes a double fault by the table of the manual, one on the way to that a shutdown.

Source: Intel SDM vol. 3, 7.15 (interrupt 8, table 7-5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba  # type: ignore[import-untyped]
import numpy as np
from lamina_kit import runpage
from lamina_kit.runpage import ExitReason

from lamina_hardware.io import unicorn_layout as at
from lamina_hardware.io.answers import PAGE_EXIT_DATA, answer_timestamp, retired
from lamina_hardware.io.code import code_at
from lamina_hardware.io.control import (
    ACCESS_EXECUTE,
    BLOCK_COUNT,
    BLOCK_SIZE,
    BUDGET,
    CONSUMED,
    ENGINE,
    ENV,
    EPTP,
    EXCEPTIONS,
    INPUT,
    F_START,
    FAULT,
    FAULT_ACCESS,
    FAULT_CANONICAL,
    FAULT_CODE,
    FAULT_EPT,
    FAULT_GPA,
    FAULT_IN_PAGE,
    FAULT_NONE,
    FAULT_PAGE,
    FAULT_VA,
    INTERCEPT_SYSCALL,
    LIMIT,
    PORTABLE,
    REQUEST,
    REQUEST_CANCEL,
    REQUEST_EVENT,
    REQUEST_PAUSE,
    RUN_PAGE,
    STOP,
    STOP_A,
    STOP_B,
    STOP_BUDGET,
    STOP_CODE_WRITE,
    STOP_C,
    STOP_CPUID,
    STOP_D,
    STOP_E,
    STOP_INTERRUPT,
    STOP_INVALID,
    STOP_IO,
    STOP_NONE,
    STOP_REQUEST,
    STOP_SPECIAL,
    STOP_SYSCALL,
    STOP_TIMESTAMP,
)
from lamina_hardware.io.decoder import decode
from lamina_hardware.io.delivery import DELIVERED, SECOND_STAGE, deliver, enter_syscall
from lamina_hardware.io.by_hand import finish_by_hand, full_address
from lamina_hardware.io.exchange import pull, push
from lamina_hardware.io.fill import drop_code, flush_tlb
from lamina_hardware.io.native import call5, cas64, compiled, load8, load32, load64, put, store32, store64, word
from lamina_hardware.io.registers import flags, load, store

F = TypeVar("F", bound=Callable[..., Any])


def released(signature: str) -> Callable[[F], F]:
    """Compiles a function that gives up the GIL while it runs."""
    return cast(Callable[[F], F], numba.njit(signature, cache=True, nogil=True))


_0, _1, _2, _3, _8, _16 = (np.uint64(n) for n in (0, 1, 2, 3, 8, 16))
_BYTE = np.uint64(0xFF)
_OFFSET = np.uint64(4095)
_FLAG_IF = np.uint64(1 << 9)
_EFER_SCE = _1

_EXIT = np.uint64(runpage.EXIT_OFFSET)
_EVENT = np.uint64(runpage.TSC_OFFSET + 0x20)
_EVENT_CODE = np.uint64(runpage.TSC_OFFSET + 0x28)
_EVENT_VALID = np.uint64(runpage.EVENT_VALID)
_EVENT_ERROR_CODE = np.uint64(runpage.EVENT_ERROR_CODE)
_EVENT_KIND = np.uint64(7 << 8)
_EVENT_EXCEPTION = np.uint64(runpage.EVENT_EXCEPTION)
_NO_REGISTER = np.uint64(runpage.NO_REGISTER)

# Words of the exit record, in the order of `runpage.ExitRecord`.
(_REASON, _VECTOR, _ERROR_CODE, _ADDRESS, _GPA, _ACCESS, _ACCESS_SIZE, _ACCESS_VALUE, _ACCESS_REGISTER, _PORT, _IO_SIZE,
 _IO_DIRECTION, _IO_DATA, _IO_COUNT, _LENGTH, _RIP, _RETIRED) = (np.uint64(n) for n in range(17))  # fmt: skip
_RECORD_WORDS = np.uint64(17)

SYSCALL, PAGE_FAULT, EXCEPTION, IO, HLT, CPUID, EPT_VIOLATION, STOPPED, HYPERCALL, MSR, SHUTDOWN, CANCELED = (
    np.uint64(int(ExitReason(n))) for n in range(1, 13)
)
TIMESTAMP, RANDOM = np.uint64(int(ExitReason.TIMESTAMP)), np.uint64(int(ExitReason.RANDOM))
PAUSED = np.uint64(255)
"""Not an exit: the core was asked to pause and goes on with the same run."""

GO_ON = np.uint64(0)

_DOUBLE_FAULT, _INVALID_OPCODE, _PROTECTION, _PAGE = (np.uint64(n) for n in (8, 6, 13, 14))
_WITH_CODE = np.uint64(1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21)
_CONTRIBUTORY = np.uint64(1 << 0 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13)
_OPCODE_INT3, _OPCODE_INT1 = np.uint64(0xCC), np.uint64(0xF1)
_NO_VECTOR = np.uint64(255)
_SOFTWARE = np.uint64(0xFFFF_FFFF & ~(1 << 1 | 1 << 3 | 1 << 4))  # all but INT1, INT3 and INTO, which have opcodes


@compiled("uint64(uint64, uint64, uint64)")
def _record(block: int, index: int, value: int) -> int:
    store64(word(block, RUN_PAGE) + _EXIT + index * _8, value)
    return _0


@compiled("uint64(uint64)")
def _clear_record(block: int) -> int:
    i = _0
    while i < _RECORD_WORDS:
        _record(block, i, _0)
        i += _1
    return _record(block, _ACCESS_REGISTER, _NO_REGISTER)


@compiled("uint64(uint64, uint64)")
def _settle(block: int, extra: int) -> int:
    """Takes back what was charged for instructions that did not run; `extra` counts the one that ended the run."""
    if word(block, BLOCK_COUNT) != _0:
        put(block, CONSUMED, retired(block) + extra)
        put(block, BLOCK_COUNT, _0)
        put(block, BLOCK_SIZE, _0)
    return _0


@compiled("uint64(uint64)")
def _second_stage_exit(block: int) -> int:
    """Fills the exit record for an EPT violation."""
    va = word(block, FAULT_VA)
    gpa = word(block, FAULT_GPA)
    _record(block, _GPA, gpa)
    _record(block, _ADDRESS, va)
    _record(block, _ACCESS, word(block, FAULT_ACCESS))
    place = code_at(block, load64(word(block, ENV) + at.EIP))
    if place != _0:
        _record(block, _LENGTH, decode(block, place) & _BYTE)
    return EPT_VIOLATION


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _keep_event(block: int, vector: int, code: int, has_code: int) -> int:
    """Puts an event back into the run page, to be delivered when the second stage has what it lacks."""
    page = word(block, RUN_PAGE)
    store64(page + _EVENT, vector | _EVENT_EXCEPTION | _EVENT_VALID | (_EVENT_ERROR_CODE if has_code != _0 else _0))
    store64(page + _EVENT_CODE, code)
    return _second_stage_exit(block)


@compiled("uint64(uint64, uint64)")
def _second_vector(first: int, second: int) -> int:
    """Returns the vector that two exceptions make together (table 7-5); _NO_VECTOR means shutdown."""
    if first == _DOUBLE_FAULT:
        return _NO_VECTOR
    hard = (_CONTRIBUTORY >> second) & _1 != _0
    if first == _PAGE and (second == _PAGE or hard):
        return _DOUBLE_FAULT
    if first < np.uint64(32) and (_CONTRIBUTORY >> first) & _1 != _0 and hard:
        return _DOUBLE_FAULT
    return second


@compiled("uint64(uint64)")
def _take_back(block: int) -> int:
    """Puts RIP back on an INT that was refused; it did not run."""
    env = word(block, ENV)
    place = code_at(block, load64(env + at.EIP) - _1)
    short = place != _0 and (load8(place) == _OPCODE_INT3 or load8(place) == _OPCODE_INT1)
    store64(env + at.EIP, load64(env + at.EIP) - (_1 if short else _2))
    put(block, CONSUMED, word(block, CONSUMED) - _1)
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _raise(block: int, vector: int, code: int, software: int) -> int:
    """Exits for an exception that is intercepted, or delivers it; returns GO_ON or a reason."""
    first = vector
    while True:
        if vector == _NO_VECTOR:
            return SHUTDOWN
        has_code = (_WITH_CODE >> vector) & _1 if vector < np.uint64(32) and software == _0 else _0
        if vector < np.uint64(32) and (word(block, EXCEPTIONS) >> vector) & _1 != _0:
            _record(block, _VECTOR, vector)
            _record(block, _ERROR_CODE, code)
            if vector == _PAGE:
                _record(block, _ADDRESS, load64(word(block, ENV) + at.CR2))
                return PAGE_FAULT
            return EXCEPTION
        if vector >= np.uint64(32) and software != _0 and load32(word(block, ENV) + at.IDTR + _16) == _0:
            _record(block, _VECTOR, vector)
            return EXCEPTION
        result = deliver(block, vector, code, has_code, software)
        if result == DELIVERED:
            return GO_ON
        if result == SECOND_STAGE:
            return _keep_event(block, vector, code, has_code)
        if software != _0:
            _take_back(block)
            software = _0
        second = (result >> _2) & np.uint64(0x3FFF)
        code = result >> _16
        vector = _second_vector(first, second)
        if vector == _DOUBLE_FAULT:
            code = _0
        first = vector


@compiled("uint64(uint64, uint64)")
def _fault_exit(block: int, full_address: int) -> int:
    """Handles a walk that failed; `full_address` is the address with its offset within the page."""
    fault = word(block, FAULT)
    env = word(block, ENV)
    if fault == FAULT_EPT:
        put(block, FAULT_VA, full_address)
        if word(block, FAULT_CODE) == FAULT_IN_PAGE:
            put(block, FAULT_GPA, word(block, FAULT_GPA) | (full_address & _OFFSET))
        return _second_stage_exit(block)
    if fault == FAULT_CANONICAL:
        return _raise(block, _PROTECTION, _0, _0)
    store64(env + at.CR2, full_address)
    return _raise(block, _PAGE, word(block, FAULT_CODE), _0)


@compiled("uint64(uint64)")
def _msr_exit(block: int) -> int:
    env = word(block, ENV)
    writes = word(block, STOP_B) & _1
    _record(block, _IO_DIRECTION, writes)
    if writes != _0:
        low = load64(env + at.REGS) & np.uint64(0xFFFF_FFFF)
        _record(block, _IO_DATA, low | load64(env + at.REGS + _16) << np.uint64(32))
    store64(env + at.EIP, load64(env + at.EIP) + _2)
    return MSR


@compiled("uint64(uint64)")
def _interrupt_exit(block: int) -> int:
    """Handles a vector that the emulator raised."""
    vector = word(block, STOP_A)
    software = word(block, STOP_C)
    if vector >= at.VMEXIT:
        if vector == at.VMEXIT_MSR:
            _settle(block, _1)
            return _msr_exit(block)
        _settle(block, _0)
        return SHUTDOWN
    code = word(block, STOP_B)
    if software != _0 and vector < np.uint64(32) and (_SOFTWARE & word(block, EXCEPTIONS)) >> vector & _1 != _0:
        # INT n must not pass for the exception of that number: it is refused, as by a gate of level 0.
        store64(word(block, ENV) + at.EIP, load64(word(block, ENV) + at.EIP) - _2)
        code = vector << _3 | _2
        vector = _PROTECTION
        software = _0
    _settle(block, _0)
    return _raise(block, vector, code, software)


@compiled("uint64(uint64)")
def _invalid_exit(block: int) -> int:
    """Tells hypercalls and requests for randomness from undefined instructions."""
    env = word(block, ENV)
    rip = load64(env + at.EIP)
    place = code_at(block, rip)
    found = decode(block, place) if place != _0 else _0
    opcode = (found >> _8) & _BYTE
    modrm = (found >> np.uint64(24)) & _BYTE
    length = found & _BYTE
    if (found >> _16) & _BYTE == _1:
        if opcode == _1 and (modrm == np.uint64(0xC1) or modrm == np.uint64(0xD9)):
            _settle(block, _1)
            store64(env + at.EIP, rip + length)
            return HYPERCALL
        if opcode == _1 and modrm == np.uint64(0xF9):
            _settle(block, _0)
            answered = answer_timestamp(block, _1)
            put(block, CONSUMED, word(block, CONSUMED) + _1)
            store64(env + at.EIP, rip + length)
            return GO_ON if answered != _0 else TIMESTAMP
        if opcode == np.uint64(0xC7) and modrm >= np.uint64(0xF0):
            _settle(block, _1)
            rex = (found >> np.uint64(32)) & _BYTE
            narrow = (found >> np.uint64(40)) & _1 != _0
            _record(block, _ACCESS_REGISTER, (modrm & np.uint64(7)) | (rex & _1) << _3)
            _record(block, _ACCESS_SIZE, _8 if rex & _8 != _0 else (_2 if narrow else np.uint64(4)))
            store64(env + at.EIP, rip + length)
            return RANDOM
    _settle(block, _0)
    return _raise(block, _INVALID_OPCODE, _0, _0)


@compiled("uint64(uint64)")
def _syscall_exit(block: int) -> int:
    env = word(block, ENV)
    if load64(env + at.EFER) & _EFER_SCE == _0:
        store64(env + at.EIP, load64(env + at.EIP) - _2)
        _settle(block, _0)
        return _raise(block, _INVALID_OPCODE, _0, _0)
    if word(block, INTERCEPT_SYSCALL) == _0:
        enter_syscall(block)
        return GO_ON
    store64(env + at.REGS + _8, load64(env + at.EIP))
    store64(env + at.REGS + np.uint64(88), flags(block))
    return SYSCALL


@compiled("uint64(uint64)")
def _io_exit(block: int) -> int:
    before = load64(word(block, ENV) + at.EIP)
    _settle(block, _1 if word(block, STOP_E) == before else _0)
    _record(block, _PORT, word(block, STOP_A))
    _record(block, _IO_SIZE, word(block, STOP_B))
    _record(block, _IO_DIRECTION, word(block, STOP_C))
    _record(block, _IO_DATA, word(block, STOP_D))
    _record(block, _IO_COUNT, _1)
    return IO


@compiled("uint64(uint64)")
def _classify(block: int) -> int:
    """Decides what a stop of the emulator means: GO_ON, or the reason to leave."""
    stop = word(block, STOP)
    if word(block, FAULT) != FAULT_NONE and stop == STOP_NONE:
        fetch = word(block, FAULT_ACCESS) == ACCESS_EXECUTE
        if not fetch:
            _settle(block, _0)
        return _fault_exit(block, full_address(block))
    if stop == STOP_BUDGET:
        return STOPPED
    if stop == STOP_REQUEST:
        request = word(block, REQUEST)
        if request & REQUEST_CANCEL != _0:
            return CANCELED
        return PAUSED if request & REQUEST_PAUSE != _0 else GO_ON
    if stop == STOP_SYSCALL:
        return _syscall_exit(block)
    if stop == STOP_INTERRUPT:
        return _interrupt_exit(block)
    if stop == STOP_IO:
        return _io_exit(block)
    if stop == STOP_CPUID or stop == STOP_TIMESTAMP:
        _settle(block, _0)
        return CPUID if stop == STOP_CPUID else TIMESTAMP
    if stop == STOP_INVALID:
        return _invalid_exit(block)
    if stop == STOP_SPECIAL:
        _settle(block, _0)
        return GO_ON
    if stop == STOP_CODE_WRITE:
        _settle(block, _0)
        drop_code(block)
        return GO_ON
    return HLT


@compiled("uint64(uint64)")
def _event_taken(block: int) -> int:
    """Ends the search for a moment to deliver an event: the core runs at full speed again."""
    place = block + REQUEST * _8
    while True:
        old = load64(place)
        if cas64(place, old, old & ~REQUEST_EVENT) == old:
            break
    put(block, LIMIT, word(block, BUDGET))
    if load64(place) != _0:
        put(block, LIMIT, _0)
    return GO_ON


@compiled("uint64(uint64)")
def _deliver_event(block: int) -> int:
    """Delivers the event that the holder asked for, when it may be delivered now; returns GO_ON or a reason."""
    page = word(block, RUN_PAGE)
    event = load64(page + _EVENT)
    if event & _EVENT_VALID == _0:
        return _event_taken(block) if word(block, REQUEST) & REQUEST_EVENT != _0 else GO_ON
    vector = event & _BYTE
    if event & _EVENT_KIND == _0:
        if flags(block) & _FLAG_IF == _0:
            return GO_ON
        store64(page + _EVENT, _0)
        result = deliver(block, vector, _0, _0, _0)
        if result == SECOND_STAGE:
            store64(page + _EVENT, event)
            return _second_stage_exit(block)
        if result == DELIVERED:
            return _event_taken(block)
        return _raise(block, (result >> _2) & np.uint64(0x3FFF), result >> _16, _0)
    store64(page + _EVENT, _0)
    code = load64(page + _EVENT_CODE)
    result = deliver(block, vector, code, _1 if event & _EVENT_ERROR_CODE != _0 else _0, _0)
    if result == DELIVERED:
        return GO_ON
    if result == SECOND_STAGE:
        return _keep_event(block, vector, code, _1 if event & _EVENT_ERROR_CODE != _0 else _0)
    second = _second_vector(vector, (result >> _2) & np.uint64(0x3FFF))
    return _raise(block, second, _0 if second == _DOUBLE_FAULT else result >> _16, _0)


@compiled("uint64(uint64)")
def _emulate(block: int) -> int:
    """Runs the emulator until it stops, once; returns GO_ON or a reason."""
    env = word(block, ENV)
    put(block, STOP, STOP_NONE)
    put(block, FAULT, FAULT_NONE)
    put(block, FAULT_ACCESS, _0)
    put(block, BLOCK_SIZE, _0)
    put(block, BLOCK_COUNT, _0)
    store32(env + at.OLD_EXCEPTION, at.NO_EXCEPTION)
    store32(env + at.EXCEPTION_IS_INT, _0)
    guest = at.HF_GUEST if word(block, EPTP) != _0 else _0
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~at.HF_GUEST) | guest)
    if word(block, PORTABLE) == _0:
        call5(word(block, F_START), word(block, ENGINE), load64(env + at.EIP), _0, _0, _0)
        return _classify(block)
    push(block)
    call5(word(block, F_START), word(block, ENGINE), load64(env + at.EIP), _0, _0, _0)
    pull(block)
    finish_by_hand(block)
    return _classify(block)


@released("uint64(uint64, uint64, uint64)")
def run(block: int, everything: int, flush: int) -> int:
    """Runs the context in RUN_PAGE for at most BUDGET instructions; returns the reason, also in the exit record.

    `everything` loads all registers whatever the dirty word says; `flush` empties the TLB first. PAUSED means that
    someone wanted the core for a moment: the same run goes on by calling again with CONSUMED as it stands.
    """
    if load(block, everything) != _0 or flush != _0:
        flush_tlb(block)
    put(block, INPUT, load64(word(block, RUN_PAGE) + PAGE_EXIT_DATA))
    _clear_record(block)
    reason = GO_ON
    while reason == GO_ON:
        reason = _deliver_event(block)
        if reason == GO_ON:
            reason = _emulate(block)
        if reason == GO_ON and word(block, CONSUMED) >= word(block, BUDGET):
            reason = STOPPED
    store(block)
    _record(block, _REASON, reason)
    _record(block, _RIP, load64(word(block, ENV) + at.EIP))
    _record(block, _RETIRED, word(block, CONSUMED))
    return reason
