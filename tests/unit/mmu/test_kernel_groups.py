"""Groups as cgroups of both versions, over files in memory: settings, counters, events, reclaim."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from tests.unit.mmu.fake_cgroups import World

from lamina_kit.errors import FailedPrecondition, ResourceExhausted, Unimplemented
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.groups.events import GroupEventKind as Kind
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.engines.linux.cgroup_files import Version1, Version2


def ended(step: Any) -> Any:
    """Runs a step whose effects need nothing, and returns its result."""
    try:
        while True:
            next(step)
    except StopIteration as stop:
        return stop.value


def made(world: World, name: str = "web", parent: str = "", **limits: int | None) -> Any:
    """Makes a group."""
    return world.groups.create(name, world.groups.named(parent), limits, NOBODY)


@pytest.mark.parametrize("version", [1, 2])
def test_groups_nest_as_directories(version: int) -> None:
    """A group lies in its parent's directory; with version 2 its processes are in a group of their own within it."""
    world = World(version)
    leaf = made(world, "leaf", made(world).name)
    assert world.groups.path(leaf) == "web/leaf"
    world.groups.enter(77, leaf)
    where = "web/leaf/_own" if version == 2 else "web/leaf"
    assert world.cgroups.files[where]["cgroup.procs"] == "77" and world.groups.processes(leaf) == [77]


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_with_a_process_or_a_group_in_it_stays(version: int) -> None:
    """GROUP_IN_USE, and nothing is removed; an empty one goes with its directory."""
    world = World(version)
    top = made(world)
    leaf = made(world, "leaf", "web")
    world.groups.enter(77, leaf)
    for group in (top, leaf):
        with pytest.raises(FailedPrecondition, match="cannot be deleted"):
            world.groups.delete(group, False)
    world.cgroups.files[world.groups.process_path(leaf)]["cgroup.procs"] = ""
    world.groups.delete(leaf, False)
    world.groups.delete(top, False)
    assert set(world.cgroups.files) == ({"", "_own"} if version == 2 else {""})
    assert not any(path.startswith("web") for path in world.cgroups.watches)


def test_what_a_stop_cannot_remove_is_recorded() -> None:
    """A subtree that stays is in the log, and the stop goes on."""
    world = World(1)
    world.cgroups.closing = -16
    world.groups.close()
    assert world.records[-1] == ("hosts/h1/memoryGroups/root", "group.left_behind")


def test_version_2_has_every_limit() -> None:
    """Each setting is written to its file, `max` where there is no limit."""
    world = World(2)
    group = made(world, max_bytes=1 << 20)
    for field in ("swap_max_bytes", "min_bytes", "low_bytes", "high_bytes", "swap_high_bytes", "oom_group"):
        world.groups.put(group, field, 4096)
        assert (
            world.groups.setting(group, field) == 4096 and world.cgroups.files["web"][Version2.files[field]] == "4096"
        )
    world.groups.put(group, "high_bytes", None)
    assert world.cgroups.files["web"]["memory.high"] == "max" and world.groups.setting(group, "high_bytes") is None
    with pytest.raises(Unimplemented, match="swappiness"):
        world.groups.put(group, "swappiness", 10)


def test_version_1_refuses_by_the_name_of_the_field() -> None:
    """What it has no file for is CAPABILITY_MISSING, and a group that was to have it is not made."""
    world = World(1)
    group = made(world, max_bytes=1 << 20)
    assert world.cgroups.files["web"]["memory.limit_in_bytes"] == "1048576"
    world.groups.put(group, "max_bytes", None)
    assert world.cgroups.files["web"]["memory.limit_in_bytes"] == "-1"
    for field in ("swap_max_bytes", "min_bytes", "low_bytes", "high_bytes", "swap_high_bytes", "oom_group"):
        with pytest.raises(Unimplemented, match=field) as refused:
            world.groups.put(group, field, 4096)
        assert refused.value.reason == "CAPABILITY_MISSING"
    with pytest.raises(Unimplemented, match="swap_max_bytes"):
        made(world, "other", swap_max_bytes=0)
    assert "other" not in world.cgroups.files and [one.name for one in world.groups.tree.ordered()] == ["root", "web"]


def test_a_limit_below_what_cannot_be_reclaimed_is_refused() -> None:
    """The kernel's EBUSY is GROUP_NOT_RECLAIMABLE."""
    world = World(1)
    group = made(world)
    world.cgroups.refuses["memory.limit_in_bytes"] = 16
    with pytest.raises(ResourceExhausted) as refused:
        world.groups.put(group, "max_bytes", PAGE_SIZE)
    assert refused.value.reason == "GROUP_NOT_RECLAIMABLE"


def test_counters_of_version_2_become_events() -> None:
    """Each kind that grew is told once for its group, with how often; counts go to the parents too."""
    world = World(2)
    top = made(world, max_bytes=8192)
    leaf = made(world, "leaf", "web")
    watch = world.groups.watch(["web"], [], 0, None)
    world.cgroups.files["web"]["memory.events.local"] = "low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\n"
    world.cgroups.files["web/leaf/_own"]["memory.events.local"] = "oom_kill 2\n"
    for path in ("web", "web/leaf"):
        world.cgroups.files[path]["memory.swap.events"] = "high 0\nmax 5\nfail 0\n"
    world.cgroups.files["web"]["memory.current"] = "8192\n"
    world.cgroups.watches["web"]()
    kinds = [event.kind for event in world.groups.feed.take(watch, 10)]
    assert kinds == [Kind.MAX, Kind.OOM, Kind.SWAP_MAX], "a kill waits for its space"
    assert leaf.events == {Kind.OOM_KILL: 2, Kind.SWAP_MAX: 5}, "and is counted at once"
    world.now += 500_000_000
    world.groups.look()
    told = [(event.group, event.kind) for event in world.groups.feed.take(watch, 10)]
    assert told == [("leaf", Kind.OOM_KILL)]
    assert top.events == {Kind.MAX: 3, Kind.OOM: 1, Kind.OOM_KILL: 2, Kind.SWAP_MAX: 5}
    world.groups.look()
    assert world.groups.feed.take(watch, 10) == []


def test_a_kill_names_the_space_that_ended() -> None:
    """A space that ended while the kernel counts a kill is named; the group without spaces is empty then."""
    world = World(1)
    made(world)
    watch = world.groups.watch([], [], 0, None)
    world.cgroups.files["web"]["memory.oom_control"] = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
    world.groups.look()  # the kernel counts a kill before the process is gone
    world.groups.space_ended(9, "web", ["root"])
    events = world.groups.feed.take(watch, 10)
    assert [(event.kind, event.spaces) for event in events] == [
        (Kind.OOM, ()),
        (Kind.OOM_KILL, (9,)),
        (Kind.EMPTY, ()),
    ]
    assert ("hosts/h1/memoryGroups/web", "group.oom_killed") in world.records


def test_pressure_is_told_by_version_2_and_refused_by_version_1() -> None:
    """Within a second as much as was asked for is told, once a second; version 1 says that it has none."""
    world = World(2)
    made(world)
    world.cgroups.files[""]["memory.pressure"] = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    watch = world.groups.watch(["web"], [Kind.PRESSURE], 200_000, None)
    told = []
    for total in (0, 100_000, 350_000, 700_000):
        text = f"some avg10=1.50 avg60=0.20 avg300=0.01 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
        world.cgroups.files["web"]["memory.pressure"] = text
        world.groups.due(watch)
        told.append([event.pressure_ppm for event in world.groups.feed.take(watch, 10)])
        world.now += 400_000_000
    assert told == [[], [], [350_000], []]
    reading = Version2.pressure(lambda file: world.groups.text(world.groups.named("web"), file))
    assert reading is not None
    assert (reading.some_ns, reading.full_ns, reading.some_ppm) == (700_000_000, 7000, (15_000, 2000, 100))
    old = World(1)
    made(old)
    with pytest.raises(Unimplemented, match="pressure"):
        old.groups.watch(["web"], [], 200_000, None)
    assert Version1.pressure(lambda file: "") is None


@pytest.mark.parametrize("version", [1, 2])
def test_reclaim_takes_what_the_kernel_gives(version: int) -> None:
    """Pages that went are counted by the group's usage; version 1 has its limit back afterwards."""
    world = World(version)
    group = made(world, max_bytes=1 << 30)
    used = "memory.usage_in_bytes" if version == 1 else "memory.current"
    files = world.cgroups.files["web"]
    files[used] = str(100 * PAGE_SIZE)

    def kernel(path: str, file: str, text: str) -> None:
        if file == "memory.reclaim":
            files[used] = str(int(files[used]) - int(text))
        elif file == "memory.limit_in_bytes":
            files[used] = str(min(int(files[used]), int(text)))

    world.cgroups.on_put = kernel
    assert ended(world.groups.reclaim(group, 30)) == (30, 0)
    assert files[used] == str(70 * PAGE_SIZE) and world.groups.setting(group, "max_bytes") == 1 << 30


def test_statistics_of_both_versions_mean_the_same() -> None:
    """Bytes become pages, major faults are no minor ones, swap is what is in swap."""
    old = {
        "memory.stat": "total_rss 8192\ntotal_cache 4096\ntotal_pgfault 10\ntotal_pgmajfault 3\ntotal_swap 4096\n",
        "memory.usage_in_bytes": "12288",
        "memory.max_usage_in_bytes": "16384",
    }
    new = {
        "memory.stat": "anon 8192\nfile 4096\npagetables 4096\npgfault 10\npgmajfault 3\npgscan 8\npgsteal 5\n",
        "memory.current": "12288",
        "memory.peak": "16384",
        "memory.swap.current": "4096",
    }
    for version, files in ((Version1, old), (Version2, new)):
        read = partial(_file, files)
        pages = version.pages(read)
        assert (pages.anonymous, pages.objects, pages.minor_faults, pages.major_faults) == (2, 1, 7, 3)
        assert (version.usage(read).ram, version.usage(read).swap, version.usage(read).peak) == (12288, 4096, 16384)
    assert Version2.pages(partial(_file, new)).reclaimed == 5


def _file(files: dict[str, str], name: str) -> str:
    return files.get(name, "")
