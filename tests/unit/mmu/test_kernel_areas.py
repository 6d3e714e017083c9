"""Swap areas of the kernel over a stand-in for it: names, refusals, drains, settings; files of /proc, fuzzed."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.errors import LaminaError
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.kernel.cgroups import flat, hierarchies, number, pressure
from lamina_mmu.domain.kernel.swap import areas, header, watermarks
from lamina_mmu.domain.ports import Ports
from lamina_mmu.engines.linux.swap_areas import KernelAreas

HEADING = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
ZONES = """Node 0, zone      DMA
  pages free     3840
        min      10
        low      13
        high     16
    cpu: 0
              high:  0
Node 0, zone   Normal
        low      1000
        high     1200
"""


class FakeKernel:
    """Implements `KernelSwap` and the part of `KernelMemory` that is asked for; `errors` by what is called."""

    def __init__(self) -> None:
        self.lines: dict[str, tuple[int, int, int]] = {}
        self.files: list[str] = []
        self.errors: dict[str, list[int]] = {}
        self.vm = {"swappiness": 60, "page-cluster": 3}
        self.is_allowed = True
        self.stopped: list[str] = []
        self.result: int | None = None

    def _error(self, call: str) -> int:
        left = self.errors.get(call, [])
        return -left.pop(0) if left else 0

    def text(self, name: str) -> str:
        """Returns a file of /proc."""
        if name == "zoneinfo":
            return ZONES
        if name == "swaps":
            rows = (f"{path} file {size * 4} {used * 4} {rank}\n" for path, (size, used, rank) in self.lines.items())
            return HEADING + "".join(rows)
        return f"{self.vm[name.removeprefix('sys/vm/')]}\n"

    def allowed(self) -> bool:
        """Returns whether it may."""
        return self.is_allowed

    def path(self, name: str) -> str:
        """Returns the path of an own area."""
        return f"/state/{name}"

    def make(self, name: str, pages: int, is_written: bool) -> int:
        """Makes a file."""
        error = self._error("make")
        if not error:
            self.files.append(f"{name} {pages} {'written' if is_written else 'room'}")
        return error

    def on(self, name: str, priority: int) -> int:
        """Takes it into use."""
        error = self._error("on")
        if not error:
            self.lines[self.path(name)] = (int(self.files[-1].split()[1]) - 1, 0, priority)
        return error

    def begin_off(self, name: str) -> int:
        """Begins."""
        return self._error("off")

    def off(self, name: str) -> int | None:
        """Returns what was set."""
        return self.result

    def stop_off(self, name: str) -> None:
        """Notes it."""
        self.stopped.append(name)

    def remove(self, name: str) -> int:
        """Removes a file."""
        self.files = [file for file in self.files if file.split()[0] != name]
        return 0

    def tune(self, setting: str, value: int) -> int:
        """Writes a setting."""
        error = self._error(setting)
        if not error:
            self.vm[setting] = value
        return error

    def has_generations(self) -> bool:
        """Returns that there are none."""
        return False


@pytest.fixture
def kernel() -> FakeKernel:
    """Returns a kernel."""
    return FakeKernel()


@pytest.fixture
def swap(kernel: FakeKernel) -> KernelAreas:
    """Returns the areas over it."""
    nothing: Any = None
    either: Any = kernel
    ports = Ports("h1", nothing, nothing, lambda: 0, lambda *a, **k: None, lambda key, told: None)
    return KernelAreas(ports, either, either)


def refused(reason: str, call: Any, *arguments: Any) -> LaminaError:
    """Calls what must be refused with a reason."""
    with pytest.raises(LaminaError) as error:
        call(*arguments)
    assert error.value.reason == reason
    return error.value


def test_areas_of_the_host_are_shown_by_their_paths(kernel: FakeKernel, swap: KernelAreas) -> None:
    """Own areas have the names they were given, others are called after their paths, each once; the order is stable."""
    kernel.lines = {
        "/dev/sda2": (100, 5, -2),
        "/swap.img": (50, 0, 3),
        "/SWAP\\040img": (9, 0, 3),
        "/state/mine": (10, 1, 3),
    }
    found = [(view.name, view.slots, view.used, view.priority) for view in swap.listed()]
    assert found == [
        ("host-swap-img", 50, 0, 3),
        ("host-swap-img-2", 9, 0, 3),
        ("mine", 10, 1, 3),
        ("host-dev-sda2", 100, 5, 0),
    ]
    refused("SWAP_AREA_FOREIGN", swap.begin_drain, "host-dev-sda2")
    refused("SWAP_AREA_UNKNOWN", swap.view, "none")


def test_a_file_system_that_wants_written_pages_gets_them(kernel: FakeKernel, swap: KernelAreas) -> None:
    """The kernel's EINVAL for an area of unwritten pages is answered with one of zeros; one page more is the header."""
    kernel.errors = {"on": [errno.EINVAL]}
    swap.create("a", 10, 5)
    assert kernel.files == ["a 11 written"] and swap.view("a").slots == 10


@pytest.mark.parametrize(
    ("call", "number_of", "reason"),
    [
        ("make", errno.ENOSPC, "SWAP_DEVICE_FULL"),
        ("make", errno.EEXIST, "SWAP_FILE_FOREIGN"),
        ("make", errno.EROFS, "SWAP_MEDIUM_MISSING"),
        ("make", errno.EIO, "SWAP_FAILED"),
        ("on", errno.EACCES, "SWAP_MEDIUM_MISSING"),
        ("on", errno.ENOMEM, "NO_FREE_FRAME"),
    ],
)
def test_errors_of_the_kernel_have_reasons(
    kernel: FakeKernel, swap: KernelAreas, call: str, number_of: int, reason: str
) -> None:
    """What the kernel refuses is told by its reason, and no file is left."""
    kernel.errors = {call: [number_of]}
    refused(reason, swap.create, "a", 10, 5)
    assert not kernel.files and not swap.listed()


def test_limits_and_rights_are_checked(kernel: FakeKernel, swap: KernelAreas) -> None:
    """A name once, 32 areas at most, and none without the right to."""
    swap.create("a", 10, 0)
    refused("SWAP_AREA_EXISTS", swap.create, "a", 10, 0)
    kernel.errors = {"on": [errno.EPERM]}
    refused("TOO_MANY_SWAP_AREAS", swap.create, "b", 10, 0)
    kernel.lines.update({f"/dev/sd{index}": (10, 0, -index) for index in range(31)})
    refused("TOO_MANY_SWAP_AREAS", swap.create, "b", 10, 0)
    kernel.is_allowed = False
    refused("CAPABILITY_MISSING", swap.create, "c", 10, 0)
    refused("CAPABILITY_MISSING", swap.begin_drain, "a")


def test_a_drain_tells_how_far_it_is(kernel: FakeKernel, swap: KernelAreas) -> None:
    """What left the area came back; a drain that is ended before, or fails, leaves the area in use."""
    swap.create("a", 10, 0)
    kernel.lines["/state/a"] = (10, 8, 0)
    drain = swap.begin_drain("a")
    refused("SWAP_AREA_DRAINING", swap.begin_drain, "a")
    assert swap.view("a").state.name == "DRAINING"
    kernel.lines["/state/a"] = (10, 3, 0)
    assert not list(swap.drain(drain))[1:]
    assert (drain.returned, drain.remaining, drain.done) == (5, 3, False)
    swap.end_drain(drain)
    assert kernel.stopped == ["a"] and swap.view("a").state.name == "ACTIVE"
    again = swap.begin_drain("a")
    kernel.result = -errno.ENOMEM
    refused("NO_FREE_FRAME", lambda: list(swap.drain(again)))
    swap.end_drain(again)
    last = swap.begin_drain("a")
    kernel.result = 0
    del kernel.lines["/state/a"]
    assert len(list(swap.drain(last))) == 1
    assert (last.returned, last.remaining, last.done) == (3, 0, True) and not kernel.files


def test_settings_are_changed_all_or_none(kernel: FakeKernel, swap: KernelAreas) -> None:
    """Readahead is a power of two; when the kernel refuses the second change the first is taken back."""
    settings = swap.settings()
    assert (settings.swappiness, settings.readahead_pages, settings.policy) == (60, 8, "lru")
    assert (settings.low_watermark_frames, settings.high_watermark_frames) == (1013, 1216)
    swap.update({"readahead_pages": 32, "swappiness": 10})
    assert kernel.vm == {"swappiness": 10, "page-cluster": 5}
    kernel.errors = {"swappiness": [errno.EACCES]}
    refused("SYSCTL_REFUSED", swap.update, {"readahead_pages": 1, "swappiness": 99})
    assert kernel.vm == {"swappiness": 10, "page-cluster": 5}
    assert "policy" in str(refused("CAPABILITY_MISSING", swap.update, {"swappiness": 1, "policy": "lru"}))
    assert kernel.vm["swappiness"] == 10


def test_the_header_is_that_of_mkswap() -> None:
    """Version 1, the number of the last page, no bad ones; the signature ends the first page."""
    page = header(100)
    assert len(page) == PAGE_SIZE and page[-10:] == b"SWAPSPACE2"
    assert struct.unpack_from("<3I", page, 1024) == (1, 99, 0)


@given(st.text(max_size=300))
def test_no_text_breaks_the_parsers(text: str) -> None:
    """Whatever a file says, something is returned, and numbers are numbers."""
    assert all(area.slots >= 0 for area in areas(HEADING + text))
    assert all(value >= 0 for value in flat(text).values())
    assert min(watermarks(text)) >= 0 and (number(text) or 0) >= 0
    assert min(pressure(text).some_ppm) >= 0
    assert all(found.version in (1, 2) for found in hierarchies(text))


def test_hierarchies_are_found_in_hybrid_hosts() -> None:
    """Version 1 is named by its controller, version 2 by its kind; blanks in mount points are read."""
    text = (
        "25 30 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "26 30 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "27 30 0:24 / /sys/fs/my\\040memory rw shared:9 - cgroup cgroup rw,memory\n"
    )
    assert [(one.version, one.mount) for one in hierarchies(text)] == [
        (1, "/sys/fs/my memory"),
        (2, "/sys/fs/cgroup/unified"),
    ]
