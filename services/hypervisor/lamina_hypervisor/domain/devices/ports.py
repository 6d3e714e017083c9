"""The I/O ports of a VM: who answers which port. Pure.

A port that nobody answers reads all ones and swallows writes, as an empty ISA bus does; such accesses are counted. An
access of 2 or 4 bytes reaches an 8-bit device as that many accesses to consecutive ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

PORT_COUNT = 0x10000


class PortDevice(Protocol):
    """A device with 8-bit registers at consecutive ports."""

    def read(self, offset: int) -> int:
        """Returns the value, 0 to 255, of the register at `offset`."""

    def write(self, offset: int, value: int) -> None:
        """Writes the register at `offset`."""

    def register_name(self, offset: int, *, write: bool) -> str:
        """Returns what the register is called now."""


@dataclass(frozen=True)
class _Range:
    first: int
    count: int
    device: PortDevice


class PortBus:
    """Routes accesses to devices. `unclaimed` counts accesses that nobody answered."""

    def __init__(self) -> None:
        self._ranges: list[_Range] = []
        self._names: dict[tuple[int, bool, str], str] = {}
        self.unclaimed = 0

    def attach(self, first: int, count: int, device: PortDevice) -> None:
        """Gives ports `first` to `first + count - 1` to `device`; ranges that overlap are a `ValueError`."""
        for taken in self._ranges:
            if first < taken.first + taken.count and taken.first < first + count:
                raise ValueError(f"ports {first:#x} to {first + count - 1:#x} are taken")
        self._ranges.append(_Range(first, count, device))

    def qualifier(self, port: int, *, write: bool) -> str:
        """Returns what the exit ledger calls an access, for example `out 0x3f8 thr`; `in unknown` without a device."""
        found = self._find(port)
        if found is None:
            return "out unknown" if write else "in unknown"
        register = found.device.register_name(port - found.first, write=write)
        name = self._names.get((port, write, register))
        if name is None:
            name = self._names[port, write, register] = f"{'out' if write else 'in'} {port:#x} {register}"
        return name

    def read(self, port: int, size: int) -> int:
        """Returns what IN of `size` (1, 2 or 4) bytes at `port` gives."""
        if size == 1:
            return self._read_byte(port)
        value = 0
        for byte in range(size):
            value |= self._read_byte(port + byte) << 8 * byte
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """Performs OUT of `size` (1, 2 or 4) bytes at `port`."""
        if size == 1:
            self._write_byte(port, value & 0xFF)
            return
        for byte in range(size):
            self._write_byte(port + byte, value >> 8 * byte & 0xFF)

    def _read_byte(self, port: int) -> int:
        found = self._find(port)
        if found is None:
            self.unclaimed += 1
            return 0xFF
        return found.device.read(port - found.first)

    def _write_byte(self, port: int, value: int) -> None:
        found = self._find(port)
        if found is None:
            self.unclaimed += 1
        else:
            found.device.write(port - found.first, value)

    def _find(self, port: int) -> _Range | None:
        for taken in self._ranges:
            if taken.first <= port < taken.first + taken.count:
                return taken
        return None
