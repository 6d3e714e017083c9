"""A core's control block, register file and run page without an emulator, for functions that are compiled."""

from __future__ import annotations

import ctypes

import numpy as np

from lamina_hardware.io import native
from lamina_hardware.io.emulator.state import control_block
from lamina_hardware.io.emulator.state import unicorn_layout as at

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
LONG, BIG = 1 << 21, 1 << 22


class Block:
    """Words for compiled code; `env` is where the register file lies, `page` the run page."""

    def __init__(self) -> None:
        self.words = np.zeros(control_block.WORDS + 64, dtype=np.uint64)
        self.registers = np.zeros(2048, dtype=np.uint64)
        self.run_page = np.zeros(512, dtype=np.uint64)
        self.address, self.env = int(self.words.ctypes.data), int(self.registers.ctypes.data)
        self.page = int(self.run_page.ctypes.data)
        for word, value in (
            (control_block.ENV, self.env), (control_block.RUN_PAGE, self.page),
            (control_block.SCRATCH, self.address + control_block.WORDS * 8),
        ):  # fmt: skip
            self.words[int(word)] = value
        for slot, address in native.LINKS.items():
            self.words[slot] = address

    def put(self, offset: int | np.uint64, value: int, size: int = 8) -> None:
        """Stores into the register file."""
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        ctypes.memmove(self.env + int(offset), data, size)

    def get(self, offset: int | np.uint64, size: int = 8) -> int:
        """Loads from the register file."""
        return int.from_bytes(ctypes.string_at(self.env + int(offset), size), "little")

    def register(self, number: int, value: int) -> None:
        """Sets a general register."""
        self.put(int(at.REGS) + 8 * number, value)

    def segment(self, name: str, base: int = 0, flags: int = 0, selector: int = 0, limit: int = 0) -> None:
        """Sets a segment."""
        place = int(at.SEGMENTS) + SEGMENTS.index(name) * int(at.SEGMENT_STRIDE)
        for offset, value, size in ((0, selector, 4), (8, base, 8), (16, limit, 4), (20, flags, 4)):
            self.put(place + offset, value, size)

    def call(self, slot: np.uint64, *arguments: int) -> int:
        """Calls a linked function; the block is its first argument."""
        kind = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * (1 + len(arguments)))
        found: int = kind(native.LINKS[int(slot)])(self.address, *arguments)
        return found
