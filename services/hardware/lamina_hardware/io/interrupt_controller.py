"""Local APICs and pending interrupts of one host, on its event loop.

    RaiseInterrupts, devices ─► message ─► interrupt domain ─► APIC's descriptor ─┐
    a core: ICR, timer registers ─► perform ──► IPI, timer on the loop ───────────┼─► wake: a halted context is ready
    loop timer ───────────────────────────────► vector of the timer ──────────────┘   again, one that runs is paused

Nothing polls. A context that halted has no core and no timer on the loop but its own APIC's, while that is not masked.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass

from lamina_hardware.domain.apic import state as apic_state
from lamina_hardware.domain.apic.local_apic import Delivery, LocalApic, Message, Mode, Send, TimerChanged
from lamina_hardware.domain.apic.messages import destinations
from lamina_hardware.domain.apic.page import ApicPage, PostedInterrupts, Words
from lamina_hardware.domain.apic.state import ApicState
from lamina_hardware.domain.apic.timer import ApicTimer
from lamina_hardware.domain.contexts.context import Context, ContextState
from lamina_hardware.engines.interface import ApicAccess
from lamina_hardware.io.apic_read import answer
from lamina_hardware.io.reset import enter_real_mode, reset_after_init
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import BLOCKED_BY_NMI, EVENT_VALID, Activity, RunPage
from lamina_kit.clock import Clock
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from lamina_kit.virtual.loop import VirtualLoop

_FLAG_IF = 1 << 9
_EVENT_KIND = 7 << 8
_SECOND = 1_000_000_000


class Result(enum.IntEnum):
    """What became of an interrupt; the numbers are those of the contract."""

    REQUESTED = 1
    MERGED = 2
    NO_DESTINATION = 3
    DISABLED = 4


class Kind(enum.IntEnum):
    """Kinds of an interrupt for one context; the numbers are those of the contract."""

    FIXED = 1
    NMI = 2
    INIT = 3
    STARTUP = 4
    MACHINE_CHECK = 5


@dataclass(frozen=True, slots=True)
class ApicWish:
    """A configuration; addresses are checked. `domain` is the key of the interrupt domain."""

    mode: Mode
    apic_id: int
    domain: str
    page_address: int
    descriptor_address: int
    base_gpa: int
    timer_frequency_hz: int
    end_exits: int
    starts_itself: bool = False


@dataclass(slots=True)
class Configured:
    """The APIC of a context, and the loop's timer for it: when it is due, and what will call."""

    context: Context
    apic: LocalApic
    wish: ApicWish
    alarm: asyncio.TimerHandle | None = None
    due: int = 0


_SIGNALS = {Delivery.NMI: Kind.NMI, Delivery.INIT: Kind.INIT, Delivery.STARTUP: Kind.STARTUP}


class InterruptController:
    """All interrupts of a host. `wake` makes a context ready that sleeps, or has its core look; `go` grants cores."""

    def __init__(self, bus: MemoryBus, clock: Clock, wake: Callable[[Context], None], go: Callable[[], None]) -> None:
        self._bus = bus
        self._clock = clock
        self._wake = wake
        self._go = go
        self._words = Words(bus.load64, bus.store64, bus.cas64, bus.read)
        self._configured: dict[int, Configured] = {}
        self._domains: dict[str, list[Configured]] = {}

    # ── configuration ────────────────────────────────────────────────────────────────────────────────────────────

    def configure(self, context: Context, wish: ApicWish | None) -> None:
        """Gives an idle context an APIC, changes it, or takes it away (None).

        Raises `FailedPrecondition` `CONTEXT_BUSY` or `AlreadyExists` `APIC_ID_IN_USE`.
        """
        found = self._configured.get(context.key)
        if (found.wish if found is not None else None) == wish:
            return
        if context.state is not ContextState.IDLE:
            raise FailedPrecondition(
                f"The context {context.handle.id}.{context.handle.generation} runs.",
                reason="CONTEXT_BUSY",
                next_step="Kick it, wait for the end of its run, then configure its APIC.",
            )
        if wish is None:
            self.remove(context)
            return
        self._check_id(context, wish)
        if found is None:
            apic = self._make(wish)
            apic.reset()
        else:
            self._leave(found)
            apic = self._change(found, wish)
        self._join(Configured(context, apic, wish))

    def find(self, context: Context) -> Configured:
        """Returns a context's APIC. Raises `NotFound` `APIC_ABSENT`."""
        found = self._configured.get(context.key)
        if found is None:
            raise NotFound(
                f"The context {context.handle.id}.{context.handle.generation} has no local APIC.",
                reason="APIC_ABSENT",
                next_step="Give it one with `Interrupts.ConfigureApic`.",
            )
        return found

    def entries(self) -> list[Configured]:
        """Returns all APICs in the order of their contexts' handles."""
        return sorted(self._configured.values(), key=lambda entry: entry.context.handle.id)

    def remove(self, context: Context) -> None:
        """Takes a context's APIC away, if it has one."""
        if found := self._configured.get(context.key):
            self._leave(found)

    def save(self, context: Context) -> ApicState | None:
        """Returns the state of a context's APIC, None without one."""
        if (found := self._configured.get(context.key)) is None:
            return None
        now = self._clock.now_ns()
        return apic_state.take(found.apic, now, found.alarm is not None and found.due <= now)

    def mode(self, context: Context) -> Mode | None:
        """Returns the mode of a context's APIC, None without one."""
        found = self._configured.get(context.key)
        return None if found is None else found.apic.mode

    def restore(self, context: Context, state: ApicState) -> None:
        """Gives the APIC of an idle context, which has the state's mode, a state."""
        found = self._configured[context.key]
        apic_state.give(found.apic, state, self._clock.now_ns())
        self._arm(found)

    def stop(self) -> None:
        """Takes all timers off the loop."""
        for entry in self._configured.values():
            self._disarm(entry)

    def _check_id(self, context: Context, wish: ApicWish) -> None:
        for other in self._domains.get(wish.domain, []):
            if other.context is not context and other.apic.apic_id == wish.apic_id:
                raise AlreadyExists(
                    f"The APIC id {wish.apic_id} is that of another context of the interrupt domain.",
                    reason="APIC_ID_IN_USE",
                    next_step="Choose an id that no context of the domain has.",
                )

    def _make(self, wish: ApicWish) -> LocalApic:
        return LocalApic(
            ApicPage(self._words, wish.page_address), PostedInterrupts(self._words, wish.descriptor_address),
            wish.apic_id, wish.mode, ApicTimer(wish.timer_frequency_hz), wish.end_exits, wish.base_gpa,
            starts_itself=wish.starts_itself,
        )  # fmt: skip

    def _change(self, found: Configured, wish: ApicWish) -> LocalApic:
        """Makes the APIC anew with the state that it had: registers, what was posted, the timer."""
        old = found.apic
        old.sync()
        apic = self._make(wish)
        if wish.page_address != old.page.address:
            self._bus.write(wish.page_address, self._bus.read(old.page.address, 4096))
        if wish.descriptor_address != old.posted.address:
            apic.posted.clear()
        apic.timer, apic.counts, apic.esr_pending = old.timer, old.counts, old.esr_pending
        apic.timer.set_frequency(wish.timer_frequency_hz, self._clock.now_ns())
        apic.put_identity()
        return apic

    def _join(self, entry: Configured) -> None:
        entry.context.pending.apic = entry.apic
        self._configured[entry.context.key] = entry
        members = self._domains.setdefault(entry.wish.domain, [])
        members.append(entry)
        members.sort(key=lambda member: member.apic.apic_id)
        self._arm(entry)

    def _leave(self, entry: Configured) -> None:
        self._disarm(entry)
        entry.context.pending.apic = None
        del self._configured[entry.context.key]
        members = self._domains[entry.wish.domain]
        members.remove(entry)
        if not members:
            del self._domains[entry.wish.domain]

    # ── interrupts ───────────────────────────────────────────────────────────────────────────────────────────────

    def check_domain(self, domain: str, shown: str) -> None:
        """Raises `NotFound` `INTERRUPT_DOMAIN_UNKNOWN` when no context is in a domain."""
        if domain not in self._domains:
            raise NotFound(
                f"No context has an APIC in the interrupt domain {shown!r}.",
                reason="INTERRUPT_DOMAIN_UNKNOWN",
                next_step="Name the interrupt domain that `ConfigureApic` was given.",
            )

    def send(self, domain: str, message: Message, sender: LocalApic | None = None) -> Result:
        """Delivers a message within a domain. The caller grants cores afterwards (`go`)."""
        members = self._domains.get(domain, [])
        reached = {apic.apic_id for apic in destinations(message, [member.apic for member in members], sender)}
        results = [self._deliver(member.context, message) for member in members if member.apic.apic_id in reached]
        if not results:
            return Result.NO_DESTINATION
        return min(results)

    def signal(self, context: Context, kind: Kind, vector: int) -> Result:
        """Raises an interrupt of one context. The caller grants cores afterwards (`go`)."""
        pending = context.pending
        if kind is Kind.FIXED:
            if pending.apic is not None and not pending.apic.is_enabled:
                return Result.DISABLED
            fresh = pending.raise_fixed(vector)
        elif kind is Kind.NMI:
            fresh = pending.raise_nmi()
        elif kind is Kind.INIT:
            fresh = pending.raise_init()
        elif kind is Kind.STARTUP:
            fresh = pending.raise_startup(vector)
        else:
            fresh = pending.raise_machine_check()
        self._wake(context)
        return Result.REQUESTED if fresh else Result.MERGED

    def go(self) -> None:
        """Has cores granted to what was woken."""
        self._go()

    def _deliver(self, context: Context, message: Message) -> Result:
        return self.signal(context, _SIGNALS.get(message.delivery, Kind.FIXED), message.vector)

    # ── for the dispatcher ───────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, context: Context) -> None:
        """Does what comes before a context gets a core: INIT; the vectors that were put aside."""
        pending = context.pending
        if pending.init:
            self._init(context)
        pending.take()

    def _init(self, context: Context) -> None:
        pending = context.pending
        pending.init = pending.nmi = pending.machine_check = False
        pending.fixed = pending.taken = 0
        view = self._bus.run_page(context.run_page)
        reset_after_init(view, ring=0 if context.eptp else 3)
        if found := self._configured.get(context.key):
            if found.wish.starts_itself and context.eptp:
                enter_real_mode(RunPage(view))
            found.apic.reset()
            self._arm(found)

    def perform(self, context: Context, access: ApicAccess) -> None:
        """Does a register access that a core could not do alone."""
        found = self._configured[context.key]
        now = self._clock.now_ns()
        if not access.write:
            page = RunPage(self._bus.run_page(context.run_page))
            answer(page, access, found.apic.read(access.register, now) or 0)
            return
        effect = found.apic.write(access.register, access.value, now)
        if isinstance(effect, Send):
            self.send(found.wish.domain, effect.message, found.apic)
        elif isinstance(effect, TimerChanged):
            self._arm(found)

    def wakes(self, context: Context) -> bool:
        """Whether something that waits ends the sleep of a context."""
        page, pending = RunPage(self._bus.run_page(context.run_page)), context.pending
        if pending.init or pending.startup is not None:
            return True
        if page.activity == Activity.WAIT_FOR_STARTUP:
            return False
        may = bool(page.rflags & _FLAG_IF)
        event = page.event
        if event & EVENT_VALID and (may or event & _EVENT_KIND):
            return True
        if pending.machine_check or (pending.nmi and not page.interruptibility & BLOCKED_BY_NMI):
            return True
        pending.take()
        if pending.apic is not None:
            pending.apic.sync()
        exits = context.controls is not None and context.controls.external_interrupts
        return (may or exits) and pending.next_vector() != 0

    # ── timers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, entry: Configured) -> None:
        """Puts the APIC's next deadline on the loop; none while the timer is masked: nobody would see it."""
        now, timer = self._clock.now_ns(), entry.apic.timer
        if entry.alarm is None:
            timer.forget_past(now)
        self._disarm(entry)
        when = None if entry.apic.timer_is_masked else timer.deadline(now)
        if when is None:
            return
        entry.due = when
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            entry.alarm = loop.call_at_ns(loop.now_ns + when - now, self._fire, entry)
        else:
            entry.alarm = loop.call_later((when - now) / _SECOND, self._fire, entry)

    def _disarm(self, entry: Configured) -> None:
        if entry.alarm is not None:
            entry.alarm.cancel()
            entry.alarm = None

    def _fire(self, entry: Configured) -> None:
        entry.alarm = None
        now = self._clock.now_ns()
        if entry.due <= now:
            entry.apic.fire(now)
            self._wake(entry.context)
        self._arm(entry)
        self._go()
