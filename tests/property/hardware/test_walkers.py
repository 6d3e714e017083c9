"""Three walkers agree: the compiled one that fills TLBs, the domain's that explains, and a plain dict."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina_hardware.domain.paging.mode import CR0_WP, CR4_SMAP, CR4_SMEP, EFER_NXE, Controls
from lamina_hardware.domain.paging.walk import Access, Memory, Outcome, translate
from lamina_hardware.io import native
from lamina_hardware.io.emulator.state import control_block, registers, unicorn_layout
from lamina_hardware.io.emulator.walks import walker
from lamina_kit.bus.memory import MemoryBus

RAM = 8 << 20
Pages = dict[int, tuple[int, bool, bool, bool, bool]]
"""Virtual page → (frame, present, writable, user, no-execute)."""
EFER_LMA = 1 << 10
P, RW, US, A, D, PS, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
ADDRESS = 0x000F_FFFF_FFFF_F000
ACCESSES = (Access.READ, Access.WRITE, Access.EXECUTE)
_WALK = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 8)
_OUTCOMES = {
    0: Outcome.TRANSLATED, 1: Outcome.PAGE_FAULT, 2: Outcome.EPT_VIOLATION, 3: Outcome.NOT_CANONICAL,
}  # fmt: skip


class Compiled:
    """The compiled walker over one RAM."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.block = np.zeros(control_block.WORDS, dtype=np.uint64)
        self.registers = np.zeros(1024, dtype=np.uint64)
        self.page = np.zeros(512, dtype=np.uint64)
        self.set_efer(EFER_NXE)
        for index, value in (
            (control_block.RAM_BASE, bus.base),
            (control_block.RAM_SIZE, bus.size),
            (control_block.STATE_BASE, bus.state_base),
            (control_block.BUS_HEAD, bus.head_base),
            (control_block.ENV, self.registers.ctypes.data),
            (control_block.RUN_PAGE, self.page.ctypes.data),
        ):
            self.block[int(index)] = value
        for slot, address in native.LINKS.items():
            self.block[slot] = address
        self._walk = _WALK(native.LINKS[int(control_block.L_WALK)])
        assert walker.walk is not None

    def get(self, index: np.uint64) -> int:
        """Returns a word of the control block."""
        return int(self.block[int(index)])

    def walk(
        self, root: int, eptp: int, va: int, access: Access, user: bool, effect: bool, cr0: int = CR0_WP, cr4: int = 0
    ) -> Outcome:
        """Walks; results are in the block."""
        self.block[int(control_block.EPTP)] = eptp
        kind = ACCESSES.index(access) + 1
        ended = self._walk(self.block.ctypes.data, root, va, kind, int(user), cr0, cr4, int(effect))
        if ended == 2 and self.get(control_block.FAULT_MISCONFIGURED):
            return Outcome.EPT_MISCONFIGURATION
        return _OUTCOMES[ended]

    def set_efer(self, efer: int) -> None:
        """Sets EFER in the register file: IA-32e mode, with its paging of four levels."""
        self.registers[int(unicorn_layout.EFER) // 8] = efer | EFER_LMA

    def set_legacy(self, cr0: int, cr4: int, efer: int) -> None:
        """Leaves IA-32e mode; these registers say which paging there is. What was loaded of PAE tables is forgotten."""
        self.registers[int(unicorn_layout.EFER) // 8] = efer & ~EFER_LMA
        self.registers[int(unicorn_layout.CR0) // 8] = cr0
        self.registers[int(unicorn_layout.CR4) // 8] = cr4
        self.page[int(registers.PAGE_PDPTES) // 8] = 0


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    """Returns the compiled walker over 8 MiB of RAM."""
    folder: Path = tmp_path_factory.mktemp("walkers")
    bus = MemoryBus.create(folder / "ram", RAM, run_pages=1)
    yield Compiled(bus)
    bus.close()


class Builder:
    """Writes tables into RAM from a dict of pages."""

    def __init__(self, bus: MemoryBus, first: int) -> None:
        self.bus = bus
        self._next = first

    def frame(self) -> int:
        """Returns a zeroed frame."""
        address, self._next = self._next, self._next + 4096
        self.bus.write(address, bytes(4096))
        return address

    def place(self, root: int, va: int, level: int, above: int) -> int:
        """Returns where the entry of `va` at `level` lies, making tables with the bits `above`."""
        table = root
        for step in range(4, level, -1):
            place = table + (va >> (12 + 9 * (step - 1)) & 511) * 8
            if not self.bus.load64(place) & 7:
                self.bus.store64(place, self.frame() | above)
            table = self.bus.load64(place) & ADDRESS
        return table + (va >> (12 + 9 * (level - 1)) & 511) * 8


frames = st.integers(0, (RAM >> 12) + 3)
pages = st.dictionaries(
    st.integers(0, 7).map(lambda n: 0x7FFF_0000_0000 + n * 0x1000),
    st.tuples(st.integers(0, (RAM >> 12) + 3), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    max_size=8,
)
wishes = st.lists(st.tuples(st.integers(0, 0x8FFF), st.sampled_from(ACCESSES), st.booleans()), min_size=1, max_size=12)
relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(mapped=pages, wanted=wishes)
def test_one_stage(compiled: Compiled, mapped: Pages, wanted: list[tuple[int, Access, bool]]) -> None:
    """Outcome, address, error code, A and D of one-stage walks are what a dict of pages says."""
    bus = compiled.bus
    build = Builder(bus, 0x10_0000)
    root = build.frame()
    entries: dict[int, int] = {}
    for va, (frame, present, writable, user, no_execute) in mapped.items():
        entries[va] = build.place(root, va, 1, P | RW | US)
        bits = P * present | RW * writable | US * user | NX * no_execute
        bus.store64(entries[va], frame << 12 | bits)
    dirty: set[int] = set()
    memory = Memory(bus.load64, bus.size)
    for offset, access, user in wanted:
        va = 0x7FFF_0000_0000 + offset
        outcome, pa, code = naive(mapped, va, access, user)
        found = translate(memory, root, 0, va, access, user)
        assert (found.outcome, found.error_code) == (outcome, code)
        assert compiled.walk(root, 0, va, access, user, True) is outcome
        page = va & ~0xFFF
        if outcome is Outcome.TRANSLATED:
            assert found.pa == pa
            assert compiled.get(control_block.WALK_PA) == pa & ~0xFFF
            dirty |= {page} if access is Access.WRITE else set()
            assert bool(bus.load64(entries[page]) & D) == (page in dirty)
            assert bus.load64(entries[page]) & A
            allowed = compiled.get(control_block.WALK_RIGHTS)
            assert bool(allowed & 2) == (page in dirty and mapped[page][2])
            assert bool(allowed & 4) == (not mapped[page][4])
        else:
            assert compiled.get(control_block.FAULT_CODE) == code


def naive(mapped: Pages, va: int, access: Access, user: bool, end: int = RAM >> 12) -> tuple[Outcome, int, int]:
    """Says what an access does, from the dict alone; frames from `end` on do not exist."""
    code = 2 * (access is Access.WRITE) | 4 * user | 16 * (access is Access.EXECUTE)
    frame, present, writable, for_user, no_execute = mapped.get(va & ~0xFFF, (0, False, False, False, False))
    if not present:
        return Outcome.PAGE_FAULT, 0, code
    if frame >= end:
        return Outcome.PAGE_FAULT, 0, code | 9
    if (user and not for_user) or (access is Access.WRITE and not writable):
        return Outcome.PAGE_FAULT, 0, code | 1
    if access is Access.EXECUTE and no_execute:
        return Outcome.PAGE_FAULT, 0, code | 1
    return Outcome.TRANSLATED, frame << 12 | (va & 0xFFF), 0


@relaxed
@given(
    mapped=pages,
    backed=st.dictionaries(frames, st.tuples(frames, st.integers(0, 7))),
    wanted=wishes,
)
def test_two_stages(
    compiled: Compiled,
    mapped: Pages,
    backed: dict[int, tuple[int, int]],
    wanted: list[tuple[int, Access, bool]],
) -> None:
    """With a second stage the page also needs backing with the right; the compiled and the domain's walker agree."""
    bus = compiled.bus
    build = Builder(bus, 0x10_0000)
    root, ept = build.frame(), build.frame()
    for va, (frame, present, writable, user, no_execute) in mapped.items():
        bits = P * present | RW * writable | US * user | NX * no_execute
        bus.store64(build.place(root, va, 1, P | RW | US), frame << 12 | bits)
    tables = range(0x10_0000, build._next, 4096)
    backing = {gpa >> 12: (gpa >> 12, 7) for gpa in tables}
    backing.update({frame: host for frame, host in backed.items() if frame not in backing})
    for frame, (host, rights) in backing.items():
        bus.store64(build.place(ept, frame << 12, 1, 7), host << 12 | rights)
    memory = Memory(bus.load64, bus.size)
    for offset, access, user in wanted:
        va = 0x7FFF_0000_0000 + offset
        outcome, gpa, code = naive(mapped, va, access, user, 1 << 40)
        found = translate(memory, root, ept, va, access, user)
        if outcome is Outcome.TRANSLATED:
            host, rights = backing.get(gpa >> 12, (0, 0))
            need = {Access.READ: 1, Access.WRITE: 2, Access.EXECUTE: 4}[access]
            if rights & 3 == 2:
                outcome = Outcome.EPT_MISCONFIGURATION
            elif not rights & need or host >= RAM >> 12:
                outcome = Outcome.EPT_VIOLATION
            else:
                assert found.pa == host << 12 | gpa & 0xFFF
        assert (found.outcome, found.error_code) == (outcome, code if outcome is Outcome.PAGE_FAULT else 0)
        assert compiled.walk(root, ept, va, access, user, False) is outcome
        if outcome is Outcome.TRANSLATED:
            assert compiled.get(control_block.WALK_PA) == found.pa & ~0xFFF


@relaxed
@given(
    words=st.lists(
        st.one_of(
            st.integers(0, 2**64 - 1),
            st.builds(lambda frame, bits: frame << 12 | bits, st.integers(0, 31), st.integers(0, 0xFFF)),
            st.builds(lambda frame: frame << 12 | 0xA7, st.integers(0, 2**40 - 1)),
        ),
        min_size=8,
        max_size=64,
    ),
    places=st.lists(st.integers(0, 32 * 512 - 1), min_size=8, max_size=64),
    vas=st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**24)), min_size=1, max_size=8),
    two=st.booleans(),
)
def test_garbage_reaches_nothing(
    compiled: Compiled, words: list[int], places: list[int], vas: list[int], two: bool
) -> None:
    """Whatever bytes the tables hold, both walkers agree, and neither leaves RAM."""
    bus = compiled.bus
    bus.write(0, bytes(32 * 4096))
    for place, value in zip(places, words, strict=False):
        bus.store64(place * 8, value)
    memory = Memory(bus.load64, bus.size)
    for va in vas:
        for access in ACCESSES:
            found = translate(memory, 0x1000, 0x2000 if two else 0, va, access, True)
            assert compiled.walk(0x1000, 0x2000 if two else 0, va, access, True, False) is found.outcome
            if found.outcome is Outcome.TRANSLATED:
                assert compiled.get(control_block.WALK_PA) == found.pa & ~0xFFF
                assert found.pa < RAM
            if found.outcome is Outcome.PAGE_FAULT:
                assert compiled.get(control_block.FAULT_CODE) == found.error_code


entry_words = st.builds(
    lambda frame, bits, high: frame << 12 | bits | high,
    st.one_of(st.integers(0, 7), st.integers(0, 2050)),  # mostly one of the eight tables
    st.one_of(st.integers(0, 0xFFF), st.sampled_from((7, 0x27, 0x67, 0x87))),
    st.sampled_from((0, 0, 0, NX, 1 << 51, 1 << 52)),
)


@relaxed
@given(
    words=st.lists(entry_words, min_size=16, max_size=64),
    places=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=16, max_size=64),
    vas=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=6),
    bits=st.tuples(*[st.booleans()] * 6),
)
def test_controls_and_effects(
    compiled: Compiled,
    words: list[int],
    places: list[tuple[int, int]],
    vas: list[list[int]],
    bits: tuple[bool, ...],
) -> None:
    """Under every setting of WP, NXE, SMEP and SMAP both walkers agree, and the bits left in RAM are those foretold."""
    bus = compiled.bus
    wp, nxe, smep, smap, user, two = bits
    bus.write(0, bytes(16 * 4096))
    for (frame, position), value in zip(places, words, strict=False):
        bus.store64(frame * 4096 + position * 8, value)
    if two:
        for place, value in ((8 << 12, 9 << 12 | 7), (9 << 12, 10 << 12 | 7), (10 << 12, 0x87)):
            bus.store64(place, value)
    eptp = 8 << 12 if two else 0
    controls = Controls(wp=wp, nxe=nxe, smep=smep, smap=smap)
    cr0, cr4 = CR0_WP * wp, CR4_SMEP * smep | CR4_SMAP * smap
    memory = Memory(bus.load64, bus.size)
    compiled.set_efer(EFER_NXE * nxe)
    for indices in vas:
        va = sum(index << (12 + 9 * level) for level, index in enumerate(indices))
        for access in ACCESSES:
            found = translate(memory, 0x1000, eptp, va, access, user, controls)
            assert compiled.walk(0x1000, eptp, va, access, user, True, cr0, cr4) is found.outcome
            if found.outcome is Outcome.PAGE_FAULT:
                assert compiled.get(control_block.FAULT_CODE) == found.error_code
            if found.outcome is Outcome.TRANSLATED:
                assert compiled.get(control_block.WALK_PA) == found.pa & ~0xFFF
                sizes = compiled.get(control_block.WALK_SHIFT), compiled.get(control_block.WALK_SECOND_SHIFT)
                assert 1 << min(sizes) == found.page_size
            stages = [step.table.startswith("EPT") for step in found.steps]
            assert compiled.get(control_block.WALK_READS) == stages.count(False)
            assert compiled.get(control_block.WALK_SECOND_READS) == stages.count(True)
            foretold: dict[int, int] = {}
            for step in found.steps:  # a table that points at itself has its bits set more than once
                foretold[step.entry_address] = foretold.get(step.entry_address, 0) | step.after
            for address, value in foretold.items():
                assert bus.load64(address) == value
    compiled.set_efer(EFER_NXE)
