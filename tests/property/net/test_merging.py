"""Segments that are taken as one are answered, byte for byte, as when each is looked at."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_net.offload.merging import Run, merged
from lamina_net.offload.piece_rows import row_sums
from lamina_net.packets import ipv4
from lamina_net.packets.checksum import word_sum
from lamina_net.stack import Stack, StackConfig
from lamina_net.tcp.config import Ecn, TcpConfig
from lamina_net.tcp.interface import Endpoint, Refused
from lamina_net.tcp.segment import Segment, build, parse

STEP_NS = 100_000
A, B = 0x0A000001, 0x0A000002
MACS = {A: bytes.fromhex("020000000001"), B: bytes.fromhex("020000000002")}
PORTS = (80, 81)
CHANGES = st.sampled_from(["drop", "twice", "swap", "flip", "pad", "mark", "push", "short"])


class Alone(bytes):
    """A frame that is never merged, as it is more than bytes."""


class World:
    """A sender with two connections, and a receiver whose frames are merged or not."""

    def __init__(self, *, timestamps: bool, merging: bool, mtu: int) -> None:
        self.now_ns, self._merging = 0, merging
        tcp = TcpConfig(timestamps=timestamps, ecn=Ecn.ASK, tail_probes=False)
        self.stacks = {address: Stack(b"%d" % address, StackConfig(tcp=tcp)) for address in (A, B)}
        for address, stack in self.stacks.items():
            stack.internet.add_interface("eth0", MACS[address], mtu)
            assert stack.internet.add_address("eth0", address, 24)
        self.handles: list[tuple[int, int]] = []
        for port in PORTS:
            self._open(port)

    def _open(self, port: int) -> None:
        ours, theirs = self.stacks[A].sockets, self.stacks[B].sockets
        listener, client = theirs.open_tcp(), ours.open_tcp()
        assert not isinstance(listener, Refused) and not isinstance(client, Refused)
        assert theirs.bind(listener, Endpoint(0, port)) is None
        assert theirs.listen(listener, 1) is None
        ours.connect(client, Endpoint(B, port), self.now_ns)
        self.carry()
        accepted = theirs.accept(listener, self.now_ns)
        assert not isinstance(accepted, Refused)
        self.handles.append((client, accepted))

    def carry(self) -> list[bytes]:
        """Carry frames until none is left; return those of the receiver."""
        told: list[bytes] = []
        while frames := self.sent():
            told += self.receive(frames)
        return told

    def sent(self) -> list[bytes]:
        """Return what the sender sends now."""
        return [frame for _, frame in self.stacks[A].drain().frames]

    def receive(self, frames: list[bytes]) -> list[bytes]:
        """Give frames to the receiver, and its answers to the sender."""
        self.now_ns += STEP_NS
        self.stacks[B].frames("eth0", frames if self._merging else list(map(Alone, frames)), self.now_ns)
        answers = [frame for _, frame in self.stacks[B].drain().frames]
        for answer in answers:
            self.stacks[A].frame("eth0", answer, self.now_ns)
        return answers


def damaged(frames: list[bytes], changes: list[tuple[str, int]]) -> list[bytes]:
    """Return frames after some things happened to them on the way."""
    frames = list(frames)
    for change, place in changes:
        if not frames:
            break
        at = place % len(frames)
        frame = frames[at]
        if change == "drop":
            del frames[at]
        elif change == "twice":
            frames.insert(at, frame)
        elif change == "swap":
            frames[at], frames[at - 1] = frames[at - 1], frame
        elif change == "flip":
            frames[at] = frame[:at] + bytes((frame[at] ^ 1,)) + frame[at + 1 :] if at < len(frame) else frame
        elif change == "pad":
            frames[at] = frame + b"\0"
        else:
            frames[at] = rebuilt(frame, change)
    return frames


def rebuilt(frame: bytes, change: str) -> bytes:
    """Return a frame of which one thing is otherwise, with right sums."""
    packet = ipv4.parse(frame[14:])
    if not isinstance(packet, ipv4.Packet):
        return frame
    if change == "mark":
        return frame[:14] + ipv4.build(packet._replace(tos=packet.tos | 3))
    segment = parse(packet.src, packet.dst, packet.payload)
    if not isinstance(segment, Segment):
        return frame
    if change == "push":
        segment = segment._replace(flags=segment.flags ^ 8)
    else:
        segment = segment._replace(payload=segment.payload[:-1])
    return frame[:14] + ipv4.build(packet._replace(payload=build(packet.src, packet.dst, segment)))


def played(world: World, sizes: list[tuple[int, int]], changes: list[tuple[str, int]]) -> list[object]:
    """Send on both connections, change what is on its way the first time, and return all that can be seen."""
    seen: list[object] = []
    for which, size in sizes:
        data = bytes(range(256)) * (size // 256 + 1)
        world.stacks[A].sockets.send(world.handles[which][0], data[:size], world.now_ns)
    seen += world.receive(damaged(world.sent(), changes))
    seen += world.carry()
    for _ in range(12):  # until all that was lost came after all
        world.now_ns += 300_000_000
        for stack in world.stacks.values():
            stack.timer(world.now_ns)
        seen += world.carry()
    for _, handle in world.handles:
        seen.append(world.stacks[B].sockets.recv(handle, 1 << 22, world.now_ns))
        seen.append(world.stacks[B].sockets.recv(handle, 1 << 22, world.now_ns))
    tcp = world.stacks[B].tcp
    return [*seen, tcp.counters, tcp.repairs, world.stacks[B].internet.refused]


@settings(max_examples=40)
@given(
    st.booleans(),
    st.sampled_from([1500, 577, 1499]),
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 30_000)), min_size=1, max_size=4),
    st.lists(st.tuples(CHANGES, st.integers(0, 100)), max_size=4),
)
def test_merging_cannot_be_seen(
    timestamps: bool, mtu: int, sizes: list[tuple[int, int]], changes: list[tuple[str, int]]
) -> None:
    """Whatever is lost, doubled, damaged, marked or mixed: the same answers, bytes, counters and refusals."""
    one, other = (played(World(timestamps=timestamps, merging=each, mtu=mtu), sizes, changes) for each in (True, False))
    assert one == other


def test_what_came_in_order_is_one_run() -> None:
    """Ten segments of a stream are one run with all their bytes; one that is damaged parts it."""
    world = World(timestamps=True, merging=True, mtu=1500)
    data = bytes(range(250)) * 60
    world.stacks[A].sockets.send(world.handles[0][0], data[: 10 * 1448], 0)
    frames = world.sent()
    (run,) = merged(frames)
    assert isinstance(run, Run) and run.frames == frames and run.payload == data[: 10 * 1448]
    broken = bytearray(frames[4])
    broken[200] ^= 1
    frames[4] = bytes(broken)
    first, alone, second = merged(frames)
    assert isinstance(first, Run) and isinstance(second, Run)
    assert (len(first.frames), alone, len(second.frames)) == (4, frames[4], 5)


@given(st.integers(1, 70), st.integers(1, 5), st.data())
def test_sums_of_rows_are_those_of_bytes(width: int, count: int, data: st.DataObject) -> None:
    """Each row of an array has the sum of its bytes, cut out of longer rows too."""
    raw = data.draw(st.one_of(st.binary(min_size=width * count, max_size=width * count), st.just(bytes(width * count))))
    first = data.draw(st.integers(0, (width - 1) // 2)) * 2
    rows = np.frombuffer(raw, np.uint8).reshape(count, width)[:, first:]
    assert row_sums(rows).tolist() == [word_sum(raw[n * width + first : (n + 1) * width]) for n in range(count)]
