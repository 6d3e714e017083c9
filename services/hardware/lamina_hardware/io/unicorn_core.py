"""The fast core: our walker, exact exits and an exact budget, on internals of Unicorn that `selftest.py` has verified.

One instance a core. It holds no context between runs beyond what it may skip loading again: the run page is the truth.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import numpy as np
from lamina_kit.errors import FailedPrecondition
from lamina_kit import runpage
from lamina_kit.membus import MemoryBus
from numpy.typing import NDArray

from lamina_hardware.engines.interface import CoreCounters, CoreRun, Stopped
from lamina_hardware.io import control, emulator, hooks, machine
from lamina_hardware.io import unicorn_layout as layout
from lamina_hardware.io.emulator import Emulator

_PRIVATE = 1 << 46
"""Physical address of the core's private pages: far above any RAM, so the walker never yields it."""
_PRIVATE_BYTES = 5 * 4096
_PAUSED = int(machine.PAUSED)
_MANY_FRAMES = 64
_EVENT = runpage.TSC_OFFSET + 0x20
_CR3 = runpage.CONTROL_OFFSET + 0x10
_FRAME = 0x000F_FFFF_FFFF_F000

# MSRs that the emulator keeps and the run page holds; all others exit. Numbers and their bits in the MSR bitmap.
_KEPT_MSRS = (
    0x174, 0x175, 0x176, 0x277, 0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100,
    0xC000_0101, 0xC000_0102, 0xC000_0103,
)  # fmt: skip


def _state_address(engine: Emulator) -> tuple[int, int]:
    """Returns (CPUState, CPUX86State) of an engine: the emulator's structure holds the first, the first the second."""
    marks = [0xC0FF_EE00_0000_0000 + n * 0x1111 for n in range(16)]
    registers = emulator.GENERAL_REGISTERS
    for register, mark in zip(registers, marks, strict=True):
        engine.write(register, mark)
    pattern = b"".join(mark.to_bytes(8, "little") for mark in marks)
    words = (ctypes.c_uint64 * 250).from_address(engine.address)
    for pointer in words:
        if pointer & 7 or not 0x10000 < pointer < 1 << 47:
            continue
        found = emulator.peek(pointer + layout.ENV_POINTER_IN_CPU, 8)
        if found is None or int.from_bytes(found, "little") != pointer + layout.ENV_IN_CPU:
            continue
        if emulator.peek(pointer + layout.ENV_IN_CPU, len(pattern)) == pattern:
            for register in registers:
                engine.write(register, 0)
            return pointer, pointer + layout.ENV_IN_CPU
    raise FailedPrecondition(
        "The emulator's register file is not where this version is known to have it.",
        reason="CORE_LAYOUT_UNKNOWN",
        next_step=f"Install unicorn {layout.UNICORN_VERSION}, or set core_path to `portable`.",
    )


class UnicornCore:
    """One core on the fast path. Not thread-safe but for `request`; the caller runs it from one thread at a time."""

    path = "walker"
    capabilities = ("error-codes", "exact-budget", "msr-exits", "own-idt")

    def __init__(self, bus: MemoryBus) -> None:
        self._engine = Emulator()
        self._block: NDArray[np.uint64] = np.zeros(control.WORDS, dtype=np.uint64)
        self._address = self._block.ctypes.data
        self._engine.map(0, bus.size, bus.base)
        self._private = np.zeros(_PRIVATE_BYTES + 4096, dtype=np.uint8)
        self._set_up_intercept_page()
        self._engine.use_own_tlb()
        self._engine.write(emulator.REG_CR4, 0x620)
        self._engine.write_msr(0xC000_0080, 0xD01)
        self._engine.write(emulator.REG_CR0, 0x8001_0033)
        self._wire(bus)
        self._invalidate = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(
            self._get(control.F_INVALIDATE)
        )
        self._resident: int | None = None
        self._pages: dict[int, int] = {}
        self._bus = bus
        self._stale: set[int] = set()
        self._all_stale = False
        self._flush_wanted = False

    def _put(self, index: np.uint64, value: int) -> None:
        self._block[int(index)] = value

    def _get(self, index: np.uint64) -> int:
        return int(self._block[int(index)])

    def _set_up_intercept_page(self) -> None:
        """Builds the page and the bitmap that make RDMSR and WRMSR of unknown registers exit."""
        skew = -self._private.ctypes.data % 4096
        page = self._private[skew : skew + _PRIVATE_BYTES]
        page[4096 : 4096 + 0x2000] = 0xFF
        for number in _KEPT_MSRS:
            bit = (number if number < 0x2000 else 8192 + number - 0xC000_0000) * 2
            page[4096 + bit // 8] &= 0xFF & ~(3 << bit % 8)
        pointer = (_PRIVATE + 4096).to_bytes(8, "little")
        page[layout.VMCB_MSR_BITMAP : layout.VMCB_MSR_BITMAP + 8] = np.frombuffer(pointer, dtype=np.uint8)
        self._engine.map(_PRIVATE, _PRIVATE_BYTES, page.ctypes.data)

    def _wire(self, bus: MemoryBus) -> None:
        """Fills the control block and registers the callbacks."""
        cpu, env = _state_address(self._engine)
        ctypes.c_uint64.from_address(env + int(layout.VMCB)).value = _PRIVATE
        intercepts = int(layout.INTERCEPT_MSR) | int(layout.INTERCEPT_SHUTDOWN)
        ctypes.c_uint64.from_address(env + int(layout.INTERCEPTS)).value = intercepts
        for index, value in (
            (control.RAM_BASE, bus.base),
            (control.RAM_SIZE, bus.size),
            (control.STATE_BASE, bus.state_base),
            (control.BUS_HEAD, bus.head_base),
            (control.ENGINE, self._engine.address),
            (control.CPU, cpu),
            (control.ENV, env),
            (control.JUMP_CACHE, cpu + layout.JUMP_CACHE_IN_CPU),
            (control.SCRATCH, self._address + control.SCRATCH_WORDS * 8),
            (control.INVALID_ADDRESS, self._engine.address + layout.INVALID_ADDRESS_IN_ENGINE),
            (control.F_START, emulator.function("uc_emu_start")),
            (control.F_STOP, emulator.function("uc_emu_stop")),
            (control.F_CONTROL, emulator.function("uc_ctl")),
            (control.F_REG_READ, emulator.function("uc_reg_read")),
            (control.F_REG_WRITE, emulator.function("uc_reg_write")),
            (control.F_FLUSH, emulator.function(layout.SYMBOL_FLUSH)),
            (control.F_INVALIDATE, emulator.function(layout.SYMBOL_INVALIDATE)),
            (control.F_LEAVE, emulator.function(layout.SYMBOL_LEAVE)),
        ):
            if not value and index not in (control.RAM_BASE,):
                raise FailedPrecondition(
                    f"The emulator lacks something that the walker core uses (word {int(index)}).",
                    reason="CORE_LAYOUT_UNKNOWN",
                    next_step=f"Install unicorn {layout.UNICORN_VERSION}, or set core_path to `portable`.",
                )
            self._put(index, value)
        hook = self._engine.hook
        hook(emulator.HOOK_FILL, hooks.on_fill.address, self._address)
        hook(emulator.HOOK_BLOCK, hooks.on_block.address, self._address)
        hook(emulator.HOOK_INTERRUPT, hooks.on_interrupt.address, self._address)
        hook(emulator.HOOK_INVALID, hooks.on_invalid.address, self._address)
        for instruction, callback in (
            (emulator.SYSCALL, hooks.on_syscall),
            (emulator.IN, hooks.on_in),
            (emulator.OUT, hooks.on_out),
            (emulator.CPUID, hooks.on_cpuid),
            (emulator.RDTSC, hooks.on_timestamp),
            (emulator.RDTSCP, hooks.on_timestamp),
        ):
            hook(emulator.HOOK_INSTRUCTION, callback.address, self._address, instruction)

    def run(self, work: CoreRun) -> Stopped:
        """Runs one context; see `CoreEngine.run`."""
        page = self._pages.get(work.run_page)
        if page is None:
            view = self._bus.run_page(work.run_page)
            page = self._pages[work.run_page] = ctypes.addressof(ctypes.c_char.from_buffer(view))
        everything = self._resident != work.context or work.moved
        self._resident = work.context
        put = self._put
        put(control.RUN_PAGE, page)
        put(control.EPTP, work.eptp)
        put(control.EXCEPTIONS, work.exceptions)
        put(control.INTERCEPT_CPUID, int(work.cpuid))
        put(control.INTERCEPT_SYSCALL, int(work.syscall))
        put(control.CONSUMED, work.consumed)
        budget = work.budget or control.NO_LIMIT
        put(control.BUDGET, budget)
        put(control.LIMIT, 0 if self._get(control.REQUEST) else budget)
        event = ctypes.c_uint64.from_address(page + _EVENT).value
        if event & runpage.EVENT_VALID and not event & runpage.EVENT_EXCEPTION:
            self._ask(int(control.REQUEST_EVENT))
        flush = everything or self._flush_wanted
        if self._all_stale or self._stale:
            self._drop_code()
            flush = True
        self._flush_wanted = False
        reason = machine.run(self._address, int(everything), int(flush))
        put(control.REQUEST, 0)
        return Stopped(int(reason), self._get(control.CONSUMED), int(reason) == _PAUSED)

    def _ask(self, request: int) -> None:
        self._block[int(control.REQUEST)] |= np.uint64(request)
        self._put(control.LIMIT, 0)

    def cancel(self) -> None:
        """See `CoreEngine.cancel`."""
        self._ask(int(control.REQUEST_CANCEL))

    def pause(self) -> None:
        """See `CoreEngine.pause`."""
        self._ask(int(control.REQUEST_PAUSE))

    def holds(self, root: int, eptp: int) -> bool:
        """See `CoreEngine.holds`."""
        if self._resident is None:
            return False
        if eptp != self._get(control.EPTP):
            return False
        if eptp:
            return True
        cr3 = ctypes.c_uint64.from_address(self._get(control.ENV) + int(layout.CR3)).value
        return not root or (cr3 ^ root) & _FRAME == 0

    def flush(self) -> None:
        """See `CoreEngine.flush`."""
        self._flush_wanted = True

    def drop_code(self, frames: Iterable[int] | None) -> None:
        """See `CoreEngine.drop_code`."""
        if frames is None:
            self._all_stale = True
        else:
            self._stale.update(frames)

    def _drop_code(self) -> None:
        self._put(control.CODE_DROPS, self._get(control.CODE_DROPS) + len(self._stale))
        if self._all_stale or len(self._stale) > _MANY_FRAMES:
            self._engine.flush_code()
        else:
            for frame in sorted(self._stale):
                self._invalidate(self._engine.address, frame << 12, (frame + 1) << 12)
        self._stale.clear()
        self._all_stale = False

    def forget(self, context: int) -> None:
        """See `CoreEngine.forget`."""
        if self._resident == context:
            self._resident = None

    def counters(self) -> CoreCounters:
        """See `CoreEngine.counters`."""
        return CoreCounters(
            self._get(control.FILLS), self._get(control.WALK_FAULTS), self._get(control.CODE_DROPS)
        )

    def close(self) -> None:
        """See `CoreEngine.close`."""
        self._engine.close()
