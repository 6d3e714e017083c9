"""Where the interrupts of devices go: the interrupt remapping of the IOMMU.

    device ─► vector ─► route ─┬─► a context: its APIC's descriptor, or its pending vectors
                               ├─► a message in an interrupt domain
                               └─► none, or nobody there any more ─► the driver's stream

Routes belong to the driver that set them: with its stream they end.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_hardware.devices.devices import HostDevices
from lamina_hardware.devices.drives import Drive
from lamina_hardware.domain.apic.local_apic import Message
from lamina_hardware.domain.contexts.context import ContextTable, Handle
from lamina_hardware.domain.devices.device import Device
from lamina_hardware.io.interrupt_controller import InterruptController, Kind, Result
from lamina_kit.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class ToContext:
    """An interrupt for one context."""

    handle: Handle
    kind: Kind
    vector: int


@dataclass(frozen=True, slots=True)
class ToDomain:
    """A message in an interrupt domain: its key and its name, the message parsed and as it came."""

    domain: str
    name: str
    message: Message
    address: int
    data: int


Target = ToContext | ToDomain


@dataclass(slots=True)
class Route:
    """Where one vector goes, and how many went there."""

    target: Target
    interrupts: int = 0


@dataclass(slots=True)
class _Routes:
    """The routes of one driver of a device."""

    drive: Drive
    by_vector: dict[int, Route]


class InterruptRoutes:
    """All routes of a host."""

    def __init__(self, devices: HostDevices, controller: InterruptController, contexts: ContextTable) -> None:
        self._devices = devices
        self._controller = controller
        self._contexts = contexts
        self._routes: dict[str, _Routes] = {}

    def set(self, device: Device, caller: str, wishes: list[tuple[int, Target | None]]) -> None:
        """Sets or removes routes; all or nothing. The same target again keeps its count.

        Raises `FailedPrecondition` `DEVICE_NOT_DRIVEN` or `HANDLE_STALE`.
        """
        self._devices.require_driver(device, caller)
        for _, target in wishes:
            if isinstance(target, ToContext):
                self._contexts.get(target.handle)
        routes = self._of(device, make=True)
        for vector, target in wishes:
            if target is None:
                routes.pop(vector, None)
            elif vector not in routes or routes[vector].target != target:
                routes[vector] = Route(target)

    def entries(self, device: Device) -> list[tuple[int, Route]]:
        """Returns the routes of a device by vector."""
        return sorted(self._of(device).items(), key=lambda entry: entry[0])

    def take(self, device: Device, vector: int) -> bool:
        """Takes an interrupt where its route says; returns whether it reached somebody."""
        route = self._of(device).get(vector)
        if route is None:
            return False
        if self._send(route.target) is Result.NO_DESTINATION:
            return False
        route.interrupts += 1
        self._controller.go()
        return True

    def _send(self, target: Target) -> Result:
        if isinstance(target, ToDomain):
            return self._controller.send(target.domain, target.message)
        try:
            context = self._contexts.get(target.handle)
        except FailedPrecondition:
            return Result.NO_DESTINATION
        return self._controller.signal(context, target.kind, target.vector)

    def _of(self, device: Device, *, make: bool = False) -> dict[int, Route]:
        """Returns the routes of the device's present driver; those of an earlier one are forgotten."""
        drive, known = self._devices.drive(device), self._routes.get(device.id)
        if known is not None and known.drive is not drive:
            del self._routes[device.id]
            known = None
        if known is None and make:
            assert drive is not None, "only a driver sets routes"
            known = self._routes[device.id] = _Routes(drive, {})
        return known.by_vector if known is not None else {}
