"""What reads and writes files of /proc, /sys and the state folder, over folders of our own in their place."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.kernel.swap import header
from lamina_mmu.io.linux.cgroups import CgroupSubtree, NoCgroups, find, open_cgroups, remove_leftovers
from lamina_mmu.io.linux.contents import MemoryFiles
from lamina_mmu.io.linux.memory import ProcMemory
from lamina_mmu.io.linux.swap import SwapFolder


class Woken:
    """Notes who was woken."""

    def __init__(self) -> None:
        self.keys: list[object] = []

    def __call__(self, key: object, told: object) -> None:
        """Notes it."""
        self.keys.append(key)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Returns a /proc of a service with all capabilities, in which nothing is swapped."""
    made = tmp_path / "proc"
    (made / "self/ns").mkdir(parents=True)
    (made / "sys/vm").mkdir(parents=True)
    (made / "self/status").write_text("Name:\tx\nCapEff:\t000001ffffffffff\n")
    (made / "swaps").write_text("Filename Type Size Used Priority\n")
    os.symlink("pid:[4026531836]", made / "self/ns/pid")
    return made


def mounted(proc: Path, mount: Path, version: int) -> None:
    """Has `proc` tell of a hierarchy with the memory controller."""
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
    (proc / "self/mountinfo").write_text(f"25 30 0:22 / {mount} rw - {kind}\n")
    mount.mkdir(exist_ok=True)
    if version == 2:
        (mount / "cgroup.controllers").write_text("cpu memory\n")
        (mount / "cgroup.subtree_control").write_text("cpu\n")


def alive(proc: Path, pid: int | str, start: int) -> None:
    """Has a process live in `proc` that started at a tick."""
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {' '.join(str(n) for n in range(1, 19))} {start} 0\n")


# ── swap ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("mask", "may"), [("000001ffffffffff", True), ("0000000000200000", True), ("dfffff", False)])
def test_areas_need_the_right_to_administer(tmp_path: Path, proc: Path, mask: str, may: bool) -> None:
    """CAP_SYS_ADMIN is bit 21 of the effective capabilities, whatever the others are."""
    (proc / "self/status").write_text(f"CapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n")
    assert SwapFolder(tmp_path / "swap", Woken(), proc).allowed() is may
    (proc / "self/status").write_text("Name:\tx\n")
    assert SwapFolder(tmp_path / "swap", Woken(), proc).allowed() is False


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("pages", [2, 257, 600])
def test_an_areas_file_is_whole_private_and_made_once(
    tmp_path: Path, proc: Path, pages: int, is_written: bool
) -> None:
    """It has its header and room for every page, nobody else reads it, and one that is there is not touched."""
    folder = SwapFolder(tmp_path / "a/swap", Woken(), proc)
    assert folder.make("one", pages, is_written) == 0
    file = Path(folder.path("one"))
    assert file.read_bytes() == header(pages) + bytes((pages - 1) * PAGE_SIZE)
    assert file.stat().st_blocks * 512 >= pages * PAGE_SIZE, "each page has its place on the disk"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    file.write_bytes(b"mine")
    assert folder.make("one", pages, is_written) == -errno.EEXIST and file.read_bytes() == b"mine"
    assert (folder.remove("one"), folder.remove("one"), file.exists()) == (0, -errno.ENOENT, False)


def test_an_area_that_finds_no_room_leaves_no_file(tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC in the middle is told, and the folder is as it was; a folder that cannot be made is told too."""
    folder = SwapFolder(tmp_path / "swap", Woken(), proc)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert folder.make("one", 4, False) == -errno.ENOSPC and list((tmp_path / "swap").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert SwapFolder(tmp_path / "file/swap", Woken(), proc).make("one", 4, False) == -errno.ENOTDIR


def test_what_a_killed_service_left_is_removed_unless_the_kernel_uses_it(tmp_path: Path, proc: Path) -> None:
    """A start removes files of its folder, but for those of areas in use; another folder's areas are not ours."""
    swap = tmp_path / "swap"
    swap.mkdir()
    for name in ("used", "left", "elsewhere"):
        (swap / name).write_text("")
    rows = [f"{swap / 'used'} file 400 0 3", f"{tmp_path / 'elsewhere'} file 400 0 3"]
    (proc / "swaps").write_text("\n".join(["Filename Type Size Used Priority", *rows]) + "\n")
    SwapFolder(swap, Woken(), proc)
    assert [file.name for file in swap.iterdir()] == ["used"]
    (proc / "swaps").unlink()
    SwapFolder(swap, Woken(), proc)
    assert list(swap.iterdir()) == []


def test_a_setting_is_a_line_in_its_file(tmp_path: Path, proc: Path) -> None:
    """The value is written as text; a setting that this kernel lacks is an error."""
    folder = SwapFolder(tmp_path / "swap", Woken(), proc)
    (proc / "sys/vm/swappiness").write_text("60\n")
    assert folder.tune("swappiness", 10) == 0 and (proc / "sys/vm/swappiness").read_text() == "10\n"
    (proc / "sys/vm/page-cluster").mkdir()
    assert folder.tune("page-cluster", 3) == -errno.EISDIR


async def test_how_taking_out_of_use_ended_is_told_once(tmp_path: Path, proc: Path) -> None:
    """Whoever waits is woken; the kernel's refusal of a file that is no area is its error, and is told one time."""
    woken = Woken()
    folder = SwapFolder(tmp_path / "swap", woken, proc)
    assert folder.make("one", 4, False) == 0
    assert folder.begin_off("one") == 0 and folder.off("one") is None
    await folder._going["one"]
    told = folder.off("one")
    assert told in (-errno.EINVAL, -errno.EPERM) and folder.off("one") is None
    assert woken.keys == [("swapoff", "one")]
    assert folder.on("none", 3) in (-errno.ENOENT, -errno.EPERM)


async def test_a_stop_of_taking_out_of_use_ends_its_process(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed and waited for, nothing is told, and a second stop does nothing."""
    monkeypatch.setattr("lamina_mmu.io.linux.swap._command", lambda path: ["sleep", "1000"])
    woken = Woken()
    folder = SwapFolder(tmp_path / "swap", woken, proc)
    folder.begin_off("one")
    task = folder._going["one"]
    await asyncio.sleep(0)
    folder.stop_off("one")
    folder.stop_off("one")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert folder.off("one") is None and not woken.keys


def test_a_stop_of_the_service_takes_its_areas_out_of_use(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each area that the kernel uses is taken out of use by its path; what is left in the folder goes."""
    folder = SwapFolder(tmp_path / "swap", Woken(), proc)
    for name in ("one", "two"):
        assert folder.make(name, 4, False) == 0
    line = f"{folder.path('two')} file 12 0 3\n"
    (proc / "swaps").write_text("Filename Type Size Used Priority\n" + line)
    taken: list[str] = []
    monkeypatch.setattr("lamina_mmu.io.linux.swap._command", lambda path: taken.append(path) or ["true"])  # type: ignore[func-returns-value]
    folder.close()
    assert taken == [folder.path("two")]
    assert not Path(folder.path("one")).exists() and Path(folder.path("two")).exists()


# ── cgroups ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [1, 2])
def test_the_subtree_is_called_after_host_and_process(tmp_path: Path, proc: Path, version: int) -> None:
    """One directory below the mount, by PID namespace, PID and start; version 2 has its memory controller on."""
    mount = tmp_path / "cgroup"
    mounted(proc, mount, version)
    alive(proc, os.getpid(), 777)
    if version == 1:
        tree = open_cgroups("h1", proc)
        assert isinstance(tree, CgroupSubtree) and tree.version == 1 and tree.why == ""
        assert tree.top == mount / f"lamina-h1.4026531836.{os.getpid()}.777" and tree.top.is_dir()
        again = open_cgroups("h1", proc)
        assert isinstance(again, CgroupSubtree) and again.top.name == f"{tree.top.name}.1", "a name is taken once"
        assert (tree.close(), tree.close(), tree.top.exists()) == (0, 0, False)
        return
    refused = open_cgroups("h1", proc)  # a directory of ours has no files of the kernel in it
    assert isinstance(refused, NoCgroups) and "memory controller cannot be used below" in refused.why
    assert (mount / "cgroup.subtree_control").read_text() == "+memory" and not list(mount.glob("lamina-*"))


def test_without_the_memory_controller_there_are_no_groups(tmp_path: Path, proc: Path) -> None:
    """Neither a host without hierarchies nor one whose version 2 lacks it has groups; every call says ENOSYS."""
    (proc / "self/mountinfo").write_text("")
    assert find(proc) is None
    none = open_cgroups("h1", proc)
    assert isinstance(none, NoCgroups) and none.version == 0 and "memory controller" in none.why
    told = (none.make("a"), none.remove("a"), none.read("a", "b"), none.put("a", "b", "c"), none.watch("a", print))
    assert told == (-errno.ENOSYS,) * 5 and none.close() == 0
    mounted(proc, tmp_path / "cgroup", 2)
    assert find(proc) is not None
    (tmp_path / "cgroup/cgroup.controllers").write_text("cpu io\n")
    assert find(proc) is None
    mounted(proc, tmp_path / "other", 2)
    (tmp_path / "other/cgroup.subtree_control").unlink()
    refused = open_cgroups("h1", proc)
    assert isinstance(refused, NoCgroups) and "No such file" in refused.why


def test_a_mount_that_takes_no_group_says_so(tmp_path: Path, proc: Path) -> None:
    """The reason is the kernel's."""
    mounted(proc, tmp_path / "cgroup", 1)
    (tmp_path / "cgroup").rmdir()
    (tmp_path / "cgroup").write_text("")
    alive(proc, os.getpid(), 1)
    refused = open_cgroups("h1", proc)
    assert isinstance(refused, NoCgroups) and "no group can be made" in refused.why and "directory" in refused.why


def test_subtrees_of_dead_processes_are_removed(tmp_path: Path, proc: Path) -> None:
    """Dead is whose PID has nobody, or somebody who started later; of other hosts and namespaces nothing is touched."""
    alive(proc, 10, 500)
    here = "4026531836"
    left = [f"lamina-h1.{here}.10.400", f"lamina-h1.{here}.11.1"]
    kept = [f"lamina-h1.{here}.10.500", "lamina-h1.99.11.1", f"lamina-h2.{here}.11.1", "lamina-h1.odd", "else"]
    for name in (*left, *kept):
        (tmp_path / "cgroup" / name / "web/leaf").mkdir(parents=True)
    assert remove_leftovers(tmp_path / "cgroup", "h1", proc) == left
    assert sorted(path.name for path in (tmp_path / "cgroup").iterdir()) == sorted(kept)


def test_processes_of_a_removed_subtree_go_above_it(tmp_path: Path, proc: Path) -> None:
    """The kernel removes no group with a process in it: each is written to the group above the subtree's top."""
    mount = tmp_path / "cgroup"
    leaf = mount / f"lamina-h1.{4026531836}.11.1/web"
    leaf.mkdir(parents=True)
    (mount / "cgroup.procs").write_text("")
    (leaf / "cgroup.procs").write_text("77\n")
    assert remove_leftovers(mount, "h1", proc) == [], "a directory with a file of ours in it stays"
    assert (mount / "cgroup.procs").read_text() == "77" and leaf.is_dir()


def test_files_of_groups_are_read_and_written(tmp_path: Path) -> None:
    """What the kernel refuses is its error, below zero."""
    (tmp_path / "top").mkdir()
    tree = CgroupSubtree(1, tmp_path / "top")
    assert (tree.make("web"), tree.make("web"), tree.make("no/web")) == (0, -errno.EEXIST, -errno.ENOENT)
    assert (tree.put("web", "memory.max", "1"), tree.read("web", "memory.max")) == (-errno.ENOENT, -errno.ENOENT)
    (tmp_path / "top/web/memory.max").write_text("max\n")
    assert tree.put("web", "memory.max", "4096") == 0
    assert str(tree.read("web", "memory.max")).startswith("4096")
    assert (tree.put("", "web", "1"), tree.remove("web"), tree.remove("none")) == (
        -errno.EISDIR, -errno.ENOTEMPTY, -errno.ENOENT,
    )  # fmt: skip
    assert tree.close() == -errno.ENOTEMPTY, "what stays is told"


def test_version_2_has_limits_below_a_group_but_not_below_its_processes(tmp_path: Path) -> None:
    """A new group wants the memory controller for those below it; one for processes must not have it."""
    tree = CgroupSubtree(2, tmp_path)
    assert tree.make("web") == -errno.ENOENT, "its subtree control is written, which a plain directory lacks"
    assert tree.make("web/_own") == 0


async def test_changes_of_a_group_are_told_until_its_watch_ends(tmp_path: Path, eventually: Any) -> None:
    """Each change of its events calls once more; a second watch takes the place of the first, and an end is an end."""
    (tmp_path / "web").mkdir()
    events = tmp_path / "web/memory.events"
    events.write_text("")
    tree, told = CgroupSubtree(2, tmp_path), []
    assert tree.watch("web", lambda: told.append(0)) == 0 and tree.watch("web", lambda: told.append(1)) == 0
    assert len(tree._watches) == 1
    events.write_text("oom 1\n")
    await eventually(lambda: told, "the change is told")
    assert set(told) == {1}
    tree.unwatch("web")
    tree.unwatch("web")
    told.clear()
    events.write_text("oom 2\n")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not told and not tree._watches
    assert tree.watch("none", print) == -errno.ENOENT
    assert CgroupSubtree(1, tmp_path).watch("web", print) == -errno.ENOENT
    (tmp_path / "web/memory.oom_control").write_text("")
    assert CgroupSubtree(1, tmp_path).watch("web", print) == -errno.ENOENT, "the kernel is told where to tell"
    (tmp_path / "web/cgroup.event_control").write_text("")
    old = CgroupSubtree(1, tmp_path)
    assert old.watch("web", lambda: told.append(2)) == 0
    ((descriptor, control),) = [(tmp_path / "web/cgroup.event_control").read_text().split()]
    assert int(descriptor) == old._watches["web"] and control.isdecimal()
    os.eventfd_write(int(descriptor), 1)
    await eventually(lambda: told, "the kernel's word is told")
    assert told == [2]
    old.unwatch("web")


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_of_proc_are_read_from_anywhere(proc: Path) -> None:
    """As many words as there are; a file that is not there is an error, and beyond all files there is nothing."""
    memory = ProcMemory(proc)
    (proc / "kpagecount").write_bytes(b"".join(n.to_bytes(8, "little") for n in (5, 6, 1 << 63)) + b"abc")
    assert memory.words("kpagecount", 1, 9) == [6, 1 << 63] and memory.words("kpagecount", 0, 1) == [5]
    assert memory.words("kpagecount", 1 << 62, 1) == [] and memory.words("none", 0, 1) == -errno.ENOENT
    assert memory.text("none") == "" and memory.compact() == 0
    assert (proc / "sys/vm/compact_memory").read_text() == "1"
    assert ProcMemory(proc / "none").compact() == -errno.ENOENT


def test_a_memory_file_knows_what_was_written() -> None:
    """Pieces that hold data, none of the holes between; refusals are the kernel's, and leave nothing open."""
    files = MemoryFiles()
    before = len(os.listdir("/proc/self/fd"))
    assert files.create("x", -1) == -errno.EINVAL
    assert len(os.listdir("/proc/self/fd")) == before
    content = files.create("x", 8 * PAGE_SIZE)
    try:
        assert files.write(content, 2 * PAGE_SIZE, b"abc") == 3 and files.read(content, 2 * PAGE_SIZE, 4) == b"abc\0"
        files.write(content, 5 * PAGE_SIZE - 1, b"ab")
        pieces = [(2 * PAGE_SIZE, 3 * PAGE_SIZE), (4 * PAGE_SIZE, 6 * PAGE_SIZE)]
        assert files.written(content, 0, 8 * PAGE_SIZE) == pieces
        assert files.written(content, 0, 5 * PAGE_SIZE) == [pieces[0], (4 * PAGE_SIZE, 5 * PAGE_SIZE)]
        assert files.written(content, 0, 4 * PAGE_SIZE) == pieces[:1]
        assert files.written(content, 6 * PAGE_SIZE, 8 * PAGE_SIZE) == []
        assert files.blocks(content) == 3 and files.resident(content, 8 * PAGE_SIZE) == 3
        assert files.resize(content, 4 * PAGE_SIZE) == 0 and files.blocks(content) == 1
        assert files.resize(content, -1) == -errno.EINVAL and files.inode(content) == os.fstat(content).st_ino
    finally:
        files.close(content)
    assert files.write(-1, 0, b"x") == -errno.EBADF
