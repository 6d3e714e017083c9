"""The exit ledger and the time slices."""

from __future__ import annotations

from lamina_hypervisor.domain.exits.ledger import MAX_ROWS, ExitLedger
from lamina_hypervisor.domain.exits.time_slices import SLICE_NS, SliceEnd, SliceLedger, SliceTimer
from lamina_kit.bus.run_page import ExitReason


def test_exits_are_counted_by_vcpu_reason_and_qualifier() -> None:
    """Rows come in order and their sums are the totals."""
    ledger = ExitLedger()
    ledger.record(1, ExitReason.HLT, "", 5)
    ledger.record(0, ExitReason.IO, "out 0x3f8 thr", 10)
    ledger.record(0, ExitReason.IO, "out 0x3f8 thr", 20)
    assert [(row.kind.vcpu, row.kind.reason, row.count, row.host_time_ns) for row in ledger.rows()] == [
        (0, ExitReason.IO, 2, 30),
        (1, ExitReason.HLT, 1, 5),
    ]
    assert (ledger.total(), ledger.total_host_time_ns(), ledger.count("out 0x3f8 thr")) == (3, 35, 2)


def test_a_guest_cannot_make_the_ledger_grow_without_end() -> None:
    """Beyond the limit new kinds are counted together, and no exit is lost."""
    ledger = ExitLedger()
    for number in range(MAX_ROWS + 100):
        ledger.record(0, ExitReason.CPUID, f"leaf {number:#x}", 1)
    assert len(ledger.rows()) == MAX_ROWS + 1
    assert ledger.count("other") == 100
    assert ledger.total() == MAX_ROWS + 100


def test_runs_on_one_core_are_one_slice() -> None:
    """Runs that follow one another on a core add up until something ends the slice."""
    slices = SliceLedger()
    timer = SliceTimer(slices, "vm", 0)
    timer.ran(1000, 2, 300, 50, 10)
    timer.ran(2000, 2, 400, 0, 20)
    timer.close(SliceEnd.HALTED)
    (entry,) = slices.latest(10)
    assert (entry.core, entry.start_ns, entry.run_ns, entry.wait_ns) == (2, 700, 700, 50)
    assert (entry.exits, entry.instructions, entry.end) == (2, 30, SliceEnd.HALTED)


def test_another_core_begins_another_slice() -> None:
    """A vCPU that is found on another core has moved."""
    slices = SliceLedger()
    timer = SliceTimer(slices, "vm", 0)
    timer.ran(1000, 0, 100, 0, 1)
    timer.ran(2000, 1, 100, 0, 1)
    assert [entry.end for entry in slices.latest(10)] == [SliceEnd.MOVED, SliceEnd.OPEN]
    assert timer.count == 2


def test_a_slice_has_at_most_10_ms() -> None:
    """When a chain of runs has had its 10 ms the slice has expired, whoever waits."""
    slices = SliceLedger()
    timer = SliceTimer(slices, "vm", 0)
    for _ in range(3):
        timer.ran(0, 0, SLICE_NS // 2, 0, 1)
    assert [(entry.run_ns, entry.end) for entry in slices.latest(10)] == [
        (SLICE_NS, SliceEnd.EXPIRED),
        (SLICE_NS // 2, SliceEnd.OPEN),
    ]


def test_the_latest_slices_are_kept() -> None:
    """The ledger forgets the oldest; a VM's own slices can be picked out."""
    slices = SliceLedger(kept=3)
    for number in range(5):
        timer = SliceTimer(slices, f"vm-{number % 2}", number)
        timer.ran(0, 0, 1, 0, 1)
    assert [entry.vcpu for entry in slices.latest(10)] == [2, 3, 4]
    assert [entry.vcpu for entry in slices.latest(10, "vm-0")] == [2, 4]
    assert [entry.vcpu for entry in slices.latest(1)] == [4]
