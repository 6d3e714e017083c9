"""A hundred thousand accesses through random tables: our walkers against the emulator's own MMU.

Same physical address, same error code, same accessed and dirty bits. What is left out, and why, is in
docs/divergences.md under "Where the emulator's MMU is no oracle".
"""

from __future__ import annotations

import ctypes
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.property.hardware.peer_mmu import FETCH, READ, WRITE, PeerMmu, Seen
from tests.property.hardware.test_walkers import Compiled

from lamina_hardware.domain.paging.mode import (
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_NXE,
    Controls,
    PagingMode,
    controls_of,
)
from lamina_hardware.domain.paging.walk import Access, Memory, Outcome, Walk, translate
from lamina_hardware.io.emulator.state import control_block
from lamina_kit.bus.memory import MemoryBus

RAM = 64 << 20
TABLES = 62 << 20
CODE, CODE_TABLES = 61 << 20, (61 << 20) + 0x4000
DATA_FRAMES = 60 << 8
P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
CODE_64, CODE_32 = 300 << 39 | 0xFFFF_0000_0000_0000, 0xC000_0000
CR0_PE = 1
EFER_LONG = 0x501  # SCE, LME, LMA
ACCESSES = {READ: Access.READ, WRITE: Access.WRITE, FETCH: Access.EXECUTE}
VECTORS = {Outcome.TRANSLATED: 3, Outcome.PAGE_FAULT: 14, Outcome.NOT_CANONICAL: 13}


class Peers:
    """Two RAMs with the same tables: ours, and the one that the emulator's MMU walks and writes."""

    def __init__(self, bus: MemoryBus, bits: int) -> None:
        self.bus = bus
        self.ours = np.ctypeslib.as_array((ctypes.c_uint8 * RAM).from_address(bus.base))
        self.theirs = np.full(RAM, 0xCC, dtype=np.uint8)
        self.peer = PeerMmu(self.theirs, bits, CODE)
        self.compiled = Compiled(bus)
        self.memory = Memory(bus.load64, bus.size)

    def close(self) -> None:
        """Frees the emulator and lets the bus be closed."""
        self.peer.close()
        del self.ours

    def tables(self, words: dict[int, bytes], size: int) -> None:
        """Puts a set of tables into both RAMs."""
        for ram in (self.ours, self.theirs):
            ram[TABLES : TABLES + size] = 0
            for address, word in words.items():
                ram[address : address + len(word)] = np.frombuffer(word, dtype=np.uint8)

    def ends_at_ram(self, found: Walk, root: int, va: int, access: Access, user: bool, controls: Controls) -> bool:
        """Returns whether a walk with 40-bit physical addresses, as the emulator has them, ends otherwise."""
        memory = Memory(lambda address: self.bus.load64(address) if address < RAM else 0, 1 << 40)
        wide = translate(memory, root, 0, va, access, user, controls)
        return (wide.outcome, wide.error_code) != (found.outcome, found.error_code)

    def entry(self, address: int, width: int) -> int:
        """Returns an entry as our RAM has it."""
        return int.from_bytes(self.ours[address : address + width].tobytes(), "little")

    def same_tables(self, size: int) -> bool:
        """Returns whether both hold the same tables now."""
        return bool(np.array_equal(self.ours[TABLES : TABLES + size], self.theirs[TABLES : TABLES + size]))


@pytest.fixture
def peers_of(tmp_path: Path) -> Iterator[object]:
    """Returns a function that makes peers of 64 or 32 bits."""
    made: list[Peers] = []
    bus = MemoryBus.create(tmp_path / "ram", RAM, run_pages=1)

    def make(bits: int) -> Peers:
        made.append(Peers(bus, bits))
        return made[-1]

    yield make
    for peers in made:
        peers.close()
    made.clear()
    bus.close()


class Maker:
    """Random tables of one mode: three levels are tables of tables, the last holds leaves; some point anywhere."""

    def __init__(self, rng: random.Random, mode: PagingMode) -> None:
        self.rng, self.mode = rng, mode
        self.width = 4 if mode is PagingMode.TWO_LEVEL else 8
        self.top = Controls(mode=mode).top_level
        counts = {4: 1, 3: 2, 2: 3, 1: 4} if self.top == 4 else {3: 1, 2: 4, 1: 4} if self.top == 3 else {2: 2, 1: 6}
        self.places: dict[int, list[int]] = {}
        frame = TABLES
        for level in range(self.top, 0, -1):
            self.places[level] = [frame + 4096 * n for n in range(counts[level])]
            frame += 4096 * counts[level]
        self.root, self.size = TABLES, frame - TABLES

    def chance(self, percent: int) -> bool:
        """Returns True so many times in a hundred."""
        return self.rng.randrange(100) < percent

    def words(self) -> dict[int, bytes]:
        """Returns entries by address: four slots of each table, and the way to the code."""
        found: dict[int, bytes] = {}
        for level, tables in self.places.items():
            for table in tables:
                for slot in range(4):
                    entry = self.entry(level)
                    found[table + slot * self.width] = entry.to_bytes(8, "little")[: self.width]
        return found | self.way_to_code()

    def way_to_code(self) -> dict[int, bytes]:
        """Returns the entries that map two pages of code: one for ring 3, one for ring 0."""
        user, kernel = CODE | P | US | A, (CODE + 4096) | P | A
        if self.mode is PagingMode.TWO_LEVEL:
            words = {self.root + 4 * 0x300: CODE_TABLES | 0x27, CODE_TABLES: user, CODE_TABLES + 4: kernel}
        elif self.mode is PagingMode.PAE:
            words = {self.root + 24: CODE_TABLES | 1, CODE_TABLES: CODE_TABLES + 0x1000 | 0x27,
                     CODE_TABLES + 0x1000: user, CODE_TABLES + 0x1008: kernel}  # fmt: skip
        else:
            words = {self.root + 8 * 300: CODE_TABLES | 0x27, CODE_TABLES: CODE_TABLES + 0x1000 | 0x27,
                     CODE_TABLES + 0x1000: CODE_TABLES + 0x2000 | 0x27,
                     CODE_TABLES + 0x2000: user, CODE_TABLES + 0x2008: kernel}  # fmt: skip
        return {address: word.to_bytes(8, "little")[: self.width] for address, word in words.items()}

    def entry(self, level: int) -> int:
        """Returns one entry of a table of `level`."""
        rng = self.rng
        bits = P * self.chance(93) | RW * self.chance(75) | US * self.chance(75)
        bits |= rng.getrandbits(7) << 3 & (A | D | G | 0x18) | rng.getrandbits(3) << 9
        large = level > 1 and self.chance(3 if level == 4 else 30)
        if self.mode is PagingMode.PAE and level == 3:
            return self.target(level) | P * self.chance(93)
        if large:
            bits |= PS | self.large(level)
        elif level > 1:
            bits |= self.target(level)
        else:
            bits |= rng.randrange(DATA_FRAMES) << 12 | PS * self.chance(30)  # PAT in a page of 4 KiB
        if self.mode is not PagingMode.TWO_LEVEL:
            bits |= NX * self.chance(15) | (1 << rng.randrange(40, 52)) * self.chance(4)
        if self.mode is PagingMode.FOUR_LEVEL:
            bits |= rng.getrandbits(11) << 52
        return bits

    def target(self, level: int) -> int:
        """Returns a table of the level below, or now and then any table."""
        levels = self.places[level - 1] if self.chance(95) else [t for found in self.places.values() for t in found]
        return self.rng.choice(levels)

    def large(self, level: int) -> int:
        """Returns the address bits of a large page: within RAM, sometimes with a bit that its size reserves."""
        rng = self.rng
        if self.mode is PagingMode.TWO_LEVEL:
            return rng.randrange(15) << 22 | rng.getrandbits(1) << 12 | (1 << 21) * self.chance(6)
        base = 0 if level > 2 else rng.randrange(30) << 21
        reserved = 1 << rng.randrange(13, 21 if level == 2 else 30)
        return base | rng.getrandbits(1) << 12 | reserved * self.chance(6)

    def address(self) -> int:
        """Returns an address over the slots in use; of four levels some are in the upper half or not canonical."""
        rng = self.rng
        if self.mode is PagingMode.TWO_LEVEL:
            return rng.randrange(4) << 22 | rng.randrange(4) << 12 | rng.randrange(1, 511) << 3
        va = rng.randrange(4) << 30 | rng.randrange(4) << 21 | rng.randrange(4) << 12 | rng.randrange(1, 511) << 3
        if self.mode is PagingMode.PAE:
            return va & 0xBFFF_FFFF if va >> 30 == 3 else va
        va |= rng.randrange(4) << 39
        return va | rng.randrange(1, 1 << 16) << 48 if self.chance(2) else va


def check(peers: Peers, maker: Maker, kinds: Counter[str], accesses: int) -> None:
    """Makes `accesses` random accesses through one set of tables with one setting of the control bits."""
    rng = maker.rng
    four = maker.mode is PagingMode.FOUR_LEVEL
    cr0 = CR0_PG | CR0_PE | CR0_WP * maker.chance(60)
    cr4 = CR4_PGE | CR4_SMEP * maker.chance(40) | CR4_SMAP * maker.chance(40)
    cr4 |= CR4_PAE if maker.mode is not PagingMode.TWO_LEVEL else CR4_PSE * maker.chance(80)
    efer = (EFER_LONG if four else 1) | EFER_NXE * maker.chance(75)
    peers.tables(maker.words(), maker.size)
    peers.peer.set_controls(cr0, maker.root, cr4, efer)
    peers.compiled.set_efer(efer)
    for number in range(accesses):
        va, kind, cpl, ac = maker.address(), rng.choice((READ, WRITE, FETCH)), rng.choice((0, 3)), maker.chance(30)
        controls = controls_of(maker.mode, cr0, cr4, efer, ac << 18, cpl)
        found = translate(peers.memory, maker.root, 0, va, ACCESSES[kind], cpl == 3, controls)
        if left_out(found, kind, maker.mode) or (
            found.error_code & 8 and peers.ends_at_ram(found, maker.root, va, ACCESSES[kind], cpl == 3, controls)
        ):
            kinds["left out"] += 1
            continue
        if four:
            smap = cr4 & ~CR4_SMAP if ac and cpl < 3 else cr4
            outcome = peers.compiled.walk(maker.root, 0, va, ACCESSES[kind], cpl == 3, True, cr0, smap)
            assert outcome is found.outcome
            assert outcome is not Outcome.TRANSLATED or peers.compiled.get(control_block.WALK_PA) == found.pa & ~0xFFF
        else:
            peers.compiled.set_legacy(cr0, cr4, efer)
            smap = cr4 & ~CR4_SMAP if ac and cpl < 3 else cr4
            outcome = peers.compiled.walk(maker.root, 0, va, ACCESSES[kind], cpl == 3, True, cr0, smap)
            assert outcome is found.outcome, (found, va, kind)
            if outcome is Outcome.PAGE_FAULT:
                assert peers.compiled.get(control_block.FAULT_CODE) == found.error_code
            assert outcome is not Outcome.TRANSLATED or peers.compiled.get(control_block.WALK_PA) == found.pa & ~0xFFF
            for place, after in {step.entry_address: step.after for step in found.steps}.items():
                assert peers.entry(place, maker.width) == after, (found, place)
        compare(peers, maker, found, (kind, va, cpl, ac), number * 2 + 0x1000)
        kinds[found.outcome.value + (" with RSVD" if found.error_code & 8 else "")] += 1
    assert peers.same_tables(maker.size), "accessed and dirty bits differ"


def left_out(found: Walk, kind: int, mode: PagingMode) -> bool:
    """Returns whether the emulator's MMU is no oracle for this walk, or the access would run tables as code."""
    last = found.steps[-1] if found.steps else None
    if last is not None and last.table == "PDPT" and last.entry & P and found.outcome is Outcome.PAGE_FAULT:
        if mode is PagingMode.PAE:
            return True  # it does not know the reserved bits of a PDPT entry, which a processor refuses in MOV CR3
        if last.entry & PS and not last.entry & A:
            return True  # it sets A in the entry of a 1 GiB page before it looks whether the access is allowed
    return kind == FETCH and found.outcome is Outcome.TRANSLATED and found.pa >= CODE


def store(ram: np.ndarray[tuple[int], np.dtype[np.uint8]], address: int, value: int, width: int) -> None:
    """Writes a little-endian number."""
    ram[address : address + width] = np.frombuffer(value.to_bytes(8, "little")[:width], dtype=np.uint8)


def compare(peers: Peers, maker: Maker, found: Walk, wish: tuple[int, int, int, bool], tag: int) -> None:
    """Makes the access in the emulator and compares; what is read, written or run there names the physical address."""
    kind, va, cpl, ac = wish
    width = 8 if maker.mode is PagingMode.FOUR_LEVEL else 4
    reached = found.outcome is Outcome.TRANSLATED
    private = reached and found.pa < TABLES
    if private and kind == READ:
        store(peers.theirs, found.pa, tag, width)
    elif private and kind == FETCH:
        peers.peer.store(found.pa, b"\xb8" + tag.to_bytes(4, "little") + b"\xcc")
    seen = peers.peer.access(kind, va, cpl, ac, tag, CODE_64 if maker.mode is PagingMode.FOUR_LEVEL else CODE_32)
    wanted = Seen(VECTORS[found.outcome], found.error_code, va if found.error_code or not reached else 0, 0)
    if found.outcome is Outcome.NOT_CANONICAL:
        wanted = Seen(13, 0, 0, 0)
    assert (seen.vector, seen.code, seen.address) == (wanted.vector, wanted.code, wanted.address), (found, wish)
    if not reached:
        return
    if kind == WRITE:
        store(peers.ours, found.pa, tag, width)
        assert int.from_bytes(peers.theirs[found.pa : found.pa + width].tobytes(), "little") == tag, (found, wish)
    elif kind == READ and not private:
        assert seen.value == int.from_bytes(peers.ours[found.pa : found.pa + width].tobytes(), "little"), (found, wish)
    else:
        assert seen.value == tag, (found, wish)


def test_four_levels_and_the_compiled_walker(peers_of: object) -> None:
    """In 10⁵ accesses the compiled walker, the domain's and the emulator's MMU never differ."""
    peers = peers_of(64)  # type: ignore[operator]
    kinds: Counter[str] = Counter()
    maker = Maker(random.Random(1), PagingMode.FOUR_LEVEL)
    while kinds.total() - kinds["left out"] < 100_000:
        check(peers, maker, kinds, 250)
    print(dict(kinds))


@pytest.mark.parametrize("mode", [PagingMode.TWO_LEVEL, PagingMode.PAE])
def test_32_bit_modes(peers_of: object, mode: PagingMode) -> None:
    """In 10⁴ accesses through two-level and PAE tables our two walkers and the emulator's MMU never differ."""
    peers = peers_of(32)  # type: ignore[operator]
    kinds: Counter[str] = Counter()
    maker = Maker(random.Random(2), mode)
    while kinds.total() - kinds["left out"] < 10_000:
        check(peers, maker, kinds, 100)
    print(dict(kinds))
