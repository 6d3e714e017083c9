"""What an operation of the MMU asks the shell for in its middle. Pure.

Beside these, `lamina_kit.effects.WaitFor` waits for one of the keys below. While an effect is performed other
operations run: what was looked up before is looked up again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from lamina_kit.effects import Effect

ANSWER_NS = 1_000_000_000
"""How long a holder may leave a revocation or a request for accessed bits unanswered (1 s), then it is fenced."""


@dataclass(frozen=True)
class Shootdown(Effect):
    """Drops translations from every core; when it is performed no core uses the old ones. Result: None.

    `root` is the physical address of a root table (or `eptp` that of a holder's second stage); `ranges` are (address,
    bytes), page aligned, none meaning all addresses.
    """

    root: int
    ranges: tuple[tuple[int, int], ...] = ()
    eptp: int = 0


@dataclass(frozen=True)
class Answer(Effect):
    """Waits until `key` is woken, at most `within_ns`. Result: what the waker gave; None when time ran out."""

    key: Hashable
    within_ns: int = ANSWER_NS


@dataclass(frozen=True)
class Aside(Effect):
    """Has `work` done while others go on, because the kernel may take long over it. Result: what `work` returns.

    Only engines that run in real time ask for it.
    """

    work: Callable[[], object]


def frame_key(frame: int) -> tuple[str, int]:
    """Returns the key that is woken when `frame` is in transit no longer."""
    return ("frame", frame)


def isolation_key(first: int) -> tuple[str, int]:
    """Returns the key that is woken when the range that begins at frame `first` is in circulation again."""
    return ("isolation", first)


def fault_key(space: int, vpn: int) -> tuple[str, int, int]:
    """Returns the key that is woken when the fault that works on a page of a space is done."""
    return ("fault", space, vpn)


def request_key(request: str) -> tuple[str, str]:
    """Returns the key that is woken when the first call with a request id is done."""
    return ("request", request)


def outbox_key(hold: int) -> tuple[str, int]:
    """Returns the key that is woken when a holder's outbox has something new."""
    return ("outbox", hold)


def supply_outbox_key(supply: int) -> tuple[str, int]:
    """Returns the key that is woken when a supplier's outbox has something new."""
    return ("supply outbox", supply)


def supply_answer_key(supply: int, sequence: int) -> tuple[str, int, int]:
    """Returns the key that is woken when a supplier answers."""
    return ("supply answer", supply, sequence)


def answer_key(hold: int, sequence: int) -> tuple[str, int, int]:
    """Returns the key that is woken when a holder answers."""
    return ("answer", hold, sequence)


def ended_key(hold: int) -> tuple[str, int]:
    """Returns the key that is woken when a hold has ended."""
    return ("ended", hold)


def swap_area_key(index: int) -> tuple[str, int]:
    """Returns the key that is woken when a transfer of the swap area with an index has ended."""
    return ("swap area", index)


@dataclass(frozen=True)
class OpenSwapDisk(Effect):
    """Finds a disk of the machine for a new swap area. Result: a `domain.swap.transfers.DiskStore` of `slots` pages.

    DISK_UNKNOWN; SWAP_DEVICE_FULL when the disk is too small.
    """

    disk: str
    slots: int


ZEROED = ("zeroed",)
"""The key that is woken when the stock of zeroed frames runs low."""


def plug_key(plug: int) -> tuple[str, int]:
    """Returns the key that is woken when there is something to say to a plugged policy, or it is unplugged."""
    return ("plug", plug)


def plug_answer_key(plug: int, sequence: int) -> tuple[str, int, int]:
    """Returns the key that is woken when a plugged policy answers."""
    return ("plug answer", plug, sequence)


PRESSURE = ("pressure",)
"""The key that is woken when free frames fall below the low watermark."""
