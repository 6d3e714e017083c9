"""Exceptions: which exit, which are delivered, what becomes of one on the way to a handler; compiled.

Exceptions that the context does not intercept are delivered through its own IDT. An exception on the way to a handler
becomes a double fault by the table of the manual, one on the way to that a shutdown. When the second stage lacks what
a delivery needs, the event goes back into the run page and the run ends with an EPT exit.

Source: Intel SDM vol. 3, 7.15 (interrupt 8, table 7-5).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at
from lamina_hardware.io.emulator.delivery.double_fault import DOUBLE_FAULT, NO_VECTOR, TASK_GATE, second_vector
from lamina_hardware.io.emulator.delivery.long_mode import deliver
from lamina_hardware.io.emulator.delivery.qualification import qualify
from lamina_hardware.io.emulator.delivery.tables import DELIVERED, SECOND_STAGE
from lamina_hardware.io.emulator.instructions.exit_record import (
    ACCESS,
    ADDRESS,
    EPT_MISCONFIGURATION,
    EPT_VIOLATION,
    ERROR_CODE,
    EXCEPTION,
    GO_ON,
    GPA,
    LENGTH,
    PAGE_FAULT,
    QUALIFICATION,
    SHUTDOWN,
    TASK_SWITCH,
    VECTOR,
    record,
)
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    CONSUMED,
    ENV,
    EXCEPTION_COUNTS,
    EXCEPTIONS,
    FAULT_GPA,
    FAULT_MISCONFIGURED,
    FAULT_STAGE_ACCESS,
    FAULT_VA,
    RUN_PAGE,
)
from lamina_hardware.io.emulator.state.exit_controls import setting
from lamina_hardware.io.emulator.state.exit_table import T_FAULT_MASK, T_FAULT_MATCH
from lamina_hardware.io.emulator.state.mode import linear_rip, move_rip
from lamina_hardware.io.native import Word, compiled, load8, load32, load64, put, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _3, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 8, 16))
_BYTE = u64(0xFF)
_EVENT = u64(run_page.TSC_OFFSET + 0x20)
_EVENT_CODE = u64(run_page.TSC_OFFSET + 0x28)
_EVENT_VALID = u64(run_page.EVENT_VALID)
_EVENT_ERROR_CODE = u64(run_page.EVENT_ERROR_CODE)
_EVENT_EXCEPTION = u64(run_page.EVENT_EXCEPTION)
_INVALID_OPCODE, _PROTECTION, _PAGE = (u64(n) for n in (6, 13, 14))
_WITH_CODE = u64(1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21)
_OPCODE_INT3, _OPCODE_INTO, _OPCODE_INT1 = u64(0xCC), u64(0xCE), u64(0xF1)


@compiled("uint64(uint64)")
def second_stage_exit(block: int) -> Word:
    """Fills the exit record for an EPT violation or misconfiguration; returns which."""
    va = word(block, FAULT_VA)
    gpa = word(block, FAULT_GPA)
    record(block, GPA, gpa)
    record(block, ADDRESS, va)
    record(block, ACCESS, word(block, FAULT_STAGE_ACCESS))
    place = code_at(block, linear_rip(word(block, ENV)))
    if place != _0:
        record(block, LENGTH, decode(block, place) & _BYTE)
    if word(block, FAULT_MISCONFIGURED) != _0:
        return EPT_MISCONFIGURATION
    record(block, QUALIFICATION, qualify(block))
    return EPT_VIOLATION


@compiled("uint64(uint64, uint64, uint64, uint64)")
def keep_event(block: int, vector: int, code: int, has_code: int) -> Word:
    """Puts an event back into the run page, to be delivered when the second stage has what it lacks."""
    page = word(block, RUN_PAGE)
    store64(page + _EVENT, vector | _EVENT_EXCEPTION | _EVENT_VALID | (_EVENT_ERROR_CODE if has_code != _0 else _0))
    store64(page + _EVENT_CODE, code)
    return second_stage_exit(block)


@compiled("uint64(uint64)")
def _take_back(block: int) -> Word:
    """Puts RIP back on an INT that was refused; it did not run."""
    env = word(block, ENV)
    place = code_at(block, linear_rip(env) - _1)
    short = place != _0 and load8(place) in (_OPCODE_INT3, _OPCODE_INT1, _OPCODE_INTO)
    move_rip(env, _0 - (_1 if short else _2))
    put(block, CONSUMED, word(block, CONSUMED) - _1)
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def _intercepts(block: int, vector: int, code: int) -> Word:
    """Returns whether an exception exits: by its bit, which a page fault that does not match turns round."""
    bit = (word(block, EXCEPTIONS) >> vector) & _1
    if vector == _PAGE and code & setting(block, T_FAULT_MASK) != setting(block, T_FAULT_MATCH):
        return bit ^ _1
    return bit


@compiled("uint64(uint64, uint64, uint64, uint64)")
def raise_exception(block: int, vector: int, code: int, software: int) -> Word:
    """Exits for an exception that is intercepted, or delivers it; returns GO_ON or a reason."""
    first = vector
    while True:
        if vector == NO_VECTOR:
            return SHUTDOWN
        if vector == TASK_GATE:
            record(block, VECTOR, code)
            return TASK_SWITCH
        if vector < u64(32) and software == _0:
            put(block, EXCEPTION_COUNTS + vector, word(block, EXCEPTION_COUNTS + vector) + _1)
        has_code = (_WITH_CODE >> vector) & _1 if vector < u64(32) and software == _0 else _0
        if vector < u64(32) and _intercepts(block, vector, code) != _0:
            record(block, VECTOR, vector)
            record(block, ERROR_CODE, code)
            if vector == _PAGE:
                record(block, ADDRESS, load64(word(block, ENV) + at.CR2))
                return PAGE_FAULT
            return EXCEPTION
        if vector >= u64(32) and software != _0 and load32(word(block, ENV) + at.IDTR + _16) == _0:
            record(block, VECTOR, vector)
            return EXCEPTION
        result = deliver(block, vector, code, has_code, software)
        if result == DELIVERED:
            return GO_ON
        if result == SECOND_STAGE:
            return keep_event(block, vector, code, has_code)
        if software != _0:
            _take_back(block)
            software = _0
        second = (result >> _2) & u64(0x3FFF)
        code = result >> _16
        vector = second_vector(first, second)
        if vector == DOUBLE_FAULT:
            code = _0
        first = vector
