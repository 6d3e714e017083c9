"""What the cores of this layer can do, by their path; known without loading their compiled code."""

from __future__ import annotations

WALKER = (
    "apic", "error-codes", "exact-budget", "exception-exits", "exit-controls", "halt-waits", "instruction-exits",
    "msr-exits", "nmi", "nmi-exits", "observation", "one-stage", "own-idt", "smap", "tlb-entries",
)  # fmt: skip
PORTABLE = (
    "apic", "exact-budget", "exception-exits", "exit-controls", "halt-waits", "instruction-exits", "msr-exits", "nmi",
    "nmi-exits", "observation", "one-stage", "own-idt",
)  # fmt: skip
