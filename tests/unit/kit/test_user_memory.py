"""User memory through page tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.user_memory import MAX_COPY, UserMemory
from lamina_kit.effects import NeedFault
from lamina_kit.errors import DataLoss, InvalidArgument, OutOfRange, ResourceExhausted
from lamina_kit.paging import ACCESSED, DIRTY, NX, PAGE_SIZE, PRESENT, PS, RW, US, index

ROOT = 0x1000
VA = 0x40_0000


class Tables:
    """Makes page tables on a bus, frames taken in order."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.next = 2

    def entry(self, va: int, level: int = 1) -> int:
        """Returns the address of the entry of `va` at a level, making the tables above it."""
        table = ROOT
        for above in range(4, level, -1):
            address = table + 8 * index(va, above)
            if not self.bus.load64(address) & PRESENT:
                self.bus.store64(address, self.next * PAGE_SIZE | PRESENT | RW | US)
                self.next += 1
            table = self.bus.load64(address) & ~0xFFF
        return table + 8 * index(va, level)

    def map(self, va: int, frame: int, bits: int = PRESENT | RW | US, level: int = 1) -> None:
        """Maps the page of `va` to a frame."""
        self.bus.store64(self.entry(va, level), frame * PAGE_SIZE | bits)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[MemoryBus]:
    """Returns a bus of 8 MiB."""
    with MemoryBus.create(tmp_path / "ram", 8 << 20) as bus:
        yield bus


@pytest.fixture
def tables(bus: MemoryBus) -> Tables:
    """Returns tables that map nothing yet."""
    return Tables(bus)


@pytest.fixture
def memory(bus: MemoryBus) -> UserMemory:
    """Returns user memory on the bus."""
    return UserMemory(bus)


def test_bytes_go_through_the_tables(bus: MemoryBus, tables: Tables, memory: UserMemory) -> None:
    """Neighbouring pages may lie anywhere; a copy crosses them."""
    tables.map(VA, 100)
    tables.map(VA + PAGE_SIZE, 50)
    memory.write(ROOT, VA + PAGE_SIZE - 3, b"abcdef")
    assert bus.read(100 * PAGE_SIZE + PAGE_SIZE - 3, 3) == b"abc" and bus.read(50 * PAGE_SIZE, 3) == b"def"
    assert memory.read(ROOT, VA + PAGE_SIZE - 3, 6) == b"abcdef"
    assert memory.read(ROOT, VA, 0) == b""
    memory.write(ROOT, VA, b"")


def test_accessed_and_dirty_are_set(bus: MemoryBus, tables: Tables, memory: UserMemory) -> None:
    """Reading sets A on every level, writing D on the leaf."""
    tables.map(VA, 100)
    memory.read(ROOT, VA, 1)
    leaf = bus.load64(tables.entry(VA))
    assert leaf & (ACCESSED | DIRTY) == ACCESSED
    assert all(bus.load64(tables.entry(VA, level)) & ACCESSED for level in (2, 3, 4))
    memory.write(ROOT, VA, b"x")
    assert bus.load64(tables.entry(VA)) & (ACCESSED | DIRTY) == ACCESSED | DIRTY


@pytest.mark.parametrize(
    ("bits", "read", "write"),
    [
        (0, False, False),
        (PRESENT | RW, False, False),
        (PRESENT | US, True, False),
        (PRESENT | US | RW | NX, True, True),
        (RW | US, False, False),
    ],
)
def test_permissions_are_the_entry_s(tables: Tables, memory: UserMemory, bits: int, read: bool, write: bool) -> None:
    """Present and user allow reading, RW writing too; anything else needs a fault."""
    tables.map(VA, 100, bits)
    assert _works(lambda: memory.read(ROOT, VA, 1)) is read
    assert _works(lambda: memory.write(ROOT, VA, b"x")) is write


@pytest.mark.parametrize("level", [2, 3, 4])
def test_every_level_must_allow_it(bus: MemoryBus, tables: Tables, memory: UserMemory, level: int) -> None:
    """A table entry without RW forbids writing, one without US everything."""
    tables.map(VA, 100)
    address = tables.entry(VA, level)
    bus.store64(address, bus.load64(address) & ~RW)
    assert _works(lambda: memory.read(ROOT, VA, 1)) and not _works(lambda: memory.write(ROOT, VA, b"x"))
    bus.store64(address, bus.load64(address) & ~US)
    assert not _works(lambda: memory.read(ROOT, VA, 1))


def test_a_fault_names_the_first_byte_that_is_not_there(tables: Tables, memory: UserMemory) -> None:
    """The second page of a copy is missing: its address and the kind of access are told."""
    tables.map(VA, 100)
    with pytest.raises(NeedFault) as caught:
        memory.read(ROOT, VA + 10, PAGE_SIZE)
    assert (caught.value.va, caught.value.write) == (VA + PAGE_SIZE, False)
    with pytest.raises(NeedFault) as caught:
        memory.write(ROOT, VA + 10, bytes(PAGE_SIZE))
    assert (caught.value.va, caught.value.write) == (VA + PAGE_SIZE, True)


def test_no_pin_is_left_behind(bus: MemoryBus, tables: Tables, memory: UserMemory) -> None:
    """After a copy, and after one that failed in its middle, no frame is pinned."""
    tables.map(VA, 100)
    memory.write(ROOT, VA, b"x")
    with pytest.raises(NeedFault):
        memory.read(ROOT, VA, 2 * PAGE_SIZE)
    assert not any(bus.pins(frame) for frame in range(bus.frames))


def test_a_page_that_is_taken_away_while_pinning_is_walked_again(
    bus: MemoryBus, tables: Tables, memory: UserMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is checked after the pin: had the page moved, the copy follows it."""
    tables.map(VA, 100)
    bus.write(101 * PAGE_SIZE, b"moved")
    pin, moved = bus.pin, list[int]()

    def pin_late(frame: int) -> None:
        if not moved:
            moved.append(frame)
            tables.map(VA, 101)
        pin(frame)

    monkeypatch.setattr(bus, "pin", pin_late)
    assert memory.read(ROOT, VA, 5) == b"moved"
    assert moved == [100] and bus.pins(100) == bus.pins(101) == 0


def test_large_pages_are_walked(bus: MemoryBus, tables: Tables, memory: UserMemory) -> None:
    """A 2 MiB leaf covers its range."""
    tables.map(2 << 20, 512, PRESENT | RW | US | PS, level=2)
    memory.write(ROOT, (2 << 20) + 0x12345, b"large")
    assert bus.read((2 << 20) + 0x12345, 5) == b"large"


def test_strings_end_at_a_zero(tables: Tables, memory: UserMemory) -> None:
    """A string may cross pages; its end must come within the limit."""
    tables.map(VA, 100)
    tables.map(VA + PAGE_SIZE, 101)
    memory.write(ROOT, VA + PAGE_SIZE - 2, b"path\0rest")
    assert memory.cstring(ROOT, VA + PAGE_SIZE - 2, 4) == b"path"
    assert memory.cstring(ROOT, VA, 0) == b""
    with pytest.raises(InvalidArgument) as caught:
        memory.cstring(ROOT, VA + PAGE_SIZE - 2, 3)
    assert caught.value.reason == "STRING_TOO_LONG"


def test_a_string_does_not_touch_what_lies_behind_its_end(tables: Tables, memory: UserMemory) -> None:
    """A string that ends on the last mapped byte needs no further page."""
    tables.map(VA, 100)
    memory.write(ROOT, VA + PAGE_SIZE - 3, b"ab\0")
    assert memory.cstring(ROOT, VA + PAGE_SIZE - 3, 4096) == b"ab"


@pytest.mark.parametrize("va", [-1, 1 << 47, (1 << 47) - 1, 0xFFFF_8000_0000_0000, 2**64 - 1])
def test_addresses_beyond_user_space_are_refused(memory: UserMemory, va: int) -> None:
    """Kernel and non-canonical addresses never reach a walk; a kernel answers EFAULT."""
    for access in (lambda: memory.read(ROOT, va, 2), lambda: memory.write(ROOT, va, b"xy")):
        with pytest.raises(OutOfRange) as caught:
            access()
        assert caught.value.reason == "ADDRESS_NOT_USER"


def test_huge_copies_are_refused(memory: UserMemory) -> None:
    """More than 64 MiB at once is refused before anything is allocated."""
    with pytest.raises(ResourceExhausted) as caught:
        memory.read(ROOT, 0, MAX_COPY + 1)
    assert caught.value.reason == "COPY_TOO_LARGE"


def test_a_table_that_leads_out_of_ram_is_data_loss(bus: MemoryBus, tables: Tables, memory: UserMemory) -> None:
    """Whatever an entry says, no access leaves RAM."""
    tables.map(VA, bus.frames)
    with pytest.raises(DataLoss) as caught:
        memory.read(ROOT, VA, 1)
    assert caught.value.reason == "TABLE_CORRUPT"
    bus.store64(tables.entry(VA, 3), (1 << 50) | PRESENT | RW | US)
    with pytest.raises(DataLoss):
        memory.read(ROOT, VA, 1)
    with pytest.raises(DataLoss):
        memory.read(1 << 40, VA, 1)


def test_an_address_is_translated(tables: Tables, memory: UserMemory) -> None:
    """The host physical address of one byte, with the same checks."""
    tables.map(VA, 100)
    assert memory.translate(ROOT, VA + 0x123, write=False) == 100 * PAGE_SIZE + 0x123
    with pytest.raises(NeedFault):
        memory.translate(ROOT, VA - 1, write=False)


def _works(access: object) -> bool:
    assert callable(access)
    try:
        access()
    except NeedFault:
        return False
    return True
