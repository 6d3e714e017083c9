"""Programs and maps of eBPF in the kernel, by the system call bpf(2). Each lives as long as its file is open.

Source: bpf(2); `union bpf_attr` of <linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from lamina_kit.errors import FailedPrecondition

_SYSCALLS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROGRAM_LOAD = 0, 1, 2, 5
_ARRAY, _CLASSIFIER = 2, 3
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


def load_classifier(code: bytes) -> int:
    """Load a program of the traffic classifier; return its descriptor, which the caller closes.

    Raises FailedPrecondition `BPF_REFUSED` with the end of what the verifier said.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "=IIQQIIQII",
        *(_CLASSIFIER, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(_LICENSE)),
        *(1, _LOG_BYTES, ctypes.addressof(log), 0, 0),
    )
    return _bpf(_PROGRAM_LOAD, attributes, "load a program", log)


def _bpf(command: int, attributes: bytes, doing: str, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    space = ctypes.create_string_buffer(attributes, len(attributes))
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise _refused(doing, f"no number of bpf(2) is known for {platform.machine()}")
    done = int(libc.syscall(number, command, space, len(attributes)))
    if done >= 0:
        return done
    said = "" if log is None else log.value.decode(errors="replace").strip()[-400:]
    raise _refused(doing, f"{os.strerror(ctypes.get_errno())}{': ' if said else ''}{said}")


def _refused(doing: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The kernel did not {doing} of eBPF: {why}.",
        reason="BPF_REFUSED",
        next_step="Run as root with a kernel that has CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF.",
    )
