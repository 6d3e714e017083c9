"""Tables that `MapDma` fills, against a dict of pages; walks of random tables, against a walk without any shortcut."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.hardware.fake_physical import FakePhysical

from lamina_hardware.domain.devices.dma import DmaOutcome
from lamina_hardware.domain.iommu.second_stage import walk
from lamina_hardware.domain.iommu.tables import DmaTables, Mapping, runs
from lamina_kit.errors import AlreadyExists, ResourceExhausted
from lamina_kit.paging import PAGE_SIZE, span

MIB2, GIB = span(2), span(3)
ROOT = 0x1000
Pages = dict[int, tuple[int, bool, bool]]


class Everywhere(FakePhysical):
    """Memory whose tables are real and whose pages may be anywhere: leaves are looked at, never used."""

    def contains(self, pa: int, n: int) -> bool:
        """Returns true up to 46 bits."""
        return pa + n <= 1 << 46

    def is_dma(self, pa: int) -> bool:
        """Returns false: all is RAM."""
        return False


def small(memory: FakePhysical, frames: int) -> DmaTables:
    """Returns tables with frames to spare."""
    tables = DmaTables(memory, ROOT)
    tables.spare.extend(range(0x2000, 0x2000 + frames * PAGE_SIZE, PAGE_SIZE))
    return tables


def pages_of(mapping: Mapping) -> Iterator[tuple[int, tuple[int, bool, bool]]]:
    """Yields page by page what a mapping says."""
    for at in range(0, mapping.size, PAGE_SIZE):
        yield mapping.iova + at, (mapping.pa + at, mapping.read, mapping.write)


AROUND = st.sampled_from([0, MIB2, 2 * MIB2, GIB - MIB2, GIB, 512 * GIB - MIB2])
OFFSETS = st.integers(-3, 3).map(lambda n: n * PAGE_SIZE)
SIZES = st.one_of(st.integers(1, 5).map(lambda n: n * PAGE_SIZE), st.integers(1, 3).map(lambda n: n * MIB2))


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    """Returns a mapping near a border of large pages, congruent with its target or not."""
    iova = max(0, draw(AROUND) + draw(OFFSETS))
    skew = draw(st.sampled_from([0, MIB2, GIB, PAGE_SIZE]))
    read, write = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return Mapping(iova, iova + skew, draw(SIZES), read, write)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), mappings(), st.integers(0, 1 << 30)), min_size=1, max_size=12))
def test_tables_say_what_a_dict_says(steps: list[tuple[bool, Mapping, int]]) -> None:
    """After any sequence of map, write and unmap, walks, dirty pages, sizes and frames agree with a naive model."""
    memory = Everywhere(4 << 20)
    frames = 900
    tables = small(memory, frames)
    model: Pages = {}
    dirty: dict[int, None] = {}
    for is_map, mapping, seed in steps:
        wanted = dict(pages_of(mapping))
        if is_map:
            clash = [page for page in wanted if page in model]
            if clash and any(model.get(page) != entry for page, entry in wanted.items()):
                with pytest.raises(AlreadyExists):
                    tables.map([mapping])
            else:
                tables.map([mapping])
                model.update(wanted)
        else:
            found = tables.unmap([(mapping.iova, mapping.end)])
            gone = [page for page in wanted if page in model]
            assert found.size == len(gone) * PAGE_SIZE
            assert set(found.dirty) == {page for page in gone if page in dirty}
            for page in gone:
                del model[page]
                dirty.pop(page, None)
        for page in random.Random(seed).sample(sorted(model), min(3, len(model))):
            if model[page][2]:
                acted = walk(memory, ROOT, page, True, effect=True)
                assert acted.outcome is DmaOutcome.TRANSLATED
                start = page // span(acted.level) * span(acted.level)
                level = acted.level
                dirty.update(dict.fromkeys(range(start, start + span(level), PAGE_SIZE)))
        assert tables.mapped_bytes == len(model) * PAGE_SIZE
        assert len(tables.frames) + len(tables.spare) == frames + 1
        _compare(memory, model, wanted)
    tables.unmap([(0, 1 << 48)])
    assert len(tables.spare) == frames
    assert not any(memory.read(ROOT, PAGE_SIZE))


def _compare(memory: FakePhysical, model: Pages, near: Pages) -> None:
    """Walks to pages that were touched now, to their neighbours, and to a sample of the rest."""
    edges = list(near)[:4] + list(near)[-4:]
    edges += [max(0, edges[0] - PAGE_SIZE), edges[-1] + PAGE_SIZE, *list(model)[::97]]
    for page in edges:
        pa, read, write = model.get(page, (0, False, False))
        for wants_write, allowed in ((False, read), (True, write)):
            found = walk(memory, ROOT, page + 5, wants_write, effect=False)
            assert (found.outcome is DmaOutcome.TRANSLATED) == allowed
            if allowed:
                assert found.pa == pa + 5


@given(mappings(), st.integers(0, 7))
def test_no_frames_no_change(mapping: Mapping, spare: int) -> None:
    """With too few frames nothing is mapped, and the number that is missing is enough."""
    memory = Everywhere(4 << 20)
    tables = small(memory, spare)
    before = bytes(memory.ram)
    try:
        tables.map([mapping])
    except ResourceExhausted as error:
        assert bytes(memory.ram) == before
        assert tables.mapped_bytes == 0
        missing = int(error.metadata["missing"])
        tables.spare.extend(range(0x40_000, 0x40_000 + missing * PAGE_SIZE, PAGE_SIZE))
        tables.map([mapping])
        assert not tables.spare
    assert tables.mapped_bytes == mapping.size


@given(mappings())
def test_runs_cover_a_mapping_with_the_largest_pages(mapping: Mapping) -> None:
    """The pieces follow each other, are aligned to their size, and two small ones never make up a large one."""
    at = mapping.iova
    for piece, level in runs(mapping):
        size = span(level)
        assert piece.iova == at
        assert not piece.iova % size and not piece.pa % size and not piece.size % size
        if level < 3 and not (piece.iova - piece.pa) % span(level + 1):
            large = span(level + 1)
            assert -(-piece.iova // large) * large + large > piece.end
        at = piece.end
    assert at == mapping.end


def _reference(memory: FakePhysical, root: int, iova: int, write: bool) -> tuple[DmaOutcome, int]:
    """Walks as the specification lists the conditions, one after another; returns outcome and physical address."""
    if iova >= 1 << 48:
        return DmaOutcome.ADDRESS_TOO_WIDE, 0
    table, readable, writable = root, True, True
    for shift in (39, 30, 21, 12):
        entry = memory.load64(table + (iova >> shift & 511) * 8)
        address = entry & 0x000F_FFFF_FFFF_F000
        if entry & 7 == 0:
            return DmaOutcome.NOT_PRESENT, 0
        is_page = shift == 12 or entry >> 7 & 1
        if is_page and shift == 39:
            return DmaOutcome.MALFORMED_ENTRY, 0
        if is_page and address % (1 << shift):
            return DmaOutcome.MALFORMED_ENTRY, 0
        if not is_page and (entry >> 3 & 15 or address + 4096 > len(memory.ram)):
            return DmaOutcome.MALFORMED_ENTRY, 0
        readable, writable = readable and bool(entry & 1), writable and bool(entry & 2)
        if not (writable if write else readable):
            return DmaOutcome.NO_RIGHT, 0
        if is_page:
            pa = address + iova % (1 << shift)
            if (pa | 4095) >= len(memory.ram):
                return DmaOutcome.MALFORMED_ENTRY, 0
            return DmaOutcome.TRANSLATED, pa
        table = address
    raise AssertionError


@pytest.mark.parametrize("seed", range(8))
def test_random_tables_lead_nowhere_else(seed: int) -> None:
    """Tables of random bytes, which point at themselves and outside, give the reference's result and never crash."""
    chance = random.Random(seed)
    memory = FakePhysical(64 * PAGE_SIZE)
    for place in range(0, 32 * PAGE_SIZE, 8):
        kind = chance.random()
        address = chance.randrange(40 if kind < 0.9 else 1 << 36) << 12
        low = chance.choice((3, 7, 1, 2, 0x83, 0x33, 0, 0x80)) | chance.choice((0, 0, 0x100, 0x200, 1 << 63))
        memory.store64(place, address | low if kind > 0.05 else chance.getrandbits(64))
    outcomes: dict[DmaOutcome, int] = {}
    for _ in range(4000):
        iova, write = chance.getrandbits(chance.choice((20, 48, 49))), chance.random() < 0.5
        root = chance.randrange(32) << 12
        expected = _reference(memory, root, iova, write)
        looked = walk(memory, root, iova, write, effect=False, keep_steps=True)
        assert (looked.outcome, looked.pa) == expected
        assert len(looked.steps) <= 4
        outcomes[expected[0]] = outcomes.get(expected[0], 0) + 1
        acted = walk(memory, root, iova, write, effect=True)
        assert acted.outcome is DmaOutcome.TRANSLATED or acted.outcome is expected[0]
    assert len(outcomes) == 5


def test_the_unmap_of_too_many_dirty_pages() -> None:
    """More than 262,144 dirty pages are told as one word."""
    memory = Everywhere(4 << 20)
    tables = small(memory, 8)
    tables.map([Mapping(0, 0, 2 * GIB, True, True)])
    assert walk(memory, ROOT, 0, True, effect=True).outcome is DmaOutcome.TRANSLATED
    assert walk(memory, ROOT, GIB, True, effect=True).outcome is DmaOutcome.TRANSLATED
    found = tables.unmap([(0, 2 * GIB)])
    assert (found.size, found.dirty, found.all_dirty) == (2 * GIB, [], True)
