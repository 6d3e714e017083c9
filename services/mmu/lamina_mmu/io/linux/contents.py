"""Memory files (memfd), which are what objects consist of: implements `domain.kernel.port.Contents`."""

from __future__ import annotations

import ctypes
import errno
import os

from lamina_mmu.io.linux.calls import LIBC

PAGE = 4096
CACHESTAT = 451
"""Number of the system call cachestat(2), Linux 6.5."""


class _CachestatRange(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Cachestat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


class MemoryFiles:
    """Memory files by descriptor."""

    def create(self, name: str, size: int) -> int:
        """Makes one of `size` zeros."""
        content = -1
        try:
            content = os.memfd_create(name, os.MFD_CLOEXEC)
            os.ftruncate(content, size)
        except OSError as error:
            if content >= 0:
                os.close(content)
            return -(error.errno or errno.EIO)
        return content

    def close(self, content: int) -> None:
        """Lets go of one."""
        os.close(content)

    def inode(self, content: int) -> int:
        """Returns its inode."""
        return os.fstat(content).st_ino

    def read(self, content: int, offset: int, size: int) -> bytes:
        """Returns bytes of it."""
        return os.pread(content, size, offset)

    def write(self, content: int, offset: int, data: bytes) -> int:
        """Stores bytes in it."""
        try:
            return os.pwrite(content, data, offset)
        except OSError as error:
            return -(error.errno or errno.EIO)

    def resize(self, content: int, size: int) -> int:
        """Changes its size."""
        try:
            os.ftruncate(content, size)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def blocks(self, content: int) -> int:
        """Returns how many pages it has, in RAM or in swap."""
        return os.fstat(content).st_blocks * 512 // PAGE

    def resident(self, content: int, size: int) -> int:
        """Returns how many of its pages are in RAM, at most those that it has; all of them where nobody can tell.

        Kernels before 6.5 have no cachestat(2).
        """
        wanted, found = _CachestatRange(0, size), _Cachestat()
        if LIBC.syscall(CACHESTAT, content, ctypes.byref(wanted), ctypes.byref(found), 0) < 0:
            return self.blocks(content)
        return min(int(found.cache), self.blocks(content))

    def written(self, content: int, offset: int, end: int) -> list[tuple[int, int]]:
        """Returns the pieces of a range that hold data (SEEK_DATA, SEEK_HOLE)."""
        pieces: list[tuple[int, int]] = []
        while offset < end:
            try:
                start = os.lseek(content, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return pieces
                raise
            if start >= end:
                return pieces
            offset = min(os.lseek(content, start, os.SEEK_HOLE), end)
            pieces.append((start, offset))
        return pieces
