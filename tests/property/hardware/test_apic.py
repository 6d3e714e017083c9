"""The local APIC against a naive model of sets, its timer against counting tick by tick, messages against a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic.local_apic import NOTHING, REFUSED, Delivery, Ended, LocalApic, Message, Mode, Send
from lamina_hardware.domain.apic.messages import destinations, parse, problem
from lamina_hardware.domain.apic.page import ApicPage, PostedInterrupts, Words, listed
from lamina_hardware.domain.apic.timer import LEAST_PERIOD_NS, ApicTimer

PAGE, DESCRIPTOR = 0x1000, 0x2000
SECOND = 1_000_000_000


class Ram:
    """Words of RAM in a dict."""

    def __init__(self) -> None:
        self.cells: dict[int, int] = {}

    def words(self) -> Words:
        """Returns the port."""

        def cas(address: int, expected: int, new: int) -> int:
            old = self.cells.get(address, 0)
            if old == expected:
                self.cells[address] = new
            return old

        def store(address: int, value: int) -> None:
            assert address % 8 == 0 and 0 <= value < 1 << 64
            self.cells[address] = value

        def read(address: int, size: int) -> bytes:
            return b"".join(self.cells.get(address + n, 0).to_bytes(8, "little") for n in range(0, size, 8))

        return Words(lambda address: self.cells.get(address, 0), store, cas, read)


def make(mode: Mode = Mode.XAPIC, apic_id: int = 0, end_exits: int = 0) -> LocalApic:
    """Returns an APIC that software has switched on."""
    words = Ram().words()
    apic = LocalApic(
        ApicPage(words, PAGE), PostedInterrupts(words, DESCRIPTOR), apic_id, mode, ApicTimer(SECOND), end_exits
    )
    apic.reset()
    apic.write(at.SVR, 0x1FF, 0)
    return apic


@dataclass
class Naive:
    """An APIC as sets."""

    requested: set[int] = field(default_factory=set)
    serviced: set[int] = field(default_factory=set)
    task: int = 0

    def next(self) -> int:
        """Returns the vector that may be delivered, by the words of the manual."""
        in_service = max(self.serviced, default=0)
        floor = max(self.task // 16, in_service // 16)
        best = max(self.requested, default=0)
        return best if best // 16 > floor else 0


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.integers(16, 255)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("task"), st.integers(0, 255)),
    ),
    max_size=60,
)


@given(_STEPS, st.integers(0, (1 << 256) - 1))
@settings(max_examples=300, deadline=None)
def test_priorities_are_those_of_a_model_of_sets(steps: list[tuple[str, int]], end_exits: int) -> None:
    """Whatever is posted, acknowledged and ended, the next vector, IRR and ISR are those of the naive model."""
    apic, naive = make(end_exits=end_exits), Naive()
    for what, value in steps:
        if what == "post":
            assert apic.request(value) == (value not in naive.requested)
            naive.requested.add(value)
        elif what == "task":
            assert apic.write(at.TPR, value, 0) == NOTHING
            naive.task = value
        elif what == "end":
            ended = max(naive.serviced, default=0)
            expected = Ended(ended, bool(end_exits >> ended & 1)) if ended else NOTHING
            assert apic.write(at.EOI, 0, 0) == expected
            naive.serviced.discard(ended)
        apic.sync()
        assert apic.next_vector() == naive.next()
        if what == "take" and (vector := naive.next()):
            assert apic.acknowledge() == vector
            naive.requested.remove(vector)
            naive.serviced.add(vector)
        assert set(listed(apic.page.vectors(at.IRR))) == naive.requested
        assert set(listed(apic.page.vectors(at.ISR))) == naive.serviced
        floor = max(naive.serviced, default=0) & 0xF0
        assert apic.read(at.PPR, 0) == (naive.task if naive.task >> 4 >= floor >> 4 else floor)


@given(st.lists(st.integers(0, 255), max_size=300), st.lists(st.booleans(), max_size=300))
@settings(max_examples=100, deadline=None)
def test_nothing_that_was_posted_is_lost(vectors: list[int], takes: list[bool]) -> None:
    """All vectors posted come out of the descriptor, each once for the times that it was posted in between."""
    descriptor = PostedInterrupts(Ram().words(), DESCRIPTOR)
    waiting: set[int] = set()
    for number, vector in enumerate(vectors):
        assert descriptor.post(vector) == (vector not in waiting)
        waiting.add(vector)
        assert set(listed(descriptor.vectors())) == waiting
        if number < len(takes) and takes[number]:
            assert set(listed(descriptor.take())) == waiting
            waiting.clear()
    assert set(listed(descriptor.take())) == waiting
    assert descriptor.take() == 0


@given(st.sampled_from(list(Mode)), st.integers(0, 0x3F), st.integers(0, (1 << 64) - 1), st.booleans(), st.booleans())
@settings(max_examples=500, deadline=None)
def test_any_access_is_answered(mode: Mode, index: int, value: int, write: bool, enabled: bool) -> None:
    """No register and no value, known or not, breaks the APIC; words stay within 32 bits, an access within its page."""
    apic = make(mode)
    if not enabled:
        apic.write(at.SVR, 0xFF, 0)
    value = value if mode is Mode.X2APIC and index == 0x30 else value & 0xFFFF_FFFF
    if write:
        effect = apic.write(index * 16, value, 0)
        assert mode is Mode.X2APIC or effect != REFUSED
    else:
        found = apic.read(index * 16, 0)
        assert found is not None or mode is Mode.X2APIC
    for register in range(0, 0x400, 16):
        assert 0 <= apic.page.get(register) < 1 << 32
    assert apic.page.highest(at.ISR) == 0


def brute(timer: ApicTimer, initial: int, divide: int, periodic: bool, until: int) -> list[int]:
    """Returns when a timer that starts at 0 fires, by counting ticks one at a time."""
    fires: list[int] = []
    count, tick = initial, 0
    while True:
        tick += 1
        when = -(-tick * divide * SECOND // timer.frequency_hz)
        if when > until:
            return fires
        count -= 1
        if count == 0:
            fires.append(when)
            if not periodic:
                return fires
            count = initial


@given(st.integers(1000, 50_000_000), st.integers(1, 40), st.sampled_from((0, 1, 2, 3, 8, 9, 10, 11)), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_timer_fires_when_counting_says(frequency: int, initial: int, divide: int, periodic: bool) -> None:
    """One-shot and periodic deadlines are those of a loop over ticks; periods below the least are stretched."""
    apic = make()
    apic.timer.frequency_hz = frequency
    apic.write(at.LVT_TIMER, 0x40 | (1 << 17 if periodic else 0), 0)
    apic.write(at.TIMER_DIVIDE, divide, 0)
    apic.write(at.TIMER_INITIAL, initial, 0)
    by = apic.timer.divide
    period = -(-initial * by * SECOND // frequency)
    expected = brute(apic.timer, initial, by, periodic, 3 * period + 3)
    found: list[int] = []
    now = 0
    while (due := apic.timer.deadline(now)) is not None and due <= 3 * period + 3 and len(found) < 50:
        assert due >= now
        found.append(due)
        now = due
        apic.timer.fired(now)
    if period >= LEAST_PERIOD_NS or not periodic:
        assert found == expected
    else:
        gaps = [b - a for a, b in pairwise(found)]
        assert all(gap >= LEAST_PERIOD_NS for gap in gaps)


@given(st.integers(1, (1 << 32) - 1), st.integers(0, 10**9))
@settings(max_examples=100, deadline=None)
def test_the_count_goes_down_with_time(initial: int, passed: int) -> None:
    """The current count is what is left of the initial one, and 0 from the deadline on."""
    timer = ApicTimer(SECOND, divide=1)
    timer.start(initial, 5)
    assert timer.count(5 + passed) == max(0, initial - passed)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 17) - 1))
@settings(max_examples=300, deadline=None)
def test_messages_are_refused_or_parsed(address: int, data: int) -> None:
    """A message either has a problem, or names a delivery mode that a device may use and a vector that exists."""
    if problem(address, data):
        return
    message = parse(address, data)
    assert message.delivery in (Delivery.FIXED, Delivery.LOWEST, Delivery.NMI, Delivery.INIT)
    assert message.vector >= 16 or message.delivery in (Delivery.NMI, Delivery.INIT)
    assert 0 <= message.destination <= 255


@given(st.integers(0, 255), st.lists(st.integers(0, 254), unique=True, max_size=6), st.integers(0, 255), st.booleans())
@settings(max_examples=200, deadline=None)
def test_physical_and_flat_destinations(target: int, ids: list[int], logical: int, is_logical: bool) -> None:
    """Physical: the id, or all for 255. Flat logical: those whose logical id shares a bit, or all for 255."""
    members = [make(apic_id=number) for number in sorted(ids)]
    for member in members:
        member.write(at.LDR, (logical ^ member.apic_id) << 24, 0)
    found = destinations(Message(Delivery.FIXED, 64, target, is_logical), members, None)
    expected = [
        m for m in members
        if target == 255 or (target & (logical ^ m.apic_id) if is_logical else target == m.apic_id)
    ]  # fmt: skip
    assert [m.apic_id for m in found] == [m.apic_id for m in expected]


@given(st.integers(0, 65535), st.integers(0, 65535))
@settings(max_examples=200, deadline=None)
def test_logical_destinations_of_x2apic(mine: int, other: int) -> None:
    """The logical id follows from the id: addressing it reaches this APIC, and another only if they are the same."""
    apic = make(Mode.X2APIC, mine)
    message = Message(Delivery.FIXED, 64, make(Mode.X2APIC, other).logical_id(), True)
    assert bool(destinations(message, [apic], None)) == (mine == other)


@given(st.integers(0, 3), st.integers(0, 7), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_an_ipi_is_what_the_register_says(shorthand: int, mode: int, vector: int, target: int) -> None:
    """A write of ICR sends what it encodes, or nothing for modes and vectors that an IPI cannot have."""
    apic = make()
    apic.write(at.ICR_HIGH, target << 24, 0)
    effect = apic.write(at.ICR, shorthand << 18 | 1 << 14 | mode << 8 | vector, 0)
    legal = mode in (4, 5, 6) or (mode in (0, 1) and vector >= 16)
    assert isinstance(effect, Send) == legal
    if isinstance(effect, Send):
        message = effect.message
        assert (message.shorthand, message.delivery, message.vector, message.destination) == (
            shorthand, mode, vector, target,
        )  # fmt: skip
