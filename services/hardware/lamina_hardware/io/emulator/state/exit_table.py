"""Exit controls in the form that compiled code reads: one array of words for each context that has its own.

    word   0  flags: bit n for instruction n that exits, then the FLAG_… bits
           1  page-fault mask, match · 3 CR0 mask, shadow · 5 CR4 mask, shadow · 7 CR3 targets: how many, and four
          12  PAUSE gap, window · 14 counts of MSR reads, writes, shadows, devices, posted writes
          20  reads of control registers that are handed over · 21 addresses of the port bitmap and the MSR bitmap ·
              23 a number that no other table has
          32  MSR ranges whose reads exit (first, count) · 544 writes · 1056 shadows (number, value) · 1184 devices
              (first, end) · 1312 posted writes (slot | kind, place, size, has value, value)
        1408  port bitmap, 8 KiB · 2432 MSR bitmap as the emulator reads it, 8 KiB

The array stays where it is for as long as the context has these controls; shadow registers live in it.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lamina_hardware.domain.contexts.exit_controls import KEPT_MSRS, ExitControls
from lamina_hardware.io.machine_word import u64

FLAG_DEBUG, FLAG_INTERRUPT_WINDOW, FLAG_NMI_WINDOW, FLAG_EXTERNAL, FLAG_NMI, FLAG_ALL_PORTS, FLAG_ALL_MSRS = (
    u64(1 << bit) for bit in range(32, 39)
)
FLAG_CR3_WRITES, FLAG_CR3_READS, FLAG_CR8_WRITES, FLAG_CR8_READS, FLAG_WATCHED = (
    u64(1 << bit) for bit in range(40, 45)
)

(T_FLAGS, T_FAULT_MASK, T_FAULT_MATCH, T_CR0_MASK, T_CR0_SHADOW, T_CR4_MASK, T_CR4_SHADOW, T_TARGETS) = (
    u64(n) for n in range(8)
)  # fmt: skip
T_TARGET = u64(8)
T_PAUSE_GAP, T_PAUSE_WINDOW, T_READS, T_WRITES, T_SHADOWS, T_DEVICES, T_POSTED = (u64(n) for n in range(12, 19))
T_CR_READS, T_PORT_MAP, T_MSR_MAP, T_SERIAL = (u64(n) for n in range(20, 24))
T_READ, T_WRITE, T_SHADOW, T_DEVICE, T_POST = u64(32), u64(544), u64(1056), u64(1184), u64(1312)
POST_WORDS = u64(6)
POST_PORT, POST_GPA = u64(1), u64(2)
_PORT_MAP, _MSR_MAP, _WORDS = 1408, 2432, 3456
MSR_MAP_BYTES = 8192
_MSR_REGIONS = ((0, 0), (0xC000_0000, 8192), (0xC001_0000, 16384))
_SPAN = 8192


def exits_for_interrupts(address: int) -> bool:
    """Returns whether the controls at an address (0: none) let an interrupt end the run."""
    return bool(address and ctypes.c_uint64.from_address(address).value & int(FLAG_EXTERNAL))


_serials = itertools.count(1)


class ControlTable:
    """The controls of one context, compiled. `address` is that of its first word."""

    def __init__(self, controls: ExitControls) -> None:
        self.controls = controls
        self._words: NDArray[np.uint64] = np.zeros(_WORDS, dtype=np.uint64)
        self.address = self._words.ctypes.data
        self._fill(controls)

    @property
    def shadows(self) -> tuple[tuple[int, int], ...]:
        """The shadow registers with the values that they have now."""
        place = int(T_SHADOW)
        return tuple(
            (number, int(self._words[place + 2 * n + 1])) for n, (number, _) in enumerate(self.controls.shadows)
        )

    @property
    def msr_map(self) -> NDArray[np.uint8]:
        """A copy of the MSR bitmap."""
        return self._words[_MSR_MAP:_WORDS].view(np.uint8).copy()

    def set_shadow(self, number: int, value: int) -> bool:
        """Gives a shadow register a value; returns whether there is one of that number."""
        for n, (known, _) in enumerate(self.controls.shadows):
            if known == number:
                self._words[int(T_SHADOW) + 2 * n + 1] = value
                return True
        return False

    @property
    def watched(self) -> bool:
        """Whether someone waits for posted writes: the core then tells each at once."""
        return bool(int(self._words[0]) & int(FLAG_WATCHED))

    @watched.setter
    def watched(self, value: bool) -> None:
        flags = int(self._words[0]) & ~int(FLAG_WATCHED)
        self._words[0] = flags | (int(FLAG_WATCHED) if value else 0)

    def _fill(self, controls: ExitControls) -> None:
        registers = controls.registers
        flags = sum(1 << int(instruction) for instruction in controls.instructions)
        for flag, wanted in (
            (FLAG_DEBUG, controls.debug_registers),
            (FLAG_INTERRUPT_WINDOW, controls.interrupt_window),
            (FLAG_NMI_WINDOW, controls.nmi_window),
            (FLAG_EXTERNAL, controls.external_interrupts),
            (FLAG_NMI, controls.nmis),
            (FLAG_ALL_PORTS, controls.all_ports),
            (FLAG_ALL_MSRS, controls.all_msrs),
            (FLAG_CR3_WRITES, registers.cr3_writes),
            (FLAG_CR3_READS, registers.cr3_reads),
            (FLAG_CR8_WRITES, registers.cr8_writes),
            (FLAG_CR8_READS, registers.cr8_reads),
        ):
            flags |= int(flag) if wanted else 0
        head = (
            flags, controls.page_fault_mask, controls.page_fault_match, registers.cr0_mask, registers.cr0_shadow,
            registers.cr4_mask, registers.cr4_shadow, len(registers.cr3_targets), *registers.cr3_targets,
        )  # fmt: skip
        self._put(0, head)
        self._put(
            int(T_PAUSE_GAP),
            (
                controls.pause_gap_ns, controls.pause_window_ns, len(controls.msr_reads), len(controls.msr_writes),
                len(controls.shadows), len(controls.devices), len(controls.posted),
            ),
        )  # fmt: skip
        reads = (registers.cr0_mask != 0) | (registers.cr4_mask != 0) << 4 | registers.cr3_reads << 3
        addresses = (self.address + 8 * _PORT_MAP, self.address + 8 * _MSR_MAP)
        self._put(int(T_CR_READS), (reads, *addresses, next(_serials)))
        for start, pairs in (
            (T_READ, controls.msr_reads),
            (T_WRITE, controls.msr_writes),
            (T_SHADOW, controls.shadows),
        ):
            self._put(int(start), (value for pair in pairs for value in pair))
        self._put(int(T_DEVICE), (value for gpa, size in controls.devices for value in (gpa, gpa + size)))
        self._fill_posted(controls)
        self._fill_ports(controls)
        self._fill_msrs(controls)

    def _put(self, start: int, values: Iterable[int]) -> None:
        for n, value in enumerate(values):
            self._words[start + n] = value

    def _fill_posted(self, controls: ExitControls) -> None:
        for n, entry in enumerate(controls.posted):
            kind, place = (POST_PORT, entry.port) if entry.port is not None else (POST_GPA, entry.gpa)
            has_value = entry.value is not None
            words = (entry.slot, int(kind), place or 0, entry.size, int(has_value), entry.value or 0)
            self._put(int(T_POST) + int(POST_WORDS) * n, words)

    def _fill_ports(self, controls: ExitControls) -> None:
        bits = np.zeros(65536, dtype=np.uint8)
        for first, count in controls.ports:
            bits[first : first + count] = 1
        self._words[_PORT_MAP : _PORT_MAP + 1024] = np.packbits(bits, bitorder="little").view(np.uint64)

    def _fill_msrs(self, controls: ExitControls) -> None:
        """Builds the bitmap: two bits a register, read and write; 1 makes the emulator hand the access over."""
        bits = np.ones((MSR_MAP_BYTES * 4, 2), dtype=np.uint8)
        for msr in KEPT_MSRS:
            bits[msr if msr < _SPAN else _SPAN + msr - 0xC000_0000] = 0
        if controls.all_msrs:
            bits[:] = 1
        for column, ranges in ((0, controls.msr_reads), (1, controls.msr_writes)):
            for first, count in ranges:
                for base, place in _MSR_REGIONS:
                    low, high = max(first, base), min(first + count, base + _SPAN)
                    if low < high:
                        bits[place + low - base : place + high - base, column] = 1
        self._words[_MSR_MAP:_WORDS] = np.packbits(bits.reshape(-1), bitorder="little").view(np.uint64)
