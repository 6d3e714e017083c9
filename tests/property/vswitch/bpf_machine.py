"""A machine that runs the classifiers of the `linux` engine on one packet, with the kernel's functions that they call.

It knows only the instructions that they use, and fails on any other. Source: RFC 9669; bpf-helpers(7).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CUSTOMER, PROVIDER = 0x8100, 0x88A8
_CONTEXT, _STACK, _VALUE = 1 << 32, 2 << 32, 3 << 32
_MASK = (1 << 64) - 1


@dataclass
class Packet:
    """What a classifier sees: the tags of a packet, outermost first, as (kind, control bits), its mark, and its bytes
    without tags."""

    tags: list[tuple[int, int]] = field(default_factory=list)
    mark: int = 0
    size: int = 0

    @property
    def length(self) -> int:
        """What the kernel calls the length: the outermost tag lies beside the bytes."""
        return self.size + 4 * max(0, len(self.tags) - 1)


@dataclass
class Outcome:
    """What a program did: its verdict, and where it sent the packet, as (interface, flags)."""

    verdict: int
    sent: tuple[int, int] | None


class Machine:
    """Maps by descriptor, as lists of numbers; those in `wide` have four numbers a place."""

    def __init__(self, maps: dict[int, list[int]], wide: frozenset[int] = frozenset()) -> None:
        self.maps = maps
        self._wide = wide
        self.copies: list[tuple[int, Packet]] = []

    def run(self, code: bytes, packet: Packet) -> Outcome:
        """Run a program."""
        self._packet = packet
        self._sent: tuple[int, int] | None = None
        registers = [0] * 11
        registers[1], registers[10] = _CONTEXT, _STACK
        self._stack: dict[int, int] = {}
        at = 0
        for _ in range(10_000):
            opcode, both, offset, number = struct.unpack_from("<BBhi", code, at * 8)
            dst, src = both & 15, both >> 4
            at += 1
            if opcode == 0x95:
                return Outcome(registers[0], self._sent)
            if opcode == 0x18:
                assert src == 1 and number in self.maps
                registers[dst] = number
                at += 1
            elif opcode == 0x85:
                registers[0] = self._called(number, registers)
                registers[1:6] = [1 << 60] * 5  # lost by calls: whoever uses them is wrong
            elif opcode in (0x05, 0x15, 0x55, 0x45):
                value, wanted = registers[dst], number & _MASK
                jumps = {0x05: True, 0x15: value == wanted, 0x55: value != wanted, 0x45: bool(value & wanted)}
                at += offset if jumps[opcode] else 0
            else:
                self._compute(opcode, dst, src, offset, number, registers)
        raise AssertionError("the program does not end")

    def _compute(self, opcode: int, dst: int, src: int, offset: int, number: int, registers: list[int]) -> None:
        if opcode == 0x61:
            registers[dst] = self._loaded(registers[src], offset)
        elif opcode == 0x63:
            self._store(registers[dst], offset, registers[src])
        elif opcode == 0xDB:
            numbers, place = self._value
            assert registers[dst] == _VALUE
            numbers[place + offset // 8] += registers[src]
        else:
            value = registers[dst]
            computed = {0xB7: number, 0xBF: registers[src], 0x07: value + number, 0x57: value & number}
            computed |= {0x47: value | number, 0x4F: value | registers[src], 0x0F: value + registers[src]}
            computed[0x77] = value >> (number & 63)
            registers[dst] = computed[opcode] & _MASK

    def _loaded(self, address: int, offset: int) -> int:
        if address == _VALUE:
            numbers, place = self._value
            return numbers[place]
        assert address == _CONTEXT
        kind, control = self._packet.tags[0] if self._packet.tags else (0, 0)
        swapped = (kind & 0xFF) << 8 | kind >> 8
        return {
            0: self._packet.length,
            8: self._packet.mark,
            20: int(bool(self._packet.tags)),
            24: control,
            28: swapped,
        }[offset]

    def _store(self, address: int, offset: int, value: int) -> None:
        if address == _STACK:
            self._stack[offset] = value & 0xFFFF_FFFF
        else:
            assert (address, offset) == (_CONTEXT, 8)
            self._packet.mark = value & 0xFFFF_FFFF

    def _called(self, function: int, registers: list[int]) -> int:
        if function == 1:
            numbers, place = self.maps[registers[1]], self._stack[registers[2] - _STACK]
            if registers[1] in self._wide:
                place *= 4
            if place >= len(numbers):
                return 0
            self._value = (numbers, place)
            return _VALUE
        if function == 18:
            assert registers[1] == _CONTEXT
            kind = (registers[2] & 0xFF) << 8 | registers[2] >> 8
            self._packet.tags.insert(0, (kind, registers[3]))
            return 0
        if function == 19:
            assert registers[1] == _CONTEXT
            self._packet.tags.pop(0)
            return 0
        if function == 13:
            assert (registers[1], registers[3]) == (_CONTEXT, 0)
            self.copies.append((registers[2], Packet(list(self._packet.tags), self._packet.mark)))
            return 0
        assert function == 23
        self._sent = (registers[1], registers[2])
        return 7
