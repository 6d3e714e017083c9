"""What a disk counts of its transfers."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_hardware.domain.disk.counters import DiskCounters
from lamina_hardware.domain.disk.transfer import Operation, Result, Transfer


def transfer(operation: Operation, size: int = 4096, result: Result = Result.DONE, waited: int = 0) -> Transfer:
    """Returns a transfer that ended."""
    made = Transfer(operation, 0, size, "", lambda: None, lambda ended: None)
    made.result, made.asked_ns, made.begun_ns = result, 100, 100 + waited
    return made


@pytest.mark.parametrize(
    ("operation", "counted"),
    [
        (Operation.READ, {"reads": 1, "read_bytes": 4096}),
        (Operation.WRITE, {"writes": 1, "written_bytes": 4096}),
        (Operation.WRITE_ZEROES, {"writes": 1, "written_bytes": 4096}),
        (Operation.FLUSH, {"flushes": 1}),
        (Operation.DISCARD, {"discarded_bytes": 4096}),
    ],
)
def test_each_operation_is_counted(operation: Operation, counted: dict[str, int]) -> None:
    """By number and bytes; one that failed is a failure and nothing else."""
    fields = ("reads", "read_bytes", "writes", "written_bytes", "flushes", "discarded_bytes", "failures")
    for result in (Result.DONE, Result.DISK_FAILED):
        counters: Any = DiskCounters()
        counters.came()
        counters.began(100)
        counters.ended(transfer(operation, result=result), 200, began=True)
        wanted = counted if result is Result.DONE else {"failures": 1}
        assert {name: value for name in fields if (value := getattr(counters, name))} == wanted


def test_a_disk_is_busy_while_anything_is_under_way() -> None:
    """Transfers beside each other count once; what waits does not; the time so far counts as of now."""
    counters = DiskCounters()
    assert counters.busy(1000) == 0
    for _ in range(3):
        counters.came()
    counters.began(1000)
    counters.began(1100)
    assert counters.busy(1150) == 150
    counters.ended(transfer(Operation.READ), 1200, began=True)
    assert (counters.busy_ns, counters.busy(1250)) == (0, 250)
    counters.ended(transfer(Operation.READ), 1300, began=True)
    assert (counters.busy_ns, counters.busy(9999)) == (300, 300)
    counters.ended(transfer(Operation.READ, result=Result.DISK_FAILED), 1400, began=False)
    assert (counters.present, counters.under_way, counters.busy(9999)) == (0, 0, 300)
    counters.came()
    counters.began(2000)
    assert counters.busy(2007) == 307


def test_waiting_and_the_longest_queue() -> None:
    """The time from the request to the begin adds up; the queue's peak stays."""
    counters = DiskCounters()
    for _ in range(2):
        counters.came()
    for waited in (5, 7):
        counters.began(0)
        counters.ended(transfer(Operation.READ, waited=waited), 10, began=True)
    counters.came()
    assert (counters.wait_ns, counters.peak_queue, counters.present) == (12, 2, 1)
