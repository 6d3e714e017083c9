"""The disks of a host: kept in a folder, driven by the clock, shared by I/O groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lamina_hardware.domain.disk.disk import Disk, Geometry
from lamina_hardware.domain.disk.groups import IoGroup, IoGroups, IoLimit, root_stays
from lamina_hardware.domain.disk.queue import Clockwork, DiskQueue, Speed
from lamina_hardware.domain.disk.transfer import Result, TransferFailed
from lamina_hardware.io.disk_files import Description, DiskFile, DiskFolder
from lamina_hardware.request_ids import Requests
from lamina_kit.errors import AlreadyExists, FailedPrecondition, LaminaError, NotFound, ResourceExhausted
from lamina_kit.rng import Rng

MAX_DISKS = 1024
VIRTUAL_LATENCY_NS = 100_000
"""Latency of a disk that names none, on a virtual clock: a disk that needs no time would hide what waits for it."""

Record = Callable[..., object]
"""Writes into the event log: (disk, event, inputs…)."""


class Plugs(Protocol):
    """Where a disk appears as a device."""

    def plug(self, disk: Disk) -> None:
        """Adds its device."""
        ...

    def unplug(self, disk: Disk) -> None:
        """Removes its device."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What a disk is to be. `latency_ns` None: what the clock suggests."""

    size: int
    sector: int
    latency_ns: int | None
    rate: int
    depth: int
    write_cache: bool


@dataclass(frozen=True, slots=True)
class GroupWish:
    """What an I/O group is to be."""

    parent: str
    weight: int
    limits: tuple[IoLimit, ...]


class Disks:
    """All disks of one host, and their groups."""

    def __init__(
        self,
        folder: DiskFolder,
        clockwork: Clockwork,
        rng: Rng,
        record: Record,
        plugs: Plugs,
        requests: Requests,
        virtual: bool,
    ) -> None:
        self.groups = IoGroups()
        self._folder = folder
        self._clockwork = clockwork
        self._rng = rng
        self._record = record
        self._plugs = plugs
        self._requests = requests
        self._virtual = virtual
        self._disks: dict[str, Disk] = {}
        self._files: dict[str, DiskFile] = {}

    def start(self) -> None:
        """Opens the disks that are there. Raises `DataLoss` `DISK_DAMAGED`."""
        for name, kept in self._folder.load().items():
            self._open(name, kept, self._folder.open(name, kept))

    def stop(self) -> None:
        """Powers the disks off in order: what waits fails, caches are flushed. Idempotent."""
        for name, disk in self._disks.items():
            disk.queue.fail_all(Result.DISK_FAILED)
            try:
                if disk.unsafe_bytes:
                    disk.flush()
            except TransferFailed as failed:
                self._record(name, "disk.flush_failed", reason=failed.result.name, unsafe_bytes=disk.unsafe_bytes)
            self._files[name].close()
        self._disks.clear()
        self._files.clear()

    def entries(self) -> list[Disk]:
        """Returns the disks in the order of their names."""
        return [self._disks[name] for name in sorted(self._disks)]

    def find(self, name: str) -> Disk | None:
        """Returns a disk, or None."""
        return self._disks.get(name)

    def get(self, name: str) -> Disk:
        """Returns a disk. Raises `NotFound` `DISK_UNKNOWN`."""
        found = self._disks.get(name)
        if found is None:
            raise NotFound(
                f"This host has no disk {name}.", reason="DISK_UNKNOWN", next_step="List them with `Disks.ListDisks`."
            )
        return found

    def create(self, name: str, wish: Wish, request_id: str = "") -> Disk:
        """Makes a disk of zeros, once for a request.

        Raises `AlreadyExists` `DISK_EXISTS`, `ResourceExhausted` `DISK_SPACE_EXHAUSTED`.
        """
        known = self._requests.find("disk", request_id)
        if known in self._disks:
            return self._disks[known]
        if len(self._disks) >= MAX_DISKS:
            raise ResourceExhausted(
                f"This host has {MAX_DISKS} disks.",
                reason="DISK_SPACE_EXHAUSTED",
                next_step="Delete one with `Disks.DeleteDisk`.",
            )
        if name in self._disks:
            raise AlreadyExists(f"Disk {name} exists.", reason="DISK_EXISTS", next_step="Take it, or another name.")
        latency = wish.latency_ns
        if latency is None:
            latency = VIRTUAL_LATENCY_NS if self._virtual else 0
        kept = Description(wish.size, wish.sector, latency, wish.rate, wish.depth, wish.write_cache)
        disk = self._open(name, kept, self._folder.make(name, kept))
        self._requests.remember("disk", request_id, name)
        self._record(name, "disk.created", size_bytes=wish.size)
        return disk

    def update(self, disk: Disk, geometry: Geometry) -> None:
        """Changes a disk. Raises `FailedPrecondition` `DISK_SHRINKS`, `ResourceExhausted` `DISK_SPACE_EXHAUSTED`."""
        if geometry.size < disk.geometry.size:
            raise FailedPrecondition(
                f"Disk {disk.name} has {disk.geometry.size} bytes; {geometry.size} would cut off what is stored.",
                reason="DISK_SHRINKS",
                next_step="Make a smaller disk and copy what is needed.",
            )
        if geometry.size > disk.geometry.size:
            self._files[disk.name].grow(geometry.size)
        try:
            disk.change(geometry)
        except TransferFailed as failed:
            raise _unflushed(disk, failed) from failed
        self._folder.describe(disk.name, _description(geometry))
        self._record(disk.name, "disk.changed", size_bytes=geometry.size)

    def delete(self, disk: Disk) -> None:
        """Deletes a disk with its bytes. Raises `FailedPrecondition` `DISK_IN_USE` while it has transfers."""
        if not disk.queue.is_idle:
            raise FailedPrecondition(
                f"Disk {disk.name} has {disk.queue.counters.present} transfers.",
                reason="DISK_IN_USE",
                next_step="Let them end first.",
            )
        self._plugs.unplug(disk)
        del self._disks[disk.name]
        self._files.pop(disk.name).close()
        self._folder.remove(disk.name)
        self.groups.forget(disk.name)
        self._record(disk.name, "disk.deleted")

    def create_group(self, name: str, wish: GroupWish, owner: str, request_id: str = "") -> IoGroup:
        """Makes a group, once for a request. Raises as `IoGroups.create`, and `DISK_UNKNOWN` for a limit's disk."""
        known = self._requests.find("io_group", request_id)
        found = self.groups.find(known) if known else None
        if found is not None:
            return found
        self._check_limits(wish.limits)
        made = self.groups.create(name, wish.parent, wish.weight, wish.limits, owner)
        self._requests.remember("io_group", request_id, name)
        return made

    def _check_limits(self, limits: tuple[IoLimit, ...]) -> None:
        for limit in limits:
            if limit.disk:
                self.get(limit.disk)

    def change_group(self, group: IoGroup, weight: int | None, limits: tuple[IoLimit, ...] | None) -> None:
        """Changes a group, and begins what a lifted limit held up.

        Raises `FailedPrecondition` `IO_GROUP_IS_ROOT`, `NotFound` `DISK_UNKNOWN`.
        """
        if group.parent is None:
            raise root_stays()
        self._check_limits(limits or ())
        if weight is not None:
            group.weight = weight
        if limits is not None:
            self.groups.change_limits(group, limits, self._clockwork.now_ns())
            for disk in self.entries():
                disk.queue.pump()

    def owned(self, owner: str) -> list[IoGroup]:
        """Returns the groups of an owner, children before parents."""
        groups = [group for group in self.groups.entries() if group.owner == owner]
        return sorted(groups, key=lambda group: (-len(group.line()), group.name))

    def free_owned(self, owner: str) -> None:
        """Deletes the groups of an owner that are empty; one in use stays until somebody deletes it."""
        for group in self.owned(owner):
            if not (group.children or group.waiting or group.going):
                self.groups.delete(group.name)

    def _open(self, name: str, kept: Description, file: DiskFile) -> Disk:
        speed = Speed(kept.latency_ns, kept.rate, kept.depth)
        queue = DiskQueue(name, speed, self.groups, self._clockwork)
        geometry = Geometry(kept.size, kept.sector, speed, kept.write_cache)
        chance = self._rng.child(f"disk {name}")
        disk = Disk(name, geometry, file, queue, lambda: chance.random() < 0.5, self._torn)
        self._disks[name], self._files[name] = disk, file
        self._plugs.plug(disk)
        return disk

    def _torn(self, disk: Disk, lost: int) -> None:
        self._record(disk.name, "disk.power_lost", rule="torn write", lost_sectors=lost)
        # not from inside the transfer that tears: it ends first
        self._clockwork.call_at(self._clockwork.now_ns(), lambda: disk.queue.fail_all(Result.DISK_FAILED))


def _unflushed(disk: Disk, failed: TransferFailed) -> LaminaError:
    """Returns the error for a cache that cannot be switched off, because what it holds cannot be written out."""
    if failed.result is Result.SPACE_EXHAUSTED:
        return ResourceExhausted(
            f"The write cache of disk {disk.name} has no room to be written out.",
            reason="DISK_SPACE_EXHAUSTED",
            next_step="Make room in the file system of the state directory, then try again.",
        )
    return FailedPrecondition(
        f"The write cache of disk {disk.name} cannot be written out: {failed.result.name}.",
        reason="DISK_BROKEN",
        next_step="Clear the disk's faults first.",
    )


def _description(geometry: Geometry) -> Description:
    speed = geometry.speed
    return Description(geometry.size, geometry.sector, speed.latency_ns, speed.rate, speed.depth, geometry.write_cache)


def changed(disk: Disk, **values: Any) -> Geometry:
    """Returns a disk's geometry with other values: of `size`, `latency_ns`, `rate`, `depth`, `write_cache`."""
    speed = {name: values.pop(name) for name in ("latency_ns", "rate", "depth") if name in values}
    return replace(disk.geometry, speed=replace(disk.geometry.speed, **speed), **values)
