"""Batches that somebody made to be misunderstood are taken byte for byte as when each frame is looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.property.net.test_merging import A, B, World

from lamina_net.offload.merging import Run, merged
from lamina_net.packets import ipv4
from lamina_net.tcp.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Options, Segment, build, parse
from lamina_net.tcp.sequence import MASK

Change = Callable[[Segment], Segment]
SIZE, COUNT = 1000, 8


def frame_of(like: bytes, change: Change, **ip: int) -> bytes:
    """Return a frame whose segment and packet are changed, with right sums."""
    packet = ipv4.parse(like[14:])
    assert isinstance(packet, ipv4.Packet)
    segment = parse(packet.src, packet.dst, packet.payload)
    assert isinstance(segment, Segment)
    body = build(packet.src, packet.dst, change(segment))
    return like[:14] + ipv4.build(packet._replace(payload=body, **ip))  # type: ignore[arg-type]


def stream(
    like: bytes, change: Change = lambda one: one, count: int = COUNT, size: int = SIZE, step: int = 0, **ip: int
) -> list[bytes]:
    """Return segments that go on from one to the next, of which the first begins where the segment in `like` does.

    `step`: what is added to the number from one to the next, their `size` unless they lie.
    """

    def numbered(number: int) -> Change:
        payload, further = bytes((number & 255,)) * size, number * (step or size)
        return lambda one: change(one._replace(sequence=(one.sequence + further) & MASK, payload=payload, flags=ACK))

    return [frame_of(like, numbered(number), **ip) for number in range(count)]


def all_of(change: Change, **ip: int) -> Callable[[bytes], list[bytes]]:
    """Return what makes a stream, each of whose segments is changed."""
    return lambda like: stream(like, change, **ip)


def third_of(change: Change, **ip: int) -> Callable[[bytes], list[bytes]]:
    """Return what makes a stream whose fourth segment is changed."""

    def made(like: bytes) -> list[bytes]:
        frames = stream(like)
        frames[3] = frame_of(frames[3], change, **ip)
        return frames

    return made


def stamped(by: int) -> Change:
    """Return what moves the timestamp."""

    def change(one: Segment) -> Segment:
        assert one.options.timestamp is not None
        value, echo = one.options.timestamp
        return one._replace(options=one.options._replace(timestamp=((value + by) & MASK, echo)))

    return change


def flagged(flags: int) -> Change:
    """Return what sets the flags beside ACK, with an urgent pointer."""
    return lambda one: one._replace(flags=ACK | flags, urgent=100)


def told_twice(one: Segment) -> Segment:
    """Say that bytes came twice."""
    block = ((one.acknowledgment - 4) & MASK, one.acknowledgment)
    return one._replace(options=one.options._replace(sack=(block,)))


def with_a_pure_ack(like: bytes) -> list[bytes]:
    """Return a stream with an ACK without bytes in its midst."""
    frames = stream(like)
    return [*frames[:4], frame_of(frames[4], lambda one: one._replace(payload=b"", window=77)), *frames[4:]]


def behind_a_fin(like: bytes) -> list[bytes]:
    """Return a FIN beyond what comes then, which goes on behind it."""

    def change(one: Segment) -> Segment:
        number, acknowledgment = (one.sequence + 500) & MASK, (one.acknowledgment - 1) & MASK  # no news of a window
        return one._replace(payload=b"", flags=ACK | FIN, sequence=number, acknowledgment=acknowledgment)

    return [frame_of(stream(like)[4], change), *stream(like)]


def overlapping(like: bytes) -> list[bytes]:
    """Return a stream, and an older window with bytes that lie in its last segment and beyond."""
    frames = stream(like)
    return [
        *frames,
        frame_of(
            frames[-1], lambda one: one._replace(sequence=(one.sequence - 300) & MASK, payload=bytes(1500), window=3)
        ),
    ]


def padded(like: bytes) -> list[bytes]:
    """Return segments that would go on if what the frames are padded with were theirs; their sums would be right."""
    return [frame + b"\xff\xfd" for frame in stream(like, step=SIZE + 2)]


def longer_headers(like: bytes) -> list[bytes]:
    """Return segments that would go on if they had as short a header as the frame before them, which is as long."""
    alone = frame_of(like, lambda one: one._replace(options=Options(), payload=bytes(SIZE + 12)))
    return [alone, *stream(like, step=SIZE + 12)]


def behind_a_later_window(like: bytes) -> list[bytes]:
    """Return a stream in whose midst a window lies that came before it."""
    frames = stream(like, lambda one: one._replace(window=5))
    return [frame_of(stream(like)[5], lambda one: one._replace(payload=b"", window=77)), *frames]


CASES: dict[str, Callable[[bytes], list[bytes]]] = {
    "plain": all_of(lambda one: one),
    "old stamps": all_of(stamped(-5000)),
    "one old stamp": third_of(stamped(-5000)),
    "no stamps": all_of(lambda one: one._replace(options=one.options._replace(timestamp=None))),
    "told twice": all_of(told_twice),
    "acknowledges too much": all_of(lambda one: one._replace(acknowledgment=(one.acknowledgment + 50_000) & MASK)),
    "acknowledges long ago": all_of(lambda one: one._replace(acknowledgment=(one.acknowledgment - 90_000) & MASK)),
    "one acknowledges": third_of(lambda one: one._replace(acknowledgment=(one.acknowledgment - 1) & MASK)),
    "closed windows": all_of(lambda one: one._replace(window=0)),
    "one window": third_of(lambda one: one._replace(window=1)),
    **{f"all {flag}": all_of(flagged(flag)) for flag in (FIN, SYN, RST, PSH, URG, ECE, CWR)},
    **{f"one {flag}": third_of(flagged(flag)) for flag in (FIN, SYN, RST, PSH, URG, ECE, CWR)},
    "an urgent pointer without its flag": third_of(lambda one: one._replace(urgent=7)),
    "marks": all_of(lambda one: one, tos=3),
    "one mark": third_of(lambda one: one, tos=3),
    "one time to live": third_of(lambda one: one, ttl=1),
    "one class": third_of(lambda one: one, tos=0xB8),
    "one identification": third_of(lambda one: one, identification=0xFFFF),
    "one sequence number": third_of(lambda one: one._replace(sequence=(one.sequence - 1) & MASK)),
    "a pure ACK": with_a_pure_ack,
    "behind a FIN": behind_a_fin,
    "overlapping": overlapping,
    "behind a later window": behind_a_later_window,
    "a long one": lambda like: stream(like, count=60),
    "beyond what was offered": lambda like: stream(like, count=400),
    "small ones": lambda like: stream(like, count=5, size=100),
    "padded": padded,
    "longer headers": longer_headers,
    "for nobody": all_of(lambda one: one._replace(destination_port=9)),
    "others' stream": all_of(lambda one: one._replace(sequence=(one.sequence + 0x8000_0000) & MASK)),
}


def played(made: Callable[[bytes], list[bytes]], merging: bool) -> list[object]:
    """Return what a receiver with bytes on their way says to a batch, and what it is like then."""
    world = World(timestamps=True, merging=merging, mtu=1500)
    client, accepted = world.handles[0]
    world.stacks[A].sockets.send(client, b"begin", world.now_ns)
    (like,) = world.sent()
    world.stacks[B].sockets.send(accepted, bytes(3000), world.now_ns)
    world.stacks[B].drain()
    told = world.receive(made(like))
    stack = world.stacks[B]
    sockets, tcp = stack.sockets, stack.tcp
    bytes_there = sockets.recv(accepted, 1 << 22, world.now_ns)
    conn = next((each for each in tcp._table.by_four.values() if each.four[1] == 80 and each.four[2] == A), None)
    inside = None
    if conn is not None:
        learned = conn.flight.reordering
        inside = (
            conn.state, conn.una, conn.window, conn.max_window, conn.wl1, conn.wl2, conn.receiver.nxt, conn.ts_recent,
            conn.next_timer(), conn.ack_now, learned.seen, learned.multiplier, learned._told, conn.marking.echo,
        )  # fmt: skip
    return [told, bytes_there, inside, tcp.counters, tcp.repairs, stack.internet.refused]


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_batch_does_what_its_frames_do(case: str) -> None:
    """Answers, bytes, counters and the connection itself are the same, merged or not."""
    assert played(CASES[case], True) == played(CASES[case], False)


def test_numbers_wrap_within_a_run() -> None:
    """A stream goes on behind the last number of all; sums that are wrong for one end the run there."""
    world = World(timestamps=True, merging=True, mtu=1500)
    world.stacks[A].sockets.send(world.handles[0][0], b"begin", world.now_ns)
    (like,) = world.sent()
    frames = stream(frame_of(like, lambda one: one._replace(sequence=MASK - 2500)))
    (run,) = merged(frames)
    assert isinstance(run, Run) and run.frames == frames
    for place in (24, 50, 60):  # the sums, and a byte
        broken = [bytearray(frame) for frame in frames]
        broken[5][place] ^= 1
        parts = list(merged(list(map(bytes, broken))))
        assert [len(each.frames) if isinstance(each, Run) else 1 for each in parts] == [5, 1, 2]
