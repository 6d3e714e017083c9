"""States that several snippets begin in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.contract.hardware.snippets.places import IDT, KSTACK, PAGE, STUBS, TSS
from tests.contract.hardware.snippets.recorder import gate

P, RW = 1, 2
Prepare = Callable[[Any], None]


def mapped(bits: int = P | RW) -> Prepare:
    """PAGE is mapped to a fresh frame."""

    def prepare(machine: Any) -> None:
        machine.map(PAGE, bits)

    return prepare


def absent(machine: Any) -> None:
    """PAGE is not present, the page behind it is; R12 points to the entry, and R13 would map it to a frame of 0x99."""
    machine.map(PAGE + 0x1000, P | RW)
    gpa = machine.map(PAGE, 0)
    machine.bench.bus.write(machine.guest.host_of(gpa), (0x99).to_bytes(8, "little") * 512)
    machine.page.r12, machine.page.r13 = machine.window(PAGE), gpa | P | RW


def no_gate(vector: int) -> Prepare:
    """The IDT's entry of a vector is empty."""
    return lambda machine: machine.store(IDT + 16 * vector, 0, 0)


def on_another_stack(vector: int) -> Prepare:
    """A vector has the first stack of the interrupt stack table, two pages below the kernel's."""

    def prepare(machine: Any) -> None:
        machine.write(IDT + 16 * vector, gate(STUBS + 16 * vector, ist=1))
        machine.write(TSS + 36, (KSTACK - 0x2000).to_bytes(8, "little"))

    return prepare


def stack_ends(machine: Any) -> None:
    """PAGE is not present but has its tables, and page faults have a stack of their own."""
    machine.map(PAGE, 0)
    on_another_stack(14)(machine)
