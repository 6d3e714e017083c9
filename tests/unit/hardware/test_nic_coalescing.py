"""Large receive offload: what is joined, what is not, and that a receiver finds every byte in its order."""

from __future__ import annotations

import pytest
from tests.unit.hardware.nic_world import packet

from lamina_hardware.domain.nic.coalescing import MOST_BYTES, MOST_FLOWS, Coalescer, Joined
from lamina_net.offload.headers import (
    PSH,
    UDP,
    fill_ipv4_sum,
    fill_transport_sum,
    is_ipv4_sum_good,
    is_transport_sum_good,
    parse,
)

ACK = 0x10
L3, L4 = 14, 34
NO_OPERATION = b"\1"


def take(coalescer: Coalescer, *frames: bytes) -> list[Joined]:
    """Returns what leaves while these frames come."""
    return [joined for frame in frames for joined in coalescer.take(frame, parse(frame))]


def payload(joined: Joined) -> bytes:
    """Returns the data that a frame carries."""
    return joined.frame[joined.headers.payload : joined.headers.end]


def with_byte(frame: bytes, place: int, value: int) -> bytes:
    """Returns a frame with one byte changed, and its checksums right again."""
    changed = bytearray(frame)
    changed[place] = value
    headers = parse(changed)
    if headers.version == 4:
        fill_ipv4_sum(changed, headers.l3, headers.l4 - headers.l3)
    fill_transport_sum(changed, headers)
    return bytes(changed)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("vlan", [None, 5])
def test_a_joined_frame_is_one_that_a_sender_could_have_sent(version: int, vlan: int | None) -> None:
    """Lengths and sums are right, push, window and acknowledgement are the last frame's, and no byte is lost."""
    last = packet(b"b" * 70, sequence=1100, version=version, flags=ACK | PSH, vlan=vlan)
    l4 = parse(last).l4
    for place, value in ((l4 + 8, 9), (l4 + 11, 8), (l4 + 14, 0x77), (l4 + 15, 0x66)):
        last = with_byte(last, place, value)
    first = packet(b"a" * 100, sequence=1000, version=version, vlan=vlan)
    coalescer = Coalescer()
    [joined] = take(coalescer, first, last)
    assert coalescer.is_empty
    assert joined.count == 2
    assert payload(joined) == b"a" * 100 + b"b" * 70
    assert joined.headers == parse(joined.frame)
    assert len(joined.frame) == len(first) + 70
    assert is_transport_sum_good(joined.frame, joined.headers)
    assert version == 6 or is_ipv4_sum_good(joined.frame, joined.headers)
    assert joined.frame[l4 + 4 : l4 + 8] == first[l4 + 4 : l4 + 8]
    assert joined.frame[l4 + 8 : l4 + 16] == last[l4 + 8 : l4 + 16]


def test_a_frame_alone_leaves_as_it_came() -> None:
    """What no other frame follows is the frame that came, whether it was pushed or flushed out."""
    coalescer = Coalescer()
    pushed, flushed = packet(b"x" * 100, flags=ACK | PSH), packet(b"y" * 100)
    [first] = take(coalescer, pushed)
    assert take(coalescer, flushed) == []
    assert (coalescer.is_empty, coalescer.held_frames) == (False, 1)
    [second] = coalescer.flush()
    assert [(one.frame, one.count) for one in (first, second)] == [(pushed, 1), (flushed, 1)]
    assert (coalescer.is_empty, coalescer.held_frames) == (True, 0)


def test_padding_is_no_data() -> None:
    """What Ethernet padded a short frame with is not between the bytes of two frames."""
    coalescer = Coalescer()
    take(coalescer, packet(b"1", sequence=1000).ljust(60, b"\0"), packet(b"2", sequence=1001).ljust(60, b"\0"))
    assert coalescer.held_frames == 2
    assert [payload(joined) for joined in coalescer.flush()] == [b"12"]


def test_the_sequence_number_wraps() -> None:
    """A flow whose numbers begin again at 0 goes on."""
    coalescer = Coalescer()
    take(coalescer, packet(b"a" * 16, sequence=(1 << 32) - 16), packet(b"b" * 16, sequence=0))
    assert [payload(joined) for joined in coalescer.flush()] == [b"a" * 16 + b"b" * 16]


FIRST = packet(b"a" * 10, sequence=1000)
NEXT = packet(b"b" * 10, sequence=1010)
SIX = (packet(b"a" * 10, sequence=1000, version=6), packet(b"b" * 10, sequence=1010, version=6))
OPTIONED = packet(b"a" * 10, sequence=1000, options=NO_OPERATION * 4)
APART = {
    "a gap": (FIRST, packet(b"b" * 10, sequence=1011)),
    "the same once more": (FIRST, FIRST),
    "another class": (FIRST, with_byte(NEXT, L3 + 1, 4)),
    "may be fragmented": (FIRST, with_byte(NEXT, L3 + 6, 0)),
    "another time to live": (FIRST, with_byte(NEXT, L3 + 8, 63)),
    "another class of version 6": (SIX[0], with_byte(SIX[1], L3 + 1, 0x40)),
    "another flow label": (SIX[0], with_byte(SIX[1], L3 + 3, 1)),
    "another hop limit": (SIX[0], with_byte(SIX[1], L3 + 7, 63)),
    "options after none": (FIRST, packet(b"b" * 10, sequence=1010, options=NO_OPERATION * 4)),
    "no options after some": (OPTIONED, NEXT),
    "other options": (OPTIONED, packet(b"b" * 10, sequence=1010, options=NO_OPERATION * 3 + b"\0")),
}


@pytest.mark.parametrize("why", APART)
def test_what_a_receiver_could_tell_apart_is_not_joined(why: str) -> None:
    """The frame that does not continue the one before pushes it out unchanged, and is held itself."""
    first, then = APART[why]
    coalescer = Coalescer()
    assert [(out.frame, out.count) for out in take(coalescer, first, then)] == [(first, 1)]
    assert [(out.frame, out.count) for out in coalescer.flush()] == [(then, 1)]


def test_the_same_options_are_joined() -> None:
    """Options that are the same byte by byte hold nothing up, and stay."""
    coalescer = Coalescer()
    take(coalescer, OPTIONED, packet(b"b" * 10, sequence=1010, options=NO_OPERATION * 4))
    [joined] = coalescer.flush()
    assert payload(joined) == b"a" * 10 + b"b" * 10
    assert joined.frame[L4 + 20 : L4 + 24] == NO_OPERATION * 4


def _with_wrong_sum(frame: bytes, place: int) -> bytes:
    changed = bytearray(frame)
    changed[place] ^= 1
    return bytes(changed)


NEVER = {
    "a reset": packet(b"b" * 10, sequence=1010, flags=ACK | 4),
    "an end": packet(b"b" * 10, sequence=1010, flags=ACK | 1),
    "urgent data": packet(b"b" * 10, sequence=1010, flags=ACK | 0x20),
    "no acknowledgement": packet(b"b" * 10, sequence=1010, flags=PSH),
    "no data": packet(b"", sequence=1010),
    "a wrong sum of its header": _with_wrong_sum(NEXT, L3 + 10),
    "a wrong sum of its data": _with_wrong_sum(NEXT, len(NEXT) - 1),
}


@pytest.mark.parametrize("why", NEVER)
def test_what_no_frame_is_joined_to_leaves_at_once(why: str) -> None:
    """A frame with another flag, without data or with a wrong sum leaves behind what is held of its flow, and alone."""
    coalescer = Coalescer()
    other = packet(b"other", ports=(9, 9))
    take(coalescer, other, FIRST)
    assert [(out.frame, out.count) for out in take(coalescer, NEVER[why])] == [(FIRST, 1), (NEVER[why], 1)]
    assert [out.frame for out in take(coalescer, NEVER[why])] == [NEVER[why]]
    assert [out.frame for out in coalescer.flush()] == [other]


def test_datagrams_hold_nothing_up() -> None:
    """UDP leaves at once, and of the TCP that is held nothing leaves for it."""
    coalescer = Coalescer()
    datagram = packet(b"now", protocol=UDP)
    assert [(out.frame, out.count) for out in take(coalescer, FIRST, datagram)] == [(datagram, 1)]
    assert coalescer.held_frames == 1


@pytest.mark.parametrize(
    "other",
    [
        packet(b"b" * 10, sequence=1010, ports=(1235, 80)),
        packet(b"b" * 10, sequence=1010, ports=(1234, 81)),
        packet(b"b" * 10, sequence=1010, vlan=1),
        with_byte(NEXT, L3 + 15, 3),
        with_byte(NEXT, L3 + 19, 3),
    ],
)
def test_each_flow_is_joined_for_itself(other: bytes) -> None:
    """Another port, address or tag is another flow: the two are held beside each other, and leave in their order."""
    coalescer = Coalescer()
    assert take(coalescer, FIRST, other, NEXT) == []
    assert [(out.count, payload(out)) for out in coalescer.flush()] == [(2, b"a" * 10 + b"b" * 10), (1, b"b" * 10)]


def test_only_so_many_flows_are_held() -> None:
    """One flow more than are held pushes out the one that began first; a frame of a held one pushes out none."""
    coalescer = Coalescer()
    frames = [packet(b"x", ports=(n + 1, 80)) for n in range(MOST_FLOWS + 1)]
    assert take(coalescer, *frames[:-1], packet(b"y", sequence=1001, ports=(1, 80))) == []
    [out] = take(coalescer, frames[-1])
    assert (out.count, payload(out)) == (2, b"xy")
    assert [one.frame for one in coalescer.flush()] == frames[1:]


@pytest.mark.parametrize(("version", "header"), [(4, 40), (6, 60)])
def test_a_joined_packet_is_at_most_the_longest_of_ip(version: int, header: int) -> None:
    """The longest packet is reached to the byte; the byte more is not joined."""
    for more in (0, 1):
        room = MOST_BYTES - header
        size = room // 8
        parts = [size] * 7 + [room - 7 * size + more]
        coalescer, sequence, out = Coalescer(), 1000, []
        for part in parts:
            out += take(coalescer, packet(bytes(part), sequence=sequence, version=version))
            sequence += part
        out += coalescer.flush()
        assert [joined.count for joined in out] == ([8] if not more else [7, 1])
        assert all(is_transport_sum_good(joined.frame, joined.headers) for joined in out)
