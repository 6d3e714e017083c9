"""The fast core: our walker, exact exits and an exact budget, on internals of Unicorn that `selftest.py` has verified.

One instance a core. It keeps no context between runs beyond what it may skip loading again: the run page is the truth.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable

import numpy as np

from lamina_hardware.domain.contexts.exit_controls import ExitControls
from lamina_hardware.domain.paging.tlb import TlbSlot
from lamina_hardware.io.emulator import api
from lamina_hardware.io.emulator import capabilities as core_capabilities
from lamina_hardware.io.emulator.api import Emulator
from lamina_hardware.io.emulator.core import CoreCell
from lamina_hardware.io.emulator.hooks import block, walker
from lamina_hardware.io.emulator.state import control_block
from lamina_hardware.io.emulator.state import unicorn_layout as layout
from lamina_hardware.io.emulator.state.exit_table import MSR_MAP_BYTES, ControlTable
from lamina_hardware.io.emulator.tlb.view import read_tables
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import FailedPrecondition

_PRIVATE = 1 << 46
"""Physical address of the core's private pages: far above any RAM, so the walker never yields it."""
_PRIVATE_BYTES = 5 * 4096


def find_state(engine: Emulator) -> tuple[int, int]:
    """Returns (CPUState, CPUX86State) of an engine: the emulator's structure holds the first, the first the second."""
    marks = [0xC0FF_EE00_0000_0000 + n * 0x1111 for n in range(16)]
    registers = api.GENERAL_REGISTERS
    for register, mark in zip(registers, marks, strict=True):
        engine.write(register, mark)
    pattern = b"".join(mark.to_bytes(8, "little") for mark in marks)
    head = api.peek(engine.address, 2000) or b""
    for pointer in np.frombuffer(head, dtype=np.uint64).tolist():
        if pointer & 7 or not 0x10000 < pointer < 1 << 47:
            continue
        found = api.peek(pointer + layout.ENV_POINTER_IN_CPU, 8)
        if found is None or int.from_bytes(found, "little") != pointer + layout.ENV_IN_CPU:
            continue
        if api.peek(pointer + layout.ENV_IN_CPU, len(pattern)) == pattern:
            for register in registers:
                engine.write(register, 0)
            return pointer, pointer + layout.ENV_IN_CPU
    raise FailedPrecondition(
        "The emulator's register file is not where this version is known to have it.",
        reason="CORE_LAYOUT_UNKNOWN",
        next_step=f"Install unicorn {layout.UNICORN_VERSION}, or set core_path to `portable`.",
    )


@functools.cache
def _block_hook() -> int:
    """Returns the address of the block callback, which all cores share."""
    return block.build(int(walker.on_block.address))


class UnicornCore(CoreCell):
    """One core on the walker path."""

    path = "walker"
    capabilities: tuple[str, ...] = core_capabilities.WALKER

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self.engine.map(0, bus.size, bus.base)
        self._private = np.zeros(_PRIVATE_BYTES + 4096, dtype=np.uint8)
        self._set_up_intercepts()
        self.engine.use_own_tlb()
        self.engine.write(api.REG_CR4, 0x620)
        self.engine.write_msr(0xC000_0080, 0xD01)
        self.engine.write(api.REG_CR0, 0x8001_0033)
        cpu, env = find_state(self.engine)
        ctypes.c_uint64.from_address(env + int(layout.VMCB)).value = _PRIVATE
        features = ctypes.c_uint32.from_address(env + int(layout.FEATURES_7))
        features.value |= layout.FEATURE_SMEP | layout.FEATURE_SMAP
        self.wire(bus, env, cpu)
        self._put(control_block.JUMP_CACHE, cpu + layout.JUMP_CACHE_IN_CPU)
        self._put(control_block.INVALID_ADDRESS, self.engine.address + layout.INVALID_ADDRESS_IN_ENGINE)
        for index, symbol in (
            (control_block.F_INVALIDATE, layout.SYMBOL_INVALIDATE),
            (control_block.F_LEAVE, layout.SYMBOL_LEAVE),
        ):
            self.require(index, api.function(symbol), f"its function {symbol}")
        self._register_hooks()
        self._invalidate = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(
            self._get(control_block.F_INVALIDATE)
        )

    def _set_up_intercepts(self) -> None:
        """Builds the page and the bitmap that make RDMSR and WRMSR of unknown registers exit."""
        skew = -self._private.ctypes.data % 4096
        page = self._private[skew : skew + _PRIVATE_BYTES]
        self._msr_default = ControlTable(ExitControls()).msr_map
        page[4096 : 4096 + MSR_MAP_BYTES] = self._msr_default
        self._put(control_block.CONTROLS_SERIAL, control_block.NO_LIMIT)  # no table's number
        self._put(control_block.MSR_DEFAULT, self._msr_default.ctypes.data)
        self._put(control_block.MSR_MAP, page.ctypes.data + 4096)
        pointer = (_PRIVATE + 4096).to_bytes(8, "little")
        page[layout.VMCB_MSR_BITMAP : layout.VMCB_MSR_BITMAP + 8] = np.frombuffer(pointer, dtype=np.uint8)
        self.engine.map(_PRIVATE, _PRIVATE_BYTES, page.ctypes.data)

    def _register_hooks(self) -> None:
        hook = self.engine.hook
        hook(api.HOOK_FILL, walker.on_fill.address, self.address)
        hook(api.HOOK_BLOCK, _block_hook(), self.address)
        hook(api.HOOK_INTERRUPT, walker.on_interrupt.address, self.address)
        hook(api.HOOK_INVALID, walker.on_invalid.address, self.address)
        for instruction, callback in (
            (api.SYSCALL, walker.on_syscall),
            (api.SYSENTER, walker.on_sysenter),
            (api.IN, walker.on_in),
            (api.OUT, walker.on_out),
            (api.CPUID, walker.on_cpuid),
            (api.RDTSC, walker.on_timestamp),
            (api.RDTSCP, walker.on_timestamp),
        ):
            hook(api.HOOK_INSTRUCTION, callback.address, self.address, instruction)

    @property
    def environment(self) -> int:
        """Where the register file is in this process."""
        return self._get(control_block.ENV)

    def read_tlb(self) -> list[TlbSlot]:
        """Returns the valid entries of the emulator's TLB, by address."""
        return read_tables(self._get(control_block.ENV))

    def drop_frames(self, frames: Iterable[int]) -> None:
        """Drops translated code of these frames now."""
        for frame in frames:
            self._invalidate(self.engine.address, frame << 12, (frame + 1) << 12)
