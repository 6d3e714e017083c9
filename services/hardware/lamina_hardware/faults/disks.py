"""What can break of a disk (ADR 0010): all of it, writing, room, single sectors, the power in the middle of a write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from lamina_hardware.devices.disks import Disks
from lamina_hardware.domain.disk.disk import MOST_BYTES, Breakage, Disk
from lamina_hardware.domain.disk.transfer import Result
from lamina_hardware.names import DISK, Names
from lamina_kit.errors import FailedPrecondition
from lamina_kit.faults import kinds
from lamina_kit.faults.kinds import FaultKind, Parameter
from lamina_kit.faults.table import FaultTable

_MOST_SECTORS = 4096


class MachineWithDisks(Protocol):
    """What faults of disks need of a machine."""

    disks: Disks
    names: Names
    record: Callable[..., Any]
    """Notes what happened to an object, as `EventLog.record` does."""


class DiskFaults:
    """Breaks the disks of one machine."""

    def __init__(self, machine: MachineWithDisks) -> None:
        self._machine = machine

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table."""
        for name, description, field in (
            ("disk-read-only", "A disk takes no writes: they end as read-only.", "read_only"),
            ("disk-full", "The file system that keeps a disk has no room: writes end so.", "full"),
        ):
            table.register(FaultKind(name, DISK, description, self._switch(field), self._switch_back(field)))
        table.register(
            FaultKind(
                "disk-failed",
                DISK,
                "A disk fails every transfer, those under way and waiting included.",
                self._fail,
                self._repair,
            )
        )
        table.register(
            FaultKind(
                "disk-error",
                DISK,
                "Bytes of a disk cannot be read or written: a medium error at the first of them.",
                self._spoil,
                self._mend,
                parameters=(
                    Parameter("offset", "first byte", 0, MOST_BYTES - 1),
                    Parameter("size", "bytes", 1, MOST_BYTES, default="4096"),
                ),
            )
        )
        table.register(
            FaultKind(
                "torn-write",
                DISK,
                "The next write reaches the disk with its first sectors only, then the disk's power goes: of what was "
                "not flushed each sector is there or not. Clearing gives the power back.",
                self._tear,
                self._give_power,
                parameters=(Parameter("sectors", "sectors that are still written", 0, _MOST_SECTORS, default="1"),),
            )
        )

    def _disk(self, breakage: kinds.Breakage) -> Disk:
        return self._machine.disks.get(self._machine.names.disk(breakage.object))

    def _broken(self, breakage: kinds.Breakage) -> Breakage | None:
        """Returns what is broken of a disk, None when the disk is gone."""
        found = self._machine.disks.find(breakage.ids["disk"])
        return found.broken if found is not None else None

    def _note(self, breakage: kinds.Breakage, event: str, **inputs: object) -> None:
        self._machine.record(breakage.object, event, cause=breakage.name, rule="fault injected", **inputs)

    def _switch(self, field: str) -> Callable[[kinds.Breakage], Awaitable[Mapping[str, object]]]:
        async def inject(breakage: kinds.Breakage) -> Mapping[str, object]:
            setattr(self._disk(breakage).broken, field, True)
            self._note(breakage, f"disk.{field}")
            return {}

        return inject

    def _switch_back(self, field: str) -> Callable[[kinds.Breakage], None]:
        def clear(breakage: kinds.Breakage) -> None:
            if (broken := self._broken(breakage)) is not None:
                setattr(broken, field, False)
                self._note(breakage, f"disk.{field}_over")

        return clear

    async def _fail(self, breakage: kinds.Breakage) -> Mapping[str, object]:
        disk = self._disk(breakage)
        ended = disk.queue.counters.present
        disk.broken.failed = True
        disk.queue.fail_all(Result.DISK_FAILED)
        self._note(breakage, "disk.failed", transfers_ended=ended)
        return {"transfers_ended": ended}

    def _repair(self, breakage: kinds.Breakage) -> None:
        if (broken := self._broken(breakage)) is not None:
            broken.failed = False
            self._note(breakage, "disk.repaired")

    def _give_power(self, breakage: kinds.Breakage) -> None:
        if (broken := self._broken(breakage)) is not None:
            broken.powerless, broken.tear_after = False, None
            self._note(breakage, "disk.repaired")

    async def _spoil(self, breakage: kinds.Breakage) -> Mapping[str, object]:
        disk, begin = self._disk(breakage), breakage.numbers["offset"]
        if disk.broken.bad is not None:
            raise FailedPrecondition(
                f"{breakage.object} has bad bytes already, from {disk.broken.bad[0]} on.",
                reason="DISK_BAD_ALREADY",
                next_step="Clear that fault first.",
            )
        disk.broken.bad = (begin, begin + breakage.numbers["size"])
        self._note(breakage, "disk.bad", offset=begin, size=breakage.numbers["size"])
        return {}

    def _mend(self, breakage: kinds.Breakage) -> None:
        if (broken := self._broken(breakage)) is not None:
            broken.bad = None
            self._note(breakage, "disk.bad_over")

    async def _tear(self, breakage: kinds.Breakage) -> Mapping[str, object]:
        self._disk(breakage).broken.tear_after = breakage.numbers["sectors"]
        self._note(breakage, "disk.will_tear", sectors=breakage.numbers["sectors"])
        return {}
