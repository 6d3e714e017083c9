"""The state of an APIC: whatever was done to one, another goes on the same; bytes that no APIC has are refused."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.property.hardware.test_apic import make

from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic import state as apic_state
from lamina_hardware.domain.apic.local_apic import LocalApic, Mode
from lamina_hardware.domain.apic.pending import Pending

WRITTEN = (
    at.TPR, at.EOI, at.LDR, at.DFR, at.SVR, at.ESR, at.ICR, at.ICR_HIGH, at.LVT_TIMER, at.LVT_LINT0, at.LVT_ERROR,
    at.TIMER_INITIAL, at.TIMER_DIVIDE, at.SELF_IPI,
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(WRITTEN), st.integers(0, 2**32 - 1) | st.sampled_from([0x1FF, 0x20041, 0xB])),
        st.tuples(st.just("request"), st.integers(16, 255)),
        st.tuples(st.just("acknowledge"), st.just(0)),
        st.tuples(st.just("fire"), st.just(0)),
    ),
    max_size=30,
)
TICK = 128
"""Nanoseconds that are whole ticks whatever divides: what is less than a tick is not part of the state."""
MODES = st.sampled_from([Mode.XAPIC, Mode.X2APIC])


def do(apic: LocalApic, step: tuple[int | str, int], now: int) -> object:
    """Does one step; returns what it came to."""
    what, value = step
    if what == "request":
        return apic.request(value)
    if what == "acknowledge":
        apic.sync()
        return apic.acknowledge() if apic.next_vector() else 0
    if what == "fire":
        due = apic.timer.deadline(now)
        return apic.fire(now) if due is not None and due <= now else None
    assert isinstance(what, int)
    return apic.write(what, value, now)


@settings(max_examples=150)
@given(MODES, STEPS, STEPS, st.integers(0, 2**256 - 1), st.integers(0, 10**10))
def test_another_apic_goes_on_the_same(
    mode: Mode, before: list[tuple[int | str, int]], after: list[tuple[int | str, int]], ends: int, pause: int
) -> None:
    """After the state was given, the same steps come to the same, and the bytes are those that were taken."""
    first, second = make(mode, 3, ends), make(mode, 3, ends)
    for number, step in enumerate(before):
        do(first, step, number * TICK)
    second.request(0x99)
    second.write(at.LVT_TIMER, 0x20044, 0)
    second.write(at.TIMER_INITIAL, 1000, 0)
    now = len(before) * TICK
    due = first.timer.deadline(now)
    assume(due is None or due > now)  # what was due by then has been told; the other case has a test of its own
    data = apic_state.pack(apic_state.take(first, now, False))
    state = apic_state.unpack(data)
    assert state is not None and len(data) == apic_state.BYTES
    apic_state.give(second, state, now)
    assert apic_state.pack(apic_state.take(second, now, False)) == data
    for step in after:
        assert do(second, step, now) == do(first, step, now)
    assert [first.read(n, now) for n in (at.TPR, at.SVR)] == [second.read(n, now) for n in (at.TPR, at.SVR)]
    first.sync()
    second.sync()
    for block in (at.IRR, at.ISR, at.TMR):
        assert first.page.vectors(block) == second.page.vectors(block)
    assert first.timer.count(now + pause) == second.timer.count(now + pause)


def test_a_deadline_that_nobody_was_told_of_goes_along() -> None:
    """A count that has run out and was not told yet fires at the other APIC, within a tick; one that was told rests."""
    first, second = make(Mode.XAPIC, 3, 0), make(Mode.XAPIC, 3, 0)
    first.write(at.TIMER_INITIAL, 1, 0)
    due = first.timer.deadline(0)
    assert due is not None and due <= TICK
    apic_state.give(second, apic_state.take(first, TICK, True), TICK)
    goes_on = second.timer.deadline(TICK)
    assert goes_on is not None and TICK <= goes_on <= 2 * TICK
    first.fire(TICK)
    apic_state.give(second, apic_state.take(first, TICK, False), TICK)
    assert second.timer.deadline(TICK) is None


@given(st.binary(max_size=apic_state.BYTES + 8) | st.binary(min_size=apic_state.BYTES, max_size=apic_state.BYTES))
def test_bytes_that_no_apic_has_are_refused(data: bytes) -> None:
    """Bytes are refused, or they are those of the state that they are read as, which an APIC can be given."""
    state = apic_state.unpack(data)
    if state is not None:
        assert apic_state.pack(state) == data
        apic = make(state.mode)
        apic_state.give(apic, state, 0)
        assert apic_state.pack(apic_state.take(apic, 0, False)) == data


@given(
    st.integers(0, 2**256 - 1), st.booleans(), st.booleans(), st.none() | st.integers(0, 255), st.binary(max_size=48)
)
def test_what_waits_as_bytes(vectors: int, nmi: bool, init: bool, startup: int | None, noise: bytes) -> None:
    """What was packed is restored; other bytes change nothing."""
    pending = Pending(None, vectors & 0xFF, vectors & ~0xFF, nmi, False, init, startup)
    data, other = pending.pack(), Pending()
    assert other.restore(data) and other.pack() == data
    assert (other.fixed, other.nmi, other.init, other.startup) == (vectors, nmi, init, startup)
    third = Pending()
    assert third.restore(noise) is (len(noise) == len(data) and third.pack() == noise)
    for wrong in (data[:-1], data + b"\0", data[:32] + b"\2" + data[33:], data[:-2] + b"\0\1"):
        assert not other.restore(wrong) and other.pack() == data
