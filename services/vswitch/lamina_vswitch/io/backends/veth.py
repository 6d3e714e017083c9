"""A backend that is a device of the kernel: what it sends and gets, the kernel switches by itself.

Source: veth(4).
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina_vswitch.domain.backend.definition import BackendState, Veth
from lamina_vswitch.domain.offload.features import PLAIN, Takes
from lamina_vswitch.engines.interface import DeviceEngine, SwitchEngine
from lamina_vswitch.io.backends.refusals import lacking


class VethBackend:
    """An interface of the machine whose other end is in the bridges of the engine.

    As a sink it gets only what does not come from a port: copies of mirrors, probes; complete ones. What it sends to
    others need not be complete, so the engine has to look at what leaves for them.
    """

    takes: Takes | None = PLAIN

    def __init__(self, engine: SwitchEngine, slot: int, wanted: Veth) -> None:
        if not isinstance(engine, DeviceEngine):
            raise lacking("ports that are devices of the kernel", f"the engine {engine.name} switches by itself")
        self._device = engine.plug_device(slot, wanted.interface, up=wanted.up)
        self._interface = wanted.interface

    @property
    def state(self) -> BackendState:
        """Open, for as long as nobody takes the interface away."""
        return BackendState.OPEN if self._device.is_there() else BackendState.FAILED

    @property
    def detail(self) -> str:
        """What happened to the interface."""
        return "" if self._device.is_there() else f"the interface {self._interface} went away"

    def start(self) -> None:
        """Do nothing: the kernel has begun."""

    def close(self) -> None:
        """Remove the interface. Idempotent."""
        self._device.unplug()

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Send frames to the interface."""
        return self._device.send(frames)

    def withdraw(self) -> list[bytes]:
        """Return nothing: what waits, waits in the kernel."""
        return []

    def link_changed(self, up: bool) -> None:
        """Show the link as the carrier of the interface."""
        self._device.show_link(up)

    def removed(self) -> None:
        """Do nothing: who keeps the backends closes it."""
