"""What both core engines share: one emulator, its control block, and the contract of `CoreEngine`."""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina_hardware.domain.paging.tlb import EMPTY, TlbContent, TlbSlot
from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_hardware.io import native
from lamina_hardware.io.emulator import api, local_apic
from lamina_hardware.io.emulator import run as machine
from lamina_hardware.io.emulator.api import Emulator
from lamina_hardware.io.emulator.hooks import breakpoints
from lamina_hardware.io.emulator.instructions import exit_record
from lamina_hardware.io.emulator.local_apic import InterruptedRun
from lamina_hardware.io.emulator.observation import hooks
from lamina_hardware.io.emulator.observation import layout as observe_words
from lamina_hardware.io.emulator.state import control_block
from lamina_hardware.io.emulator.state import unicorn_layout as layout
from lamina_hardware.io.emulator.state.breakpoints import ARMED_DATA
from lamina_kit.bus import atomics, run_page
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import RunPage
from lamina_kit.errors import FailedPrecondition

_MANY_FRAMES = 64
_EVENT = run_page.TSC_OFFSET + 0x20
_FRAME = 0x000F_FFFF_FFFF_F000


class CoreCell:
    """One core without its callbacks. Only `cancel` and `pause` may be called from another thread."""

    is_ready = True
    hooks_instructions = True
    """Whether breakpoints need a callback at each instruction beyond those that the core has anyway."""

    def __init__(self, bus: MemoryBus) -> None:
        self.engine = Emulator()
        self._block: NDArray[np.uint64] = np.zeros(control_block.WORDS, dtype=np.uint64)
        self._words = memoryview(self._block.data).cast("B").cast("Q")
        self._counters = memoryview(self._block.data).cast("B")[8 * _FIRST_COUNTER : 8 * _AFTER_COUNTERS]
        self.address = self._block.ctypes.data
        self._resident: int | None = None
        self._pages: dict[int, int] = {}
        self._bus = bus
        self._stale: set[int] = set()
        self._all_stale = False
        self._flush_wanted = False
        self._watching: list[int] = []
        self._watched = (False, False, False)
        self._wired = True  # whether the block may have something of the context before

    def _put(self, index: Any, value: int) -> None:
        self._words[int(index)] = value

    def _get(self, index: Any) -> int:
        return self._words[int(index)]

    def wire(self, bus: MemoryBus, env: int, cpu: int) -> None:
        """Fills in where RAM, registers and the emulator's functions are."""
        for index, value in (
            (control_block.RAM_BASE, bus.base),
            (control_block.RAM_SIZE, bus.size),
            (control_block.STATE_BASE, bus.state_base),
            (control_block.BUS_HEAD, bus.head_base),
            (control_block.ENGINE, self.engine.address),
            (control_block.CPU, cpu),
            (control_block.ENV, env),
            (control_block.SCRATCH, self.address + control_block.SCRATCH_WORDS * 8),
            (control_block.F_START, api.function("uc_emu_start")),
            (control_block.F_STOP, api.function("uc_emu_stop")),
            (control_block.F_CONTROL, api.function("uc_ctl")),
            (control_block.F_REG_READ, api.function("uc_reg_read")),
            (control_block.F_REG_WRITE, api.function("uc_reg_write")),
        ):
            self._put(index, value)
        for slot, link in native.LINKS.items():
            self._words[slot] = link

    def require(self, index: Any, value: int, what: str) -> None:
        """Puts an address that must not be 0 into the block."""
        if not value:
            raise FailedPrecondition(
                f"The emulator lacks {what}, which the walker core uses.",
                reason="CORE_LAYOUT_UNKNOWN",
                next_step=f"Install unicorn {layout.UNICORN_VERSION}, or set core_path to `portable`.",
            )
        self._put(index, value)

    def run(self, work: CoreRun) -> Stopped:
        """See `CoreEngine.run`."""
        page = self._pages.get(work.run_page)
        if page is None:
            view = self._bus.run_page(work.run_page)
            page = self._pages[work.run_page] = ctypes.addressof(ctypes.c_char.from_buffer(view))
        words = self._words
        words[_RUN_PAGE] = page
        words[_EPTP] = work.eptp
        words[_EXCEPTIONS] = work.exceptions
        words[_CPUID] = work.cpuid
        words[_SYSCALL] = work.syscall
        words[_CONTROLS] = work.controls
        words[_HALTS] = not work.hlt
        words[_FAILURES] = len(self._bus.failed_frames)
        words[_CONSUMED] = work.consumed
        words[_BUDGET] = budget = work.budget or control_block.NO_LIMIT
        if ctypes.c_uint64.from_address(page + _EVENT).value & _EVENT_BITS == run_page.EVENT_VALID:
            self._ask(int(control_block.REQUEST_EVENT))
        words[_LIMIT] = budget  # before the look at REQUEST: who asks sets that first, and then this
        if words[_REQUEST]:
            words[_LIMIT] = 0
        if work.interrupts is None and not self._wired:
            stopped = local_apic.stopped(self._enter(work), words[_CONSUMED])
        else:
            stopped = self._run_interrupted(work)
        words[_REQUEST] = 0
        return stopped

    def _run_interrupted(self, work: CoreRun) -> Stopped:
        """Runs a context whose interrupts need a look, or for the first time after one."""
        local_apic.wire(work.interrupts, self._put)
        self._wired = work.interrupts is not None
        if work.interrupts is None:
            return local_apic.stopped(self._enter(work), self._get(control_block.CONSUMED))
        page = RunPage(self._bus.run_page(work.run_page))
        enter = functools.partial(self._enter, work)
        return InterruptedRun(work, page, work.interrupts, self._get, self._put, self._change_request, enter).run()

    def _enter(self, work: CoreRun) -> int:
        """Runs the compiled part once; returns its reason."""
        everything = self._resident != work.context or work.moved
        self._resident = work.context
        work.moved = False
        if work.observation != self._words[_OBSERVATION]:
            self._words[_OBSERVATION] = work.observation
            self._place_hooks()
        flush = everything or self._flush_wanted
        if work.observation:
            if flush:
                ctypes.c_uint64.from_address(work.observation + 8 * observe_words.FORGET).value = 1
            flush = True
        if self._all_stale or self._stale:
            self._drop_stale()
            flush = True
        self._flush_wanted = False
        reason = int(machine.run(self.address, int(everything), int(flush)))
        while reason == _REARM:
            self._words[_BREAKS] = self._words[_BREAKS_WANTED]
            self._place_hooks()
            reason = int(machine.run(self.address, 0, 1))
        return reason

    def _place_hooks(self) -> None:
        """Has each instruction and access of the context tell itself that observation and breakpoints need.

        Code is translated anew for that. What stops before an instruction comes before what notes it.
        """
        breaks, observed = self._words[_BREAKS], bool(self._words[_OBSERVATION])
        wanted = bool(breaks), bool(breaks & _ARMED_DATA), observed
        if wanted == self._watched:
            return
        hook, data = self.engine.hook, self.address
        self._remove_hooks()
        self._watched = wanted
        if breaks and self.hooks_instructions:
            self._watching.append(hook(api.HOOK_CODE, breakpoints.on_instruction.address, data))
        if breaks & _ARMED_DATA:
            self._watching.append(hook(api.HOOK_ACCESS, breakpoints.on_data.address, data))
        if observed:
            self._watching.append(hook(api.HOOK_CODE, hooks.on_fetch.address, data))
            self._watching.append(hook(api.HOOK_ACCESS, hooks.on_access.address, data))
        self.engine.flush_code()

    def _remove_hooks(self) -> None:
        """Removes what `_place_hooks` placed.

        The emulator would look up where the code lies that it translated for them, in the tables of whichever context
        is here now: without RAM it finds nothing, sets no bit and counts nothing.
        """
        size, counts = self._words[_RAM_SIZE], bytes(self._counters)
        self._words[_RAM_SIZE] = 0
        for handle in self._watching:
            self.engine.unhook(handle)
        self._words[_RAM_SIZE] = size
        self._counters[:] = counts
        self._watching = []

    def _ask(self, request: int) -> None:
        self._change_request(~0, request)
        self._words[_LIMIT] = 0

    def _change_request(self, keep: int, bits: int) -> int:
        """Keeps and sets bits of REQUEST, which others set meanwhile; returns it."""
        while True:
            old = self._words[_REQUEST]
            new = old & keep | bits
            if old == new or atomics.swap64(self.address + _REQUEST * 8, old, new) == old:
                return new

    def cancel(self) -> None:
        """See `CoreEngine.cancel`."""
        self._ask(int(control_block.REQUEST_CANCEL))

    def relent(self) -> None:
        """See `CoreEngine.relent`."""
        self._words[_REQUEST] = 0

    def pause(self) -> None:
        """See `CoreEngine.pause`."""
        self._ask(int(control_block.REQUEST_PAUSE))

    def holds(self, root: int, eptp: int) -> bool:
        """See `CoreEngine.holds`."""
        if self._resident is None or eptp != self._get(control_block.EPTP):
            return False
        if eptp or not root:
            return True
        cr3 = ctypes.c_uint64.from_address(self._get(control_block.ENV) + int(layout.CR3)).value
        return (cr3 ^ root) & _FRAME == 0

    def tlb(self) -> TlbContent:
        """See `CoreEngine.tlb`."""
        if self._resident is None or self._flush_wanted:
            return EMPTY
        env = self._get(control_block.ENV)
        cr3, cr4 = (ctypes.c_uint64.from_address(env + int(at)).value for at in (layout.CR3, layout.CR4))
        return TlbContent(cr3, cr4, self._get(control_block.EPTP), tuple(self.read_tlb()))

    def read_tlb(self) -> list[TlbSlot]:
        """Returns the valid entries of the emulator's TLB, by address; nothing where it cannot be seen."""
        return []

    def flush(self) -> None:
        """See `CoreEngine.flush`."""
        self._flush_wanted = True

    def drop_code(self, frames: Iterable[int] | None) -> None:
        """See `CoreEngine.drop_code`."""
        if frames is None:
            self._all_stale = True
        else:
            self._stale.update(frames)

    def _drop_stale(self) -> None:
        self._put(control_block.CODE_DROPS, self._get(control_block.CODE_DROPS) + len(self._stale))
        if self._all_stale or len(self._stale) > _MANY_FRAMES:
            self.engine.flush_code()
        else:
            self.drop_frames(sorted(self._stale))
        self._stale.clear()
        self._all_stale = False

    def drop_frames(self, frames: Iterable[int]) -> None:
        """Drops translated code of these frames now."""
        self.engine.flush_code()

    def forget(self, context: int) -> None:
        """See `CoreEngine.forget`."""
        if self._resident == context:
            self._resident = None

    def counters(self) -> Sequence[int]:
        """See `CoreEngine.counters`."""
        return array("Q", self._counters.tobytes())

    def close(self) -> None:
        """See `CoreEngine.close`."""
        self.engine.close()


_RUN_PAGE, _EPTP, _EXCEPTIONS, _CPUID, _SYSCALL, _CONTROLS, _CONSUMED, _BUDGET, _LIMIT, _REQUEST, _HALTS = (
    int(index)
    for index in (
        control_block.RUN_PAGE,
        control_block.EPTP,
        control_block.EXCEPTIONS,
        control_block.INTERCEPT_CPUID,
        control_block.INTERCEPT_SYSCALL,
        control_block.CONTROLS,
        control_block.CONSUMED,
        control_block.BUDGET,
        control_block.LIMIT,
        control_block.REQUEST,
        control_block.HALTS,
    )
)
_EVENT_BITS = run_page.EVENT_VALID | run_page.EVENT_EXCEPTION
_OBSERVATION = int(control_block.OBSERVATION)
_BREAKS, _BREAKS_WANTED, _ARMED_DATA = int(control_block.BREAKS), int(control_block.BREAKS_WANTED), int(ARMED_DATA)
_REARM, _RAM_SIZE = int(exit_record.REARM), int(control_block.RAM_SIZE)
_FAILURES = int(control_block.FAILURES)
_FIRST_COUNTER = int(control_block.FILLS)
_AFTER_COUNTERS = _FIRST_COUNTER + control_block.COUNTER_WORDS
