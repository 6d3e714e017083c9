"""The local APIC: which interrupt is next, and what its registers do. Pure; all state is in its page but the timer.

    devices, IPIs, timer ─► PIR ─► IRR ─► (class above the priority, RFLAGS.IF) ─► ISR ─► handler ─► EOI
                            descriptor     virtual APIC page

A register access of the guest comes as (offset, value). What it means beyond the page is an `Effect`, which whoever
drives the APIC carries out: an IPI to send, a timer to set, an end of interrupt to tell.

Source: Intel SDM vol. 3, chapter 11 (APIC) and 30 (APIC virtualization).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic.page import ApicPage, PostedInterrupts
from lamina_hardware.domain.apic.timer import ApicTimer, divisor

VERSION = 0x0005_0014
"""An integrated APIC with six entries in its local vector table."""

SOFTWARE_ENABLED = 1 << 8
_MASKED = 1 << 16
_SVR_RESET = 0xFF
TIMER_PERIODIC = 1 << 17
_ESR_SEND_VECTOR, _ESR_RECEIVE_VECTOR, _ESR_REGISTER = 1 << 5, 1 << 6, 1 << 7
_LEAST_VECTOR = 16
_X2_FLAT_IDS = 15

LVT_WRITABLE = {
    at.LVT_CMCI: 0x107FF, at.LVT_TIMER: 0x300FF, at.LVT_THERMAL: 0x107FF, at.LVT_COUNTERS: 0x107FF,
    at.LVT_LINT0: 0x1A7FF, at.LVT_LINT1: 0x1A7FF, at.LVT_ERROR: 0x100FF,
}  # fmt: skip
_READ_ONLY = frozenset(
    (at.ID, at.VERSION, at.APR, at.PPR, at.RRD, at.LDR, at.TIMER_CURRENT, *range(at.ISR, at.ESR, 16))
)  # fmt: skip
_WRITE_ONLY = frozenset((at.EOI, at.SELF_IPI))
_KNOWN = frozenset(
    (at.ID, at.VERSION, at.TPR, at.APR, at.PPR, at.EOI, at.LDR, at.DFR, at.SVR, *range(at.ISR, at.ESR, 16), at.ESR,
     at.ICR, at.ICR_HIGH, *LVT_WRITABLE, at.TIMER_INITIAL, at.TIMER_CURRENT, at.TIMER_DIVIDE)
)  # fmt: skip
_X2_ONLY = frozenset((at.SELF_IPI,))
_XAPIC_ONLY = frozenset((at.DFR, at.ICR_HIGH))


class Mode(enum.Enum):
    """How the registers are reached."""

    XAPIC = "xapic"
    X2APIC = "x2apic"


class Delivery(enum.IntEnum):
    """Delivery modes of messages and IPIs, as encoded."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTERNAL = 7


class Shorthand(enum.IntEnum):
    """Destination shorthands of an IPI, as encoded."""

    NONE = 0
    SELF = 1
    ALL = 2
    OTHERS = 3


@dataclass(frozen=True, slots=True)
class Message:
    """An interrupt on its way: to `destination`, an APIC id, or a logical one."""

    delivery: Delivery
    vector: int
    destination: int
    logical: bool
    shorthand: Shorthand = Shorthand.NONE


@dataclass(frozen=True, slots=True)
class Nothing:
    """The page was all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The architecture refuses the access: #GP in x2APIC mode."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An interrupt was ended; `exits` says that its end is to be told."""

    vector: int
    exits: bool


@dataclass(frozen=True, slots=True)
class Send:
    """An IPI goes out."""

    message: Message


@dataclass(frozen=True, slots=True)
class TimerChanged:
    """The timer has another deadline, or none."""


Effect = Nothing | Refused | Ended | Send | TimerChanged
NOTHING = Nothing()
REFUSED = Refused()
TIMER_CHANGED = TimerChanged()


@dataclass(slots=True)
class ApicCounts:
    """What an APIC counted since it was configured."""

    delivered: int = 0
    timer_interrupts: int = 0
    ipis_sent: int = 0


@dataclass(slots=True)
class LocalApic:
    """One context's APIC. `end_exits` has a bit for each vector whose end is told; it reads as level-triggered.

    With `starts_itself` a start-up IPI starts the context in real mode, else the holder does.
    """

    page: ApicPage
    posted: PostedInterrupts
    apic_id: int
    mode: Mode
    timer: ApicTimer
    end_exits: int = 0
    base_gpa: int = 0xFEE0_0000
    counts: ApicCounts = field(default_factory=ApicCounts)
    esr_pending: int = 0
    starts_itself: bool = False

    def reset(self) -> None:
        """Brings page, descriptor and timer to the state after power-on: switched off by software, all masked."""
        self.page.clear()
        self.posted.clear()
        self.timer.reset()
        self.esr_pending = 0
        self.put_identity()
        self.page.put(at.VERSION, VERSION)
        self.page.put(at.DFR, 0xFFFF_FFFF)
        self.page.put(at.SVR, _SVR_RESET)
        for register in LVT_WRITABLE:
            self.page.put(register, _MASKED)

    def put_identity(self) -> None:
        """Writes the id into the page, as the mode has it; in x2APIC mode it implies the logical id."""
        if self.mode is Mode.X2APIC:
            self.page.put(at.ID, self.apic_id)
            self.page.put(at.LDR, self.logical_id())
        else:
            self.page.put(at.ID, self.apic_id << 24)

    def logical_id(self) -> int:
        """Returns the logical id of x2APIC mode: cluster and one bit of sixteen."""
        return self.apic_id >> 4 << 16 | 1 << (self.apic_id & _X2_FLAT_IDS)

    @property
    def is_enabled(self) -> bool:
        """Whether software has switched it on; off, it takes NMI, INIT and start-up messages only."""
        return bool(self.page.get(at.SVR) & SOFTWARE_ENABLED)

    # ── the way of an interrupt ──────────────────────────────────────────────────────────────────────────────────

    def request(self, vector: int) -> bool:
        """Posts a vector; returns False when it was requested already."""
        fresh = not self.page.has(at.IRR, vector)
        return self.posted.post(vector) and fresh

    def sync(self) -> None:
        """Moves what was posted to IRR."""
        if bits := self.posted.take():
            self.page.merge(at.IRR, bits)
            level = bits & self.end_exits
            self.page.put_vectors(at.TMR, self.page.vectors(at.TMR) & ~bits | level)

    def next_vector(self) -> int:
        """Returns the vector that may be delivered now, 0 when none may: its class is above the priority's."""
        vector = self.page.highest(at.IRR)
        return vector if self.is_enabled and vector >> 4 > self._priority() >> 4 else 0

    def acknowledge(self) -> int:
        """Takes the next vector into service; returns it."""
        vector = self.next_vector()
        self.page.reset(at.IRR, vector)
        self.page.set(at.ISR, vector)
        self._put_priority()
        self.counts.delivered += 1
        return vector

    def end(self) -> Effect:
        """Ends the highest interrupt in service; without one nothing happens."""
        vector = self.page.highest(at.ISR)
        if not vector:
            return NOTHING
        self.page.reset(at.ISR, vector)
        self._put_priority()
        return Ended(vector, bool(self.end_exits >> vector & 1))

    def fire(self, now: int) -> bool:
        """Takes the timer's deadline: requests its vector; returns whether that was new."""
        self.timer.fired(now)
        self.counts.timer_interrupts += 1
        entry = self.page.get(at.LVT_TIMER)
        if entry & _MASKED or not self.is_enabled:
            return False
        if entry & 0xFF < _LEAST_VECTOR:
            self._error(_ESR_RECEIVE_VECTOR)
            return False
        return self.request(entry & 0xFF)

    @property
    def timer_is_masked(self) -> bool:
        """Whether the timer's end requests nothing."""
        return bool(self.page.get(at.LVT_TIMER) & _MASKED) or not self.is_enabled

    def set_task_priority(self, priority: int) -> None:
        """Sets TPR, as a write of the register or of CR8 (shifted) does."""
        self.page.put(at.TPR, priority & 0xFF)
        self._put_priority()

    def _priority(self) -> int:
        """Returns PPR: the task's priority, or the class of what is in service when that is higher."""
        task, serviced = self.page.get(at.TPR) & 0xFF, self.page.highest(at.ISR)
        return task if task >> 4 >= serviced >> 4 else serviced & 0xF0

    def _put_priority(self) -> None:
        self.page.put(at.PPR, self._priority())

    def _error(self, bit: int) -> None:
        """Notes an error; the error interrupt is requested unless masked."""
        self.esr_pending |= bit
        entry = self.page.get(at.LVT_ERROR)
        if not entry & _MASKED and self.is_enabled and entry & 0xFF >= _LEAST_VECTOR:
            self.request(entry & 0xFF)

    # ── registers ────────────────────────────────────────────────────────────────────────────────────────────────

    def refuses(self, register: int, write: bool, value: int) -> bool:
        """Whether the architecture refuses an access with #GP; only in x2APIC mode."""
        if self.mode is not Mode.X2APIC:
            return False
        if not self._exists(register):
            return True
        if not write:
            return register in _WRITE_ONLY
        return register in _READ_ONLY or bool(value & ~self._writable(register))

    def needs_time(self, register: int, write: bool) -> bool:
        """Whether an access needs the clock or others: whoever runs the core cannot do it from the page alone."""
        if not write:
            return register == at.TIMER_CURRENT
        return register in (at.ICR, at.TIMER_INITIAL, at.TIMER_DIVIDE, at.LVT_TIMER, at.SVR)

    def read(self, register: int, now: int) -> int | None:
        """Returns a register; None when the architecture refuses the read (x2APIC mode)."""
        if self.refuses(register, False, 0):
            return None
        if not self._exists(register) or register in _WRITE_ONLY:
            if not self._exists(register):
                self._error(_ESR_REGISTER)
            return 0
        if register == at.TIMER_CURRENT:
            self.page.put(register, self.timer.count(now))
        elif register == at.PPR:
            self._put_priority()
        value = self.page.get(register)
        if register == at.ICR and self.mode is Mode.X2APIC:
            value |= self.page.get(at.ICR_HIGH) << 32
        return value

    def write(self, register: int, value: int, now: int) -> Effect:
        """Stores a register and returns what that means beyond the page."""
        if self.refuses(register, True, value):
            return REFUSED
        if not self._exists(register):
            self._error(_ESR_REGISTER)
        elif register == at.LDR:
            self.page.put(register, value & 0xFF00_0000)
        elif register not in _READ_ONLY:
            return self._store(register, value, now)
        return NOTHING

    def _store(self, register: int, value: int, now: int) -> Effect:
        if register == at.TPR:
            self.set_task_priority(value)
        elif register == at.EOI:
            return self.end()
        elif register == at.DFR:
            self.page.put(register, value | 0x0FFF_FFFF)
        elif register == at.SVR:
            return self._switch(value & 0x1FF)
        elif register == at.ESR:
            self.page.put(register, self.esr_pending)
            self.esr_pending = 0
        elif register == at.SELF_IPI:
            self._send_to_self(value & 0xFF)
        elif register == at.ICR_HIGH:
            self.page.put(register, value & 0xFF00_0000)
        elif register == at.ICR:
            self.page.put(register, value & 0xCCFFF)
            if self.mode is Mode.X2APIC:
                self.page.put(at.ICR_HIGH, value >> 32)
                return self._send(value & 0xCCFFF, value >> 32)
            return self._send(value, self.page.get(at.ICR_HIGH) >> 24)
        elif register in LVT_WRITABLE:
            return self._write_entry(register, value)
        elif register == at.TIMER_INITIAL:
            self.page.put(register, value)
            self.timer.start(value & 0xFFFF_FFFF, now)
            return TIMER_CHANGED
        elif register == at.TIMER_DIVIDE:
            self.page.put(register, value & 0xB)
            self.timer.set_divide(divisor(value), now)
            return TIMER_CHANGED
        return NOTHING

    def _switch(self, value: int) -> Effect:
        """Writes SVR; switched off, the local vector table is masked and stays so."""
        self.page.put(at.SVR, value)
        if not value & SOFTWARE_ENABLED:
            for register in LVT_WRITABLE:
                self.page.put(register, self.page.get(register) | _MASKED)
        return TIMER_CHANGED

    def _write_entry(self, register: int, value: int) -> Effect:
        """Writes an entry of the local vector table. The timer's TSC-deadline mode does not exist."""
        value &= LVT_WRITABLE[register] | _MASKED
        if not self.is_enabled:
            value |= _MASKED
        if register == at.LVT_TIMER:
            self.timer.set_periodic(bool(value & TIMER_PERIODIC))
            self.page.put(register, value)
            return TIMER_CHANGED
        self.page.put(register, value)
        return NOTHING

    def _send(self, low: int, destination: int) -> Effect:
        """Returns the IPI that an ICR asks for; one with an illegal vector is an error instead."""
        mode = low >> 8 & 7
        level, assert_ = bool(low >> 15 & 1), bool(low >> 14 & 1)
        if mode in (Delivery.SMI, 3, Delivery.EXTERNAL):
            return NOTHING
        if mode == Delivery.INIT and level and not assert_:
            return NOTHING  # INIT level de-assert, which this APIC does not have
        if mode in (Delivery.FIXED, Delivery.LOWEST) and low & 0xFF < _LEAST_VECTOR:
            self._error(_ESR_SEND_VECTOR)
            return NOTHING
        self.counts.ipis_sent += 1
        shorthand = Shorthand(low >> 18 & 3)
        return Send(Message(Delivery(mode), low & 0xFF, destination, bool(low >> 11 & 1), shorthand))

    def _send_to_self(self, vector: int) -> None:
        """Requests a vector of this APIC itself."""
        if vector < _LEAST_VECTOR:
            self._error(_ESR_SEND_VECTOR)
            return
        self.counts.ipis_sent += 1
        self.request(vector)

    def _exists(self, register: int) -> bool:
        if register in _X2_ONLY:
            return self.mode is Mode.X2APIC
        if register in _XAPIC_ONLY and self.mode is Mode.X2APIC:
            return False
        return register in _KNOWN

    def _writable(self, register: int) -> int:
        """Returns the bits that may be set in x2APIC mode; others are refused."""
        if register in (at.EOI, at.ESR):
            return 0
        if register == at.ICR:
            return 0xFFFF_FFFF_000C_CFFF
        if register in LVT_WRITABLE:
            return LVT_WRITABLE[register] | 0x5000  # delivery status and remote IRR read back
        return {at.TPR: 0xFF, at.SVR: 0x11FF, at.TIMER_DIVIDE: 0xB, at.SELF_IPI: 0xFF}.get(register, 0xFFFF_FFFF)
