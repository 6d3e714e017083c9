"""The streams that tell of the ports of a switch: what is so now, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from lamina_kit.errors import LaminaError, Unavailable
from lamina_vswitch.domain.definitions.switches import PortDefinition, SwitchDefinition
from lamina_vswitch.domain.port.changes import Change, PortChanges
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.watching.captures import switch_deleted


class PortWatches:
    """Whoever watches ports. Catalog and engine tell of changes; a stream renders the newest state when it is read."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._open: list[_Watch] = []
        catalog.plugged.append(self._changed)
        catalog.unplugged.append(self._gone)
        catalog.switch_gone.append(self._switch_gone)
        catalog.engine.port_changed = lambda slot: self._changed(catalog.port_in_slot(slot))

    async def run(self, switch: str) -> AsyncGenerator[tuple[list[Change], bool], None]:
        """Yield changes, and whether they end what was so at the start. Whoever iterates closes the generator."""
        watch = _Watch(switch)
        for port in self._catalog.ports(switch):
            watch.changes.changed(port)
        self._open.append(watch)
        try:
            initial = True
            while True:
                changes = watch.changes.take()
                if changes or initial:
                    ends, initial = initial and not len(watch.changes), initial and bool(len(watch.changes))
                    yield changes, ends
                elif watch.error is not None:
                    raise watch.error
                else:
                    watch.wake.clear()
                    await watch.wake.wait()
        finally:
            self._open.remove(watch)

    def stop(self) -> None:
        """End all streams: the service stops."""
        for watch in self._open:
            watch.fail(
                Unavailable(
                    "The vswitch service is stopping.",
                    reason="SERVICE_STOPPING",
                    next_step="Watch again once it is back; the stream begins with what is so then.",
                )
            )

    def _changed(self, port: PortDefinition) -> None:
        for watch in self._open:
            if watch.switch == port.switch:
                watch.changes.changed(port)
                watch.wake.set()

    def _gone(self, port: PortDefinition) -> None:
        for watch in self._open:
            if watch.switch == port.switch:
                watch.changes.gone(port)
                watch.wake.set()

    def _switch_gone(self, switch: SwitchDefinition) -> None:
        for watch in self._open:
            if watch.switch == switch.switch:
                watch.fail(switch_deleted(self._catalog.switch_name(switch.switch)))


class _Watch:
    """One stream: what it has to tell, and the error that ends it when everything is told."""

    def __init__(self, switch: str) -> None:
        self.switch = switch
        self.changes = PortChanges()
        self.wake = asyncio.Event()
        self.error: LaminaError | None = None

    def fail(self, error: LaminaError) -> None:
        """End the stream once what waits is told; the first error counts."""
        self.error = self.error or error
        self.wake.set()
