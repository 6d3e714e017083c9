"""A core that is a processor of the host: it runs a context's vCPU in KVM, and does what KVM leaves to user space.

    page ─ what changed ─► vCPU ─► KVM_RUN ─► exit ─┬─► done here (memory, ports of nobody, shadow registers): go on
             ▲                        ▲             │
             │                        └─────────────┘
             └──────── registers, exit record ◄─────┴─► it leaves

A context's state stays in its vCPU, and whichever core has the context runs that. No instruction is counted: slices
are times, which `vm.py` watches over. Any thread stops a run by a flag, `immediate_exit` and a signal that only
KVM_RUN lets through.

Source: Linux, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterable, Sequence
from threading import get_ident

from lamina_hardware.domain.contexts.counts import NOTHING
from lamina_hardware.domain.contexts.exit_controls import ExitControls
from lamina_hardware.domain.paging.tlb import EMPTY, TlbContent
from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_hardware.io.kvm import abi
from lamina_hardware.io.kvm.device_reads import LOAD, complete
from lamina_hardware.io.kvm.exit_state import ExitState
from lamina_hardware.io.kvm.exits import answer_input, handle, resume
from lamina_hardware.io.kvm.fast_round import DONE, ERROR, Lane, step
from lamina_hardware.io.kvm.guest_tables import table_that_is_gone
from lamina_hardware.io.kvm.interrupts import before_entry, prepare
from lamina_hardware.io.kvm.vcpu import SIGNAL, Vcpu
from lamina_hardware.io.kvm.vm import KvmHost, Vm
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import ExitReason, ExitRecord, RunPage
from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_kit.paging import PAGE_SIZE

CAPABILITIES = ("error-codes", "exit-controls", "halt-waits", "msr-exits", "nmi", "own-idt", "smap")

_CANCEL, _PAUSE = 1, 2
_ACCESSES = frozenset((ExitReason.IO, ExitReason.MMIO))
"""Exits after which FPU, model-specific and debug registers stay in the vCPU until someone asks."""
_OPEN = (abi.EXIT_IRQ_WINDOW, abi.EXIT_HLT)
"""Exits after which an interrupt may be taken."""
_NOTHING = ExitRecord()
_threads = threading.local()


class KvmCore:
    """One core. It keeps nothing of contexts between runs; they are with the host."""

    path = "kvm"
    is_ready = True
    capabilities: tuple[str, ...] = CAPABILITIES

    def __init__(self, host: KvmHost) -> None:
        self._host = host
        self._watch = host.watch
        self._watch.add(self)
        self._pages: dict[int, RunPage] = {}
        self._request = 0
        self._vcpu: Vcpu | None = None
        self._guest_tables = False

    def run(self, work: CoreRun) -> Stopped:
        """See `CoreEngine.run`.

        A context whose vCPU has all of it runs in one compiled call. This part is flat and touches little
        (`fast_round.py` says why). A flag that stops the run is not cleared before: if it is there without a request,
        the entry fails at once and `_run` clears it.
        """
        lane: Lane | None = work.kept
        if lane is None or work.interrupts is not None:
            return self._whole(work)
        self._vcpu = lane.vcpu
        if work.budget and self._watch.sleeps:
            self._watch.wake()
        left = 0 if self._request else step(lane.block)
        self._vcpu = None
        if left != lane.usual:
            return self._odd(work, lane, left)
        self._request = 0
        return lane.stopped

    def _odd(self, work: CoreRun, lane: Lane, left: int) -> Stopped:
        """Goes on behind a call of `step` that was not as the one before."""
        if left & DONE:
            lane.take(left)
            self._request = 0
            return lane.stopped
        if not left:
            return self._whole(work)
        vcpu = lane.vcpu
        vcpu.disarm()
        vcpu.entered = vcpu.is_newer = True
        return self._run(ExitState(lane.vm, vcpu, lane.page, work.given, work.hlt), work, left & ERROR)

    def _whole(self, work: CoreRun) -> Stopped:
        """Runs a context, looking at everything."""
        if work.kept is not None:
            work.kept.disarm()
        return self._enter(work)

    def _enter(self, work: CoreRun) -> Stopped:
        page = self._pages.get(work.run_page)
        if page is None:
            page = self._pages[work.run_page] = RunPage(self._host.bus.run_page(work.run_page))
        if page.words[LOAD]:
            complete(page)
        if (early := before_entry(work, page)) is not None:
            return self._leave(work, page, early) if isinstance(early, ExitRecord) else early
        _enter_thread()
        try:
            vm = self._host.vm(work.context, work.eptp)
            vcpu = self._prepare(vm, work, page)
        except (OSError, ResourceExhausted) as error:
            self._host.note(work.context, str(error))
            return self._leave(work, page, ExitRecord(reason=ExitReason.ENTRY_FAILED, qualification=_number(error)))
        vcpu.disarm()
        at = ExitState(vm, vcpu, page, work.given, work.hlt)
        if (gone := table_that_is_gone(vm.memory, page)) is not None:
            return self._leave(work, page, gone, at)
        again = answer_input(at) if vcpu.complete and (vcpu.asks or vcpu.items) else None
        again = again or (resume(at) if vcpu.complete and vcpu.kept else None)
        return self._run(at, work) if again is None else self._leave(work, page, again)

    def _prepare(self, vm: Vm, work: CoreRun, page: RunPage) -> Vcpu:
        """Has memory and registers in KVM as they are to be."""
        vcpu = vm.vcpus.get(work.context)
        if vcpu is not None and page.dirty & run_page.DIRTY_CPUID and not vcpu.takes(page):
            vcpu.fetch(page)
            with vm.lock:
                vm.release(work.context)
            vcpu = None
        if vcpu is None or vm.changed:
            with vm.lock:
                vcpu = vcpu or vm.vcpu(work.context, page)
                if vm.changed:
                    vm.changed = False
                    vm.memory.sync()
                if vm.tables_changed:
                    vm.tables_changed = False
                    vm.memory.forget_guest_tables()
        holes = _holes(None if work.given is None else work.given.controls)
        if vm.holes.get(work.context, ()) != holes:
            with vm.lock:
                vm.set_holes(work.context, holes)
        kept = vcpu.kept
        if kept is not None and page.dirty & run_page.DIRTY_RIP and page.rip != kept.rip:
            vcpu.kept = None
            vcpu.complete = vcpu.complete and not vcpu.unfinished
        return vcpu

    def _run(self, at: ExitState, work: CoreRun, entered: int | None = None) -> Stopped:
        """Runs until an exit leaves; `entered` is the error's number of an entry that was made already, 0 for none."""
        vcpu, page = at.vcpu, at.page
        left: ExitRecord | None = None
        vcpu.bytes[abi.RUN_IMMEDIATE] = 0
        vcpu.work, vcpu.thread = work, get_ident()
        vcpu.turns += 1
        self._vcpu = vcpu
        if work.budget and self._watch.sleeps:
            self._watch.wake()
        try:
            try:
                if entered is None:
                    prepare(at, work)
            except (OSError, FailedPrecondition) as error:
                at.told = f"KVM refuses a register: {error}"
                left = ExitRecord(reason=ExitReason.ENTRY_FAILED, qualification=_number(error))
                vcpu.complete = False
                return self._leave(work, page, left, at)
            while left is None and not at.asleep and (entered is not None or not self._request):
                error_number = vcpu.enter() if entered is None else entered
                entered = None
                vcpu.unfinished = False
                if error_number == errno.EINTR:
                    signal.sigtimedwait((SIGNAL,), 0)
                else:
                    left = handle(at, error_number)
                if left is None and vcpu.reason in _OPEN and not error_number and not at.asleep:
                    prepare(at, work)
        except ResourceExhausted as error:
            at.told, left = error.message, ExitRecord(reason=ExitReason.ENTRY_FAILED, qualification=errno.ENOMEM)
        finally:
            self._vcpu = None
        return self._stop(at, work, left)

    def _stop(self, at: ExitState, work: CoreRun, left: ExitRecord | None) -> Stopped:
        """Brings everything to the page; returns how the run stopped."""
        if at.vcpu.is_newer:
            at.vcpu.store(at.page, everything=left is None or left.reason not in _ACCESSES)
        if left is None or left.reason in _ACCESSES:
            arm(at.vm, at.vcpu, at.page, work)
        if left is not None:
            return self._leave(work, at.page, left, at)
        if self._request & _CANCEL:
            return self._leave(work, at.page, ExitRecord(reason=ExitReason.CANCELED))
        self._request = 0
        at.page.leave(_NOTHING, work.consumed)
        return Stopped(0, work.consumed, paused=True, asleep=at.asleep)

    def _leave(self, work: CoreRun, page: RunPage, record: ExitRecord, at: ExitState | None = None) -> Stopped:
        """Writes the exit record."""
        if at is not None:
            if at.told:
                self._host.note(work.context, at.told)
            if record.reason not in _ACCESSES:
                at.vm.changed = True  # who handles it may change what the EPT says
        page.leave(record, work.consumed)
        self._request = 0
        return Stopped(int(record.reason), work.consumed)

    # ── from other threads ───────────────────────────────────────────────────────────────────────────────────────

    def cancel(self) -> None:
        """See `CoreEngine.cancel`."""
        self._ask(_CANCEL)

    def relent(self) -> None:
        """See `CoreEngine.relent`."""
        self._request = 0

    def pause(self) -> None:
        """See `CoreEngine.pause`."""
        self._ask(_PAUSE)

    def _ask(self, what: int) -> None:
        self._request |= what
        vcpu = self._vcpu  # after the request is there: a run that begins now looks for it once it can be seen
        if vcpu is not None:
            vcpu.bytes[abi.RUN_IMMEDIATE] = 1
            signal.pthread_kill(vcpu.thread, SIGNAL)

    def slice_now(self) -> tuple[object, int, int] | None:
        """See `slice_timer.Sliced`."""
        vcpu = self._vcpu
        if vcpu is None or vcpu.work is None or not vcpu.work.budget:
            return None
        return vcpu, vcpu.turn, vcpu.work.budget - vcpu.work.consumed

    # ── what it holds ────────────────────────────────────────────────────────────────────────────────────────────

    def holds(self, root: int, eptp: int) -> bool:
        """See `CoreEngine.holds`. Every core may run every VM, so each of them holds what one does."""
        if eptp and not self._host.knows(eptp):
            return False
        self._guest_tables = self._guest_tables or root != 0
        return True

    def tlb(self) -> TlbContent:
        """See `CoreEngine.tlb`: a processor of the host does not show it."""
        return EMPTY

    def flush(self) -> None:
        """See `CoreEngine.flush`."""
        self._host.stale(guest_tables=self._guest_tables)
        self._guest_tables = False

    def drop_code(self, frames: Iterable[int] | None) -> None:
        """See `CoreEngine.drop_code`: a processor sees code as it is in memory."""

    def forget(self, context: int) -> None:
        """See `CoreEngine.forget`."""
        self._host.forget(context)

    def counters(self) -> Sequence[int]:
        """See `CoreEngine.counters`: a processor counts nothing for us."""
        return NOTHING

    def close(self) -> None:
        """See `CoreEngine.close`: contexts are with the host, which is closed behind its cores."""


def _enter_thread() -> None:
    """Has the kernel hold the signal back in this thread but in KVM_RUN."""
    if not getattr(_threads, "blocked", False):
        signal.pthread_sigmask(signal.SIG_BLOCK, (SIGNAL,))
        _threads.blocked = True


def _number(error: Exception) -> int:
    """Returns the kernel's number of an error, or the one that says the same."""
    if isinstance(error, OSError):
        return error.errno or 0
    return errno.ENOMEM if isinstance(error, ResourceExhausted) else errno.EINVAL


def _holes(controls: ExitControls | None) -> tuple[tuple[int, int], ...]:
    """Returns the pages of devices and doorbells, ascending."""
    if controls is None or not (controls.devices or controls.posted):
        return ()
    bells = dict.fromkeys(entry.gpa & ~(PAGE_SIZE - 1) for entry in controls.posted if entry.gpa is not None)
    return tuple(sorted((*controls.devices, *((gpa, PAGE_SIZE) for gpa in bells))))


def arm(vm: Vm, vcpu: Vcpu, page: RunPage, work: CoreRun) -> None:
    """Lets a context's next run be one call, if nothing but registers of the page can be new by then."""
    if not vcpu.is_plain or work.consumed or (work.given is not None and work.given.controls.interrupt_window):
        return
    lane = vcpu.lane
    if lane is None or not lane.serves(work):
        lane = vcpu.lane = Lane(vm, vcpu, page, work)
    lane.arm(work)
