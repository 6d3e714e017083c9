"""Contract ↔ domain for disks and I/O groups."""

from __future__ import annotations

from collections.abc import Collection

from lamina.hardware.v1 import disks_pb2 as pb

from lamina_hardware.devices.disks import GroupWish, Wish
from lamina_hardware.domain.disk import disk as limits
from lamina_hardware.domain.disk.counters import DiskCounters
from lamina_hardware.domain.disk.disk import Disk
from lamina_hardware.domain.disk.groups import DEFAULT_WEIGHT, MOST_WEIGHT, IoGroup, IoLimit
from lamina_hardware.domain.disk.transfer import Operation
from lamina_hardware.names import Names
from lamina_kit.checks import Checks
from lamina_kit.telemetry.pressure_message import pressure_message

MAX_LIMITS = 64
MAX_PIECES = 4096
DEFAULT_DEPTH = 32
_MOST = (1 << 63) - 1
_DISK_FIELDS = {
    "size_bytes": "size",
    "latency_ns": "latency_ns",
    "rate_bytes_per_second": "rate",
    "queue_depth": "depth",
    "write_cache": "write_cache",
}


def wish(message: pb.Disk) -> Wish:
    """Returns what a disk is to be. Raises `InvalidArgument` with every violation."""
    sector = message.sector_bytes or 4096
    with Checks() as check:
        check.that(sector in limits.SECTORS, "disk.sector_bytes", "is neither 512 nor 4096")
        check.range("disk.size_bytes", message.size_bytes, limits.LEAST_BYTES, limits.MOST_BYTES)
        check.that(message.size_bytes % sector == 0, "disk.size_bytes", f"is no multiple of {sector}")
        _check_speed(check, message, "disk.")
    latency = message.latency_ns or None
    return Wish(
        message.size_bytes,
        sector,
        latency,
        message.rate_bytes_per_second,
        message.queue_depth or DEFAULT_DEPTH,
        message.write_cache,
    )


def disk_changes(message: pb.Disk, paths: Collection[str], disk: Disk) -> dict[str, int | bool]:
    """Returns the values that a mask names, as `disks.changed` takes them. Raises `InvalidArgument`."""
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty")
        for path in paths:
            check.that(path in _DISK_FIELDS, "update_mask", f"names {path!r}, which cannot be changed")
        if "size_bytes" in paths:
            check.range("disk.size_bytes", message.size_bytes, limits.LEAST_BYTES, limits.MOST_BYTES)
            sector = disk.geometry.sector
            check.that(message.size_bytes % sector == 0, "disk.size_bytes", f"is no multiple of {sector}")
        _check_speed(check, message, "disk.")
    values = {_DISK_FIELDS[path]: getattr(message, path) for path in paths}
    if values.get("depth") == 0:
        values["depth"] = DEFAULT_DEPTH
    return values


def _check_speed(check: Checks, message: pb.Disk, where: str) -> None:
    check.range(f"{where}latency_ns", message.latency_ns, 0, limits.MOST_LATENCY_NS)
    if message.rate_bytes_per_second:
        rate = message.rate_bytes_per_second
        check.range(f"{where}rate_bytes_per_second", rate, limits.LEAST_RATE, limits.MOST_RATE)
    check.range(f"{where}queue_depth", message.queue_depth, 0, limits.MOST_DEPTH)


def disk(found: Disk, names: Names, now_ns: int) -> pb.Disk:
    """Returns a disk as a message."""
    geometry = found.geometry
    return pb.Disk(
        name=names.format_disk(found.name),
        size_bytes=geometry.size,
        sector_bytes=geometry.sector,
        latency_ns=geometry.speed.latency_ns,
        rate_bytes_per_second=geometry.speed.rate,
        queue_depth=geometry.speed.depth,
        write_cache=geometry.write_cache,
        state=pb.Disk.State.ValueType(found.state),
        counters=counters(found.queue.counters, now_ns),
    )


def counters(found: DiskCounters, now_ns: int) -> pb.DiskCounters:
    """Returns counters as a message."""
    return pb.DiskCounters(
        reads=found.reads,
        read_bytes=found.read_bytes,
        writes=found.writes,
        written_bytes=found.written_bytes,
        flushes=found.flushes,
        discarded_bytes=found.discarded_bytes,
        failures=found.failures,
        busy_ns=found.busy(now_ns),
        wait_ns=found.wait_ns,
        peak_queue=found.peak_queue,
    )


def io_limits(message: pb.IoGroup, names: Names) -> tuple[IoLimit, ...]:
    """Returns the limits of a group, checked; whether their disks exist is the caller's to ask."""
    given = message.limits
    with Checks() as check:
        check.range("io_group.weight", message.weight, 0, MOST_WEIGHT)
        check.that(len(given) <= MAX_LIMITS, "io_group.limits", f"has more than {MAX_LIMITS} entries")
        disks = [limit.disk for limit in given]
        check.that(len(set(disks)) == len(disks), "io_group.limits.disk", "names a disk twice")
        for limit in given[:MAX_LIMITS]:
            for field in ("read_bytes_per_second", "write_bytes_per_second", "reads_per_second", "writes_per_second"):
                check.range(f"io_group.limits.{field}", getattr(limit, field), 0, _MOST)
    return tuple(
        IoLimit(
            names.disk(limit.disk, "io_group.limits.disk") if limit.disk else "",
            limit.read_bytes_per_second,
            limit.write_bytes_per_second,
            limit.reads_per_second,
            limit.writes_per_second,
        )
        for limit in given
    )


def group_wish(message: pb.IoGroup, names: Names) -> GroupWish:
    """Returns what a group is to be, checked; whether what it names exists is the caller's to ask."""
    limits = io_limits(message, names)
    parent = names.io_group(message.parent, "io_group.parent")
    return GroupWish(parent, message.weight or DEFAULT_WEIGHT, limits)


def group_changes(
    message: pb.IoGroup, paths: Collection[str], names: Names
) -> tuple[int | None, tuple[IoLimit, ...] | None]:
    """Returns the weight and the limits that a mask names, None for what stays. Raises `InvalidArgument`."""
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty")
        for path in paths:
            check.that(path in ("weight", "limits"), "update_mask", f"names {path!r}, which cannot be changed")
    limits = io_limits(message, names)
    weight = message.weight or DEFAULT_WEIGHT
    return weight if "weight" in paths else None, limits if "limits" in paths else None


def io_group(found: IoGroup, names: Names, now_ns: int) -> pb.IoGroup:
    """Returns a group as a message."""
    usage = [
        pb.IoGroup.IoUsage(
            disk=names.format_disk(name), counters=counters(on.counters, now_ns), throttled_ns=on.throttled_ns
        )
        for name, on in sorted(found.disks.items())
    ]
    return pb.IoGroup(
        name=names.format_io_group(found.name),
        parent=names.format_io_group(found.parent.name) if found.parent is not None else "",
        weight=found.weight,
        limits=[
            pb.IoGroup.IoLimit(
                disk=names.format_disk(limit.disk) if limit.disk else "",
                read_bytes_per_second=limit.read_bytes,
                write_bytes_per_second=limit.write_bytes,
                reads_per_second=limit.reads,
                writes_per_second=limit.writes,
            )
            for limit in found.limits
        ],
        usage=usage,
        pressure=pressure_message(found.pressure.read(now_ns)),
    )


def check_transfer(request: pb.TransferRequest, open_now: Collection[int], sector: int = 512) -> None:
    """Raises `InvalidArgument` for a transfer that is malformed on a disk with these sectors."""
    place, operation, size = request.WhichOneof("place"), int(request.operation), request.size_bytes
    with Checks() as check:
        check.that(request.sequence not in open_now, "sequence", f"{request.sequence} is open already")
        check.that(operation in {int(known) for known in Operation}, "operation", f"{operation} is none")
        check.range("offset", request.offset, 0, _MOST - limits.MOST_TRANSFER)
        if operation == int(Operation.FLUSH):
            check.that(size == 0, "size_bytes", "is given for a flush")
            check.that(place in (None, "metered"), "place", "is given for a flush")
            return
        check.range("size_bytes", size, 1, limits.MOST_TRANSFER)
        check.that(request.offset % sector == 0, "offset", f"is no multiple of {sector}")
        check.that(size % sector == 0, "size_bytes", f"is no multiple of {sector}")
        _check_place(check, request)


def _check_place(check: Checks, request: pb.TransferRequest) -> None:
    place, operation, size = request.WhichOneof("place"), int(request.operation), request.size_bytes
    if operation in (int(Operation.DISCARD), int(Operation.WRITE_ZEROES)):
        check.that(place in (None, "metered"), "place", "is given where no bytes move")
        return
    if not check.that(place is not None, "place", "is missing"):
        return
    if place == "inline":
        check.that(size <= limits.MOST_INLINE, "size_bytes", f"is above {limits.MOST_INLINE} for inline data")
        length = len(request.inline.data)
        if operation == int(Operation.WRITE):
            check.that(length == size, "inline.data", f"has {length} bytes of {size}")
        else:
            check.that(not length, "inline.data", "is given in a read")
    elif place == "memory":
        pieces = request.memory.pieces
        check.that(0 < len(pieces) <= MAX_PIECES, "memory.pieces", f"has {len(pieces)} entries, not 1 to {MAX_PIECES}")
        check.that(all(piece.size_bytes > 0 for piece in pieces), "memory.pieces.size_bytes", "is not positive")
        total = sum(piece.size_bytes for piece in pieces)
        check.that(total == size, "memory.pieces", f"have {total} bytes of {size}")
