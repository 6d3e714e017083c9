"""The memory bus against a bytearray and plain sets."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.paging import PAGE_SIZE

FRAMES = 8
SIZE = FRAMES * PAGE_SIZE
frames = st.integers(0, FRAMES - 1)
addresses = st.integers(0, SIZE - 1)
words = st.integers(0, SIZE // 8 - 1).map(lambda index: index * 8)
values = st.integers(0, 2**64 - 1)


class BusMachine(RuleBasedStateMachine):
    """Does the same to a bus and to the oracle: a bytearray, a dirty set, an executed set, a queue and pin counts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.bus = MemoryBus.create(Path(self.folder.name) / "ram", SIZE, run_pages=1)
        self.ram = bytearray(SIZE)
        self.dirty: set[int] = set()
        self.executed: set[int] = set()
        self.queue: list[int] = []
        self.pins = [0] * FRAMES

    def teardown(self) -> None:
        """Removes the file."""
        self.bus.close()
        self.folder.cleanup()

    def wrote(self, first: int, last: int) -> None:
        """Notes a write of the frames from `first` to `last`."""
        for frame in range(first, last + 1):
            self.dirty.add(frame)
            if frame in self.executed and frame not in self.queue:
                self.queue.append(frame)

    @rule(pa=addresses, data=st.binary(max_size=3 * PAGE_SIZE))
    def write(self, pa: int, data: bytes) -> None:
        """Writes what fits."""
        data = data[: SIZE - pa]
        self.bus.write(pa, data)
        self.ram[pa : pa + len(data)] = data
        if data:
            self.wrote(pa // PAGE_SIZE, (pa + len(data) - 1) // PAGE_SIZE)

    @rule(pa=addresses, n=st.integers(0, 3 * PAGE_SIZE))
    def read(self, pa: int, n: int) -> None:
        """Reads the same from both, as a copy and as a view."""
        n = min(n, SIZE - pa)
        assert self.bus.read(pa, n) == self.ram[pa : pa + n] == self.bus.view(pa, n)

    @rule(pa=words, value=values)
    def store(self, pa: int, value: int) -> None:
        """Stores a word."""
        self.bus.store64(pa, value)
        self.ram[pa : pa + 8] = value.to_bytes(8, "little")
        self.wrote(pa // PAGE_SIZE, pa // PAGE_SIZE)

    @rule(pa=words, guess=values, new=values, right=st.booleans())
    def compare_and_swap(self, pa: int, guess: int, new: int, right: bool) -> None:
        """Swaps when the expectation is right."""
        there = int.from_bytes(self.ram[pa : pa + 8], "little")
        expected = there if right else guess
        assert self.bus.cas64(pa, expected, new) == there
        if expected == there:
            self.ram[pa : pa + 8] = new.to_bytes(8, "little")
            self.wrote(pa // PAGE_SIZE, pa // PAGE_SIZE)
        assert self.bus.load64(pa) == int.from_bytes(self.ram[pa : pa + 8], "little")

    @rule(frame=frames)
    def zero(self, frame: int) -> None:
        """Clears a frame."""
        self.bus.zero(frame)
        self.ram[frame * PAGE_SIZE : (frame + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)
        self.wrote(frame, frame)

    @rule(src=frames, dst=frames)
    def copy(self, src: int, dst: int) -> None:
        """Copies a frame, onto itself too."""
        self.bus.copy_frame(src, dst)
        self.ram[dst * PAGE_SIZE : (dst + 1) * PAGE_SIZE] = self.ram[src * PAGE_SIZE : (src + 1) * PAGE_SIZE]
        self.wrote(dst, dst)

    @rule(frame=frames)
    def execute(self, frame: int) -> None:
        """A core fetches from a frame."""
        self.bus.set_exec(frame)
        self.executed.add(frame)

    @rule(frame=frames)
    def forget(self, frame: int) -> None:
        """No core holds code of a frame any more."""
        self.bus.clear_exec(frame)
        self.executed.discard(frame)

    @rule()
    def drain(self) -> None:
        """Takes the frames whose code is stale, in the order of their first write."""
        assert self.bus.drain_code_writes() == self.queue
        self.queue = []

    @rule(first=frames, count=st.integers(0, FRAMES))
    def collect(self, first: int, count: int) -> None:
        """Takes the dirty bits of a range."""
        count = min(count, FRAMES - first)
        asked = range(first, first + count)
        assert self.bus.collect_dirty(first, count) == sorted(self.dirty & set(asked))
        self.dirty -= set(asked)

    @rule(frame=frames)
    def pin(self, frame: int) -> None:
        """Pins a frame."""
        self.bus.pin(frame)
        self.pins[frame] += 1

    @precondition(lambda self: any(self.pins))
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        """Unpins a frame that is pinned."""
        frame = data.draw(st.sampled_from([frame for frame in range(FRAMES) if self.pins[frame]]))
        self.bus.unpin(frame)
        self.pins[frame] -= 1

    @invariant()
    def pins_are_counted(self) -> None:
        """Pins are as counted, whatever else the state words hold."""
        assert [self.bus.pins(frame) for frame in range(FRAMES)] == self.pins


TestBus = BusMachine.TestCase
TestBus.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
