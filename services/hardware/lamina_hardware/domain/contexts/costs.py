"""What events cost in cycles: the cost table, and the price of what was counted. Pure.

Prices are whole thousandths of a cycle, so sums are exact. A change of the table leaves the past as it was priced: each
subject (a context, a core) keeps what it had spent until then, and the counts at that moment.

The figures are of one generation of processor (Sandy Bridge to Skylake) and are defaults: whoever asks about another
machine puts its own in, with their source. A figure without a published source says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lamina_hardware.domain.contexts.counts import REASONS, Counts
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.errors import InvalidArgument

MAX_MILLICYCLES = 10**12
FREQUENCY_HZ = 1_000_000_000

_PACE = "Lamina: the pace of its cores in virtual time, one instruction a cycle of 1 ns (ADR 0005)"
_STLB = "Intel 64 and IA-32 Optimization Reference Manual, appendix B: a miss of the first-level DTLB, 7 cycles"
_L2 = "Intel 64 and IA-32 Optimization Reference Manual, Skylake: latency of the second-level cache, 12 cycles"
_CAS = "Fog, Instruction tables, Skylake: LOCK CMPXCHG, about 18 cycles"
_EXIT = "Agesen et al., Software Techniques for Avoiding Hardware Virtualization Exits, USENIX ATC 2012: Sandy Bridge"
_CALL = "Soares and Stumm, FlexSC, OSDI 2010: 79 cycles to enter the kernel and 71 to leave it"
_NONE = "assumption of Lamina without a published figure: as an exit"

_EXIT_MILLICYCLES = 784_000
_NO_EXITS = (ExitReason.NONE, ExitReason.REFUSED)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kind of event costs, and where the figure is from."""

    millicycles: int
    source: str


def exit_event(reason: int) -> str:
    """Returns the name of an exit in the cost table, for example `exit.ept_violation`."""
    return f"exit.{ExitReason(reason).name.lower()}"


def default_costs() -> dict[str, Cost]:
    """Returns the table of a machine that nobody told anything else."""
    costs = {
        "instruction": Cost(1_000, _PACE),
        "tlb.hit": Cost(0, _PACE),
        "tlb.miss": Cost(7_000, _STLB),
        "walk.reference": Cost(12_000, _L2),
        "ept.reference": Cost(12_000, _L2),
        "walk.set_bit": Cost(18_000, _CAS),
        "exception": Cost(_EXIT_MILLICYCLES, _NONE),
        "interrupt.delivery": Cost(_EXIT_MILLICYCLES, _NONE),
        "shootdown": Cost(_EXIT_MILLICYCLES, _NONE),
    }
    for reason in ExitReason:
        if reason not in _NO_EXITS:
            costs[exit_event(reason)] = Cost(_EXIT_MILLICYCLES, _EXIT)
    costs[exit_event(ExitReason.SYSCALL)] = Cost(150_000, _CALL)
    return costs


@dataclass(slots=True)
class Price:
    """What a subject has spent, in thousandths of a cycle: in all, and for exits by reason."""

    total: int = 0
    exits: list[int] = field(default_factory=lambda: [0] * REASONS)


@dataclass(slots=True)
class _Bank:
    """What a subject had spent, and counted, when the table changed last."""

    spent: Price
    counted: Counts


class CostTable:
    """Costs by event, and the accounts of those that had spent something before it changed."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = default_costs()
        self.frequency_hz = FREQUENCY_HZ
        self._banks: dict[str, _Bank] = {}

    def price(self, subject: str, counts: Counts) -> Price:
        """Returns what a subject with these counts has spent."""
        bank = self._banks.get(subject)
        if bank is None:
            return self._price(counts)
        late, before = self._price(counts), self._price(bank.counted)
        exits = [b + n - o for b, n, o in zip(bank.spent.exits, late.exits, before.exits, strict=True)]
        return Price(bank.spent.total + late.total - before.total, exits)

    def update(
        self, costs: Mapping[str, Cost], frequency_hz: int | None, subjects: Iterable[tuple[str, Counts]]
    ) -> None:
        """Changes costs; `subjects` are all that count. Raises `InvalidArgument` `COST_EVENT_UNKNOWN`."""
        for event in sorted(costs):
            if event not in self.costs:
                raise InvalidArgument(
                    f"The cost table has no event {event!r}.",
                    reason="COST_EVENT_UNKNOWN",
                    next_step="Name events that GetCostTable lists.",
                )
        self._banks = {name: _Bank(self.price(name, counts), counts.copy()) for name, counts in subjects}
        self.costs |= {event: replace(cost) for event, cost in costs.items()}
        self.frequency_hz = frequency_hz or self.frequency_hz

    def _price(self, counts: Counts) -> Price:
        """Prices counts by the table as it is."""
        cost = {event: entry.millicycles for event, entry in self.costs.items()}
        exits = [n * cost[exit_event(reason)] if n else 0 for reason, n in enumerate(counts.exits)]
        total = sum(exits)
        for event, times in (
            ("instruction", counts.instructions),
            ("tlb.hit", counts.event("tlb_hits")),
            ("tlb.miss", counts.event("tlb_fills")),
            ("walk.reference", counts.event("walk_references")),
            ("ept.reference", counts.event("ept_references")),
            ("walk.set_bit", counts.event("accessed_bits_set") + counts.event("dirty_bits_set")),
            ("exception", sum(counts.exceptions)),
            ("interrupt.delivery", counts.event("interrupts")),
            ("shootdown", counts.shootdowns),
        ):
            total += times * cost[event]
        return Price(total, exits)
