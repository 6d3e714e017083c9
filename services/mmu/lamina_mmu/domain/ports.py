"""What the domain may have from outside, as ports that the shell fills. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamina_mmu.domain.frames.ram import Ram
from lamina_mmu.domain.kernel.port import Kernel
from lamina_mmu.domain.policy import Policy
from lamina_mmu.domain.swap.areas import SwapStore
from lamina_mmu.domain.swap.transfers import DiskStore


class Journal(Protocol):
    """The ordered event log of the layer; with a `rule` the entry is a decision that `Explain` returns."""

    def __call__(self, object: str, event: str, *, cause: str = "", rule: str = "", **inputs: object) -> object:
        """Appends what happened to `object`."""


class SwapMedia(Protocol):
    """Makes and removes what swap areas lie on, beside the first one."""

    def open(self, name: str, slots: int, disk: Any = None, /) -> SwapStore | DiskStore:
        """Returns a store of `slots` pages for the area `name`, `disk` if it is given.

        SWAP_DEVICE_FULL when the medium has no room for it.
        """

    def remove(self, name: str, /) -> None:
        """Gives back what the area `name` lies on, and its room."""


@dataclass(frozen=True)
class Ports:
    """RAM, swap, time (ns since the stack's start), the event log, and the way to wake steps that wait for a key.

    Without `media` no further swap areas can be made.
    `trace` returns the id of the trace that is being served, empty without one. `kernel` is there for engines on the
    kernel alone; their `ram` and `swap` hold nothing.
    """

    host: str
    ram: Ram
    swap: SwapStore
    now_ns: Callable[[], int]
    record: Journal
    wake: Callable[[Hashable, object], object]
    trace: Callable[[], str] = str
    media: SwapMedia | None = None
    kernel: Kernel | None = None


@dataclass(frozen=True)
class Settings:
    """What can be chosen: the replacement policy; how many frames of RAM are used (0: all of them).

    `installed` are policies beside Lamina's own, by name; `readahead`: pages read around a slot that is needed, a power
    of 2; `zeroed`: frames kept zeroed ahead of need.
    """

    policy: str = "lru"
    frames: int = 0
    installed: Mapping[str, type[Policy]] = field(default_factory=dict)
    readahead: int = 8
    zeroed: int = 0
