"""The containers of TCP against naive ones: bytes in blocks, ranges, unwrapped numbers, what is on its way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_net.tcp.connection.byte_queue import ByteQueue
from lamina_net.tcp.connection.flight import Flight, Sent
from lamina_net.tcp.connection.ranges import Ranges
from lamina_net.tcp.sequence import MASK, unwrap

SIZES = st.one_of(st.integers(0, 20), st.integers(65_530, 65_542), st.integers(0, 200_000))


@given(st.lists(st.tuples(st.booleans(), SIZES, SIZES), max_size=12))
def test_a_byte_queue_is_a_string_of_bytes(steps: list[tuple[bool, int, int]]) -> None:
    """Whatever is added and taken, the queue gives what one string would."""
    queue, naive, count = ByteQueue(), b"", 0
    for adds, size, other in steps:
        if adds:
            data = bytes((count + at) % 251 for at in range(min(size, 7))) * (size // 7 + 1)
            count += 1
            queue.append(data[:size])
            naive += data[:size]
        else:
            assert queue.take(size) == naive[:size]
            naive = naive[size:]
        assert len(queue) == len(naive)
        first, last = sorted((min(size, len(naive)), min(other, len(naive))))
        assert queue.slice(first, last) == naive[first:last]


@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 60), st.integers(1, 12)), max_size=40))
def test_ranges_are_a_set(steps: list[tuple[str, int, int]]) -> None:
    """Ranges hold the numbers that a set would, sorted, apart, and know around what they lie."""
    ranges, naive = Ranges(), set[int]()
    for what, start, size in steps:
        numbers = set(range(start, start + size))
        if what == "add":
            assert (ranges.add(start, start + size) is None) == (numbers <= naive)
            naive |= numbers
        else:
            ranges.remove_below(start)
            naive -= set(range(start))
        assert {number for first, last in ranges for number in range(first, last)} == naive
        assert all(end < start for end, start in zip(ranges.ends, ranges.starts[1:], strict=False))
        around = ranges.around(start)
        assert (around is not None) == (start in naive)
        assert around is None or set(range(*around)) <= naive


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31 - 1))
def test_numbers_unwrap_to_the_nearest(near: int, away: int) -> None:
    """What lies within half of the numbers is found again from its 32 bits."""
    assert unwrap((near + away) & MASK, near) == near + away


@given(st.lists(st.tuples(st.sampled_from(["send", "ack", "sack", "lose", "again"]), st.integers(0, 99)), max_size=60))
def test_the_pipe_is_what_may_be_on_its_way(steps: list[tuple[str, int]]) -> None:
    """The pipe counts records that were sent and are neither known to have arrived nor to be lost."""
    flight, nxt = Flight(), 100
    for now, (what, choice) in enumerate(steps):
        queue = flight.queue
        if what == "send":
            flight.add(Sent(nxt, nxt + 1 + choice, now))
            nxt += 1 + choice
        elif what == "ack" and queue:
            flight.acknowledge(queue[0].start + choice * (nxt - queue[0].start) // 99, now)
        elif what == "sack" and queue:
            record = queue[choice % len(queue)]
            flight.sack([(record.start, record.end)], now, 0)
            flight.find_lost(0, now)
        elif what == "lose":
            flight.lose_all()
        elif what == "again" and (lost := flight.next_lost()) is not None:
            flight.sent_again(lost, now)
        expected = sum(record.end - record.start for record in flight.queue if record.counted)
        assert flight.pipe == expected
        assert not any(record.counted and (record.lost or record.sacked) for record in flight.queue)
        waiting = [record.start for record in flight.queue if record.lost]
        following = flight.next_lost()
        assert (following.start if following else None) == min(waiting, default=None)
