"""Page tables, mappings, the reverse map and LRU order against dicts and lists."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.mmu.world import PAGE, BytesRam

from lamina_mmu.domain.frames.rmap import ReverseMap
from lamina_mmu.domain.policies.lru import Lru
from lamina_mmu.domain.policies.replacement import Replacement
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.spaces.vmas import CHOICE_TOP, GUARD_GAP, LOWEST, VmaList
from lamina_mmu.domain.tables.entry import leaf
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.sparse import SparseTable
from lamina_mmu.domain.tables.table import entries, exchange

PAGES = st.sampled_from([0, 1, 511, 512, 513, 1 << 18, (1 << 18) + 1, 1 << 27, (1 << 27) + 600, (1 << 35) - 1])


def walk(ram: BytesRam, root: int, vpn: int) -> int:
    """Returns the entry of a page by an independent walk over the bytes; 0 where the way ends."""
    table = root
    for level in (3, 2, 1, 0):
        place = table * PAGE + 8 * (vpn >> 9 * level & 511)
        entry = int.from_bytes(ram.bytes[place : place + 8], "little")
        if level == 0 or not entry & 1:
            return entry if level == 0 else 0
        table = entry >> 12 & 0xFF_FFFF_FFFF
    return 0


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["set", "clear", "prune"]), PAGES, st.integers(1, 1 << 30)), max_size=60))
def test_four_level_tables_are_a_dict(steps: list[tuple[str, int, int]]) -> None:
    """After any changes each page has the entry that a dict has, found in the bytes by a walk; tables are not lost."""
    ram = BytesRam(64)
    table, free = FourLevelTable(ram, 1), list(range(2, 64))
    model: dict[int, int] = {}
    for kind, vpn, frame in steps:
        if kind == "set":
            while table.missing(vpn):
                taken = free.pop()
                ram.zero(taken)
                table.attach(vpn, taken)
            model[vpn] = leaf(frame, 3, False)
            exchange(table, vpn, model[vpn])
        elif kind == "clear" and vpn in model:
            assert exchange(table, vpn, 0) == model.pop(vpn)
        elif kind == "prune":
            free += table.prune(0, 1 << 36)
    for vpn in (0, 1, 511, 512, 513, 1 << 18, (1 << 18) + 1, 1 << 27, (1 << 27) + 600, (1 << 35) - 1):
        assert walk(ram, 1, vpn) == table.load(vpn) == model.get(vpn, 0)
        visits = table.walk(vpn)
        assert not model.get(vpn) or (len(visits) == 4 and visits[-1].entry == model[vpn])
    found = {int(v): int(e) for vpns, some in entries(table, 0, 1 << 36) for v, e in zip(vpns, some, strict=True)}
    assert found == model
    free += table.prune(0, 1 << 36)
    assert sorted([*free, *table.table_frames()]) == list(range(1, 64))


@given(st.lists(st.tuples(PAGES, st.integers(0, 5)), max_size=80), PAGES, PAGES)
def test_sparse_tables_are_a_dict(steps: list[tuple[int, int]], first: int, end: int) -> None:
    """Entries kept outside RAM agree with a dict, over any range."""
    table = SparseTable()
    model: dict[int, int] = {}
    for vpn, value in steps:
        assert exchange(table, vpn, value) == model.get(vpn, 0)
        model[vpn] = value
    expected = {vpn: value for vpn, value in model.items() if value and first <= vpn < end}
    found = {int(v): int(e) for vpns, some in entries(table, first, end) for v, e in zip(vpns, some, strict=True)}
    assert found == expected


STEP = st.tuples(
    st.sampled_from(["insert", "remove", "protect"]), st.integers(0, 30), st.integers(1, 12), st.sampled_from([1, 3, 5])
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=40), st.booleans())
def test_mappings_are_a_dict_of_pages(steps: list[tuple[str, int, int, int]], objects: bool) -> None:
    """Mapping, unmapping and protecting, with all the splitting and merging, agree with one record for each page."""
    vmas = VmaList()
    pages: dict[int, int] = {}
    for kind, first, count, rights in steps:
        start, end = (16 + first) * PAGE, (16 + first + count) * PAGE
        covered = [vpn for vpn in range(start // PAGE, end // PAGE) if vpn in pages]
        if kind == "insert" and not covered:
            vmas.insert(Vma(start, end, rights, object=int(objects), offset=start if objects else 0))
            pages.update(dict.fromkeys(range(start // PAGE, end // PAGE), rights))
        elif kind == "remove":
            removed = vmas.remove(start, end)
            assert [vpn for vma in removed for vpn in vma.pages] == covered
            for vpn in covered:
                del pages[vpn]
        elif kind == "protect":
            assert (vmas.covers(start, end) == end) == (len(covered) == count)
            if len(covered) == count:
                vmas.protect(start, end, rights)
                pages.update(dict.fromkeys(covered, rights))
    listed = list(vmas)
    assert {vpn: vma.rights for vma in listed for vpn in vma.pages} == pages
    assert not objects or all(vma.object_page(vpn) == vpn for vma in listed for vpn in vma.pages)
    for below, above in pairwise(listed):
        assert below.end <= above.start
        assert not above.continues(below), "neighbours that continue each other are one"
    for vpn in range(16, 60):
        assert (vmas.at(vpn * PAGE) is not None) == (vpn in pages)


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=25), st.integers(1, 60))
def test_chosen_ranges_are_the_highest_that_fit(sizes: list[tuple[int, bool]], wanted: int) -> None:
    """A chosen range is free, keeps guard gaps, and no higher place would have done."""
    vmas = VmaList()
    taken: list[tuple[int, int]] = []
    for size, stack in sizes:
        start = vmas.choose(size * PAGE)
        end = start + size * PAGE
        vma = Vma(end - PAGE, end, 3, grows_down=True, floor=start) if stack else Vma(start, end, 3)
        vmas.insert(vma)
        taken.append((start - (GUARD_GAP if stack else 0), end))
        if len(taken) % 3 == 0:
            low, high = taken.pop(0)
            vmas.remove(low, high)
    chosen = vmas.choose(wanted * PAGE)
    assert chosen >= LOWEST and chosen + wanted * PAGE <= CHOICE_TOP

    def fits(start: int) -> bool:
        return all(start + wanted * PAGE <= low or start >= high for low, high in taken)

    assert fits(chosen)
    for better in (CHOICE_TOP - wanted * PAGE, *(low - wanted * PAGE for low, _ in taken)):
        assert better <= chosen or not fits(better)


NEAR_GUARD = 3 * PAGE


def highest_fit(vmas: VmaList, size: int) -> int:
    """Returns the place by the rule as it reads: every mapping is visited, from the top down."""
    top = CHOICE_TOP
    for vma in reversed(list(vmas)):
        if top - vma.end >= size:
            break
        top = min(top, vma.floor - NEAR_GUARD if vma.grows_down else vma.start)
    return top - size


CHANGE = st.tuples(
    st.sampled_from(["choose", "choose stack", "fix", "fix stack", "remove", "remove", "protect", "grow", "copy"]),
    st.integers(-8, 60),
    st.integers(1, 12),
    st.sampled_from([1, 3]),
)


@settings(max_examples=400)
@given(st.lists(CHANGE, max_size=60))
def test_hints_never_change_what_is_chosen(changes: list[tuple[str, int, int, int]]) -> None:
    """After mapping, fixed or not, stacks, unmapping, growing and copying, a size goes where a full scan says."""
    with patch("lamina_mmu.domain.spaces.vmas.GUARD_GAP", NEAR_GUARD):
        check_choices(changes)


def check_choices(changes: list[tuple[str, int, int, int]]) -> None:
    """Applies the changes; each choice on the way is the highest that fits."""
    vmas = VmaList()
    for kind, down, count, rights in changes:
        size = count * PAGE
        start = highest_fit(vmas, size) if kind.startswith("choose") else CHOICE_TOP - down * PAGE
        end = start + size
        stack = kind.endswith("stack")
        if kind.startswith("choose"):
            assert vmas.choose(size) == start
        if kind.startswith(("choose", "fix")) and not vmas.within(start, end):
            vmas.insert(Vma(end - PAGE if stack else start, end, rights, grows_down=stack, floor=start if stack else 0))
        elif kind == "remove":
            vmas.remove(start, end)
        elif kind == "protect" and vmas.covers(start, end) == end:
            vmas.protect(start, end, rights)
        elif kind == "grow" and vmas.at(start) is None and (grown := vmas.growable(start)):
            vmas.grow(grown)
        elif kind == "copy":
            vmas = vmas.copy()
        for pages in (1, 2, 3, 7, 12):
            if (down + pages) % 3 == 0:
                assert vmas.choose(pages * PAGE) == highest_fit(vmas, pages * PAGE)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(1, 3), st.integers(0, 9)), max_size=120))
def test_the_reverse_map_is_a_dict_of_lists(steps: list[tuple[bool, int, int, int]]) -> None:
    """Adding and removing, one by one and in batches, agrees with a list a frame, newest first."""
    rmap = ReverseMap(8)
    model: dict[int, list[tuple[int, int]]] = {frame: [] for frame in range(8)}
    for number, (add, frame, space, vpn) in enumerate(steps):
        place = (space, vpn)
        if add and place not in model[frame]:
            if number % 3:
                rmap.add(frame, space, vpn)
            else:
                rmap.add_many(np.array([frame]), space, np.array([vpn]))
            model[frame].insert(0, place)
        elif not add and place in model[frame]:
            rmap.remove(frame, space, vpn)
            model[frame].remove(place)
    assert {frame: list(rmap.of(frame)) for frame in range(8)} == model
    assert all(rmap.count(frame) == len(places) for frame, places in model.items())


@given(st.lists(st.tuples(st.sampled_from("arx"), st.integers(1, 20)), max_size=150))
def test_lru_is_a_list(steps: list[tuple[str, int]]) -> None:
    """The order of candidates is that of a list in which an accessed frame moves to the end, group by group."""
    policy = Replacement(bytes(32), lambda group: Lru(32), lambda frame: 0)
    order: list[int] = []
    for kind, frame in steps:
        if kind == "a" and frame not in order:
            policy.add(frame, frame % 3)
            order.append(frame)
        elif kind == "r":
            policy.remove(frame)
            order = [one for one in order if one != frame]
        elif kind == "x":
            policy.accessed(frame)
            if frame in order:
                order.remove(frame)
                order.append(frame)
    for groups in ([0], [1, 2], [0, 1, 2]):
        assert list(policy.candidates(groups)) == [frame for frame in order if frame % 3 in groups]
        assert policy.population(groups) == len([frame for frame in order if frame % 3 in groups])
