"""A snippet: a tiny program, its initial state, and the fact about the architecture that it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina_kit.bus.run_page import ExitReason

CF, PF, AF, ZF, SF, TF, IF, DF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 8, 1 << 9, 1 << 10, 1 << 11
AC = 1 << 18
STATUS = CF | PF | AF | ZF | SF | OF
HLT = (ExitReason.HLT,)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One program at ring 0 (`source`, at KERNEL) and perhaps one at ring 3 (`user`, at UTEXT), in assembler.

    It runs once for each of `exits`; between two runs `answer` does what a holder of the context would. What it must
    leave: `registers` by name, flags that are `set` and `clear`, `faults` as the recorder saw them (vector, error code,
    label or None, CR2 or None), `memory` (virtual address of the kernel: eight bytes), and whatever `check` asserts.
    Flags in `undefined` are so by the manual and are not compared. `needs` are capabilities of the core.
    """

    name: str
    fact: str
    source: str
    user: str = ""
    registers: Mapping[str, int] = field(default_factory=dict)
    set: int = 0
    clear: int = 0
    faults: tuple[tuple[int, int, str | None, int | None], ...] = ()
    memory: Mapping[int, int] = field(default_factory=dict)
    exits: tuple[ExitReason, ...] = HLT
    start: Mapping[str, int] = field(default_factory=dict)
    prepare: Callable[[Any], Any] | None = None
    answer: Callable[[Any, int, Any], Any] | None = None
    check: Callable[[Any], None] | None = None
    controls: Mapping[str, Any] | None = None
    undefined: int = 0
    needs: tuple[str, ...] = ()

    def asserts_something(self) -> bool:
        """Returns whether the snippet says what it must leave, beyond an end by HLT."""
        wanted = (self.registers, self.set, self.clear, self.faults, self.memory, self.check)
        return any(wanted) or self.exits != HLT
