"""VM exits: how a run ended, and where the particulars stand in the vCPU's run page. Pure.

The exit record is read word by word, because the dispatcher needs two or three of its seventeen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from lamina_kit.bus.run_page import EXIT_OFFSET, ExitReason, ExitRecord, RunPage


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a vCPU. Times in nanoseconds; `detail` only for `REFUSED`."""

    reason: ExitReason
    instructions: int
    run_ns: int
    wait_ns: int
    core: int
    detail: str = ""


_WORD = {field.name: (EXIT_OFFSET >> 3) + number for number, field in enumerate(fields(ExitRecord))}

VECTOR = _WORD["vector"]
ERROR_CODE = _WORD["error_code"]
ADDRESS = _WORD["address"]
GPA = _WORD["gpa"]
ACCESS = _WORD["access"]
ACCESS_SIZE = _WORD["access_size"]
ACCESS_REGISTER = _WORD["access_register"]
PORT = _WORD["port"]
IO_SIZE = _WORD["io_size"]
IO_DIRECTION = _WORD["io_direction"]
IO_DATA = _WORD["io_data"]

OUT = 1
"""Value of the direction word for OUT, and for WRMSR."""

IF = 1 << 9
"""The interrupt flag in RFLAGS."""

READ, WRITE, EXECUTE = 1, 2, 3
"""Values of the access word."""

ACCESS_NAMES = {READ: "read", WRITE: "write", EXECUTE: "execute"}

_SIZE_MASK = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}


def merge(old: int, value: int, size: int) -> int:
    """Returns a 64-bit register after `size` bytes of it were written: 1 and 2 bytes keep the rest, 4 clear it."""
    mask = _SIZE_MASK[size]
    return value & mask if size >= 4 else old & ~mask | value & mask


def narrow(value: int, size: int) -> int:
    """Returns the lowest `size` bytes of a value."""
    return value & _SIZE_MASK[size]


def set_register(page: RunPage, number: int, value: int, size: int) -> None:
    """Writes `size` bytes of general register `number` (hardware order)."""
    page.gpr[number] = merge(page.gpr[number], value, size)
