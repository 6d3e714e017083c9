"""The ring of a packet socket, as the kernel fills it, and what is made of frames that the kernel left unfinished."""

from __future__ import annotations

import errno
import mmap
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from tests.offload_frames import packet

from lamina_hardware.io.media.packet import PacketMedium
from lamina_hardware.io.media.packet_ring import Arrived, ReceiveRing
from lamina_net.offload.headers import is_transport_sum_good, parse

BLOCK, BLOCKS = 256 << 10, 16
SLOT = 2048
"""What an MTU of 1500 needs: 1518 bytes and the headers before them, in steps of 512."""
USER, COPIED, TAGGED, TAG_HAS_PROTOCOL = 1, 2, 1 << 4, 1 << 6
BEGIN = 96
HERE, OUTGOING = 0, 4
NO_OFFLOADS = bytes(10)


class Kernel:
    """The kernel's side of a ring: a socket that notes its options, and memory that frames are put into."""

    def __init__(self) -> None:
        self.options: dict[int, Any] = {}
        self.memory = mmap.mmap(-1, BLOCK * BLOCKS)
        self.places = [block * BLOCK + n * SLOT for block in range(BLOCKS) for n in range(BLOCK // SLOT)]
        self.next = 0

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Notes an option of a packet socket."""
        assert level == 263
        self.options[option] = value

    def fileno(self) -> int:
        """Returns what `mmap` is asked for."""
        return 7

    def map(self, file: int, size: int, flags: int, protection: int) -> mmap.mmap:
        """Does as `mmap` does."""
        assert (file, size, flags) == (7, BLOCK * BLOCKS, mmap.MAP_SHARED)
        assert protection == mmap.PROT_READ | mmap.PROT_WRITE
        return self.memory

    def put(
        self, data: bytes, status: int = USER, kind: int = HERE, length: int | None = None,
        offloads: bytes = NO_OFFLOADS, tag: tuple[int, int] = (0, 0),
    ) -> int:  # fmt: skip
        """Puts a frame into the next slot; returns where that is."""
        place = self.places[self.next]
        self.next = (self.next + 1) % len(self.places)
        count = len(data) if length is None else length
        struct.pack_into("=IIIHHIIHH", self.memory, place, status, count, len(data), BEGIN, BEGIN + 14, 1, 2, *tag)
        self.memory[place + 42] = kind
        self.memory[place + BEGIN - 10 : place + BEGIN] = offloads
        self.memory[place + BEGIN : place + BEGIN + len(data)] = data
        return place


@pytest.fixture
def kernel() -> Kernel:
    """Returns a kernel."""
    return Kernel()


@pytest.fixture
def ring(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReceiveRing]:
    """Returns a ring for frames of an MTU of 1500."""
    end: Any = kernel
    with monkeypatch.context() as patched:
        patched.setattr("lamina_hardware.io.media.packet_ring.mmap.mmap", kernel.map)
        made = ReceiveRing(end, 1518)
    yield made
    made.close()


def as_it_is(found: Arrived) -> list[bytes]:
    """Takes a frame with which something is left to do, as it is."""
    return [found.data]


def test_the_ring_is_asked_for(kernel: Kernel, ring: ReceiveRing) -> None:
    """Version 2, and 16 blocks of 256 KiB of slots that hold the longest frame with what the kernel puts before it."""
    assert kernel.options == {10: 1, 5: struct.pack("=IIII", BLOCK, BLOCKS, SLOT, BLOCKS * BLOCK // SLOT)}


def test_frames_are_taken_in_order(kernel: Kernel, ring: ReceiveRing) -> None:
    """At most so many are taken at a time, their slots go back to the kernel, and an empty ring gives none."""
    places = [kernel.put(b"%03d" % n * 20) for n in range(5)]
    assert ring.take(2, as_it_is) == ([b"000" * 20, b"001" * 20], 2)
    assert [struct.unpack_from("=I", kernel.memory, place)[0] for place in places] == [0, 0, USER, USER, USER]
    assert ring.take(9, as_it_is) == ([b"%03d" % n * 20 for n in (2, 3, 4)], 3)
    assert ring.take(9, as_it_is) == ([], 0)


def test_the_ring_wraps(kernel: Kernel, ring: ReceiveRing) -> None:
    """After the last slot of the last block comes the first, again and again, and no frame is missed."""
    slots = len(kernel.places)
    for turn in range(5):
        for n in range(slots // 2 + 1):
            kernel.put(b"%d %d" % (turn, n))
        frames, taken = ring.take(slots, as_it_is)
        assert taken == slots // 2 + 1
        assert frames == [b"%d %d" % (turn, n) for n in range(taken)]


def test_frames_of_this_host_are_passed_over(kernel: Kernel, ring: ReceiveRing) -> None:
    """What went out by the interface takes a slot and is no frame."""
    kernel.put(b"ours", kind=OUTGOING)
    kernel.put(b"theirs")
    assert ring.take(9, as_it_is) == ([b"theirs"], 2)


@pytest.mark.parametrize(
    ("put", "wanted"),
    [
        ({"offloads": b"\1" + bytes(9)}, Arrived(b"data", 4, b"\1" + bytes(9), b"", False)),
        ({"offloads": b"\0\5" + bytes(8)}, Arrived(b"data", 4, b"\0\5" + bytes(8), b"", False)),
        ({"length": 9000}, Arrived(b"data", 9000, NO_OFFLOADS, b"", False)),
        ({"status": USER | COPIED}, Arrived(b"data", 4, NO_OFFLOADS, b"", True)),
        ({"status": USER | TAGGED, "tag": (7, 0x88A8)}, Arrived(b"data", 4, NO_OFFLOADS, b"\x81\0\0\7", False)),
        (
            {"status": USER | TAGGED | TAG_HAS_PROTOCOL, "tag": (0x2007, 0x88A8)},
            Arrived(b"data", 4, NO_OFFLOADS, b"\x88\xa8\x20\7", False),
        ),
    ],
)
def test_frames_with_which_something_is_left_to_do(
    kernel: Kernel, ring: ReceiveRing, put: dict[str, Any], wanted: Arrived
) -> None:
    """Offloads, a cut frame, one that is in the queue, and tags are told; what is made of them takes its place."""
    asked: list[Arrived] = []
    kernel.put(b"before")
    kernel.put(b"data", **put)
    kernel.put(b"after", offloads=b"\2" + bytes(9))  # DATA_VALID: nothing is left to do

    def finish(found: Arrived) -> list[bytes]:
        asked.append(found)
        return [b"one", b"two"]

    assert ring.take(9, finish) == ([b"before", b"one", b"two", b"after"], 3)
    assert asked == [wanted]


class Queue:
    """A socket whose queue holds what a slot did not."""

    def __init__(self, *held: bytes) -> None:
        self.held = list(held)

    def recv(self, size: int) -> bytes:
        """Returns the next."""
        if not self.held:
            raise BlockingIOError
        return self.held.pop(0)[:size]

    def fileno(self) -> int:
        """Says that it is closed, so that nobody asks the kernel for what it lost."""
        return -1


def medium(*held: bytes) -> PacketMedium:
    """Returns a medium that was not opened, with this in its queue."""
    made: Any = PacketMedium.__new__(PacketMedium)
    made._end, made._lost, made._loop = Queue(*held), 0, None
    found: PacketMedium = made
    return found


def test_a_frame_that_is_in_the_queue_is_read_from_there() -> None:
    """The whole frame comes with its offloads; what is not there whole is lost and counted."""
    whole = bytes(range(200))
    cut = Arrived(whole[:50], 200, b"", b"", True)
    found = medium(NO_OFFLOADS + whole)
    assert found._finished(cut) == [whole]
    assert found.lost == 0
    for held in ((), (NO_OFFLOADS + whole[:199],), (b"short",)):
        found = medium(*held)
        assert found._finished(cut) == []
        assert found.lost == 1


def test_a_cut_frame_that_is_nowhere_whole_is_lost() -> None:
    """Of a frame that neither slot nor queue holds whole nothing is heard."""
    found = medium()
    assert found._finished(Arrived(b"x" * 50, 200, NO_OFFLOADS, b"", False)) == []
    assert found.lost == 1


@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\7"])
def test_what_hardware_would_have_done_is_done(tag: bytes) -> None:
    """A sum is filled in, a long datagram is cut, and each piece has the tag behind its addresses."""
    for payload, offloads, count in (
        (b"data", struct.pack("=BBHHHH", 1, 0, 0, 0, 34, 6), 1),
        (bytes(700), struct.pack("=BBHHHH", 0, 5, 0, 300, 0, 0), 3),
    ):
        raw = packet(4, socket.IPPROTO_UDP, payload)
        found = medium()
        pieces = found._finished(Arrived(raw, len(raw), offloads, tag, False))
        assert (len(pieces), found.lost) == (count, 0)
        assert all(piece[12 : 12 + len(tag)] == tag for piece in pieces)
        plain = [piece[:12] + piece[12 + len(tag) :] for piece in pieces]
        headers = [parse(piece) for piece in plain]
        assert all(is_transport_sum_good(piece, found) for piece, found in zip(plain, headers, strict=True))
        data = b"".join(piece[found.payload : found.end] for piece, found in zip(plain, headers, strict=True))
        assert data == payload


def test_nonsense_of_the_kernel_is_lost() -> None:
    """Offloads that nobody can do are counted as a lost frame."""
    found = medium()
    raw = packet(4, socket.IPPROTO_UDP, b"data")
    assert found._finished(Arrived(raw, len(raw), struct.pack("=BBHHHH", 1, 0, 0, 0, 60000, 6), b"", False)) == []
    assert found.lost == 1


class End:
    """A socket of which a test says what the kernel has against it."""

    def __init__(self) -> None:
        self.file = 5
        self.sent: list[bytes] = []
        self.refused: set[bytes] = set()
        self.error = self.dropped = 0

    def fileno(self) -> int:
        """Returns its file, -1 when it is closed."""
        return self.file

    def close(self) -> None:
        """Closes it."""
        self.file = -1

    def send(self, frame: bytes) -> None:
        """Sends."""
        if frame in self.refused:
            raise OSError(errno.ENOBUFS, "full")
        self.sent.append(frame)

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        """Returns the error, or what the ring had no room for; both are so since they were read last."""
        if size:
            dropped, self.dropped = self.dropped, 0
            return struct.pack("=II", 99, dropped)
        error, self.error = self.error, 0
        return error


class Loop:
    """Whom the loop calls for which file."""

    def __init__(self) -> None:
        self.readers: dict[int, tuple[Any, ...]] = {}

    def add_reader(self, file: int, *call: Any) -> None:
        """Begins to call."""
        self.readers[file] = call

    def remove_reader(self, file: int) -> None:
        """Ends it."""
        del self.readers[file]

    def turn(self) -> None:
        """Calls all."""
        for call, *given in list(self.readers.values()):
            call(*given)


class Frames:
    """A ring of frames that are taken at once."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed = 0

    def take(self, most: int, finish: object) -> tuple[list[bytes], int]:
        """Takes all."""
        taken, self.frames = self.frames, []
        return taken, len(taken)

    def close(self) -> None:
        """Counts."""
        self.closed += 1


def opened() -> tuple[PacketMedium, End, Frames, Loop]:
    """Returns a medium with its parts."""
    made: Any = medium()
    made._end, made._out, made._received = End(), End(), Frames()
    return made, made._end, made._received, Loop()


def test_a_medium_hears_until_it_is_closed() -> None:
    """What comes in is delivered, what does not go out and what the ring dropped is lost; closing twice is once."""
    found, end, ring, loop = opened()
    heard: list[bytes] = []
    where: Any = loop
    found.attach(where, heard.extend)
    ring.frames = [b"one", b"two"]
    loop.turn()
    assert heard == [b"one", b"two"]
    out: Any = found._out
    out.refused = {b"b"}
    found.send([b"a", b"b", b"c"])
    assert (out.sent, found.lost) == ([b"a", b"c"], 1)
    end.dropped = 4
    assert (found.lost, found.lost) == (5, 5)
    end.dropped = 2
    found.close()
    found.close()
    assert (loop.readers, ring.closed, end.file, out.file, found.lost) == ({}, 1, -1, -1, 7)


def test_a_medium_that_nobody_listens_to_is_closed_too() -> None:
    """Without a loop there is no reader to take away."""
    found, end, ring, _ = opened()
    found.close()
    assert (end.file, ring.closed, found.lost) == (-1, 1, 0)


@pytest.mark.parametrize(
    ("error", "lost", "goes_on"), [(0, 0, True), (errno.ENETDOWN, 1, True), (errno.ENODEV, 1, False)]
)
def test_an_error_of_the_socket_is_taken(error: int, lost: int, goes_on: bool) -> None:
    """It is counted once; an interface that is gone is listened to no more."""
    found, end, _, loop = opened()
    where: Any = loop
    found.attach(where, lambda frames: None)
    end.error = error
    loop.turn()
    loop.turn()
    assert (found.lost, bool(loop.readers)) == (lost, goes_on)
