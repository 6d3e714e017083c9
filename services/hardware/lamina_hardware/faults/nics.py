"""What can break of a NIC (ADR 0010): its link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lamina_hardware.devices.nics import HostNics
from lamina_hardware.names import NIC, Names
from lamina_kit.faults.kinds import Breakage, FaultKind
from lamina_kit.faults.table import FaultTable


class MachineWithNics(Protocol):
    """What faults of NICs need of a machine."""

    nics: HostNics
    names: Names
    record: Callable[..., Any]
    """Notes what happened to an object, as `EventLog.record` does."""


class NicFaults:
    """Breaks the NICs of one machine."""

    def __init__(self, machine: MachineWithNics) -> None:
        self._machine = machine

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table."""
        table.register(
            FaultKind(
                "link-flap",
                NIC,
                "A NIC loses its link, and has it again when the fault is cleared or expires. Frames that come "
                "meanwhile are lost, those to be sent wait in their ring.",
                self._down,
                self._up,
            )
        )

    async def _down(self, breakage: Breakage) -> Mapping[str, object]:
        device = self._machine.nics.get(self._machine.names.nic(breakage.object))
        was_up = device.nic.is_link_up
        device.break_link(True)
        self._machine.record(breakage.object, "link.broken", cause=breakage.name, rule="fault injected")
        return {"was_up": was_up}

    def _up(self, breakage: Breakage) -> None:
        self._machine.nics.get(breakage.ids["nic"]).break_link(False)
        self._machine.record(breakage.object, "link.mended", cause=breakage.name)
