"""Performance counters, costs, TLB entries and accesses as messages of `lamina.hardware.v1.Performance`."""

from __future__ import annotations

from lamina.hardware.v1 import performance_pb2 as pb

from lamina_hardware.domain.contexts.costs import MAX_MILLICYCLES, Cost, CostTable, Price
from lamina_hardware.domain.contexts.counts import Counts
from lamina_hardware.domain.paging.tlb import TlbContent, TlbSlot
from lamina_hardware.domain.paging.walk import Outcome, Walk
from lamina_hardware.io.emulator.observation.queue import Accesses
from lamina_kit.checks import Checks
from lamina_kit.paging import ADDR_MASK, PAGE_SIZE

_MILLI = 1000
_CR4_PCIDE = 1 << 17
_MAX_SOURCE = 255
_FREQUENCIES = 1_000_000, 10_000_000_000


def counters(counts: Counts, price: Price, idle_ns: int) -> pb.PerformanceCounters:
    """Returns counters with what they cost; what did not occur is left out of the lists."""
    return pb.PerformanceCounters(
        instructions=counts.instructions,
        cycles=price.total // _MILLI,
        guest_cycles=(price.total - sum(price.exits)) // _MILLI,
        tlb_hits=counts.event("tlb_hits"),
        tlb_misses=counts.event("tlb_fills"),
        walk_references=counts.event("walk_references"),
        ept_references=counts.event("ept_references"),
        fills_by_size=[counts.event(f"fills_{size}") for size in ("4k", "2m", "1g")],
        accessed_bits_set=counts.event("accessed_bits_set"),
        dirty_bits_set=counts.event("dirty_bits_set"),
        exceptions=[pb.VectorCount(vector=v, count=n) for v, n in enumerate(counts.exceptions) if n],
        exits=[
            pb.ExitCost(
                reason=reason,  # type: ignore[arg-type]
                count=n,
                cycles=price.exits[reason] // _MILLI,
                handling_time_ns=counts.handling_ns[reason],
            )
            for reason, n in enumerate(counts.exits)
            if n
        ],
        interrupts=counts.event("interrupts"),
        shootdowns=counts.shootdowns,
        code_invalidations=counts.event("code_invalidations"),
        run_time_ns=counts.run_time_ns,
        wait_time_ns=counts.wait_time_ns,
        idle_time_ns=idle_ns,
        migrations=counts.migrations,
    )


def cost_table(table: CostTable) -> pb.CostTable:
    """Returns the cost table, by event."""
    return pb.CostTable(
        costs=[
            pb.Cost(event=event, millicycles=cost.millicycles, source=cost.source)
            for event, cost in sorted(table.costs.items())
        ],
        frequency_hz=table.frequency_hz,
    )


def cost_changes(request: pb.UpdateCostTableRequest) -> tuple[dict[str, Cost], int | None]:
    """Returns the new costs by event and the new frequency (None: as it is); raises `InvalidArgument`."""
    table, paths = request.table, list(request.update_mask.paths)
    if not paths:
        paths = ["costs"] * bool(table.costs) + ["frequency_hz"] * bool(table.frequency_hz)
    with Checks() as check:
        check.that(set(paths) <= {"costs", "frequency_hz"}, "update_mask", "names a field other than these two")
        check.that(bool(paths), "table", "changes nothing")
        if "frequency_hz" in paths:
            check.range("table.frequency_hz", table.frequency_hz, *_FREQUENCIES)
        if "costs" in paths:
            events = [cost.event for cost in table.costs]
            check.that(len(set(events)) == len(events), "table.costs", "names an event twice")
            for cost in table.costs:
                check.range("table.costs.millicycles", cost.millicycles, 0, MAX_MILLICYCLES)
                check.range("table.costs.source", len(cost.source), 1, _MAX_SOURCE)
    costs = {c.event: Cost(c.millicycles, c.source) for c in table.costs} if "costs" in paths else {}
    return costs, table.frequency_hz if "frequency_hz" in paths else None


def tlb_entry(slot: TlbSlot, content: TlbContent, walk: Walk) -> pb.TlbEntry:
    """Returns one entry; the size of its page and G are those of the tables as they are now, if they still say so."""
    holds = walk.outcome is Outcome.TRANSLATED and walk.pa & ~0xFFF == slot.physical
    return pb.TlbEntry(
        address=slot.address,
        physical_address=slot.physical,
        page_size_bytes=walk.page_size if holds else PAGE_SIZE,
        root=content.cr3 & ADDR_MASK,
        eptp=content.eptp,
        pcid=content.cr3 & 0xFFF if content.cr4 & _CR4_PCIDE else 0,
        writable=slot.writable,
        executable=slot.executable,
        user=slot.user,
        **{"global": holds and walk.is_global},
    )


def accesses(batch: Accesses) -> pb.AccessBatch:
    """Returns a batch of accesses as columns."""
    return pb.AccessBatch(
        addresses=batch.addresses.astype("<u8").tobytes(),
        kinds=batch.kinds.tobytes(),
        first_instruction=int(batch.instructions[0]) if len(batch.instructions) else 0,
        lost=batch.lost,
    )
