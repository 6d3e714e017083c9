"""Groups and frames of the `linux` engine over files in memory: limits, protection, statistics, fragmentation."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.mmu.fake_cgroups import World
from tests.unit.mmu.test_kernel_groups import ended

from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound, OutOfRange, Unimplemented
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.effects import Aside
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.kernel import pages
from lamina_mmu.domain.session import NOBODY, Session
from lamina_mmu.engines.linux.frames import FrameCalls
from lamina_mmu.engines.linux.state import KernelSpace, State

BUDDYINFO = """Node 0, zone      DMA      1      0      0      0      0      0      0      0      1      2      3
Node 0, zone   Normal      5      4      3      2      1      0      0      0      0      1      6
"""
PAGETYPEINFO = """Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1
Node    0, zone      DMA, type    Unmovable      9      9

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate
Node 0, zone      DMA            3            4            1            9            2            9
Node 0, zone   Normal            5          100           10            9           20            9
"""


class FakeMemory:
    """Implements `KernelMemory`: files by name, words by file, and what compaction does."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.numbers: dict[str, list[int]] = {}
        self.compactions = 0
        self.refuses = 0
        self.after: dict[str, str] = {}

    def text(self, name: str) -> str:
        """Returns a file."""
        return self.files.get(name, "")

    def words(self, name: str, first: int, count: int) -> list[int] | int:
        """Returns words."""
        return self.numbers[name][first : first + count] if name in self.numbers else -errno.EACCES

    def compact(self) -> int:
        """Compacts."""
        self.compactions += 1
        self.files |= self.after
        return -self.refuses


class Calls(FrameCalls):
    """The part of the engine about groups and frames."""

    def __init__(self, version: int = 2) -> None:
        self.world = World(version)
        self.memory_files = FakeMemory()
        ports = self.world.groups.ports
        assert ports.kernel is not None
        self.state = State(replace(ports, kernel=replace(ports.kernel, memory=self.memory_files)))
        self.kernel_groups = self.world.groups

    def made(self, name: str = "web", parent: str = "", session: Session = NOBODY, **limits: int | None) -> Any:
        """Makes a group."""
        return ended(self.create_group(name, parent, limits, session, ""))

    def cgroup(self, path: str) -> dict[str, str]:
        """Returns the files of a group."""
        return self.world.cgroups.files[path]


def refused(call: Any, reason: str, kind: type[LaminaError] = Unimplemented) -> LaminaError:
    """Calls what must be refused."""
    with pytest.raises(kind) as error:
        ended(call())
    assert error.value.reason == reason
    return error.value


def worked(effect: Any) -> Any:
    """Does what a step wants done aside."""
    assert isinstance(effect, Aside)
    return effect.work()


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lower_limit_reclaims_what_lies_above_it_first() -> None:
    """Whole pages, rounded up; a limit that is not below the usage reclaims nothing, and none reclaims nothing."""
    calls = Calls()
    calls.made(max_bytes=1 << 30)
    files = calls.cgroup("web")
    reclaimed: list[tuple[str, str]] = []

    def kernel(path: str, file: str, text: str) -> None:
        if file == "memory.reclaim":
            reclaimed.append((text, files["memory.max"]))
            files["memory.current"] = str(int(files["memory.current"]) - int(text))

    calls.world.cgroups.on_put = kernel
    files["memory.current"] = str(100 * PAGE_SIZE)
    assert ended(calls.update_group("web", {"max_bytes": 100 * PAGE_SIZE})).usage == 100 and not reclaimed
    view = ended(calls.update_group("web", {"max_bytes": 90 * PAGE_SIZE - 1, "swap_max_bytes": 4096}))
    assert reclaimed == [(str(11 * PAGE_SIZE), str(100 * PAGE_SIZE))], "before the limit is lowered"
    assert (view.usage, view.max_bytes, view.swap_max_bytes) == (89, 90 * PAGE_SIZE - 1, 4096)
    view = ended(calls.update_group("web", {"max_bytes": None}))
    assert len(reclaimed) == 1 and view.max_bytes is None and view.reclaimed == 0, "version 2 counts itself"
    refused(lambda: calls.update_group("", {"max_bytes": 1}), "GROUP_IS_ROOT", FailedPrecondition)


def test_reclaim_of_version_1_is_counted_here() -> None:
    """Its kernel counts none, so the pages that calls took are told, in the view and in statistics."""
    calls = Calls(1)
    calls.made()
    files = calls.cgroup("web")
    files |= {"memory.usage_in_bytes": str(50 * PAGE_SIZE), "memory.stat": "total_swap 8192\n"}

    def kernel(path: str, file: str, text: str) -> None:
        if file == "memory.limit_in_bytes" and text != "-1":
            files["memory.usage_in_bytes"] = text

    calls.world.cgroups.on_put = kernel
    assert ended(calls.reclaim_group("web", 20)) == (20, 0)
    view, statistics = calls.group("web"), calls.group_statistics("web")
    assert (view.reclaimed, view.usage, view.swap_usage) == (20, 30, 2)
    assert (statistics.reclaimed, statistics.swapped, statistics.name, statistics.pressure) == (20, 2, "web", None)


def test_statistics_of_version_2_are_the_kernels() -> None:
    """Pages of swap, reclaim and pressure are as its files say, whatever calls took."""
    calls = Calls()
    calls.made()
    calls.world.now = 77
    calls.cgroup("web").update(
        {
            "memory.swap.current": str(3 * PAGE_SIZE),
            "memory.stat": "pgsteal 9\npgscan 12\nunevictable 4096\nanon_thp 8192\nfile_thp 4096\n"
            "workingset_refault_anon 2\nworkingset_refault_file 5\n",
            "memory.events.local": "oom 2\n",
            "memory.current": "8192",
            "memory.peak": "16384",
        }
    )
    told = calls.group_statistics("web")
    assert (told.time_ns, told.swapped, told.reclaimed, told.scanned, told.locked, told.huge, told.refaulted) == (
        77, 3, 9, 12, 1, 3, 7,
    )  # fmt: skip
    view = calls.group("web")
    assert (view.reclaimed, view.oom_events, view.max_events, view.peak, view.parent) == (9, 2, 0, 4, "root")


@pytest.mark.parametrize("version", [1, 2])
def test_protection_is_as_the_kernel_keeps_it(version: int) -> None:
    """Settings are read from its files; version 2 has one swappiness for the host, version 1 one for each group."""
    calls = Calls(version)
    calls.made()
    calls.memory_files.files["sys/vm/swappiness"] = "35\n"
    if version == 1:
        assert ended(calls.protect_group("web", {"swappiness": 10})).swappiness == 10
        assert calls.cgroup("web")["memory.swappiness"] == "10"
        refused(lambda: calls.protect_group("web", {"swappiness": 20, "min_bytes": 4096}), "CAPABILITY_MISSING")
        assert calls.cgroup("web")["memory.swappiness"] == "10", "nothing changes when something cannot"
        assert (calls.protection("web").min_bytes, calls.protection("web").high_bytes) == (0, None)
        return
    changes = {"min_bytes": 4096, "low_bytes": 8192, "high_bytes": 12288, "swap_high_bytes": None, "oom_group": True}
    told = ended(calls.protect_group("web", changes))
    assert (told.min_bytes, told.low_bytes, told.high_bytes, told.swap_high_bytes) == (4096, 8192, 12288, None)
    assert (told.oom_group, told.swappiness, told.policy) == (True, 35, "")
    assert not ended(calls.protect_group("web", {"oom_group": False})).oom_group
    assert calls.protection("web").min_bytes == 4096, "what is not named stays"
    refused(lambda: calls.protect_group("", {"min_bytes": 1}), "GROUP_IS_ROOT", FailedPrecondition)


def test_the_kernel_has_no_policies_to_choose() -> None:
    """A policy or a parameter of one is refused before anything changes; an empty one asks for nothing."""
    calls = Calls()
    calls.made()
    for field in ({"policy": "lru"}, {"policy_parameters": {"bits": "1"}}):
        refused(lambda field=field: calls.protect_group("web", {"min_bytes": 4096, **field}), "CAPABILITY_MISSING")
    assert calls.protection("web").min_bytes == 0
    nothing = {"policy": "", "policy_parameters": {}}
    assert ended(calls.protect_group("web", {**nothing, "min_bytes": 4096})).min_bytes == 4096
    for call in (
        calls.policies,
        lambda: calls.candidates("web", 0, 1),
        lambda: calls.evictions("web", "", 0, 1),
        lambda: calls.open_plug("a", "b", "c", "d"),
    ):
        with pytest.raises(Unimplemented) as error:
            call()
        assert error.value.metadata["capability"] == "policy"


def test_groups_of_an_expired_session_go_from_the_leaves() -> None:
    """Those of its epoch and before, children first; one that is in use stays and belongs to nobody."""
    calls = Calls()
    mine, later = Session("me", 3), Session("me", 4)
    calls.made("a", session=mine)
    calls.made("b", "a", session=Session("me", 2))
    calls.made("used", session=mine)
    calls.made("new", session=later)
    calls.made("other", session=Session("you", 1))
    assert (calls.owned_groups("me"), calls.owned_groups("you"), calls.owned_groups("none")) == (4, 1, 0)
    calls.state.spaces.add(KernelSpace(77, None, "used", "x"))
    calls.expire_groups("me", 3)
    assert [view.name for view in calls.groups(-1, 99)] == ["root", "used", "new", "other"]
    assert calls.owned_groups("me") == 1 and calls.kernel_groups.named("used").session == Session("", 0)
    refused(lambda: calls.delete_group("used"), "GROUP_IN_USE", FailedPrecondition)


def test_groups_are_listed_by_number_and_named() -> None:
    """A page begins after a number; a name that is gone is empty; the root has two names."""
    calls = Calls()
    numbers = [calls.made(name).number for name in ("a", "b", "c")]
    assert [view.name for view in calls.groups(numbers[0], 1)] == ["b"]
    assert [view.name for view in calls.groups(numbers[0], 9)] == ["b", "c"]
    assert (calls.group_name(numbers[1]), calls.group_name(99)) == ("b", "")
    assert (calls.group_of(""), calls.group_of("root"), calls.group_of("a")) == ("root", "root", "a")
    refused(lambda: calls.group_of("none"), "GROUP_UNKNOWN", NotFound)
    calls.enter_group(77, "a")
    assert calls.cgroup("a/_own")["cgroup.procs"] == "77"
    calls.enter_group(78, "root")
    assert calls.cgroup("_own")["cgroup.procs"] == "78"


def test_without_cgroups_a_process_stays_where_it_is() -> None:
    """The root needs none; another group is refused."""
    calls = Calls()
    calls.made("a")
    calls.world.cgroups.version = 0
    calls.enter_group(77, "root")
    assert "77" not in calls.cgroup("_own")["cgroup.procs"]
    refused(lambda: calls.enter_group(77, "a"), "CAPABILITY_MISSING")
    assert calls.leave_group(1, "root") is False


def test_a_kill_is_told_to_who_asks_for_the_space() -> None:
    """The space that ended while the kernel counted a kill was killed for memory; the next one was not."""
    calls = Calls()
    calls.made("a")
    calls.cgroup("a/_own")["memory.events.local"] = "oom_kill 1\n"
    assert calls.leave_group(1, "a") is True and calls.leave_group(2, "a") is False


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fragmentation_is_summed_over_zones() -> None:
    """Free blocks by order, blocks of movable pages, what cannot move: all zones together, in frames."""
    calls = Calls()
    calls.memory_files.files |= {
        "buddyinfo": BUDDYINFO,
        "pagetypeinfo": PAGETYPEINFO,
        "meminfo": "MemTotal: 41943 kB\nSUnreclaim: 40 kB\nKernelStack: 8 kB\nPageTables: 12 kB\nPercpu: 4 kB\n"
        "HardwareCorrupted: 8 kB\nSlab: 999 kB\n",
        "vmstat": "pgmigrate_success 17\npgmigrate_fail 3\n",
    }
    told = calls.fragmentation()
    assert told.free_blocks == (6, 4, 3, 2, 1, 0, 0, 0, 1, 3, 9) + (0,) * 8
    assert told.free == 6 + 8 + 12 + 16 + 16 + 256 + 3 * 512 + 9 * 1024
    assert (told.movable_huge_blocks, told.huge_blocks, told.unmovable) == (137, 20, 16)
    assert (told.offline, told.moved, told.zeroed) == (2, 17, 0)


def test_a_kernel_that_tells_nothing_is_not_guessed_at() -> None:
    """Without the files everything is 0."""
    told = Calls().fragmentation()
    assert (told.free, told.movable_huge_blocks, told.huge_blocks, sum(told.free_blocks)) == (0, 0, 0, 0)


def test_compaction_is_asked_for_only_when_it_is_needed() -> None:
    """Enough huge blocks, larger ones counted as several: nothing is done. Otherwise what moved is told."""
    calls = Calls()
    calls.memory_files.files |= {"buddyinfo": BUDDYINFO, "vmstat": "pgmigrate_success 10\n"}
    assert ended(calls.compact_frames(21)) == (0, 21) and calls.memory_files.compactions == 0
    calls.memory_files.after = {"vmstat": "pgmigrate_success 25\n", "buddyinfo": BUDDYINFO.replace("6\n", "7\n")}
    step = calls.compact_frames(22)
    with pytest.raises(StopIteration) as done:
        step.send(worked(next(step)))
    assert done.value.value == (15, 23) and calls.memory_files.compactions == 1
    calls.memory_files.refuses = errno.EACCES
    step = calls.compact_frames(99)
    with pytest.raises(Unimplemented) as error:
        step.send(worked(next(step)))
    assert error.value.metadata["capability"] == "frames"


def test_memory_is_divided_by_use() -> None:
    """Kibibytes become frames; what no line names is the kernel's own."""
    calls = Calls()
    calls.memory_files.files |= {
        "meminfo": "MemTotal: 4000 kB\nMemFree: 400 kB\nAnonPages: 800 kB\nCached: 200 kB\nBuffers: 40 kB\n"
        "PageTables: 16 kB\nSecPageTables: 4 kB\nHardwareCorrupted: 0 kB\nSwapTotal: 80 kB\nSwapFree: 40 kB\n",
        "vmstat": "pswpout 3\npswpin 4\npgsteal_file 5\n",
    }
    told = calls.memory()
    assert dict(told.uses) == {Use.FREE: 100, Use.ANONYMOUS: 200, Use.OBJECT: 60, Use.TABLE: 5, Use.ALLOCATED: 635}


def test_frames_are_listed_by_what_they_are_used_for() -> None:
    """Free frames and holes are left out unless they are asked for; a list begins after a number and ends in time."""
    calls = Calls()
    flags = [pages.NOPAGE, pages.BUDDY, pages.ANON | pages.LRU, pages.LRU, pages.PGTABLE, pages.ANON, pages.RESERVED]
    calls.memory_files.numbers = {"kpageflags": flags, "kpagecount": [0, 0, 2, 1, 1 << 40, 1, 0]}
    told = [(view.frame, view.use) for view in calls.frames(None, None, -1, 99)]
    assert told == [(2, Use.ANONYMOUS), (3, Use.OBJECT), (4, Use.TABLE), (5, Use.ANONYMOUS), (6, Use.RESERVED)]
    assert [view.frame for view in calls.frames(Use.FREE, None, -1, 99)] == [1]
    found = calls.frames(Use.ANONYMOUS, None, 2, 1)
    assert [(view.frame, view.mapping_count, view.dirty) for view in found] == [(5, 1, True)]
    assert [view.mapping_count for view in calls.frames(Use.TABLE, None, -1, 1)] == [0], "types count otherwise"
    assert [view.frame for view in calls.frames(None, None, -1, 2)] == [2, 3]
    refused_group = pytest.raises(Unimplemented)
    with refused_group as error:
        calls.frames(None, "web", -1, 1)
    assert error.value.metadata["capability"] == "frame-group"
    assert calls.frame(3).use == Use.OBJECT and not calls.frame(3).dirty
    for outside in (0, 7):
        with pytest.raises(OutOfRange) as beyond:
            calls.frame(outside)
        assert beyond.value.reason == "FRAME_OUTSIDE_RAM"
    calls.memory_files.numbers.clear()
    with pytest.raises(Unimplemented):
        calls.frame(3)


@pytest.mark.parametrize(
    ("flags", "use"),
    [
        (pages.HWPOISON | pages.BUDDY, Use.OFFLINE), (pages.OFFLINE | pages.ANON, Use.OFFLINE),
        (pages.BUDDY | pages.PGTABLE, Use.FREE), (pages.PGTABLE | pages.LRU, Use.TABLE),
        (pages.RESERVED | pages.ANON, Use.RESERVED), (pages.ZERO_PAGE, Use.RESERVED), (pages.SLAB, Use.ALLOCATED),
    ],
)  # fmt: skip
def test_flags_of_a_frame_tell_its_use(flags: int, use: Use) -> None:
    """Broken before free, free before tables, reserved before anonymous; what is left is the kernel's own."""
    assert pages.use_of(flags) == use


def test_words_of_a_page_map_are_taken_apart() -> None:
    """In RAM, in swap, mapped elsewhere; a frame that the kernel hides is 0, and a slot is one of its area."""
    ram, swap = pages.IN_RAM | pages.EXCLUSIVE | 0x1234, pages.IN_SWAP | 77 << 5 | 3
    assert (pages.frame_of(ram), pages.frame_of(swap), pages.frame_of(pages.IN_RAM)) == (0x1234, 0, 0)
    assert (pages.slot_of(ram), pages.slot_of(swap), pages.slot_of(0)) == (-1, 77, -1)
    assert not pages.is_shared(ram) and pages.is_shared(pages.IN_RAM | 5) and not pages.is_shared(swap)
    assert pages.is_resident(ram) and not pages.is_resident(swap)
