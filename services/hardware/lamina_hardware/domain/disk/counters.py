"""What disks and groups count."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_hardware.domain.disk.transfer import Operation, Result, Transfer


@dataclass(slots=True)
class DiskCounters:
    """Counters of a disk, or of a group on it; times in nanoseconds."""

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    flushes: int = 0
    discarded_bytes: int = 0
    failures: int = 0
    busy_ns: int = 0
    wait_ns: int = 0
    peak_queue: int = 0
    present: int = 0
    """Transfers that wait or are under way."""
    under_way: int = 0
    busy_since: int = 0

    def came(self) -> None:
        """Counts a transfer that was asked for."""
        self.present += 1
        self.peak_queue = max(self.peak_queue, self.present)

    def began(self, now_ns: int) -> None:
        """Counts a transfer that begins."""
        if not self.under_way:
            self.busy_since = now_ns
        self.under_way += 1

    def ended(self, transfer: Transfer, now_ns: int, began: bool) -> None:
        """Counts a transfer that ends; `began` is false for one that never got so far."""
        self.present -= 1
        if began:
            self.under_way -= 1
            if not self.under_way:
                self.busy_ns += now_ns - self.busy_since
        self.wait_ns += transfer.begun_ns - transfer.asked_ns
        if transfer.result != Result.DONE:
            self.failures += 1
            return
        if transfer.operation == Operation.READ:
            self.reads += 1
            self.read_bytes += transfer.size
        elif transfer.operation == Operation.FLUSH:
            self.flushes += 1
        elif transfer.operation == Operation.DISCARD:
            self.discarded_bytes += transfer.size
        else:
            self.writes += 1
            self.written_bytes += transfer.size

    def busy(self, now_ns: int) -> int:
        """Returns the busy time as of now."""
        return self.busy_ns + (now_ns - self.busy_since if self.under_way else 0)
