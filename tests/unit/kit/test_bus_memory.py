"""The memory bus."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lamina_kit.bus import file as busfile
from lamina_kit.bus.memory import ALL, DIRTY, EXEC, QUEUED, MemoryBus
from lamina_kit.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
)
from lamina_kit.paging import PAGE_SIZE

SIZE = 64 * PAGE_SIZE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Returns where the bus is."""
    return tmp_path / "ram"


@pytest.fixture
def bus(path: Path) -> Iterator[MemoryBus]:
    """Returns a bus of 64 frames."""
    with MemoryBus.create(path, SIZE, run_pages=4) as bus:
        yield bus


def test_ram_starts_as_zeros_and_keeps_bytes(bus: MemoryBus) -> None:
    """What is written is read, across frames as well."""
    assert bus.frames == 64 and bus.read(0, SIZE) == bytes(SIZE)
    bus.write(PAGE_SIZE - 3, b"abcdef")
    assert bus.read(PAGE_SIZE - 3, 6) == b"abcdef"
    assert bytes(bus.view(PAGE_SIZE, 3)) == b"def"
    bus.write(0, memoryview(b"12345678").cast("Q"))
    assert bus.read(0, 8) == b"12345678"


def test_two_mappings_are_one_ram(bus: MemoryBus, path: Path) -> None:
    """Another mapping of the file sees the same bytes, states and run pages."""
    with MemoryBus.open(path) as other:
        bus.write(0x2000, b"hello")
        assert other.read(0x2000, 5) == b"hello"
        assert other.state(2) & DIRTY
        other.pin(2)
        assert bus.pins(2) == 1
        other.run_page(1)[0] = 7
        assert bus.run_page(1)[0] == 7


def test_the_file_is_sparse_and_private(bus: MemoryBus, path: Path) -> None:
    """A RAM of 8 GiB takes next to nothing until it is used, and nobody else may read it."""
    with MemoryBus.create(path.with_name("big"), 8 << 30) as big:
        big.write((8 << 30) - 1, b"x")
        assert big.read((8 << 30) - 1, 1) == b"x"
        assert os.stat(big.path).st_blocks * 512 < 4 << 20
    assert os.stat(path).st_mode & 0o077 == 0


def test_ram_is_aligned_for_large_pages(bus: MemoryBus) -> None:
    """RAM starts at a multiple of 2 MiB in the file, states and run pages at one of 4096."""
    assert bus.ram_offset % (2 << 20) == 0
    assert bus.state_offset % PAGE_SIZE == 0 and bus.run_offset % PAGE_SIZE == 0
    assert bus.base % PAGE_SIZE == 0 and bus.base - bus.head_base == bus.ram_offset


@pytest.mark.parametrize(
    ("pa", "n"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (2**64, 1), (0, -1), (-PAGE_SIZE, PAGE_SIZE)]
)
def test_addresses_outside_ram_are_refused(bus: MemoryBus, pa: int, n: int) -> None:
    """No address reaches the header, the run pages or beyond."""
    for access in (lambda: bus.read(pa, n), lambda: bus.view(pa, n)):
        with pytest.raises(OutOfRange) as caught:
            access()
        assert caught.value.reason == "ADDRESS_OUTSIDE_RAM"
        assert caught.value.metadata["address"] == f"{pa:#x}"
    if n > 0:
        with pytest.raises(OutOfRange):
            bus.write(pa, bytes(n))


@pytest.mark.parametrize("frame", [-1, 64, 2**60])
def test_frames_outside_ram_are_refused(bus: MemoryBus, frame: int) -> None:
    """Every method that takes a frame checks it."""
    for method in (bus.pin, bus.unpin, bus.pins, bus.state, bus.zero, bus.set_exec, bus.clear_exec):
        with pytest.raises(OutOfRange):
            method(frame)
    with pytest.raises(OutOfRange):
        bus.copy_frame(frame, 0)
    with pytest.raises(OutOfRange):
        bus.copy_frame(0, frame)
    with pytest.raises(OutOfRange):
        bus.collect_dirty(frame, 1)


def test_the_last_byte_belongs_to_ram(bus: MemoryBus) -> None:
    """The limits themselves are valid."""
    bus.write(SIZE - 1, b"z")
    assert bus.read(SIZE - 1, 1) == b"z" and bus.read(SIZE, 0) == b""
    bus.write(SIZE, b"")
    bus.store64(SIZE - 8, 5)
    assert bus.load64(SIZE - 8) == 5


def test_words_are_little_endian_and_aligned(bus: MemoryBus) -> None:
    """A word is its eight bytes; one that crosses is refused."""
    bus.write(16, bytes([1, 2, 3, 4, 5, 6, 7, 0x88]))
    assert bus.load64(16) == 0x8807_0605_0403_0201
    for access in (lambda: bus.load64(4), lambda: bus.store64(12, 0), lambda: bus.cas64(1, 0, 0)):
        with pytest.raises(InvalidArgument) as caught:
            access()
        assert caught.value.reason == "ADDRESS_MISALIGNED"
    for pa in (-8, SIZE, SIZE + 8, SIZE + 1):
        with pytest.raises(OutOfRange):
            bus.load64(pa)


def test_compare_and_swap_swaps_only_what_was_expected(bus: MemoryBus) -> None:
    """The result is what was there; full 64-bit values take part."""
    top = 1 << 63 | 0x15067
    bus.store64(0x3000, top)
    assert bus.cas64(0x3000, 0, 5) == top and bus.load64(0x3000) == top
    assert bus.cas64(0x3000, top, 2**64 - 1) == top and bus.load64(0x3000) == 2**64 - 1


def test_zero_and_copy_are_writes(bus: MemoryBus) -> None:
    """They change bytes and feed the dirty log."""
    bus.write(0x1000, b"a" * PAGE_SIZE)
    bus.copy_frame(1, 5)
    bus.zero(1)
    assert bus.read(0x5000, PAGE_SIZE) == b"a" * PAGE_SIZE and bus.read(0x1000, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert bus.collect_dirty(0, 64) == [1, 5]


def test_the_dirty_log_is_taken_once(bus: MemoryBus) -> None:
    """Each kind of write marks its frames; asking clears exactly what was asked for."""
    bus.write(0x1FFF, b"ab")
    bus.store64(0x7000, 1)
    bus.cas64(0x9000, 0, 1)
    bus.cas64(0xA000, 99, 1)
    assert bus.collect_dirty(0, 4) == [1, 2]
    assert bus.collect_dirty(0, 64) == [7, 9]
    assert bus.collect_dirty(0, 64) == [] == bus.collect_dirty(64, 0)


def test_writing_an_executed_frame_queues_it_once(bus: MemoryBus) -> None:
    """A frame whose code may be translated is listed until drained, once however often it is written."""
    bus.set_exec(3)
    bus.set_exec(5)
    bus.write(0x5000, b"x")
    bus.write(0x3000, b"x")
    bus.write(0x3001, b"y")
    bus.write(0x4000, b"plain data")
    assert bus.state(3) & (EXEC | QUEUED) == EXEC | QUEUED
    assert bus.drain_code_writes() == [5, 3]
    assert bus.drain_code_writes() == []
    bus.zero(3)
    assert bus.drain_code_writes() == [3]
    bus.clear_exec(3)
    bus.zero(3)
    assert bus.drain_code_writes() == []


def test_a_compare_and_swap_on_code_is_seen(bus: MemoryBus) -> None:
    """Words are writes as any other."""
    bus.set_exec(2)
    bus.cas64(0x2000, 0, 0xC3)
    bus.store64(0x2008, 0x90)
    assert bus.drain_code_writes() == [2]


def test_the_ring_overflows_into_everything(path: Path) -> None:
    """More executed frames than the ring holds: all code must go, then single frames are listed again."""
    frames = busfile.RING_SLOTS + 10
    with MemoryBus.create(path, frames * PAGE_SIZE, run_pages=0) as bus:
        for frame in range(frames):
            bus.set_exec(frame)
            bus.store64(frame * PAGE_SIZE, 1)
        assert bus.drain_code_writes() is ALL
        assert bus.drain_code_writes() == []
        assert not any(bus.state(frame) & QUEUED for frame in range(frames))
        bus.store64(0, 2)
        bus.store64((frames - 1) * PAGE_SIZE, 2)
        assert bus.drain_code_writes() == [0, frames - 1]


def test_pins_are_counted(bus: MemoryBus) -> None:
    """Pins add up, leave the other bits alone, and neither overflow nor underflow."""
    bus.write(0x4000, b"x")
    bus.set_exec(4)
    for _ in range(65535):
        bus.pin(4)
    assert bus.pins(4) == 65535 and bus.state(4) & (DIRTY | EXEC) == DIRTY | EXEC
    with pytest.raises(ResourceExhausted) as limit:
        bus.pin(4)
    assert limit.value.reason == "PIN_LIMIT"
    for _ in range(65535):
        bus.unpin(4)
    with pytest.raises(Internal) as underflow:
        bus.unpin(4)
    assert underflow.value.reason == "PIN_UNDERFLOW"
    assert bus.pins(4) == 0 and bus.state(4) & (DIRTY | EXEC) == DIRTY | EXEC


def test_run_pages_lie_beyond_ram(bus: MemoryBus) -> None:
    """A run page is writable, bounded, and no RAM address shows it."""
    for index in range(4):
        bus.run_page(index)[:] = b"R" * PAGE_SIZE
    assert b"R" not in bus.read(0, SIZE)
    for index in (-1, 4):
        with pytest.raises(OutOfRange) as caught:
            bus.run_page(index)
        assert caught.value.reason == "RUN_PAGE_OUTSIDE"


def test_a_view_cannot_be_written(bus: MemoryBus) -> None:
    """Writing past the frame states is not possible by accident."""
    with pytest.raises(TypeError):
        bus.view(0, 8)[0] = 1


def test_closing_with_a_view_alive_is_safe(path: Path) -> None:
    """A view stays readable after the bus was closed; closing twice is no error."""
    bus = MemoryBus.create(path, SIZE)
    bus.write(0, b"still here")
    view = bus.view(0, 10)
    bus.close()
    bus.close()
    assert bytes(view) == b"still here"


@pytest.mark.parametrize("size", [0, -4096, 100, 4097, (1 << 44) + 4096])
def test_impossible_sizes_are_refused(path: Path, size: int) -> None:
    """A RAM is a positive multiple of 4096 up to 16 TiB, and a wrong one leaves no file."""
    with pytest.raises(InvalidArgument) as caught:
        MemoryBus.create(path, size)
    assert caught.value.reason == "RAM_SIZE_INVALID" and not list(path.parent.iterdir())
    with pytest.raises(InvalidArgument):
        MemoryBus.create(path, SIZE, run_pages=-1)


def test_an_existing_bus_is_not_overwritten(bus: MemoryBus, path: Path) -> None:
    """Without `reset`, or with another size, it stays as it is."""
    bus.write(0, b"keep")
    for size, reset in ((SIZE, False), (2 * SIZE, True)):
        with pytest.raises(AlreadyExists) as caught:
            MemoryBus.create(path, size, reset=reset)
        assert caught.value.reason == "BUS_EXISTS"
    with MemoryBus.open(path) as again:
        assert again.read(0, 4) == b"keep"


def test_a_reset_empties_ram_for_new_mappings(bus: MemoryBus, path: Path) -> None:
    """A reboot gives a fresh file; who maps the old one keeps it."""
    bus.write(0, b"old")
    with MemoryBus.create(path, SIZE, reset=True) as fresh:
        assert fresh.read(0, 3) == bytes(3) and bus.read(0, 3) == b"old"
        assert fresh.collect_dirty(0, 64) == []


def test_a_foreign_file_is_refused(path: Path) -> None:
    """Neither opening nor resetting touches what is no bus."""
    for content in (b"", b"hello", b"\x7fELF" * 4096):
        path.write_bytes(content)
        with pytest.raises(FailedPrecondition) as caught:
            MemoryBus.open(path)
        assert caught.value.reason == "BUS_FOREIGN"
        with pytest.raises(FailedPrecondition):
            MemoryBus.create(path, SIZE, reset=True)
        assert path.read_bytes() == content


def test_a_truncated_bus_is_data_loss(bus: MemoryBus, path: Path) -> None:
    """A file shorter than its header says is not mapped: touching it would kill the process."""
    bus.close()
    os.truncate(path, os.stat(path).st_size - PAGE_SIZE)
    with pytest.raises(DataLoss) as caught:
        MemoryBus.open(path)
    assert caught.value.reason == "BUS_TRUNCATED"


def test_a_header_that_lies_is_foreign(bus: MemoryBus, path: Path) -> None:
    """Offsets that this version would not write are not believed: they would lead out of the file."""
    bus.close()
    raw = path.read_bytes()[:64]
    for word in range(2, 8):
        with path.open("r+b") as file:
            file.write(raw[: 8 * word] + (1 << 40).to_bytes(8, "little") + raw[8 * word + 8 :])
        with pytest.raises(FailedPrecondition) as caught:
            MemoryBus.open(path)
        assert caught.value.reason == "BUS_FOREIGN"


def test_a_place_that_cannot_be_used_says_why(path: Path) -> None:
    """A folder in the file's place, and a folder that does not exist."""
    path.mkdir()
    with pytest.raises(FailedPrecondition) as caught:
        MemoryBus.open(path)
    assert caught.value.reason == "BUS_UNUSABLE"
    with pytest.raises(FailedPrecondition) as caught:
        MemoryBus.create(path / "none" / "ram", SIZE)
    assert caught.value.reason == "BUS_UNUSABLE"


def test_a_missing_bus_says_who_makes_it(path: Path) -> None:
    """Opening before the hardware service has started names the way out."""
    with pytest.raises(NotFound, match="hardware service") as caught:
        MemoryBus.open(path)
    assert caught.value.reason == "BUS_NOT_FOUND"


WRITER = """
import sys
from importlib import import_module
from lamina_kit.bus.memory import MemoryBus
for wanted in sys.argv[3:]:
    import_module(wanted)
with MemoryBus.open(sys.argv[1]) as bus:
    for number in range(int(sys.argv[2])):
        while True:
            seen = bus.load64(0x1000)
            if bus.cas64(0x1000, seen, seen + 1) == seen:
                break
        bus.pin(2)
        if number % 2:
            bus.unpin(2)
        bus.write(0x3000 + number % 4096, b"x")
"""


def taken(bus: MemoryBus) -> list[int]:
    """Returns the frames that a drain lists; a ring of one frame never overflows."""
    found = bus.drain_code_writes()
    assert found is not ALL
    return found


def test_words_and_states_are_atomic_across_processes(bus: MemoryBus, path: Path) -> None:
    """Two processes, by numba and by `bus_code`, lose no count, no pin, and no written code that a third drains."""
    rounds = 20_000
    bus.set_exec(3)
    words = [sys.executable, "-c", WRITER, str(path), str(rounds)]
    writers = [subprocess.Popen([*words, *more]) for more in ((), ("lamina_kit.bus.atomics",))]
    drained = set()
    for writer in writers:
        while writer.poll() is None:
            drained.update(taken(bus))
            with suppress(subprocess.TimeoutExpired):
                writer.wait(timeout=0.005)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert drained | set(taken(bus)) == {3}
    assert not bus.has_code_writes and not bus.state(3) & QUEUED
    assert bus.load64(0x1000) == 2 * rounds
    assert bus.pins(2) == rounds
    assert bus.collect_dirty(0, 64) == [1, 3]


def test_a_bus_loads_numba_for_rare_operations_alone(tmp_path: Path) -> None:
    """Importing, mapping, looking, writing, pins and swaps do without; a run of words that is taken needs it."""
    check = """
import sys
from pathlib import Path
from lamina_kit.bus.dma import DMA_BASE
from lamina_kit.bus.memory import MemoryBus
with MemoryBus.create(Path(sys.argv[1]), 1 << 20, run_pages=4, dma_bytes=4096) as bus:
    bus.dma.write(DMA_BASE, b"x")
    looks = bus.load64(0), bus.state(1), bus.pins(1), bus.drain_code_writes(), bus.dma.read(DMA_BASE, 1)
    print(looks, sorted({"numba", "numpy", "grpc"} & set(sys.modules)))
    bus.pin(1)
    print(bus.cas64(8, 0, 7), bus.load64(8), bus.pins(1), "numba" in sys.modules)
    print(bus.take64(0, 2), bus.dma.cas64(DMA_BASE + 8, 0, 9), "numba" in sys.modules)
"""
    words = [sys.executable, "-c", check, str(tmp_path / "ram")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(0, 0, 0, [], b'x') []", "0 7 1 False", "[0, 7] 0 True"]
