"""Accesses that an exit left unfinished, with which the next run of a vCPU goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Kept:
    """An access that the EPT refused, `rip` where the context stood. `data` is what a store stores, None for a read."""

    gpa: int
    size: int
    data: bytes | None
    rip: int


@dataclass(slots=True)
class Items:
    """Items of an INS that KVM asked for at once: where they go in `kvm_run`, their size, how many, how many are."""

    place: int
    size: int
    count: int
    done: int = 0
