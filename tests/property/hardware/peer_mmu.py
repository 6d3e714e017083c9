"""The emulator's own MMU as a peer of our walkers: one access at a time, with any tables and control bits.

A tiny program makes the access at CPL 0 or 3 and ends in INT3; what the emulator raises is the outcome. Its translation
is not ours: nothing of `lamina_hardware.io.emulator.walks.walker` runs here.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from unicorn import unicorn_const, x86_const
from unicorn.unicorn_py3.unicorn import uclib

from lamina_hardware.io.emulator import api
from lamina_hardware.io.emulator.state import unicorn_layout as at

READ, WRITE, FETCH = 1, 2, 3
_PROGRAMS_64 = {READ: "488b07cc", WRITE: "488937cc", FETCH: "ffe7"}
_PROGRAMS_32 = {READ: "8b07cc", WRITE: "8937cc", FETCH: "ffe7"}
_INTERRUPT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_SMEP_AND_SMAP = 1 << 7 | 1 << 20
_DONE, _PAGE_FAULT = 3, 14


@dataclass(frozen=True, slots=True)
class Seen:
    """What an access did: the vector that it raised (3: none), error code, CR2, and what was read."""

    vector: int
    code: int
    address: int
    value: int


class PeerMmu:
    """One emulator with its own translation over `ram`, in 64-bit or in 32-bit mode."""

    def __init__(self, ram: NDArray[np.uint8], bits: int, code: int) -> None:
        self.ram = ram
        self.bits = bits
        self._engine = ctypes.c_void_p()
        mode = unicorn_const.UC_MODE_64 if bits == 64 else unicorn_const.UC_MODE_32
        assert uclib.uc_open(unicorn_const.UC_ARCH_X86, mode, ctypes.byref(self._engine)) == 0
        uclib.uc_mem_map_ptr(
            self._engine,
            ctypes.c_uint64(0),
            ctypes.c_uint64(ram.nbytes),
            ctypes.c_uint32(unicorn_const.UC_PROT_ALL),
            ctypes.c_void_p(ram.ctypes.data),
        )
        self._env = self._find_env()
        self._word(at.FEATURES_7, ctypes.c_uint32).value |= _SMEP_AND_SMAP
        self._vector = 0
        self._callback = _INTERRUPT(self._interrupted)
        hook = ctypes.c_size_t()
        uclib.uc_hook_add(
            self._engine, ctypes.byref(hook), unicorn_const.UC_HOOK_INTR, self._callback, None,
            ctypes.c_uint64(1), ctypes.c_uint64(0),
        )  # fmt: skip
        self._code = code
        for number, program in enumerate((_PROGRAMS_64 if bits == 64 else _PROGRAMS_32).values()):
            for frame in (0, 4096):
                self.store(code + frame + 16 * number, bytes.fromhex(program))

    def close(self) -> None:
        """Frees the emulator."""
        uclib.uc_close(self._engine)

    def store(self, address: int, data: bytes) -> None:
        """Writes RAM."""
        self.ram[address : address + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def set_controls(self, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        """Sets the control registers, with paging off in between as a mode change needs."""
        pair = (ctypes.c_uint64 * 2)(0xC000_0080, efer)
        if self.bits == 32:
            self._write(x86_const.UC_X86_REG_CR0, cr0 & ~(1 << 31))
        uclib.uc_reg_write(self._engine, x86_const.UC_X86_REG_MSR, pair)
        self._write(x86_const.UC_X86_REG_CR4, cr4)
        self._write(x86_const.UC_X86_REG_CR3, cr3)
        self._write(x86_const.UC_X86_REG_CR0, cr0)

    def access(self, kind: int, va: int, cpl: int, ac: bool, value: int, code_va: int) -> Seen:
        """Makes one access with an empty TLB; code lies at `code_va` for CPL 3 and a page further for CPL 0."""
        self._write(x86_const.UC_X86_REG_EFLAGS, 2 | ac << 18)
        hflags = self._word(at.HFLAGS, ctypes.c_uint32)
        hflags.value = hflags.value & ~3 | cpl
        self._word(at.OLD_EXCEPTION, ctypes.c_uint32).value = 0xFFFF_FFFF
        for register, content in ((7, va), (6, value), (0, 0)):
            self._word(at.REGS + 8 * register, ctypes.c_uint64).value = content
        self._control(unicorn_const.UC_CTL_TLB_FLUSH)
        if kind == FETCH:
            self._control(unicorn_const.UC_CTL_TB_FLUSH)
        self._vector = 0
        start = code_va + (0 if cpl == 3 else 4096) + 16 * (kind - 1)
        error = uclib.uc_emu_start(
            self._engine, ctypes.c_uint64(start), ctypes.c_uint64(0), ctypes.c_uint64(0), ctypes.c_size_t(0)
        )
        vector = self._vector
        place = self._word(at.EIP, ctypes.c_uint64).value
        assert vector, f"the emulator ended at {place:#x} without an interrupt, with error {error}"
        fault = vector == _PAGE_FAULT
        return Seen(
            vector,
            self._word(at.ERROR_CODE, ctypes.c_uint32).value if fault else 0,
            self._word(at.CR2, ctypes.c_uint64).value if fault else 0,
            self._word(at.REGS, ctypes.c_uint64).value if vector == _DONE else 0,
        )

    def _interrupted(self, engine: int, vector: int, data: int) -> None:
        self._vector = self._vector or vector
        uclib.uc_emu_stop(self._engine)

    def _word(self, offset: int, kind: type[ctypes.c_uint32] | type[ctypes.c_uint64]) -> ctypes.c_uint64:
        return kind.from_address(self._env + int(offset))  # type: ignore[return-value]

    def _write(self, register: int, value: int) -> None:
        error = uclib.uc_reg_write(self._engine, register, ctypes.byref(ctypes.c_uint64(value)))
        assert error == 0, f"register {register} was refused with error {error}"

    def _control(self, what: int) -> None:
        assert uclib.uc_ctl(self._engine, ctypes.c_int(what | unicorn_const.UC_CTL_IO_WRITE << 30)) == 0

    def _find_env(self) -> int:
        """Returns where the register file lies, as `walker_core.find_state` finds it."""
        head = api.peek(self._engine.value or 0, 2000) or b""
        for pointer in np.frombuffer(head, dtype=np.uint64).tolist():
            if pointer & 7 or not 0x10000 < pointer < 1 << 47:
                continue
            found = api.peek(pointer + at.ENV_POINTER_IN_CPU, 8)
            if found is not None and int.from_bytes(found, "little") == pointer + at.ENV_IN_CPU:
                return int(pointer) + at.ENV_IN_CPU
        raise AssertionError("the emulator's register file was not found")
