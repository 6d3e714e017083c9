"""What a guest or a stranger controls: kernel images, ports, walks, the ledger."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_hypervisor.domain.boot.elf import parse_kernel
from lamina_hypervisor.domain.devices.ports import PortBus
from lamina_hypervisor.domain.devices.serial import Serial
from lamina_hypervisor.domain.memory.addresses import Frame, Gpa, Gva
from lamina_hypervisor.domain.memory.ept import Ept
from lamina_hypervisor.domain.memory.translation import Access, Outcome, walk
from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import ADDR_MASK

HEADER = struct.pack(
    "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 2, 0, 0, 0
)
PROGRAM = struct.pack("<IIQQQQQQ", 1, 7, 0, 0x100000, 0x100000, 32, 64, 0x1000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.lists(st.tuples(st.integers(0, 175), st.binary(min_size=1, max_size=8)), max_size=6))
def test_any_bytes_are_a_kernel_or_refused(tail: bytes, changes: list[tuple[int, bytes]]) -> None:
    """Whatever is changed in an image, the parser returns bounded segments or `KERNEL_MALFORMED`, and nothing else."""
    image = bytearray(HEADER + PROGRAM * 2 + tail)
    for at, data in changes:
        image[at : at + len(data)] = data
    try:
        kernel = parse_kernel(bytes(image))
    except InvalidArgument as refused:
        assert refused.reason == "KERNEL_MALFORMED"
        return
    assert all(len(segment.data) <= segment.memory_bytes and segment.end <= 1 << 48 for segment in kernel.segments)
    assert sum(len(segment.data) for segment in kernel.segments) <= 64 * len(image)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0x3F0, 0x408), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)),
        max_size=60,
    ),
    st.binary(max_size=20),
)
def test_a_port_takes_any_sequence_of_accesses(accesses: list[tuple[bool, int, int, int]], typed: bytes) -> None:
    """No sequence of INs and OUTs makes the serial port fail, and values stay within their width."""
    serial = Serial()
    bus = PortBus()
    bus.attach(0x3F8, 8, serial)
    serial.feed(typed)
    for write, port, size, value in accesses:
        assert bus.qualifier(port, write=write)
        if write:
            bus.write(port, size, value)
        else:
            assert 0 <= bus.read(port, size) < 1 << 8 * size
        assert serial.sent >= 0 and isinstance(serial.interrupt, bool)


class WildRam:
    """RAM whose words follow from a seed: tables full of nonsense."""

    def __init__(self, seed: int, frames: int) -> None:
        self.seed = seed
        self.frames = frames
        self.words: dict[int, int] = {}

    def load64(self, pa: int) -> int:
        assert 0 <= pa < self.frames << 12 and pa % 8 == 0, f"{pa:#x} is not in RAM"
        return self.words.get(pa, (pa * 0x9E3779B97F4A7C15 + self.seed) & (1 << 64) - 1)

    def cas64(self, pa: int, expected: int, new: int) -> int:
        found = self.load64(pa)
        if found == expected:
            self.words[pa] = new
        return found


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans(), st.booleans())
def test_a_walk_over_wild_guest_tables_stays_in_ram(seed: int, cr3: int, gva: int, write: bool, user: bool) -> None:
    """Whatever a guest writes into its tables and CR3, the walk reads only RAM that the EPT gives it, and ends."""
    ram = WildRam(seed, 64)
    for frame in range(1, 8):
        for index in range(512):
            ram.words[(frame << 12) + 8 * index] = 0
    ept = Ept(ram, Frame(1))
    ept.add_tables([Frame(number) for number in range(2, 8)])
    for page in range(16):
        ept.install(Gpa(page << 12), Frame(16 + page), writable=page % 2 == 0, executable=True)
    found = walk(ram, ept, cr3, Gva(gva), Access(write=write, user=user))
    assert len(found.visits) <= 4
    if found.outcome is Outcome.TRANSLATED:
        assert found.hpa is not None and 16 <= found.hpa >> 12 < 32
        assert found.gpa is not None and ept.entry(Gpa(found.gpa & ~0xFFF)) & ADDR_MASK == found.hpa & ~0xFFF
