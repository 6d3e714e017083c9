"""Traces as text, compiled: CSV, and what valgrind's lackey writes.

    CSV      address[,kind[,size]]       numbers decimal or 0x…; kind r, w or x, read, write or execute, or 1, 2, 3
    lackey   I  04016b80,3    L 1ffeffe7e8,8    S …    M …    instruction, load, store, modify (which writes)

Both parsers read whole lines and stop at the first wrong one, which they name by its number and what is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.native import I64, U8, U32, U64, Word, compiled, i64, void

COUNT, CONSUMED, LINE, ERROR, HEADER_SEEN = range(5)
BAD_ADDRESS, BAD_KIND, BAD_SIZE, TOO_MANY_COLUMNS, TOO_LARGE, NOT_LACKEY = range(1, 7)
ERRORS = {
    BAD_ADDRESS: "has no address in its first column",
    BAD_KIND: "has a kind that is not r, w, x, read, write, execute, 1, 2 or 3",
    BAD_SIZE: "has a size that is not a number from 1 to 4294967295",
    TOO_MANY_COLUMNS: "has more than the columns address, kind, size",
    TOO_LARGE: "has a number that does not fit 64 bits",
    NOT_LACKEY: "is not a line of lackey such as ` L 1ffeffe7e8,8`",
}
READ, WRITE, EXECUTE = 1, 2, 3
KIND_1, KIND_R, KIND_READ = (int.from_bytes(word) for word in (b"1", b"r", b"read"))
KIND_2, KIND_W, KIND_WRITE = (int.from_bytes(word) for word in (b"2", b"w", b"write"))
KIND_3, KIND_X, KIND_EXECUTE = (int.from_bytes(word) for word in (b"3", b"x", b"execute"))
NEWLINE, RETURN, BLANK, TAB, COMMA, ZERO, NINE, MINUS, EQUALS = 10, 13, 32, 9, 44, 48, 57, 45, 61
I_CODE, L_CODE, M_CODE, S_CODE = ord("I"), ord("L"), ord("M"), ord("S")
LOWER_A, LOWER_F, LOWER_X = ord("a"), ord("f"), ord("x")


@compiled(i64(U8, i64, i64))
def _skip(buffer: Any, at: Word, end: Word) -> Word:
    """Returns where the next byte stands that is no blank."""
    while at < end and (buffer[at] == BLANK or buffer[at] == TAB or buffer[at] == RETURN):
        at += 1
    return at


@compiled(i64(U8, i64, i64, i64, U64))
def _number(buffer: Any, at: Word, end: Word, base: Word, value: Any) -> Word:
    """Reads a number into `value`; returns where it ends, -1 for none, -2 for one that is too large."""
    total = np.uint64(0)
    first = at
    most = np.uint64(0xFFFFFFFFFFFFFFFF) // np.uint64(base)
    while at < end:
        digit = np.int64(buffer[at])
        if ZERO <= digit <= NINE:
            digit -= ZERO
        elif base == 16 and LOWER_A <= (digit | 32) <= LOWER_F:
            digit = (digit | 32) - LOWER_A + 10
        else:
            break
        scaled = total * np.uint64(base)
        if total > most or scaled > np.uint64(0xFFFFFFFFFFFFFFFF) - np.uint64(digit):
            return -2
        total = scaled + np.uint64(digit)
        at += 1
    value[0] = total
    return at if at > first else -1


@compiled(i64(U8, i64, i64, U64))
def _address(buffer: Any, at: Word, end: Word, value: Any) -> Word:
    """Reads `123` or `0x7b` as `_number` does."""
    if at + 1 < end and buffer[at] == ZERO and (buffer[at + 1] | 32) == LOWER_X:
        return _number(buffer, at + 2, end, 16, value)
    return _number(buffer, at, end, 10, value)


@compiled(i64(U8, i64, i64))
def _kind(buffer: Any, at: Word, end: Word) -> Word:
    """Returns the kind that a field names; 0 for none."""
    if end - at > 7:
        return 0
    packed = 0
    for place in range(at, end):
        packed = packed << 8 | buffer[place] | 32
    if packed in (KIND_R, KIND_READ, KIND_1):
        return READ
    if packed in (KIND_W, KIND_WRITE, KIND_2):
        return WRITE
    return EXECUTE if packed in (KIND_X, KIND_EXECUTE, KIND_3) else 0


@compiled(i64(U8, i64, i64, U64))
def _csv_line(buffer: Any, at: Word, end: Word, fields: Any) -> Word:
    """Reads a line into address, kind and size; returns 0, or what is wrong."""
    value = fields[0:1]
    at = _address(buffer, at, end, value)
    if at < 0:
        return TOO_LARGE if at == -2 else BAD_ADDRESS
    fields[1], fields[2] = np.uint64(READ), np.uint64(1)
    at = _skip(buffer, at, end)
    if at == end:
        return 0
    if buffer[at] != COMMA:
        return BAD_ADDRESS
    at = _skip(buffer, at + 1, end)
    stop = at
    while stop < end and buffer[stop] != COMMA and buffer[stop] != BLANK and buffer[stop] != RETURN:
        stop += 1
    kind = _kind(buffer, at, stop) if stop > at else 0
    if kind == 0:
        return BAD_KIND
    fields[1] = np.uint64(kind)
    at = _skip(buffer, stop, end)
    if at == end:
        return 0
    if buffer[at] != COMMA:
        return BAD_KIND
    at = _address(buffer, _skip(buffer, at + 1, end), end, fields[2:3])
    if at < 0 or fields[2] == np.uint64(0) or fields[2] > np.uint64(0xFFFFFFFF):
        return BAD_SIZE
    return 0 if _skip(buffer, at, end) == end else TOO_MANY_COLUMNS


@compiled(i64(U8, i64, i64, U64))
def _lackey_line(buffer: Any, at: Word, end: Word, fields: Any) -> Word:
    """Reads a line into address, kind and size; returns 0, what is wrong, or -1 for a line of valgrind's own."""
    if end - at >= 2 and buffer[at] == buffer[at + 1] and (buffer[at] == EQUALS or buffer[at] == MINUS):
        return -1
    at = _skip(buffer, at, end)
    code = buffer[at]
    if code == I_CODE:
        fields[1] = np.uint64(EXECUTE)
    elif code == L_CODE:
        fields[1] = np.uint64(READ)
    elif code in (S_CODE, M_CODE):
        fields[1] = np.uint64(WRITE)
    else:
        return NOT_LACKEY
    if at + 1 >= end or buffer[at + 1] != BLANK:
        return NOT_LACKEY
    at = _number(buffer, _skip(buffer, at + 1, end), end, 16, fields[0:1])
    if at == -2:
        return TOO_LARGE
    if at < 0 or at >= end or buffer[at] != COMMA:
        return NOT_LACKEY
    at = _number(buffer, at + 1, end, 10, fields[2:3])
    if at < 0 or fields[2] == np.uint64(0) or fields[2] > np.uint64(0xFFFFFFFF):
        return BAD_SIZE
    return 0 if _skip(buffer, at, end) == end else NOT_LACKEY


@compiled(void(U8, i64, U64, U8, U32, I64))
def parse(buffer: Any, lackey: Word, addresses: Any, kinds: Any, sizes: Any, n: Any) -> None:
    """Reads whole lines into columns while there is room.

    `n`: how many accesses; how many bytes were consumed; lines so far; what is wrong with the last one, 0 for nothing;
    whether a line that may be a header was passed.
    """
    fields = np.zeros(3, np.uint64)
    at = n[CONSUMED]
    while n[COUNT] < addresses.size:
        end = at
        while end < buffer.size and buffer[end] != NEWLINE:
            end += 1
        if end == buffer.size:
            break
        n[LINE] += 1
        first = _skip(buffer, at, end)
        problem = -1
        if first < end:
            if lackey:
                problem = _lackey_line(buffer, at, end, fields)
            elif n[HEADER_SEEN] or ZERO <= buffer[first] <= NINE:
                problem = _csv_line(buffer, first, end, fields)
            n[HEADER_SEEN] = 1
        if problem > 0:
            n[ERROR] = problem
            break
        if problem == 0:
            addresses[n[COUNT]], kinds[n[COUNT]], sizes[n[COUNT]] = fields[0], fields[1], fields[2]
            n[COUNT] += 1
        at = end + 1
        n[CONSUMED] = at
