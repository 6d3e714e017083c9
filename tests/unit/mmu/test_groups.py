"""What protects groups, what slows them down, who watches them: each for itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.errors import OutOfRange, ResourceExhausted
from lamina_mmu.domain.groups.events import GroupEvent, GroupEventKind, GroupEvents
from lamina_mmu.domain.groups.group import Group, GroupTree
from lamina_mmu.domain.groups.protection import Allowance, effective
from lamina_mmu.domain.groups.shadows import REMEMBERED, Shadows
from lamina_mmu.engines.model.groups.protection import LONGEST_NS, penalty_ns

PAGE = 4096


def family(minimum: int, *children: tuple[int, int]) -> tuple[GroupTree, Group]:
    """Returns a tree and a group with a min in pages, whose children have (min, usage)."""
    tree = GroupTree()
    web = tree.create("web", tree.root, None, None)
    web.min_bytes = minimum * PAGE
    for number, (asked, used) in enumerate(children):
        child = tree.create(f"c{number}", web, None, None)
        child.min_bytes = asked * PAGE
        tree.charge(child.id, used)
    return tree, web


def test_what_fits_is_protected_as_asked() -> None:
    """Children that claim no more than their parent has are protected by what they ask for and use."""
    tree, web = family(100, (40, 60), (40, 30))
    floors = effective(tree.root, low=False)
    assert [floors[group.id] for group in (web, *web.children)] == [90, 40, 30]


def test_what_does_not_fit_is_shared_by_use() -> None:
    """The example of the module: 60 for claims of 40 and 40."""
    tree, web = family(60, (40, 60), (40, 40))
    floors = effective(tree.root, low=False)
    assert [floors[group.id] for group in (web, *web.children)] == [60, 30, 30]


def test_the_target_is_not_protected_from_itself() -> None:
    """When the parent is reclaimed its children have all that they ask for."""
    _, web = family(0, (40, 60), (10, 30))
    assert [effective(web, low=False)[child.id] for child in web.children] == [40, 10]


@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=6))
def test_floors_never_exceed_use_nor_the_parents(minimum: int, children: list[tuple[int, int]]) -> None:
    """No floor is above what is used, and those of children fit into their parent's."""
    tree, web = family(minimum, *children)
    floors = effective(tree.root, low=False)
    assert all(0 <= floors[group.id] <= group.usage for group in (web, *web.children))
    assert sum(floors[child.id] for child in web.children) <= floors[web.id]
    allowance = Allowance(tree.root, low=False)
    taken = 0
    while any(allowance.allows(child.id) for child in web.children):
        chosen = max(web.children, key=lambda child: allowance.excess(child.id))
        allowance.took(chosen.id)
        taken += 1
    assert taken <= web.usage - floors[web.id]


def test_the_penalty_grows_with_the_square_of_the_overage() -> None:
    """Nothing at high, little above, at most two seconds."""
    assert penalty_ns(100, 100) == 0
    once, twice = penalty_ns(110, 100, 64), penalty_ns(120, 100, 64)
    assert 600_000_000 < once < 680_000_000 and penalty_ns(200, 100, 64) == LONGEST_NS
    assert abs(twice - min(LONGEST_NS, 4 * once)) < 1_000_000
    assert penalty_ns(5, 0) == LONGEST_NS


def test_refaults_count_within_the_size_of_the_group() -> None:
    """A page that comes back before as many others left as the group has counts, once, and in its group alone."""
    shadows, group = Shadows(), Group(1, "web", None, 1, usage=10)
    shadows.left(7, group)
    group.taken = 10
    assert shadows.came_back(7, group) and not shadows.came_back(7, group)
    shadows.left(8, group)
    group.taken = 21
    assert not shadows.came_back(8, group)
    shadows.left(9, group)
    assert not shadows.came_back(9, Group(2, "other", None, 2, usage=10))
    for page in range(1, REMEMBERED + 10):
        shadows.left(page, group)
    assert len(shadows) == REMEMBERED


def event(sequence: int, path: tuple[int, ...], kind: int = 3, ppm: int = 0) -> GroupEvent:
    """Returns an event."""
    return GroupEvent(sequence, 0, "web", path, GroupEventKind(kind), 0, 0, (), "", 0, ppm, "")


def test_watches_see_what_they_want() -> None:
    """By group with its parents, by kind, by pressure; each event once, in batches."""
    web = Group(1, "web", None, 1)
    events = GroupEvents()
    everything, mine = events.watch((), (), 0, None), events.watch((web,), (3, 7), 500, None)
    for sequence, (path, kind, ppm) in enumerate([((2, 1), 3, 0), ((2,), 3, 0), ((1,), 4, 0), ((1,), 7, 499)], 1):
        events.add(event(sequence, path, kind, ppm))
    events.add(event(5, (1,), 7, 500))
    assert [one.sequence for one in events.take(everything, 2)] == [1, 2]
    assert [one.sequence for one in events.take(everything, 9)] == [3]
    assert [one.sequence for one in events.take(mine, 9)] == [1, 5] and not events.take(mine, 9)
    assert events.least_ppm(web) == 500 and events.least_ppm(Group(3, "x", None, 3)) == 0


def test_forgotten_events_are_told() -> None:
    """A position that is not kept is refused at the beginning, and ends a watch that was too slow."""
    events = GroupEvents(kept=2)
    slow = events.watch((), (), 0, None)
    for sequence in range(1, 5):
        events.add(event(sequence, (0,)))
    with pytest.raises(ResourceExhausted, match="2 events"):
        events.take(slow, 9)
    for after in (1, 5):
        with pytest.raises(OutOfRange):
            events.watch((), (), 0, after)
    assert [one.sequence for one in events.take(events.watch((), (), 0, 2), 9)] == [3, 4]
