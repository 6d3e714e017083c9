"""Swap areas of the kernel: those of this service, in files of its own, and those that the host has anyway.

Areas of the service are called as they were asked for; those of the host `host-` and their path, and they are shown,
not touched. The kernel counts what was written and read for the whole host, and not by area (`Frames.GetMemory`); it
tells nobody what is in a slot.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lamina_kit.effects import Step
from lamina_kit.errors import AlreadyExists, FailedPrecondition, Internal, LaminaError, NotFound, ResourceExhausted
from lamina_mmu.domain.effects import Answer
from lamina_mmu.domain.kernel.cgroups import number
from lamina_mmu.domain.kernel.port import KernelMemory
from lamina_mmu.domain.kernel.swap import Area, KernelSwap, areas, off_key, watermarks
from lamina_mmu.domain.ports import Ports
from lamina_mmu.domain.swap.areas import State as AreaState
from lamina_mmu.domain.views import SwapAreaView, SwapSettingsView
from lamina_mmu.engines.linux.refusals import refuse

MOST_AREAS = 32
TOLD_NS = 500_000_000
"""How often a drain tells how far it is (twice a second)."""
_LONGEST_NAME = 63
_NEXT = "List the areas (ListSwapAreas)."


@dataclass(eq=False, slots=True)
class KernelDrain:
    """How far an area is drained: what is out of it came back to RAM, as far as anybody can tell."""

    name: str
    began: int
    remaining: int
    returned: int = 0
    moved: int = 0
    done: bool = False


class KernelAreas:
    """All areas of the kernel."""

    def __init__(self, ports: Ports, memory: KernelMemory, swap: KernelSwap) -> None:
        self._ports, self._memory, self._swap = ports, memory, swap
        self._drains: dict[str, KernelDrain] = {}

    def listed(self) -> list[SwapAreaView]:
        """Returns all areas by priority, the highest first, then by name."""
        found = [self._view(name, area) for name, area in self._named().items()]
        return sorted(found, key=lambda view: (-view.priority, view.name))

    def view(self, name: str) -> SwapAreaView:
        """Returns one area; SWAP_AREA_UNKNOWN."""
        return self._view(name, self._area(name))

    def create(self, name: str, slots: int, priority: int) -> str:
        """Makes an area and takes it into use; returns its name."""
        named = self._named()
        if name in named:
            raise AlreadyExists(
                f"The swap area {name} exists.", reason="SWAP_AREA_EXISTS", next_step="Take another name, or delete it."
            )
        self._need()
        if len(named) >= MOST_AREAS:
            raise _too_many(len(named))
        error = self._make(name, slots + 1, priority)
        if error < 0:
            self._swap.remove(name)
            raise self._failed(error, name, len(named))
        self._record(name, "swap_area.created", slots=slots, priority=priority)
        return name

    def _make(self, name: str, pages: int, priority: int) -> int:
        """Returns 0, or the error. Some file systems want the pages of an area written before it is used."""
        error = 0
        for is_written in (False, True):
            error = self._swap.make(name, pages, is_written)
            if error == 0:
                error = self._swap.on(name, priority)
                if error != -errno.EINVAL:
                    return error
                self._swap.remove(name)
            elif error != -errno.EOPNOTSUPP:
                return error
        return error

    # ── out of use ───────────────────────────────────────────────────────────────────────────────────────────────

    def begin_drain(self, name: str) -> KernelDrain:
        """Begins to take an area of this service out of use."""
        area = self._area(name)
        if area.path != self._swap.path(name):
            raise FailedPrecondition(
                f"The swap area {name} is {area.path} of the host, not of this service.",
                reason="SWAP_AREA_FOREIGN",
                next_step="Take it out of use with swapoff(8), if it is yours.",
            )
        if name in self._drains:
            raise FailedPrecondition(
                f"The swap area {name} is already being taken out of use.",
                reason="SWAP_AREA_DRAINING",
                next_step="Wait for the call that does it.",
            )
        self._need()
        error = self._swap.begin_off(name)
        if error < 0:
            raise self._failed(error, name, 0)
        drain = self._drains[name] = KernelDrain(name, area.used, area.used)
        return drain

    def drain(self, drain: KernelDrain) -> Step[None]:
        """Waits until the area is out of use, half a second at most."""
        yield Answer(off_key(drain.name), TOLD_NS)
        result = self._swap.off(drain.name)
        area = self._named().get(drain.name)
        drain.remaining = 0 if result == 0 or area is None else area.used
        drain.returned = max(0, drain.began - drain.remaining)
        if result is None:
            return
        if result < 0:
            raise self._failed(result, drain.name, 0)
        drain.done = True
        self._swap.remove(drain.name)
        self._record(drain.name, "swap_area.deleted")

    def end_drain(self, drain: KernelDrain) -> None:
        """Ends a drain; an area that is not empty is used again."""
        if self._drains.get(drain.name) is drain:
            del self._drains[drain.name]
            if not drain.done:
                self._swap.stop_off(drain.name)

    # ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────

    def settings(self) -> SwapSettingsView:
        """Returns the host's settings. The policy is `mglru` where the kernel has generations, else `lru`."""
        low, high = watermarks(self._memory.text("zoneinfo"))
        return SwapSettingsView(
            policy="mglru" if self._swap.has_generations() else "lru",
            swappiness=number(self._memory.text("sys/vm/swappiness")) or 0,
            readahead_pages=1 << min(6, number(self._memory.text("sys/vm/page-cluster")) or 0),
            low_watermark_frames=low,
            high_watermark_frames=high,
            zeroed_frames=0,
        )

    def update(self, changes: Mapping[str, int | str]) -> None:
        """Changes settings of the host, all or none. Watermarks and zeroed frames are the kernel's own."""
        for field in changes:
            if field not in ("swappiness", "readahead_pages"):
                raise refuse("swap", f"set {field}, which the kernel chooses itself", "Leave it out.")
        before = self.settings()
        done: list[str] = []
        for field in sorted(changes):
            error = self._tune(field, int(changes[field]))
            if error < 0:
                for other in done:
                    self._tune(other, int(getattr(before, other)))
                raise FailedPrecondition(
                    f"The kernel does not take {field}: {os.strerror(-error)}.",
                    reason="SYSCTL_REFUSED",
                    next_step="Run the MMU as root in the host's own namespaces.",
                )
            done.append(field)
        self._ports.record(f"hosts/{self._ports.host}", "swap_settings.changed", **dict[str, int | str](changes))  # type: ignore[arg-type]

    def _tune(self, field: str, value: int) -> int:
        if field == "readahead_pages":
            return self._swap.tune("page-cluster", value.bit_length() - 1)
        return self._swap.tune(field, value)

    # ── names, errors ────────────────────────────────────────────────────────────────────────────────────────────

    def _named(self) -> dict[str, Area]:
        """Returns all areas by name, in the kernel's order."""
        found: dict[str, Area] = {}
        for area in areas(self._memory.text("swaps")):
            own = area.path.rpartition("/")[2]
            name = own if area.path == self._swap.path(own) else _foreign(area.path)
            count = 1
            while name in found:
                count += 1
                name = f"{_foreign(area.path)[: _LONGEST_NAME - 4]}-{count}"
            found[name] = area
        return found

    def _area(self, name: str) -> Area:
        area = self._named().get(name)
        if area is None:
            raise NotFound(f"There is no swap area {name}.", reason="SWAP_AREA_UNKNOWN", next_step=_NEXT)
        return area

    def _view(self, name: str, area: Area) -> SwapAreaView:
        state = AreaState.DRAINING if name in self._drains else AreaState.ACTIVE
        return SwapAreaView(name, area.slots, max(0, area.priority), area.used, 0, state, 0, 0, 0)

    def _need(self) -> None:
        if not self._swap.allowed():
            raise refuse("swap", "take swap areas into use and out of it without CAP_SYS_ADMIN", "Run the MMU as root.")

    def _failed(self, error: int, name: str, count: int) -> LaminaError:
        text = os.strerror(-error)
        if error in (-errno.ENOSPC, -errno.EDQUOT, -errno.EFBIG):
            return ResourceExhausted(
                f"The file system has no room for the swap area {name}: {text}.",
                reason="SWAP_DEVICE_FULL",
                next_step="Free space under the state directory, or make a smaller area.",
            )
        if error in (-errno.ENOMEM, -errno.EAGAIN):
            return ResourceExhausted(
                f"The pages of the swap area {name} find no room in RAM and in other areas.",
                reason="NO_FREE_FRAME",
                next_step="Free memory, or make another area first.",
            )
        if error == -errno.EPERM and count:
            return _too_many(count)
        if error == -errno.EEXIST:
            return FailedPrecondition(
                f"There is a file {self._swap.path(name)}, and it is no swap area in use.",
                reason="SWAP_FILE_FOREIGN",
                next_step="Remove it, or take another name.",
            )
        if error in (-errno.EINVAL, -errno.EOPNOTSUPP, -errno.EROFS, -errno.EACCES, -errno.EPERM):
            return FailedPrecondition(
                f"The file system under the state directory cannot hold swap: {text}.",
                reason="SWAP_MEDIUM_MISSING",
                next_step="Give the MMU a state directory on a local file system such as ext4 or xfs.",
            )
        return Internal(f"The swap area {name} cannot be changed: {text}.", reason="SWAP_FAILED", next_step=_NEXT)

    def _record(self, name: str, event: str, **inputs: int) -> None:
        self._ports.record(f"hosts/{self._ports.host}/swapAreas/{name}", event, **inputs)  # type: ignore[arg-type]


def _foreign(path: str) -> str:
    """Returns the name of an area of the host: `host-dev-sda2` for /dev/sda2."""
    words = re.sub("[^a-z0-9]+", "-", path.lower()).strip("-")
    return f"host-{words}"[:_LONGEST_NAME].rstrip("-")


def _too_many(count: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"There are {count} swap areas, and the kernel takes no more.",
        reason="TOO_MANY_SWAP_AREAS",
        next_step="Delete one, or make them larger.",
    )
