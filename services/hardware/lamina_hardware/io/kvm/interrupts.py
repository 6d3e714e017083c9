"""What a KVM core does before it enters the guest: what waits to interrupt the context, and what holds that back.

Source: Intel SDM vol. 3, 7.8 (priorities), 26.8.3 (layout of the run page's event); Linux,
Documentation/virt/kvm/api.rst, KVM_GET_VCPU_EVENTS, `request_interrupt_window`.
"""

from __future__ import annotations

from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_hardware.io.kvm import abi
from lamina_hardware.io.kvm.exit_state import ExitState
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import Activity, ExitReason, ExitRecord, RunPage

_KIND = 7 << 8
_IF = 1 << 9
_CR4_MCE = 1 << 6
_MACHINE_CHECK = 18
_PAGE_SHIFT = 12
_BLOCKED = run_page.BLOCKED_BY_STI | run_page.BLOCKED_BY_MOV_SS


def before_entry(work: CoreRun, page: RunPage) -> ExitRecord | Stopped | None:
    """Takes what needs no vCPU: start-up, a machine check, sleep. Returns how the run stops, None: it is entered."""
    pending = work.interrupts
    if pending is None and not page.activity:
        return None
    if pending is not None and pending.startup is not None:
        vector, pending.startup = pending.startup, None
        if page.activity == Activity.WAIT_FOR_STARTUP:
            page.activity = Activity.ACTIVE
            page.rip = vector << _PAGE_SHIFT
            page.dirty |= run_page.DIRTY_RIP
            return ExitRecord(reason=ExitReason.STARTUP, vector=vector)
    asleep = Stopped(0, work.consumed, paused=True, asleep=True)
    if page.activity == Activity.WAIT_FOR_STARTUP:
        return asleep
    if page.activity == Activity.SHUTDOWN:
        return ExitRecord(reason=ExitReason.SHUTDOWN)
    if pending is not None and pending.machine_check and not page.event & run_page.EVENT_VALID:
        pending.machine_check = False
        if not page.cr4 & _CR4_MCE:
            return ExitRecord(reason=ExitReason.SHUTDOWN)
        page.event = _MACHINE_CHECK | run_page.EVENT_EXCEPTION | run_page.EVENT_VALID
    if page.activity == Activity.HALTED:
        if not _wakes(work, page):
            return asleep
        page.activity = Activity.ACTIVE
    return None


def _wakes(work: CoreRun, page: RunPage) -> bool:
    may = bool(page.rflags & _IF)
    if page.event & run_page.EVENT_VALID and (may or page.event & _KIND):
        return True
    pending = work.interrupts
    return pending is not None and (pending.nmi or (may and pending.next_vector() != 0))


def prepare(at: ExitState, work: CoreRun) -> None:
    """Loads what the holder changed, and has KVM deliver what waits, or tell when it can."""
    page, vcpu, pending = at.page, at.vcpu, work.interrupts
    fresh = not vcpu.complete or bool(page.dirty & run_page.DIRTY_RIP)
    vcpu.load(page)
    event = page.event
    interrupt: int | None = None
    exception: tuple[int, int | None] | None = None
    nmi = waits = False
    may = bool(page.rflags & _IF) and not page.interruptibility & _BLOCKED if fresh else vcpu.takes_interrupts()
    free = fresh or not vcpu.is_delivering
    if event & run_page.EVENT_VALID:
        kind, vector = event & _KIND, event & 0xFF
        taken = True
        if kind == run_page.EVENT_EXCEPTION:
            exception = (vector, page.event_error_code if event & run_page.EVENT_ERROR_CODE else None)
        elif kind == run_page.EVENT_NMI:
            nmi = True
        elif kind == run_page.EVENT_SOFTWARE or (may and free):
            interrupt = vector
        else:
            taken, waits = False, True
        if taken:
            page.event = 0
    if pending is not None:
        if pending.nmi:
            pending.nmi, nmi = False, True
        if pending.next_vector():
            if may and free and interrupt is None and exception is None and not waits:
                interrupt = pending.acknowledge()
            waits = waits or pending.next_vector() != 0
    if fresh or interrupt is not None or exception is not None or nmi:
        vcpu.put_events(page, interrupt=interrupt, nmi=nmi, exception=exception)
    at.waits = waits
    controls = at.controls
    window = waits or (controls is not None and controls.interrupt_window)
    vcpu.bytes[abi.RUN_WINDOW] = int(window)
