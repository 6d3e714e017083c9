"""Between contract and domain, for dirty logs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lamina.hardware.v1 import dirty_log_pb2 as pb

from lamina_hardware.convert.devices import handle
from lamina_hardware.domain.dirty_logs import DirtyLog, Piece
from lamina_kit.checks import Checks
from lamina_kit.errors import OutOfRange
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE

MAX_RANGES = 4096
MAX_BYTES = 1 << 40


def ranges(given: Sequence[pb.StartDirtyLogRequest.PhysicalRange], ram_bytes: int) -> list[tuple[int, int]]:
    """Returns ranges (first frame, frames) in ascending order.

    Raises `InvalidArgument` for none, too many, unaligned or overlapping ones, or more than 1 TiB, and `OutOfRange`
    `ADDRESS_OUTSIDE_RAM`.
    """
    with Checks() as check:
        if check.that(1 <= len(given) <= MAX_RANGES, "ranges", f"has not 1 to {MAX_RANGES} entries"):
            for entry in given:
                check.aligned("ranges.address", entry.address, PAGE_SIZE)
                check.aligned("ranges.size_bytes", entry.size_bytes, PAGE_SIZE)
                check.range("ranges.size_bytes", entry.size_bytes, PAGE_SIZE, MAX_BYTES)
        check.raise_violations()
        check.that(sum(entry.size_bytes for entry in given) <= MAX_BYTES, "ranges", "have more than 1 TiB together")
        ordered = sorted((entry.address, entry.address + entry.size_bytes) for entry in given)
        check.that(all(one[1] <= two[0] for one, two in pairwise(ordered)), "ranges", "overlap each other")
    if ordered[-1][1] > ram_bytes:
        raise OutOfRange(
            f"The range up to {ordered[-1][1]:#x} does not lie within the RAM of {ram_bytes:#x} bytes.",
            reason="ADDRESS_OUTSIDE_RAM",
            next_step="Check the address against memory_bytes of GetHost.",
            address=f"{ordered[-1][0]:#x}",
        )
    return [(start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT) for start, end in ordered]


def log(found: DirtyLog) -> pb.DirtyLog:
    """Returns a log as a message."""
    return pb.DirtyLog(handle=handle(found.handle), frames=found.frames)


def piece(found: Piece) -> pb.DirtyLogPiece:
    """Returns a piece of a log as a message."""
    return pb.DirtyLogPiece(first_frame=found.first, bitmap=found.bitmap, dirty_frames=found.dirty)
