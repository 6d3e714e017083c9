"""Bytes of interrupts in RAM: the virtual APIC page and the posted-interrupt descriptor. Pure.

The page holds the local APIC's registers as a guest sees them: 32 bits each, 16 bytes apart. IRR, ISR and TMR are
eight registers of 32 vectors. The descriptor is what others write: a bit for each vector (PIR, 256 bits) and the flag
ON, which says that the core has not looked yet.

Source: Intel SDM vol. 3, 11.4.1 (register address map), 30.1 (virtual APIC state), 30.6 (posted-interrupt processing).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

PAGE_BYTES = 4096
DESCRIPTOR_BYTES = 64

ID, VERSION, TPR, APR, PPR, EOI, RRD, LDR, DFR, SVR = (
    0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0,
)  # fmt: skip
ISR, TMR, IRR, ESR, LVT_CMCI, ICR, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x2F0, 0x300, 0x310
LVT_TIMER, LVT_THERMAL, LVT_COUNTERS, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
TIMER_INITIAL, TIMER_CURRENT, TIMER_DIVIDE, SELF_IPI = 0x380, 0x390, 0x3E0, 0x3F0

REGISTERS_END = 0x400
"""First offset behind the registers."""

_ON = 1
_CONTROL = 32
_LOW = 0xFFFF_FFFF
_BLOCK = struct.Struct("<" + "I12x" * 8)
_EMPTY = bytes(_BLOCK.size)
_ALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Words:
    """Eight bytes of RAM at a time: `load(address)`, `store(address, value)` and `cas(address, expected, new)`.

    Addresses are physical and multiples of 8; `cas` returns what was there. `read(address, size)` returns many bytes.
    """

    load: Callable[[int], int]
    store: Callable[[int, int], None]
    cas: Callable[[int, int, int], int]
    read: Callable[[int, int], bytes]


class ApicPage:
    """The virtual APIC page at a physical address."""

    __slots__ = ("_load", "_read", "_store", "address")

    def __init__(self, words: Words, address: int) -> None:
        self._load, self._store, self._read = words.load, words.store, words.read
        self.address = address

    def get(self, register: int) -> int:
        """Returns a register, 32 bits; `register` is its offset."""
        return self._load(self.address + register) & _LOW

    def put(self, register: int, value: int) -> None:
        """Stores a register."""
        self._store(self.address + register, value & _LOW)

    def clear(self) -> None:
        """Sets every register to 0."""
        for register in range(0, REGISTERS_END, 8):
            self._store(self.address + register, 0)

    def has(self, block: int, vector: int) -> bool:
        """Whether a vector's bit is set in IRR, ISR or TMR (`block` is its offset)."""
        return bool(self.get(block + (vector >> 5) * 16) >> (vector & 31) & 1)

    def set(self, block: int, vector: int) -> None:
        """Sets a vector's bit."""
        place = block + (vector >> 5) * 16
        self.put(place, self.get(place) | 1 << (vector & 31))

    def reset(self, block: int, vector: int) -> None:
        """Clears a vector's bit."""
        place = block + (vector >> 5) * 16
        self.put(place, self.get(place) & ~(1 << (vector & 31)))

    def highest(self, block: int) -> int:
        """Returns the highest vector that is set, 0 when none is."""
        found = self._read(self.address + block, _BLOCK.size)
        if found == _EMPTY:
            return 0
        for index, bits in enumerate(reversed(_BLOCK.unpack(found))):
            if bits:
                return int((7 - index) * 32 + bits.bit_length() - 1)
        return 0

    def vectors(self, block: int) -> int:
        """Returns all 256 bits as one number."""
        found = self._read(self.address + block, _BLOCK.size)
        return sum(bits << (32 * index) for index, bits in enumerate(_BLOCK.unpack(found)))

    def put_vectors(self, block: int, bits: int) -> None:
        """Stores all 256 bits."""
        for index in range(8):
            self.put(block + index * 16, bits >> (32 * index))

    def merge(self, block: int, bits: int) -> None:
        """Sets those of 256 bits that are set in `bits`."""
        for index in range(8):
            if part := bits >> (32 * index) & _LOW:
                self.put(block + index * 16, self.get(block + index * 16) | part)


class PostedInterrupts:
    """The posted-interrupt descriptor at a physical address. All changes are by compare-and-swap."""

    __slots__ = ("_words", "address")

    def __init__(self, words: Words, address: int) -> None:
        self._words = words
        self.address = address

    def post(self, vector: int) -> bool:
        """Requests a vector and sets ON; returns whether the vector's bit was clear."""
        old = self._change(self.address + (vector >> 6) * 8, _ALL, 1 << (vector & 63))
        self._change(self.address + _CONTROL, _ALL, _ON)
        return not old >> (vector & 63) & 1

    def take(self) -> int:
        """Clears ON, then takes all vectors; returns them as 256 bits."""
        if not self._words.load(self.address + _CONTROL) & _ON:
            return 0
        self._change(self.address + _CONTROL, _ALL ^ _ON, 0)
        bits = 0
        for index in range(4):
            place = self.address + index * 8
            if self._words.load(place):
                bits |= self._change(place, 0, 0) << (64 * index)
        return bits

    def vectors(self) -> int:
        """Returns the vectors that wait, as 256 bits."""
        return sum(self._words.load(self.address + index * 8) << (64 * index) for index in range(4))

    def clear(self) -> None:
        """Empties it."""
        for index in range(DESCRIPTOR_BYTES // 8):
            self._words.store(self.address + index * 8, 0)

    def _change(self, place: int, keep: int, bits: int) -> int:
        """Keeps and sets bits of a word; returns what was there."""
        while True:
            old = self._words.load(place)
            new = old & keep | bits
            if old == new or self._words.cas(place, old, new) == old:
                return old


def listed(bits: int) -> list[int]:
    """Returns the vectors in a number of 256 bits, ascending."""
    found = []
    while bits:
        vector = (bits & -bits).bit_length() - 1
        found.append(vector)
        bits &= bits - 1
    return found
