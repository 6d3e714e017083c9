"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


class IoVec(ctypes.Structure):
    """One piece of memory: struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


for _call in (LIBC.process_vm_readv, LIBC.process_vm_writev):
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]


def error_of() -> int:
    """Returns the error number of the last call."""
    return ctypes.get_errno()


def pieces_of(address: int, size: int, page: int = 4096) -> ctypes.Array[IoVec]:
    """Returns a range in pieces that end where pages do: calls on them stop between pieces, never within one."""
    found = []
    while size:
        length = min(size, page - address % page)
        found.append(IoVec(address, length))
        address, size = address + length, size - length
    return (IoVec * len(found))(*found)
