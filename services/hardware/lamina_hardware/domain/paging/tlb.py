"""What a core's TLB holds, for whoever looks. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class TlbSlot:
    """One translation that a core may use without a walk: of one page of 4 KiB, at ring 3 (`user`) or below."""

    address: int
    user: bool
    physical: int
    writable: bool
    executable: bool


@dataclass(frozen=True, slots=True)
class TlbContent:
    """All of them, with the roots that they are of; `cr4` says what the low bits of `cr3` are."""

    cr3: int
    cr4: int
    eptp: int
    slots: tuple[TlbSlot, ...]


EMPTY = TlbContent(0, 0, 0, ())
