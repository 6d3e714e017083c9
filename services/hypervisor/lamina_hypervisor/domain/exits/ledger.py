"""The exit ledger: every VM exit, by vCPU, reason and particulars, with the host time spent on it. Pure.

The number of rows is bounded: particulars are names that the hypervisor chooses, and a guest that invents new ones
(ports, MSRs, CPUID leaves) is counted under `unknown` or `other`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.bus.run_page import ExitReason

MAX_ROWS = 512
"""Rows of one VM; what would exceed them is counted under the qualifier `other`."""

SERIAL_OUTPUT = "out 0x3f8 thr"
"""Qualifier of an exit that sends one byte."""


@dataclass(frozen=True, order=True)
class ExitKind:
    """What a row counts."""

    vcpu: int
    reason: ExitReason
    qualifier: str


@dataclass(frozen=True)
class Row:
    """One row as shown."""

    kind: ExitKind
    count: int
    host_time_ns: int


class ExitLedger:
    """The ledger of one VM since its power-on."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, ExitReason, str], list[int]] = {}  # tuples: one is looked up at every exit
        self.instructions = 0

    def record(self, vcpu: int, reason: ExitReason, qualifier: str, host_time_ns: int) -> None:
        """Counts one exit."""
        row = self._rows.get((vcpu, reason, qualifier))
        if row is None:
            name = qualifier if len(self._rows) < MAX_ROWS else "other"
            row = self._rows.setdefault((vcpu, reason, name), [0, 0])
        row[0] += 1
        row[1] += host_time_ns

    def rows(self) -> list[Row]:
        """Returns the rows by vCPU, reason and qualifier."""
        return [Row(ExitKind(*kind), count, time) for kind, (count, time) in sorted(self._rows.items())]

    def total(self) -> int:
        """Returns the number of all exits."""
        return sum(count for count, _ in self._rows.values())

    def by_reason(self) -> dict[str, int]:
        """Returns the number of exits of each reason that occurred, as `exits_hlt` and so on, by its number."""
        sums: dict[ExitReason, int] = {}
        for (_, reason, _), (count, _) in sorted(self._rows.items()):
            sums[reason] = sums.get(reason, 0) + count
        return {f"exits_{reason.name.lower()}": count for reason, count in sorted(sums.items())}

    def total_host_time_ns(self) -> int:
        """Returns the host time of all exits."""
        return sum(time for _, time in self._rows.values())

    def count(self, qualifier: str) -> int:
        """Returns the number of exits of one qualifier over all vCPUs."""
        return sum(count for (_, _, name), (count, _) in self._rows.items() if name == qualifier)
