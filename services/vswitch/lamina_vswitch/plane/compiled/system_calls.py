"""Calls of the kernel from compiled code, by the C library that this process has loaded anyway.

Each returns what the call returns, or the negative number of the error. None of them waits: descriptors do not block.
Source: read(2), write(2), recv(2), sendmmsg(2).
"""

from __future__ import annotations

from typing import Any

from numba import types

from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, load32

_read: Any = types.ExternalFunction("read", types.int64(types.int32, i64, types.uint64))
_write: Any = types.ExternalFunction("write", types.int64(types.int32, i64, types.uint64))
_recv: Any = types.ExternalFunction("recv", types.int64(types.int32, i64, types.uint64, types.int32))
_sendmmsg: Any = types.ExternalFunction("sendmmsg", types.int32(types.int32, i64, types.uint32, types.int32))
_error_place: Any = types.ExternalFunction("__errno_location", i64())

INTERRUPTED, AGAIN = 4, 11
_AT_ONCE = 1024
"""Most messages of one call, which is the kernel's UIO_MAXIOV."""
_DONT_WAIT = 0x40


@compiled(i64(i64, i64, i64))
def read(file: Word, target: Word, size: Word) -> Word:
    """Reads at most `size` bytes."""
    found = _read(file, target, size)
    return found if found >= 0 else -load32(_error_place())


@compiled(i64(i64, i64, i64))
def write(file: Word, source: Word, size: Word) -> Word:
    """Writes `size` bytes."""
    found = _write(file, source, size)
    return found if found >= 0 else -load32(_error_place())


@compiled(i64(i64, i64, i64))
def receive(file: Word, target: Word, size: Word) -> Word:
    """Takes one message of at most `size` bytes from a socket."""
    found = _recv(file, target, size, _DONT_WAIT)
    return found if found >= 0 else -load32(_error_place())


@compiled(i64(i64, i64, i64))
def send(file: Word, messages: Word, count: Word) -> Word:
    """Sends messages, the first ones; returns how many went, or the error of the first."""
    found = _sendmmsg(file, messages, min(count, _AT_ONCE), _DONT_WAIT)
    return found if found >= 0 else -load32(_error_place())
