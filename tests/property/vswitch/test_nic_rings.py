"""Rings of a NIC against a naive device that reads descriptors with the hardware's own parser, and a hostile one."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_hardware.domain.nic import descriptors as device
from lamina_vswitch.domain.uplink.nic.descriptors import Work
from lamina_vswitch.domain.uplink.nic.rings import ReceiveRing, TransmitRing

ADDRESS = 1 << 45
COUNT, BUFFER, ROOM = 8, 64, 4096
WORKS = st.none() | st.builds(
    Work,
    st.sampled_from((14, 18)),
    st.integers(20, 60),
    st.integers(8, 60),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0, 536, 1460)),
    st.integers(0, 0x3FFFF),
)


class Bytes:
    """DMA memory that is an array; addresses outside of it are an error of the test."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that are there."""
        assert 0 <= offset <= offset + size <= len(self.data)
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes where there is room."""
        assert 0 <= offset <= offset + len(data) <= len(self.data)
        self.data[offset : offset + len(data)] = data


def send_one(memory: Bytes, head: int, tail: int) -> tuple[int, bytes, device.TransmitContext | None] | None:
    """Send the next frame as a NIC would: read descriptors up to its last, report it; None when there is none."""
    context, parts = None, b""
    while head != tail:
        read = device.read_transmit(memory.read(head * 16, 16))
        if isinstance(read, device.TransmitContext):
            context = read
        else:
            parts += memory.read(read.address - ADDRESS, read.size)
            assert (read.l4_sum, read.segment) == (context is not None, context is not None and context.mss > 0)
            if read.is_last:
                assert read.wants_report
                memory.write(head * 16 + 8, device.DONE.to_bytes(8, "little"))
                return (head + 1) % COUNT, parts, context
        head = (head + 1) % COUNT
    return None


@given(st.lists(st.tuples(st.integers(14, 1500), WORKS) | st.just("send"), max_size=60))
@settings(max_examples=150, deadline=None)
def test_frames_leave_whole_and_in_order(steps: list[tuple[int, Work | None] | str]) -> None:
    """Whatever is put and sent in whatever order, each frame leaves once, with its bytes and what is to be done."""
    memory = Bytes(COUNT * 16 + ROOM)
    ring = TransmitRing(memory, ADDRESS, 0, COUNT * 16, COUNT, ROOM)
    expected: deque[tuple[bytes, Work | None]] = deque()
    head = 0
    for number, step in enumerate([*steps, *["send"] * len(steps)]):
        if isinstance(step, tuple):
            size, work = step
            frame = bytes((number + at) % 251 for at in range(size))
            if ring.put(frame, work):
                expected.append((frame, work))
            else:
                assert expected, "an empty ring takes any frame"
        elif (sent := send_one(memory, head, ring.tail)) is not None:
            head, found, context = sent
            frame, work = expected.popleft()
            assert found == frame
            assert (context is None) == (work is None)
            if work is not None and context is not None:
                told = (context.mac_bytes, context.ip_bytes, context.l4_bytes, context.mss, context.is_ipv4)
                assert told == (work.ethernet_bytes, work.ip_bytes, work.transport_bytes, work.mss, work.ipv4)
                assert context.l4_type == work.tcp
    assert not expected
    assert head == ring.tail


@given(st.lists(st.lists(st.binary(min_size=1, max_size=200), max_size=3), max_size=20))
@settings(max_examples=150, deadline=None)
def test_frames_arrive_whole_and_in_order(batches: list[list[bytes]]) -> None:
    """A NIC that writes frames over several buffers is read without loss, and gets every buffer back."""
    memory = Bytes(COUNT * 16 + COUNT * BUFFER)
    ring = ReceiveRing(memory, ADDRESS, 0, COUNT * 16, COUNT, BUFFER)
    head = 0
    for batch in batches:
        written: list[bytes] = []
        for frame in batch:
            pieces = [frame[at : at + BUFFER] for at in range(0, len(frame), BUFFER)]
            if (ring.tail - head) % COUNT < len(pieces):
                break
            for number, piece in enumerate(pieces):
                memory.write(device.read_receive(memory.read(head * 16, 16)) - ADDRESS, piece)
                status = 1 | (2 if number == len(pieces) - 1 else 0)
                memory.write(head * 16, device.write_receive(0, 0, 0, status, len(piece), 0))
                head = (head + 1) % COUNT
            written.append(frame)
        assert ring.take() == (written, [])
        assert (ring.tail - head) % COUNT == COUNT - 1


@given(st.lists(st.binary(min_size=COUNT * 16, max_size=COUNT * 16), max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_hostile_device_costs_a_ring_at_most(writes: list[bytes]) -> None:
    """Whatever a device writes over the descriptors, a look takes a bounded time, and frames fit what they may be."""
    memory = Bytes(COUNT * 16 + COUNT * BUFFER + ROOM)
    receive = ReceiveRing(memory, ADDRESS, 0, COUNT * 16, COUNT, BUFFER)
    for raw in writes:
        memory.write(0, raw)
        good, bad = receive.take()
        assert len(good) + len(bad) <= COUNT
        assert all(0 < len(frame) <= 65535 for frame in good)
        assert all(len(head) <= 65535 for head in bad)
        assert 0 <= receive.tail < COUNT
    transmit = TransmitRing(memory, ADDRESS, 0, COUNT * (16 + BUFFER), COUNT, ROOM)
    for raw in writes:
        memory.write(0, raw)
        transmit.reclaim()
        transmit.put(b"x" * 1000, None)
        assert 0 <= transmit.tail < COUNT
