"""What a KVM core looks at before it enters a guest: start-up, sleep, machine checks, and what waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.domain.contexts.exit_controls import ExitControls
from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_hardware.io.kvm import abi
from lamina_hardware.io.kvm.interrupts import before_entry, prepare
from lamina_hardware.io.register_file import scratch
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import Activity, ExitReason, ExitRecord, RunPage

IF, MCE, SHADOW = 1 << 9, 1 << 6, 1
VALID, NMI, EXCEPTION, SOFTWARE = (
    run_page.EVENT_VALID, run_page.EVENT_NMI, run_page.EVENT_EXCEPTION, run_page.EVENT_SOFTWARE,
)  # fmt: skip
ASLEEP = Stopped(0, 7, paused=True, asleep=True)


def page_of(activity: Activity = Activity.ACTIVE, rflags: int = IF, event: int = 0, **more: int) -> RunPage:
    """Returns a run page that has nothing new."""
    page = scratch()
    page.activity, page.rflags, page.event = activity, rflags, event
    for name, value in more.items():
        setattr(page, name, value)
    page.dirty = 0
    return page


def before(page: RunPage, pending: Pending | None) -> object:
    """Returns how a run stops before it is entered."""
    return before_entry(CoreRun(1, 0, consumed=7, interrupts=pending), page)


def test_a_start_up_starts_what_waits_for_it() -> None:
    """At the page that it names, with an exit; whoever does not wait for it is not disturbed, and it is gone."""
    page, pending = page_of(Activity.WAIT_FOR_STARTUP), Pending(startup=0x12)
    assert before(page, pending) == ExitRecord(reason=ExitReason.STARTUP, vector=0x12)
    assert (page.rip, page.dirty, page.activity) == (0x12000, run_page.DIRTY_RIP, Activity.ACTIVE)
    page, pending = page_of(), Pending(startup=0x12)
    assert before(page, pending) is None
    assert (page.rip, pending.startup) == (0, None)
    assert before(page_of(Activity.WAIT_FOR_STARTUP), Pending(nmi=True)) == ASLEEP
    assert before(page_of(Activity.WAIT_FOR_STARTUP), None) == ASLEEP
    assert before(page_of(Activity.SHUTDOWN), None) == ExitRecord(reason=ExitReason.SHUTDOWN)
    assert before(page_of(), None) is None


@pytest.mark.parametrize(
    ("rflags", "event", "pending", "wakes"),
    [
        (IF, 0, None, False), (IF, 0, Pending(), False), (IF, 0, Pending(taken=1 << 0x30), True),
        (0, 0, Pending(taken=1 << 0x30), False), (0, 0, Pending(nmi=True), True), (IF, VALID | 0x30, None, True),
        (0, VALID | 0x30, None, False), (0, VALID | NMI | 2, None, True), (IF, 0x30, None, False),
    ],
)  # fmt: skip
def test_what_wakes_a_halted_context(rflags: int, event: int, pending: Pending | None, wakes: bool) -> None:
    """An NMI always, an interrupt when they are open; else it sleeps on."""
    page = page_of(Activity.HALTED, rflags, event)
    assert before(page, pending) == (None if wakes else ASLEEP)
    assert page.activity == (Activity.ACTIVE if wakes else Activity.HALTED)


def test_machine_checks() -> None:
    """One is the event that is delivered next; without CR4.MCE it is the end; behind another event it waits."""
    page, pending = page_of(cr4=MCE), Pending(machine_check=True)
    assert before(page, pending) is None
    assert (page.event, pending.machine_check) == (VALID | EXCEPTION | 18, False)
    page, pending = page_of(), Pending(machine_check=True)
    assert before(page, pending) == ExitRecord(reason=ExitReason.SHUTDOWN)
    page, pending = page_of(event=VALID | 0x30, cr4=MCE), Pending(machine_check=True)
    assert before(page, pending) is None
    assert (page.event, pending.machine_check) == (VALID | 0x30, True)


class Cpu:
    """A vCPU that notes which events it is given."""

    def __init__(self, complete: bool, takes: bool, delivers: bool) -> None:
        self.complete, self._takes, self.is_delivering = complete, takes, delivers
        self.bytes = bytearray(4096)
        self.given: list[dict[str, Any]] = []

    def load(self, page: RunPage) -> None:
        """Loads a page."""
        page.dirty = 0

    def takes_interrupts(self) -> bool:
        """Whether it may be interrupted."""
        return self._takes

    def put_events(self, page: RunPage, **events: Any) -> None:
        """Notes events."""
        self.given.append({name: value for name, value in events.items() if value not in (None, False)})


def prepared(
    page: RunPage, pending: Pending | None, complete: bool = True, takes: bool = True, delivers: bool = False,
    window: bool = False,
) -> tuple[list[dict[str, Any]], bool, bool]:  # fmt: skip
    """Returns what a vCPU is given, whether an interrupt waits, and whether KVM is to tell when it can be taken."""
    cpu = Cpu(complete, takes, delivers)
    at: Any = SimpleNamespace(page=page, vcpu=cpu, waits=None, controls=ExitControls(interrupt_window=window))
    prepare(at, CoreRun(1, 0, interrupts=pending))
    return cpu.given, at.waits, bool(cpu.bytes[abi.RUN_WINDOW])


@pytest.mark.parametrize(
    ("event", "given"),
    [
        (VALID | EXCEPTION | 6, {"exception": (6, None)}),
        (VALID | EXCEPTION | run_page.EVENT_ERROR_CODE | 13, {"exception": (13, 0x55)}),
        (VALID | NMI | 2, {"nmi": True}), (VALID | SOFTWARE | 0x80, {"interrupt": 0x80}),
        (VALID | 0x30, {"interrupt": 0x30}),
    ],
)  # fmt: skip
def test_an_event_of_the_page_is_delivered(event: int, given: dict[str, Any]) -> None:
    """Each kind as what it is, and it is taken from the page."""
    page = page_of(event=event, event_error_code=0x55)
    assert prepared(page, None) == ([given], False, False)
    assert page.event == 0


def test_an_interrupt_that_is_held_back_waits() -> None:
    """While they are closed, or another event is delivered, KVM tells when it may be taken; INT n does not wait."""
    for closed in ({"takes": False}, {"delivers": True}):
        page = page_of(event=VALID | 0x30)
        assert prepared(page, None, **closed) == ([], True, True)
        assert page.event == VALID | 0x30
        pending = Pending(taken=1 << 0x31)
        assert prepared(page_of(), pending, **closed) == ([], True, True)
        assert pending.taken == 1 << 0x31
        page = page_of(event=VALID | SOFTWARE | 0x80)
        assert prepared(page, None, **closed) == ([{"interrupt": 0x80}], False, False)


def test_what_waits_beside_the_page() -> None:
    """The highest vector goes first, and one at a time; an NMI goes with it; what is left waits."""
    pending = Pending(taken=1 << 0x31 | 1 << 0x45, nmi=True)
    assert prepared(page_of(), pending) == ([{"interrupt": 0x45, "nmi": True}], True, True)
    assert prepared(page_of(), pending) == ([{"interrupt": 0x31}], False, False)
    assert prepared(page_of(), pending) == ([], False, False)
    pending = Pending(taken=1 << 0x31)
    page = page_of(event=VALID | EXCEPTION | 6)
    assert prepared(page, pending) == ([{"exception": (6, None)}], True, True)
    page = page_of(event=VALID | SOFTWARE | 0x80)
    assert prepared(page, pending) == ([{"interrupt": 0x80}], True, True)
    assert pending.taken == 1 << 0x31


@pytest.mark.parametrize(
    ("rflags", "shadow", "may"), [(IF, 0, True), (0, 0, False), (IF, SHADOW, False), (IF, 2, False)]
)
@pytest.mark.parametrize("complete", [True, False])
def test_a_state_that_the_holder_changed(rflags: int, shadow: int, may: bool, complete: bool) -> None:
    """Then RFLAGS and the shadow of the page say whether an interrupt may be taken, and all events are given anew."""
    page = page_of(rflags=rflags, interruptibility=shadow)
    page.dirty = run_page.DIRTY_RIP if complete else 0
    found = prepared(page, Pending(taken=1 << 0x31), complete=complete, takes=not may, delivers=True)
    assert found == ([{"interrupt": 0x31} if may else {}], not may, not may)


def test_the_window_that_was_asked_for() -> None:
    """KVM tells of it too when nothing waits."""
    assert prepared(page_of(), None, window=True) == ([], False, True)
