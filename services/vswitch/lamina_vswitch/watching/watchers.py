"""Everything that watches the switches of a host: captures, mirrors and streams of port changes."""

from __future__ import annotations

from lamina_kit.clock import Clock
from lamina_vswitch.domain.capture.hub import Hub
from lamina_vswitch.io.store.definitions import SqliteStore
from lamina_vswitch.io.store.mirrors import MirrorStore
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.watching.captures import Captures
from lamina_vswitch.watching.mirrors import Mirrors
from lamina_vswitch.watching.port_changes import PortWatches


class Watchers:
    """Made before the catalog is restored; `restore` comes after that, `stop` before the store is closed."""

    def __init__(self, catalog: Catalog, store: SqliteStore, clock: Clock) -> None:
        self._engine = catalog.engine
        self._clock = clock
        hub = Hub(catalog.engine.copy, self._attended)
        self.captures = Captures(catalog, clock, hub)
        self.mirrors = Mirrors(catalog, MirrorStore(store), hub)
        self.ports = PortWatches(catalog)

    def restore(self) -> None:
        """Put the mirrors that the store holds to work."""
        self.mirrors.restore(self._clock.now_ns())

    def stop(self) -> None:
        """End all streams."""
        self.captures.stop()
        self.ports.stop()

    def _attended(self, hub: Hub, by_anybody: bool) -> None:
        """Let the engine tell of frames only while somebody watches."""
        self._engine.observer = hub if by_anybody else None
