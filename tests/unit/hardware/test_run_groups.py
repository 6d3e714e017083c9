"""Run groups: shares, waking up, quotas, names."""

from __future__ import annotations

import pytest

from lamina_hardware.domain.contexts.run_groups import MAX_DEPTH, MAX_GROUPS, ROOT, RunGroup, RunGroups, Share
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted

MS = 1_000_000


def tree(**weights: int) -> RunGroups:
    """Returns groups directly under the root."""
    groups = RunGroups()
    for name, weight in weights.items():
        groups.create(RunGroup(name, ROOT, Share(weight)))
    return groups


def shares(groups: RunGroups, names: list[str], rounds: int) -> dict[str, int]:
    """Lets groups that always want to run take turns of 1 ms; returns how many each got."""
    got = dict.fromkeys(names, 0)
    for name in names:
        groups.activate(name)
    for _ in range(rounds):
        chosen = groups.next_of(dict.fromkeys(names, 1))
        groups.charge(chosen, MS, 0)
        got[chosen] += 1
    return got


def test_time_follows_weight() -> None:
    """Groups of weight 100, 200 and 700 get 10, 20 and 70 percent."""
    assert shares(tree(a=100, b=200, c=700), ["a", "b", "c"], 1000) == {"a": 100, "b": 200, "c": 700}


def test_a_parent_bounds_its_children() -> None:
    """Two children of one group get together what one sibling of the group gets."""
    groups = tree(pods=100, machine=100)
    for name in ("pod-1", "pod-2"):
        groups.create(RunGroup(name, "pods", Share(100)))
    got = shares(groups, ["pod-1", "pod-2", "machine"], 400)
    assert got == {"pod-1": 100, "pod-2": 100, "machine": 200}


def test_nobody_saves_up() -> None:
    """A group that slept does not run for as long as it slept when it wakes up."""
    groups = tree(awake=100, asleep=100)
    groups.activate("awake")
    for _ in range(1000):
        groups.next_of({"awake": 1})
        groups.charge("awake", MS, 0)
    got = shares(groups, ["awake", "asleep"], 20)
    assert got["awake"] >= 9


def test_contexts_of_a_group_itself_are_one_child() -> None:
    """Contexts directly in the root share with the groups beside them."""
    groups = tree(a=100)
    assert shares(groups, ["a", ROOT], 100) == {"a": 50, ROOT: 50}


def test_a_quota_ends_with_its_period() -> None:
    """What a group used beyond its quota is taken off the next period; idle periods give nothing extra."""
    groups = RunGroups()
    group = groups.create(RunGroup("g", ROOT, Share(), quota_ns=10 * MS, period_ns=100 * MS))
    assert groups.charge("g", 9 * MS, 50 * MS) == []
    assert groups.charge("g", 5 * MS, 60 * MS) == [group]
    assert groups.throttled("g", 61 * MS) is group
    assert groups.throttled("g", 100 * MS) is None
    assert group.throttled_ns == 40 * MS
    assert groups.charge("g", 6 * MS, 101 * MS) == [group]
    assert groups.throttled("g", 1000 * MS) is None
    assert group.window_used == 0


def test_names_and_life() -> None:
    """Groups need a parent, are named once, and are deleted when empty."""
    groups = tree(a=1)
    with pytest.raises(AlreadyExists):
        groups.create(RunGroup("a", ROOT, Share()))
    with pytest.raises(NotFound):
        groups.create(RunGroup("b", "none", Share()))
    groups.create(RunGroup("b", "a", Share()))
    with pytest.raises(FailedPrecondition):
        groups.delete("a")
    groups.delete("b")
    groups.delete("a")
    assert groups.entries() == []
    with pytest.raises(FailedPrecondition):
        groups.delete(ROOT)


def test_core_sets_shrink_on_the_way_down() -> None:
    """A context may run where every group above it allows."""
    groups = RunGroups()
    groups.create(RunGroup("a", ROOT, Share(), cores=frozenset({0, 1})))
    groups.create(RunGroup("b", "a", Share(), cores=frozenset({1, 2})))
    assert [groups.allows("b", core) for core in range(4)] == [False, True, False, False]


def test_pressure_is_of_the_window_that_ends_now() -> None:
    """Waiting for 1 s of 10 is a tenth of the shortest window; `full` counts only while none of the group runs."""
    groups = RunGroups()
    groups.create(RunGroup("a", ROOT, Share()))
    groups.create(RunGroup("b", "a", Share()))
    second = 1000 * MS
    groups.moved("b", 0, 1, 100 * second)
    groups.moved("b", 1, 0, 100 * second)
    groups.moved("b", 0, -1, 101 * second)
    groups.moved("b", -1, 1, 103 * second)
    groups.moved("b", 0, -1, 104 * second)
    for name in ("b", "a", ROOT):
        group = groups.get(name)
        read = group.pressure.read(110 * second)
        assert (read.some_ns, read.full_ns) == (3 * second, 2 * second)
        assert (read.some_ppm[0], read.full_ppm[0]) == (300_000, 200_000)
        assert (group.ready, group.running) == (0, 0)
        assert group.pressure.read(112 * second).some_ppm[0] == 100_000


def test_instructions_count_in_all_groups_above() -> None:
    """What a context executes counts in its group and the groups that hold it."""
    groups = tree(a=100)
    groups.charge("a", MS, 0, 5)
    groups.charge(ROOT, MS, 0, 2)
    assert (groups.get("a").instructions, groups.get(ROOT).instructions) == (5, 7)


def test_a_tree_has_bounds() -> None:
    """Neither its depth nor its number of groups grows without end; a group that goes makes room."""
    groups, parent = RunGroups(), ROOT
    for depth in range(MAX_DEPTH - 1):
        groups.create(RunGroup(f"d{depth}", parent, Share()))
        parent = f"d{depth}"
    with pytest.raises(ResourceExhausted) as deep:
        groups.create(RunGroup("deeper", parent, Share()))
    for number in range(MAX_GROUPS - (MAX_DEPTH - 1)):
        groups.create(RunGroup(f"g{number}", ROOT, Share()))
    with pytest.raises(ResourceExhausted) as many:
        groups.create(RunGroup("more", ROOT, Share()))
    assert deep.value.reason == many.value.reason == "TOO_MANY_RUN_GROUPS"
    groups.delete("g7")
    groups.create(RunGroup("more", ROOT, Share()))
