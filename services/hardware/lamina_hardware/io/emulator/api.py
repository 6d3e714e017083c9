"""The emulator's public interface, typed: one engine a core.

The library is loaded through the `unicorn` package; callbacks are addresses of compiled functions, registered directly,
because the package's own wrappers cost more than what they wrap. Everything here is documented API.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

from unicorn import unicorn_const, x86_const
from unicorn.unicorn_py3.unicorn import uclib

from lamina_kit.errors import Internal

HOOK_INTERRUPT: Final = unicorn_const.UC_HOOK_INTR
HOOK_INSTRUCTION: Final = unicorn_const.UC_HOOK_INSN
HOOK_CODE: Final = unicorn_const.UC_HOOK_CODE
HOOK_BLOCK: Final = unicorn_const.UC_HOOK_BLOCK
HOOK_INVALID: Final = unicorn_const.UC_HOOK_INSN_INVALID
HOOK_FILL: Final = unicorn_const.UC_HOOK_TLB_FILL
HOOK_ACCESS: Final = unicorn_const.UC_HOOK_MEM_READ | unicorn_const.UC_HOOK_MEM_WRITE

IN: Final = x86_const.UC_X86_INS_IN
OUT: Final = x86_const.UC_X86_INS_OUT
SYSCALL: Final = x86_const.UC_X86_INS_SYSCALL
SYSENTER: Final = x86_const.UC_X86_INS_SYSENTER
CPUID: Final = x86_const.UC_X86_INS_CPUID
RDTSC: Final = x86_const.UC_X86_INS_RDTSC
RDTSCP: Final = x86_const.UC_X86_INS_RDTSCP

# Broad enough for x86-64-v2 code, and without RDRAND, RDSEED, XSAVE and AVX: those must not run unseen.
CPU_MODEL: Final = x86_const.UC_CPU_X86_WESTMERE

_CONTROL_TLB_FLUSH: Final = unicorn_const.UC_CTL_TLB_FLUSH | unicorn_const.UC_CTL_IO_WRITE << 30
_CONTROL_TB_FLUSH: Final = unicorn_const.UC_CTL_TB_FLUSH | unicorn_const.UC_CTL_IO_WRITE << 30
_CONTROL_TLB_MODE: Final = unicorn_const.UC_CTL_TLB_TYPE | 1 << 26 | unicorn_const.UC_CTL_IO_WRITE << 30
_CONTROL_EXITS: Final = unicorn_const.UC_CTL_UC_USE_EXITS | 1 << 26 | unicorn_const.UC_CTL_IO_WRITE << 30
_CONTROL_MODEL: Final = unicorn_const.UC_CTL_CPU_MODEL | 1 << 26 | unicorn_const.UC_CTL_IO_WRITE << 30

REG_CR0: Final = x86_const.UC_X86_REG_CR0
REG_CR4: Final = x86_const.UC_X86_REG_CR4
GENERAL_REGISTERS: Final = (
    x86_const.UC_X86_REG_RAX,
    x86_const.UC_X86_REG_RCX,
    x86_const.UC_X86_REG_RDX,
    x86_const.UC_X86_REG_RBX,
    x86_const.UC_X86_REG_RSP,
    x86_const.UC_X86_REG_RBP,
    x86_const.UC_X86_REG_RSI,
    x86_const.UC_X86_REG_RDI,
    *range(x86_const.UC_X86_REG_R8, x86_const.UC_X86_REG_R8 + 8),
)
"""The general registers in hardware order."""

DATA_RIGHTS: Final = unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_WRITE
_ALL_RIGHTS: Final = unicorn_const.UC_PROT_ALL


def function(name: str) -> int:
    """Returns the address of an exported function of the library; 0 when it has none of that name."""
    try:
        pointer = getattr(uclib, name)
    except AttributeError:
        return 0
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


_open = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)(("uc_open", uclib))
_close = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(("uc_close", uclib))
_map = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p
)(("uc_mem_map_ptr", uclib))
_read = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(("uc_reg_read", uclib))
_write = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(("uc_reg_write", uclib))


_context_alloc = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(("uc_context_alloc", uclib))
_context_save = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(("uc_context_save", uclib))
_context_free = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(("uc_context_free", uclib))
_unhook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(("uc_hook_del", uclib))
_stop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(("uc_emu_stop", uclib))
_start = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t
)(("uc_emu_start", uclib))


class _Table(ctypes.Structure):
    """A descriptor table register (uc_x86_mmr)."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class _Pair(ctypes.Structure):
    """A model-specific register (uc_x86_msr)."""

    _fields_ = (("number", ctypes.c_uint32), ("value", ctypes.c_uint64))


class _Entry(ctypes.Structure):
    """What a TLB fill answers (uc_tlb_entry)."""

    _fields_ = (("address", ctypes.c_uint64), ("rights", ctypes.c_int))


_FILL = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(_Entry), ctypes.c_void_p
)
_SYSCALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_INTERRUPT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)


def peek(address: int, size: int) -> bytes | None:
    """Returns bytes of this process, or None where nothing is mapped, without ever crashing."""
    file = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(file, size, address)
    except OSError:
        return None
    finally:
        os.close(file)
    return data if len(data) == size else None


class Emulator:
    """One x86-64 engine in virtual-TLB mode: every translation comes from our walker."""

    def __init__(self) -> None:
        out = ctypes.c_void_p()
        _check(_open(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64, ctypes.byref(out)), "uc_open")
        self.address: int = out.value or 0
        self._saved: list[int] = []
        self._plain: list[Any] = []
        self._control(_CONTROL_MODEL, ctypes.c_int(CPU_MODEL))
        # Ends are those of a list, which stays empty: without this, `uc_emu_start` ends at its `until`, 0 included.
        self._control(_CONTROL_EXITS, ctypes.c_int(1))

    def map(self, guest: int, size: int, host: int, rights: int = _ALL_RIGHTS) -> None:
        """Shows `size` bytes at address `host` of this process to the engine at physical address `guest`."""
        _check(_map(self.address, guest, size, rights, host), "uc_mem_map_ptr")

    def use_own_tlb(self) -> None:
        """Turns the emulator's own page walker off."""
        self._control(_CONTROL_TLB_MODE, ctypes.c_int(unicorn_const.UC_TLB_VIRTUAL))

    def hook(self, kind: int, callback: int, data: int, instruction: int | None = None) -> int:
        """Registers the compiled function at address `callback`, with `data` as its last argument; returns a handle."""
        handle = ctypes.c_size_t()
        extra = () if instruction is None else (ctypes.c_int(instruction),)
        error = uclib.uc_hook_add(
            ctypes.c_void_p(self.address),
            ctypes.byref(handle),
            ctypes.c_int(kind),
            ctypes.c_void_p(callback),
            ctypes.c_void_p(data),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
            *extra,
        )
        _check(error, "uc_hook_add")
        return handle.value

    def unhook(self, handle: int) -> None:
        """Takes a registered function away again."""
        _check(_unhook(self.address, handle), "uc_hook_del")

    def read(self, register: int) -> int:
        """Returns a 64-bit register."""
        value = ctypes.c_uint64()
        _check(_read(self.address, register, ctypes.byref(value)), "uc_reg_read")
        return value.value

    def write(self, register: int, value: int) -> None:
        """Writes a 64-bit register."""
        _check(_write(self.address, register, ctypes.byref(ctypes.c_uint64(value))), "uc_reg_write")

    def write_msr(self, number: int, value: int) -> None:
        """Writes a model-specific register."""
        _check(_write(self.address, x86_const.UC_X86_REG_MSR, ctypes.byref(_Pair(number, value))), "uc_reg_write")

    def write_table(self, register: int, base: int, limit: int) -> None:
        """Writes GDTR or IDTR."""
        value = _Table(0, base, limit, 0)
        _check(_write(self.address, register, ctypes.byref(value)), "uc_reg_write")

    def save(self) -> int:
        """Saves the registers; returns the address of what `uc_context_restore` takes. It lives as long as this."""
        out = ctypes.c_void_p()
        _check(_context_alloc(self.address, ctypes.byref(out)), "uc_context_alloc")
        self._saved.append(out.value or 0)
        _check(_context_save(self.address, out), "uc_context_save")
        return out.value or 0

    def run_identity(self, address: int) -> None:
        """Runs from `address` to an instruction that stops, with every address translated to itself."""

        def fill(engine: int, page: int, kind: int, out: Any, data: int) -> bool:
            out[0].address, out[0].rights = page, _ALL_RIGHTS
            return True

        def stop(engine: int, vector: int, data: int) -> None:
            _stop(self.address)

        kept = (_FILL(fill), _INTERRUPT(stop))
        hooks = [
            self.hook(HOOK_FILL, ctypes.cast(kept[0], ctypes.c_void_p).value or 0, 0),
            self.hook(HOOK_INTERRUPT, ctypes.cast(kept[1], ctypes.c_void_p).value or 0, 0),
        ]
        _check(_start(self.address, address, 0, 0, 0), "uc_emu_start")
        for hook in hooks:
            _check(_unhook(self.address, hook), "uc_hook_del")
        self.flush_tlb()
        self.flush_code()

    def run_plain(self, address: int) -> None:
        """Runs from `address` with the emulator's own translation until SYSCALL ends it; for comparison only."""
        if not self._plain:

            def stop(engine: int, data: int) -> None:
                _stop(self.address)

            self._plain.append(_SYSCALL(stop))
            self.hook(HOOK_INSTRUCTION, ctypes.cast(self._plain[0], ctypes.c_void_p).value or 0, 0, SYSCALL)
        _check(_start(self.address, address, 0, 0, 0), "uc_emu_start")

    def flush_tlb(self) -> None:
        """Drops all translations of addresses."""
        self._control(_CONTROL_TLB_FLUSH)

    def flush_code(self) -> None:
        """Drops all translated code."""
        self._control(_CONTROL_TB_FLUSH)

    def close(self) -> None:
        """Frees the engine. Idempotent."""
        if self.address:
            for saved in self._saved:
                _context_free(saved)
            self._saved.clear()
            _close(self.address)
            self.address = 0

    def _control(self, code: int, *arguments: Any) -> None:
        error = uclib.uc_ctl(ctypes.c_void_p(self.address), ctypes.c_int(code), *arguments)
        _check(error, "uc_ctl")


def _check(error: int, what: str) -> None:
    if error:
        raise Internal(f"The emulator refused {what} with error {error}.", reason="EMULATOR_ERROR")
