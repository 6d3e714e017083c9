"""Registers of a local APIC one by one, as the manual's chapter 11 has them, in both modes."""

from __future__ import annotations

import pytest
from tests.property.hardware.test_apic import SECOND, make

from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic.local_apic import (
    LVT_WRITABLE,
    NOTHING,
    REFUSED,
    TIMER_CHANGED,
    Delivery,
    Ended,
    LocalApic,
    Message,
    Mode,
    Send,
    Shorthand,
)

MASKED = 1 << 16
ALL = 0xFFFF_FFFF
KEPT = {
    at.TPR: 0xFF, at.LDR: 0xFF00_0000, at.SVR: 0x1FF, at.ICR_HIGH: 0xFF00_0000, at.TIMER_DIVIDE: 0xB,
    at.TIMER_INITIAL: ALL, **{register: bits | MASKED for register, bits in LVT_WRITABLE.items()},
}  # fmt: skip
READ_ONLY = (at.ID, at.VERSION, at.APR, at.PPR, at.RRD, at.TIMER_CURRENT, at.ISR, at.TMR + 0x70, at.IRR + 0x30)


@pytest.mark.parametrize("register", KEPT)
def test_reserved_bits_are_not_kept(register: int) -> None:
    """Of a word of ones a register keeps the bits that it has; x2APIC mode refuses the word."""
    apic = make()
    apic.write(register, ALL, 0)
    assert apic.read(register, 0) == KEPT[register]
    if register not in (at.TIMER_INITIAL, at.LDR, at.ICR_HIGH):
        wide = make(Mode.X2APIC)
        before = wide.read(register, 0)
        assert wide.write(register, ALL, 0) is REFUSED
        assert wide.read(register, 0) == before


def test_the_flat_model_keeps_its_low_bits() -> None:
    """DFR has four bits, the rest are ones."""
    apic = make()
    apic.write(at.DFR, 0, 0)
    assert apic.read(at.DFR, 0) == 0x0FFF_FFFF


@pytest.mark.parametrize("register", READ_ONLY)
def test_what_is_only_read(register: int) -> None:
    """A write changes nothing; in x2APIC mode it is refused."""
    for mode in Mode:
        apic = make(mode, apic_id=5)
        if register == at.RRD and mode is Mode.X2APIC:
            continue
        before = apic.read(register, 0)
        assert apic.write(register, 0x30, 0) is (NOTHING if mode is Mode.XAPIC else REFUSED)
        assert apic.read(register, 0) == before


def test_after_power_on() -> None:
    """Off by software, all local vectors masked, the flat model, six entries, and the id where the mode has it."""
    for mode, ident, logical in ((Mode.XAPIC, 0x1234 << 24, 0), (Mode.X2APIC, 0x1234, 0x123 << 16 | 1 << 4)):
        apic = make(mode, apic_id=0x1234)
        apic.reset()
        assert apic.page.get(at.SVR) == 0xFF
        assert not apic.is_enabled
        assert {apic.page.get(register) for register in LVT_WRITABLE} == {MASKED}
        assert apic.page.get(at.VERSION) == 0x0005_0014
        assert apic.page.get(at.ID) == ident & ALL
        assert apic.page.get(at.LDR) == logical


def test_what_each_mode_has() -> None:
    """SELF IPI is of x2APIC mode, DFR and the upper ICR of the other; what is not there is an error, or refused."""
    narrow, wide = make(), make(Mode.X2APIC)
    assert wide.write(at.SELF_IPI, 0x40, 0) is NOTHING
    assert wide.posted.vectors() == 1 << 0x40
    assert wide.read(at.SELF_IPI, 0) is None
    for register in (at.DFR, at.ICR_HIGH, 0x40):
        assert (wide.read(register, 0), wide.write(register, 0, 0)) == (None, REFUSED)
    assert narrow.write(at.SELF_IPI, 0x40, 0) is NOTHING
    assert narrow.posted.vectors() == 0
    assert (narrow.read(at.SELF_IPI, 0), narrow.read(at.EOI, 0)) == (0, 0)
    narrow.write(at.ESR, 0, 0)
    assert narrow.read(at.ESR, 0) == 1 << 7
    narrow.write(at.ESR, 0, 0)
    assert narrow.read(at.ESR, 0) == 0


def test_an_end_says_whether_it_is_told() -> None:
    """The end of a vector whose end is told exits; EOI without an interrupt does nothing."""
    apic = make(end_exits=1 << 0x50)
    assert apic.write(at.EOI, 0, 0) is NOTHING
    for vector in (0x40, 0x50):
        apic.request(vector)
        apic.sync()
        assert apic.acknowledge() == vector
        assert apic.page.has(at.TMR, vector) is (vector == 0x50)
    assert apic.write(at.EOI, 0, 0) == Ended(0x50, True)
    assert apic.write(at.EOI, 0, 0) == Ended(0x40, False)
    assert apic.counts.delivered == 2
    assert make(Mode.X2APIC).write(at.EOI, 1, 0) is REFUSED


def test_priorities() -> None:
    """PPR is the task's priority or the class in service; a vector passes when its class is higher, not the same."""
    apic = make()
    apic.write(at.TPR, 0x42, 0)
    assert apic.read(at.PPR, 0) == 0x42
    apic.request(0x4F)
    apic.sync()
    assert apic.next_vector() == 0
    apic.request(0x50)
    apic.sync()
    assert apic.acknowledge() == 0x50
    assert apic.read(at.PPR, 0) == 0x50
    apic.write(at.TPR, 0x51, 0)
    assert apic.read(at.PPR, 0) == 0x51
    apic.write(at.TPR, 0x4F, 0)
    assert apic.read(at.PPR, 0) == 0x50
    apic.write(at.SVR, 0xFF, 0)
    apic.write(at.TPR, 0, 0)
    apic.end()
    assert apic.next_vector() == 0, "off by software"


def test_a_vector_is_posted_once() -> None:
    """A vector that waits already, posted or in IRR, is no news."""
    apic = make()
    assert [apic.request(0x30), apic.request(0x30)] == [True, False]
    apic.sync()
    assert apic.request(0x30) is False
    assert apic.request(0x31) is True


@pytest.mark.parametrize(
    ("low", "wanted"),
    [
        (0x30, Message(Delivery.FIXED, 0x30, 7, False)),
        (0x930, Message(Delivery.LOWEST, 0x30, 7, True)),
        (0x400, Message(Delivery.NMI, 0, 7, False)),
        (0x4500, Message(Delivery.INIT, 0, 7, False)),
        (0x500, Message(Delivery.INIT, 0, 7, False)),
        (0x0C500, Message(Delivery.INIT, 0, 7, False)),
        (0x608, Message(Delivery.STARTUP, 8, 7, False)),
        (0x40030, Message(Delivery.FIXED, 0x30, 7, False, Shorthand.SELF)),
        (0x80030, Message(Delivery.FIXED, 0x30, 7, False, Shorthand.ALL)),
        (0xC0030, Message(Delivery.FIXED, 0x30, 7, False, Shorthand.OTHERS)),
        (0x8500, None),  # de-assert
        (0x230, None), (0x330, None), (0x730, None),  # SMI, reserved, ExtINT
        (0x10, Message(Delivery.FIXED, 0x10, 7, False)),
    ],
)  # fmt: skip
def test_inter_processor_interrupts(low: int, wanted: Message | None) -> None:
    """What the command register sends, to the upper half's destination of either mode; it reads as written."""
    narrow, wide = make(), make(Mode.X2APIC)
    narrow.write(at.ICR_HIGH, 7 << 24, 0)
    for apic, found in ((narrow, narrow.write(at.ICR, low, 0)), (wide, wide.write(at.ICR, 7 << 32 | low, 0))):
        assert found == (NOTHING if wanted is None else Send(wanted))
        assert apic.counts.ipis_sent == (wanted is not None)
        assert apic.esr_pending == 0
    assert (narrow.read(at.ICR, 0), wide.read(at.ICR, 0)) == (low, 7 << 32 | low)


def _errors(apic: LocalApic) -> int:
    apic.write(at.ESR, 0, 0)
    found = apic.read(at.ESR, 0)
    assert found is not None
    return found


def test_illegal_vectors_are_errors() -> None:
    """A vector below 16 is sent by nobody; the error's own interrupt comes unless it is masked or has no vector."""
    for mode, register in ((Mode.XAPIC, at.ICR), (Mode.X2APIC, at.SELF_IPI)):
        for entry, wanted in ((0x33, 1 << 0x33), (0x33 | MASKED, 0), (0x0F, 0), (0x10, 1 << 0x10)):
            apic = make(mode)
            apic.write(at.LVT_ERROR, entry, 0)
            assert apic.write(register, 0x0F, 0) is NOTHING
            assert (apic.posted.vectors(), apic.counts.ipis_sent) == (wanted, 0)
            assert _errors(apic) == 1 << 5
            apic.write(register, 0x10, 0)
            assert _errors(apic) == 0


def test_the_timer_requests_its_vector() -> None:
    """Its end is counted; it requests nothing when it is masked, off, or has no vector, which is an error."""
    for entry, wanted, error in ((0x44, 1 << 0x44, 0), (0x44 | MASKED, 0, 0), (0x0F, 0, 1 << 6), (0x10, 1 << 0x10, 0)):
        apic = make()
        apic.write(at.LVT_TIMER, entry, 0)
        assert apic.timer_is_masked is bool(entry & MASKED)
        assert apic.fire(0) is bool(wanted)
        assert (apic.posted.vectors(), apic.counts.timer_interrupts) == (wanted, 1)
        assert _errors(apic) == error


def test_switching_off_masks_and_keeps_masked() -> None:
    """With software's switch off all local vectors are masked, and cannot be unmasked until it is on again."""
    apic = make()
    apic.write(at.LVT_LINT0, 0x31, 0)
    assert apic.read(at.LVT_LINT0, 0) == 0x31
    assert apic.write(at.SVR, 0x0FF, 0) is TIMER_CHANGED
    assert apic.read(at.LVT_LINT0, 0) == 0x31 | MASKED
    apic.write(at.LVT_LINT0, 0x32, 0)
    assert apic.read(at.LVT_LINT0, 0) == 0x32 | MASKED
    apic.write(at.SVR, 0x1FF, 0)
    assert apic.read(at.LVT_LINT0, 0) == 0x32 | MASKED
    apic.write(at.LVT_LINT0, 0x32, 0)
    assert apic.read(at.LVT_LINT0, 0) == 0x32


@pytest.mark.parametrize(
    ("register", "divide"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)]
)
def test_the_timer_counts_down(register: int, divide: int) -> None:
    """The divide configuration's eight values; what is left of the count is kept when they change."""
    apic = make()
    assert apic.write(at.TIMER_DIVIDE, register, 0) is TIMER_CHANGED
    assert apic.write(at.TIMER_INITIAL, 1000, 0) is TIMER_CHANGED
    assert apic.read(at.TIMER_CURRENT, 100 * divide) == 900
    assert apic.timer.deadline(0) == 1000 * divide
    apic.write(at.TIMER_DIVIDE, 11, 100 * divide)
    assert apic.read(at.TIMER_CURRENT, 100 * divide + 100) == 800
    assert apic.read(at.TIMER_CURRENT, SECOND) == 0
    assert apic.read(at.TIMER_INITIAL, SECOND) == 1000


def test_another_mode_of_the_timer_stops_it() -> None:
    """A periodic timer begins anew at its end; a change between the modes lets it rest, another change does not."""
    apic = make()
    apic.write(at.TIMER_DIVIDE, 11, 0)
    apic.write(at.LVT_TIMER, 0x2_0040, 0)
    apic.write(at.TIMER_INITIAL, 100_000, 0)
    assert apic.read(at.TIMER_CURRENT, 130_000) == 70_000
    apic.write(at.LVT_TIMER, 0x2_0041, 130_000)
    assert apic.read(at.TIMER_CURRENT, 140_000) == 60_000
    apic.write(at.LVT_TIMER, 0x41, 140_000)
    assert apic.read(at.TIMER_CURRENT, 140_001) == 0
    assert apic.timer.deadline(140_001) is None


def test_what_needs_more_than_the_page() -> None:
    """IPIs and the timer's registers need the clock or others to be written, the count to be read."""
    apic = make()
    writes = {register for register in range(0, 0x400, 16) if apic.needs_time(register, True)}
    assert writes == {at.ICR, at.TIMER_INITIAL, at.TIMER_DIVIDE, at.LVT_TIMER, at.SVR}
    assert {register for register in range(0, 0x400, 16) if apic.needs_time(register, False)} == {at.TIMER_CURRENT}
