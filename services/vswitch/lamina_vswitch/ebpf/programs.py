"""Programs and maps of eBPF in the kernel, by the system call bpf(2). Each lives as long as its file is open.

Source: bpf(2); `union bpf_attr` of <linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct

from lamina_kit.errors import FailedPrecondition

_SYSCALLS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROGRAM_LOAD, _QUERY, _LINK_CREATE = 0, 1, 2, 5, 16, 28
_ARRAY, _SOCKET_FILTER, _CLASSIFIER = 2, 1, 3
_MAPPED = 1 << 10
_AT_INGRESS, _FIRST = 46, 1 << 3
_QUERIED = struct.Struct("=IIII8xI28xQ")
"""Device, kind of attachment, flags, how many programs there are, and the revision of their list."""
_LOG_BYTES = 1 << 16
_LICENSE = ctypes.create_string_buffer(b"Apache-2.0")


class ArrayMap:
    """An array in the kernel that programs share with this process; values of `value_bytes`, 4 or a multiple of 8."""

    def __init__(self, value_bytes: int, places: int) -> None:
        self._value_bytes = value_bytes
        self.descriptor = _bpf(_MAP_CREATE, struct.pack("=IIIII", _ARRAY, 4, value_bytes, places, 0), "make a map")

    def __getitem__(self, place: int) -> int:
        value = ctypes.create_string_buffer(self._value_bytes)
        _bpf(_MAP_LOOKUP, self._element(place, value), "read a map")
        return int.from_bytes(value.raw, "little")

    def __setitem__(self, place: int, number: int) -> None:
        value = ctypes.create_string_buffer(number.to_bytes(self._value_bytes, "little"), self._value_bytes)
        _bpf(_MAP_UPDATE, self._element(place, value), "change a map")

    def close(self) -> None:
        """Let go of the map; programs that use it keep it."""
        os.close(self.descriptor)

    def _element(self, place: int, value: ctypes.Array[ctypes.c_char]) -> bytes:
        self._key = ctypes.c_uint32(place)  # kept: the kernel reads it by its address
        return struct.pack("=IxxxxQQQ", self.descriptor, ctypes.addressof(self._key), ctypes.addressof(value), 0)


class SharedMemory:
    """`size` bytes in the kernel that programs and this process read and write, all zero at first.

    `words` are its 64-bit words; each is loaded and stored as one.
    """

    def __init__(self, size: int) -> None:
        """Make it. Raises FailedPrecondition `BPF_REFUSED`."""
        self.descriptor = _bpf(_MAP_CREATE, struct.pack("=IIIII", _ARRAY, 4, size, 1, _MAPPED), "make shared memory")
        try:
            whole = (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
            self._memory = mmap.mmap(self.descriptor, whole, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            os.close(self.descriptor)
            raise _refused("map shared memory", os.strerror(error.errno or 0)) from error
        self.words = memoryview(self._memory).cast("Q")

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return a copy of some bytes."""
        return self._memory[offset : offset + size]

    def close(self) -> None:
        """Let go of the memory; programs that use it keep it."""
        self.words.release()
        self._memory.close()
        os.close(self.descriptor)


def load_classifier(code: bytes) -> int:
    """Load a program of the traffic classifier; return its descriptor, which the caller closes.

    Raises FailedPrecondition `BPF_REFUSED` with the end of what the verifier said.
    """
    return _loaded(code, _CLASSIFIER, 0)


def load_first_classifier(code: bytes) -> int:
    """Load a program for `attach_alone`; return its descriptor, as `load_classifier` does."""
    return _loaded(code, _CLASSIFIER, _AT_INGRESS)


def load_socket_filter(code: bytes) -> int:
    """Load a filter of a socket; return its descriptor, as `load_classifier` does."""
    return _loaded(code, _SOCKET_FILTER, 0)


def attach_alone(program: int, index: int) -> int:
    """Run a program on every frame that comes in at a device where none does; return what holds it.

    It runs until that descriptor, and all copies of it, are closed. Programs of `tc` filters come after it. Needs Linux
    6.6. Raises FailedPrecondition `BPF_REFUSED`, also where there is a program already.
    """
    query = ctypes.create_string_buffer(_QUERIED.pack(index, _AT_INGRESS, 0, 0, 0, 0), _QUERIED.size)
    _call(_QUERY, query, "look for programs", fine=errno.ENOENT)  # Linux 6.6 says this where there is none
    *_, others, revision = _QUERIED.unpack(query.raw)
    if others:
        raise _refused("attach a program", "another one is at this interface")
    attributes = struct.pack("=IIIIIIQ", program, index, _AT_INGRESS, _FIRST, 0, 0, revision)
    return _bpf(_LINK_CREATE, attributes, "attach a program")


def _loaded(code: bytes, kind: int, attach: int) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "=IIQQIIQII16xII",
        *(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(_LICENSE)),
        *(1, _LOG_BYTES, ctypes.addressof(log), 0, 0, 0, attach),
    )
    return _bpf(_PROGRAM_LOAD, attributes, "load a program", log)


def _bpf(command: int, attributes: bytes, doing: str, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, len(attributes)), doing, log)


def _call(
    command: int,
    space: ctypes.Array[ctypes.c_char],
    doing: str,
    log: ctypes.Array[ctypes.c_char] | None = None,
    *,
    fine: int = 0,
) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise _refused(doing, f"no number of bpf(2) is known for {platform.machine()}")
    done = int(libc.syscall(number, command, space, len(space)))
    if done >= 0 or ctypes.get_errno() == fine:
        return done
    said = "" if log is None else log.value.decode(errors="replace").strip()[-400:]
    raise _refused(doing, f"{os.strerror(ctypes.get_errno())}{': ' if said else ''}{said}")


def _refused(doing: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The kernel did not {doing} of eBPF: {why}.",
        reason="BPF_REFUSED",
        next_step="Run as root with a kernel that has CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF.",
    )
