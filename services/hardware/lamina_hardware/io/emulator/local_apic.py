"""One run of a context that has interrupts waiting, or a local APIC.

    ┌► descriptor → page, what may be delivered ─► compiled run ─┬─► acknowledge a vector: an event in the run page ──┐
    │                                                            ├─► access to a register: do it from the page ───────┤
    └────────────────────────────────────────────────────────────┴────────────────────────────────────────────────────┘
                                                                 └─► anything else; an access that needs clock or others

While a core has a context its page and its pending interrupts are the core's; an access that changes the timer or goes
to others stops the core, and the dispatcher does it between two of the context's blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lamina_hardware.domain.apic.local_apic import Ended, LocalApic, Mode
from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.engines.interface import ApicAccess, CoreRun, Stopped
from lamina_hardware.io.apic_read import answer
from lamina_hardware.io.emulator.instructions import exit_record
from lamina_hardware.io.emulator.state import control_block
from lamina_hardware.io.emulator.state.exit_table import exits_for_interrupts
from lamina_hardware.io.reset import is_real, start_up
from lamina_kit.bus.run_page import (
    DIRTY_RIP,
    EVENT_EXCEPTION,
    EVENT_VALID,
    Activity,
    ExitReason,
    ExitRecord,
    RunPage,
)

_ACKNOWLEDGE, _APIC, _ASLEEP, _PAUSED = (
    int(reason) for reason in (exit_record.ACKNOWLEDGE, exit_record.APIC, exit_record.ASLEEP, exit_record.PAUSED)
)
_MACHINE_CHECK, _PROTECTION = 18, 13
_CR4_MCE = 1 << 6
_PAGE_SHIFT = 12
_MSR_BYTES = 2


@dataclass(slots=True)
class InterruptedRun:
    """Drives one `run` of a core. `ask` keeps and sets bits of REQUEST; `enter` runs the
    compiled part once and returns its reason."""

    work: CoreRun
    page: RunPage
    pending: Pending
    get: Callable[[Any], int]
    put: Callable[[Any, int], None]
    ask: Callable[[int, int], int]
    enter: Callable[[], int]

    def run(self) -> Stopped:
        """Runs until something leaves the core."""
        if early := self._before():
            return early
        apic = self.pending.apic
        while True:
            self._tell(apic)
            reason = self.enter()
            if self.get(control_block.PENDING_NMI):
                self.pending.nmi = True  # it was not taken
            if reason == _ACKNOWLEDGE:
                vector = self.pending.acknowledge()
                if exits_for_interrupts(self.work.controls):
                    return self._exit(ExitReason.EXTERNAL_INTERRUPT, vector)
                self.page.event = vector | EVENT_VALID
            elif reason == _APIC:
                assert apic is not None, "only an APIC is accessed"
                if stopped := self._access(apic):
                    return stopped
            else:
                return self._stopped(reason)

    def _before(self) -> Stopped | None:
        """Takes what needs no core: a start-up IPI, a machine check."""
        page, pending = self.page, self.pending
        if pending.startup is not None:
            vector, pending.startup = pending.startup, None
            if page.activity == Activity.WAIT_FOR_STARTUP:
                page.activity = Activity.ACTIVE
                if pending.apic is not None and pending.apic.starts_itself and is_real(page):
                    start_up(page, vector)
                    return None
                page.rip = vector << _PAGE_SHIFT
                page.dirty |= DIRTY_RIP
                return self._exit(ExitReason.STARTUP, vector)
        if pending.machine_check and page.activity != Activity.WAIT_FOR_STARTUP and not page.event & EVENT_VALID:
            pending.machine_check = False
            if self.work.exceptions >> _MACHINE_CHECK & 1:
                return self._exit(ExitReason.EXCEPTION, _MACHINE_CHECK)
            if not page.cr4 & _CR4_MCE:
                return self._exit(ExitReason.SHUTDOWN, 0)
            page.event = _MACHINE_CHECK | EVENT_EXCEPTION | EVENT_VALID
        return None

    def _tell(self, apic: LocalApic | None) -> None:
        """Tells the compiled part what waits."""
        if apic is not None:
            apic.sync()
        vector = self.pending.next_vector() != 0
        event = self.page.event
        wanted = int(control_block.REQUEST_EVENT) if vector or (event & (EVENT_VALID | 0x700)) == EVENT_VALID else 0
        nmi, self.pending.nmi = self.pending.nmi, False
        if nmi:
            wanted |= int(control_block.REQUEST_NMI)
        self.put(control_block.PENDING_NMI, int(nmi))
        self.put(control_block.PENDING_VECTOR, int(vector))
        self.put(control_block.LIMIT, self.get(control_block.BUDGET))
        if self.ask(int(control_block.REQUEST_CANCEL | control_block.REQUEST_PAUSE), wanted):
            self.put(control_block.LIMIT, 0)

    def _access(self, apic: LocalApic) -> Stopped | None:
        """Does an access of the guest to its APIC; returns how the run stops, None when it goes on."""
        access = ApicAccess(
            self.get(control_block.APIC_REGISTER),
            bool(self.get(control_block.APIC_WRITE)),
            self.get(control_block.APIC_VALUE),
            self.get(control_block.APIC_TARGET),
        )
        if apic.refuses(access.register, access.write, access.value):
            self.page.rip -= _MSR_BYTES
            self.page.dirty |= DIRTY_RIP
            self.put(control_block.CONSUMED, self.get(control_block.CONSUMED) - 1)
            self.put(control_block.RAISE, 1 + _PROTECTION)
            return None
        if apic.needs_time(access.register, access.write):
            return Stopped(_PAUSED, self.get(control_block.CONSUMED), paused=True, access=access)
        if not access.write:
            answer(self.page, access, apic.read(access.register, 0) or 0)
            return None
        effect = apic.write(access.register, access.value, 0)
        if isinstance(effect, Ended) and effect.exits:
            return self._exit(ExitReason.END_OF_INTERRUPT, effect.vector)
        return None

    def _exit(self, reason: ExitReason, vector: int) -> Stopped:
        consumed = self.get(control_block.CONSUMED)
        self.page.store_exit(ExitRecord(reason=reason, vector=vector, rip=self.page.rip, instructions_retired=consumed))
        return Stopped(int(reason), consumed)

    def _stopped(self, reason: int) -> Stopped:
        return stopped(reason, self.get(control_block.CONSUMED))


def stopped(reason: int, consumed: int) -> Stopped:
    """Returns what a reason of the compiled run means."""
    return Stopped(reason, consumed, reason in (_PAUSED, _ASLEEP), reason == _ASLEEP)


def wire(pending: Pending | None, put: Callable[[Any, int], None]) -> None:
    """Tells the compiled part where the registers of the context's APIC are."""
    apic = pending.apic if pending is not None else None
    put(control_block.APIC_PAGE, apic.base_gpa | 1 if apic is not None and apic.mode is Mode.XAPIC else 0)
    put(control_block.APIC_MSRS, int(apic is not None and apic.mode is Mode.X2APIC))
    put(control_block.PENDING_NMI, 0)
    put(control_block.PENDING_VECTOR, 0)
    put(control_block.RAISE, 0)
