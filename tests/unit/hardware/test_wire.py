"""A wire: rate, delay, queues, loss, cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_hardware.domain.wire import MOST_UNDER_WAY, Quality, Wire

_MS = 1_000_000


class Ports:
    """Time and chance by hand."""

    def __init__(self) -> None:
        self.now = 0
        self.draws: list[int] = []
        self.timers: list[tuple[int, int, Callable[[], None]]] = []

    def now_ns(self) -> int:
        """Returns the time."""
        return self.now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> None:
        """Notes a timer."""
        self.timers.append((when_ns, len(self.timers), callback))

    def draw(self, below: int) -> int:
        """Returns the next number that the test chose, 0 without one."""
        return self.draws.pop(0) % below if self.draws else 0

    def run(self) -> None:
        """Lets all timers fire in their order."""
        while self.timers:
            first = min(self.timers, key=lambda timer: timer[:2])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[2]()


def wire(**quality: int | bool) -> tuple[Ports, Wire, list[tuple[int, bytes]]]:
    """Returns a wire from `a` to `b`, and the list of what `b` hears with its times."""
    ports = Ports()
    made = Wire("w", Quality(**quality), ports)  # type: ignore[arg-type]
    heard: list[tuple[int, bytes]] = []

    def hear(frames: Sequence[bytes]) -> None:
        heard.extend((ports.now, frame) for frame in frames)

    made.connect("a", lambda frames: heard.append((-1, b"echo")))
    made.connect("b", hear)
    return ports, made, heard


def test_a_frame_takes_its_time() -> None:
    """At 1 Gbit/s 1476 bytes take 12 µs with what Ethernet adds, then the delay; the next frame comes behind."""
    ports, made, heard = wire(rate=1_000_000_000, delay_ns=5_000)
    made.send("a", [bytes(1476)] * 3)
    assert heard == []
    ports.run()
    assert [when for when, _ in heard] == [17_000, 29_000, 41_000]
    assert (made.frames, made.bytes, made.lost) == (3, 3 * 1476, 0)


def test_the_line_rate_of_the_smallest_frames() -> None:
    """1.488 million frames of 60 bytes a second pass at 1 Gbit/s."""
    ports, made, heard = wire(rate=1_000_000_000)
    made.send("a", [bytes(60)] * 1488)
    ports.run()
    assert abs(heard[-1][0] - _MS) < 1_000


def test_a_full_queue_drops_at_the_tail() -> None:
    """What does not fit before the wire is lost; what was accepted arrives."""
    ports, made, heard = wire(rate=1_000_000, queue_bytes=4_096)
    made.send("a", [bytes([n]) * 1_000 for n in range(8)])
    ports.run()
    assert [frame[0] for _, frame in heard] == [0, 1, 2, 3]
    assert made.lost == 4


def test_loss_and_jitter_are_drawn() -> None:
    """The generator decides what is lost and how late a frame is; frames of one sender keep their order."""
    ports, made, heard = wire(delay_ns=1_000, jitter_ns=999, loss_ppm=500_000)
    ports.draws = [500_000, 900, 499_999, 999_999, 3]
    made.send("a", [b"one", b"two", b"three"])
    ports.run()
    assert heard == [(1_900, b"one"), (1_900, b"three")]
    assert made.lost == 1


def test_a_cut_loses_what_is_under_way() -> None:
    """Frames on a wire that is cut are lost, and so are those sent meanwhile; a mended wire carries again."""
    ports, made, heard = wire(delay_ns=1_000)
    made.send("a", [b"lost"])
    made.change(Quality(delay_ns=1_000, is_cut=True))
    made.send("a", [b"cut"])
    made.change(Quality(delay_ns=1_000))
    made.send("a", [b"through"])
    ports.run()
    assert [frame for _, frame in heard] == [b"through"]
    assert made.lost == 2


def test_every_other_station_hears() -> None:
    """Who sends hears nothing of it; who left the wire hears no more."""
    ports, made, heard = wire()
    third: list[bytes] = []
    made.connect("c", third.extend)
    made.send("a", [b"all"])
    ports.run()
    assert (heard, third) == ([(0, b"all")], [b"all"])
    made.disconnect("c")
    made.send("a", [b"less"])
    ports.run()
    assert third == [b"all"]
    assert made.stations == ["a", "b"]


def test_from_and_to_the_outside() -> None:
    """Frames that survive leave for the other medium once; what comes from there is heard by all, and captured."""
    ports, made, heard = wire(delay_ns=7)
    left: list[bytes] = []
    seen: list[tuple[int, int]] = []
    made.outside = left.extend
    made.captures.append(lambda frames, when: seen.append((len(frames), when)))
    made.send("a", [b"out"])
    ports.run()
    made.arrive([b"in"])
    assert left == [b"out"]
    assert heard == [(7, b"out"), (-1, b"echo"), (7, b"in")]
    assert seen == [(1, 0), (1, 7)]


def test_frames_from_outside_pass_too() -> None:
    """What comes in by the medium is heard and counted as passed; on a cut wire it is lost."""
    ports, made, heard = wire()
    made.arrive([b"12345"])
    assert ([frame for _, frame in heard if frame != b"echo"], made.frames, made.bytes) == ([b"12345"], 1, 5)
    made.change(Quality(is_cut=True))
    made.arrive([b"1"])
    assert (made.frames, made.lost, ports.timers) == (1, 1, [])


def test_what_is_under_way_is_bounded() -> None:
    """A wire with a long delay keeps so many bytes and loses the rest; once they have arrived there is room again."""
    ports, made, heard = wire(delay_ns=10_000 * _MS)
    frame = bytes(1 << 20)
    most = MOST_UNDER_WAY >> 20
    made.send("a", [frame] * (most + 5))
    made.send("b", [b"small"])
    assert made.lost == 6
    ports.run()
    assert len(heard) == most
    made.send("a", [frame])
    ports.run()
    assert (len(heard), made.lost) == (most + 1, 6)


def test_a_cut_gives_room_again() -> None:
    """Frames that a cut loses are no longer under way."""
    ports, made, heard = wire(delay_ns=_MS)
    frame = bytes(1 << 20)
    for _ in range(2):
        made.send("a", [frame] * (MOST_UNDER_WAY >> 20))
        made.change(Quality(delay_ns=_MS, is_cut=True))
        ports.run()
        made.change(Quality(delay_ns=_MS))
    made.send("a", [b"last"])
    ports.run()
    assert [data for _, data in heard] == [b"last"]
