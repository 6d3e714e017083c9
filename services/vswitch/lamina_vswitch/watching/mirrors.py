"""The mirrors of a host: what is defined, in the store, and at work in the hub. Order of a change as in the catalog."""

from __future__ import annotations

from dataclasses import replace

from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_vswitch.domain.capture.hub import Hub
from lamina_vswitch.domain.capture.mirror import MAX_MIRRORS, MIRROR_NAME, MirrorDefinition, Tap
from lamina_vswitch.domain.definitions.refusals import exists, unknown
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition, PortGroupDefinition
from lamina_vswitch.io.store.mirrors import MirrorStore
from lamina_vswitch.switches.catalog import Catalog

Key = tuple[str, str]


class Mirrors:
    """Mirrors by switch id and mirror id. Every method runs to its end before another begins."""

    def __init__(self, catalog: Catalog, store: MirrorStore, hub: Hub) -> None:
        self._catalog = catalog
        self._store = store
        self._hub = hub
        self._mirrors: dict[Key, MirrorDefinition] = {}
        self._taps: dict[Key, Tap] = {}
        self._requests = RequestLedger()
        catalog.plugged.append(self._plugged)
        catalog.unplugged.append(self._unplugged)
        catalog.group_gone.append(self._ungrouped)

    def restore(self, now_ns: int) -> None:
        """Bring mirrors to what the store holds; the catalog has been restored."""
        self._store.open()
        for mirror, origin in self._store.load():
            self._mirrors[mirror.switch, mirror.mirror] = mirror
            self._requests.remember("mirror", (mirror.switch, mirror.mirror), origin)
            self._mark(mirror, now_ns)
        self._at_work()

    def name(self, mirror: MirrorDefinition) -> str:
        """Return the resource name of a mirror."""
        return MIRROR_NAME.format(host=self._catalog.host, switch=mirror.switch, mirror=mirror.mirror)

    def create(self, mirror: MirrorDefinition, request_id: str, now_ns: int) -> MirrorDefinition:
        """Create a mirror, or return what the same request made before."""
        self._catalog.switch(mirror.switch)
        key = (mirror.switch, mirror.mirror)
        origin = Origin(request_id, repr(mirror))
        if self._requests.replayed("mirror", key, origin):
            return self._mirrors[key]
        if key in self._mirrors:
            raise exists("mirror", self.name(mirror))
        for port in (*mirror.ports, mirror.destination):
            self._catalog.port(mirror.switch, port)
        for group in mirror.groups:
            self._catalog.port_group(mirror.switch, group)
        self._check_loop(mirror)
        if len(self.mirrors(mirror.switch)) >= MAX_MIRRORS:
            raise ResourceExhausted(
                f"No further mirror can be made: {self._catalog.switch_name(mirror.switch)} has {MAX_MIRRORS}.",
                reason="MIRROR_LIMIT",
                next_step="Delete a mirror of this switch.",
                limit=MAX_MIRRORS,
            )
        self._store.add(mirror, origin)
        self._mirrors[key] = mirror
        self._requests.remember("mirror", key, origin)
        self._mark(mirror, now_ns)
        self._at_work()
        return mirror

    def get(self, switch: str, mirror: str) -> MirrorDefinition:
        """Return a mirror."""
        found = self._mirrors.get((switch, mirror))
        if found is None:
            raise unknown("mirror", MIRROR_NAME.format(host=self._catalog.host, switch=switch, mirror=mirror))
        return found

    def mirrors(self, switch: str) -> list[MirrorDefinition]:
        """Return the mirrors of a switch, ordered by id."""
        self._catalog.switch(switch)
        return [self._mirrors[key] for key in sorted(self._mirrors) if key[0] == switch]

    def copied(self, mirror: MirrorDefinition) -> int:
        """Return how many frames a mirror has copied since it was made or the service started."""
        return self._taps[mirror.switch, mirror.mirror].copied

    def delete(self, switch: str, mirror: str, now_ns: int) -> None:
        """Delete a mirror; its destination is a port like others again if no other mirror has it."""
        found = self.get(switch, mirror)
        self._store.remove(found)
        self._forget(found)
        self._mark(found, now_ns)
        self._at_work()

    def _check_loop(self, mirror: MirrorDefinition) -> None:
        """Refuse a destination that is a source of this mirror or another, and a source that is a destination."""
        all_of_switch = [*self.mirrors(mirror.switch), mirror]
        sources = {port for each in all_of_switch for port in self._source_ports(each)}
        wrong = sources & {mirror.destination}
        wrong |= {each.destination for each in all_of_switch} & set(self._source_ports(mirror))
        if wrong:
            name = self._catalog.port_name(mirror.switch, min(wrong))
            raise FailedPrecondition(
                f"{name} would be source and destination of mirrors.",
                reason="MIRROR_LOOP",
                next_step="Choose a port as destination that no mirror copies from.",
                port=name,
            )

    def _source_ports(self, mirror: MirrorDefinition) -> list[str]:
        """Return the ids of the ports that a mirror names, or whose port group it names."""
        members = [port.port for port in self._catalog.ports(mirror.switch) if port.port_group in mirror.groups]
        return [*mirror.ports, *members]

    def _forget(self, mirror: MirrorDefinition) -> None:
        key = (mirror.switch, mirror.mirror)
        del self._mirrors[key]
        self._taps.pop(key, None)
        self._requests.forget("mirror", key)

    def _mark(self, mirror: MirrorDefinition, now_ns: int) -> None:
        """Tell the engine whether the destination of a mirror receives nothing but copies."""
        slot = self._catalog.port(mirror.switch, mirror.destination).slot
        others = [each for each in self.mirrors(mirror.switch) if each.destination == mirror.destination]
        self._catalog.engine.set_copies_only(slot, bool(others), now_ns)

    def _at_work(self) -> None:
        """Give the hub a tap for each mirror, with the slots that its ports and groups have now."""
        taps = {}
        for key in sorted(self._mirrors):
            mirror = self._mirrors[key]
            slots = frozenset(self._catalog.port(key[0], port).slot for port in self._source_ports(mirror))
            to = self._catalog.port(key[0], mirror.destination).slot
            taps[key] = Tap(mirror, self._catalog.switch_name(key[0]), slots, to)
            if key in self._taps:
                taps[key].copied = self._taps[key].copied
        self._taps = taps
        self._hub.set_taps(list(taps.values()))

    def _plugged(self, port: PortDefinition) -> None:
        if any(mirror.groups for mirror in self._of_switch(port.switch)):
            self._at_work()

    def _unplugged(self, port: PortDefinition) -> None:
        """Forget the mirrors to a port that is gone, and the port as a source of others."""
        found = self._of_switch(port.switch)
        for mirror in found:
            if mirror.destination == port.port:
                self._forget(mirror)
            elif port.port in mirror.ports:
                kept = tuple(each for each in mirror.ports if each != port.port)
                self._mirrors[mirror.switch, mirror.mirror] = replace(mirror, ports=kept)
        if found:
            self._at_work()

    def _ungrouped(self, group: PortGroupDefinition) -> None:
        for mirror in self._of_switch(group.switch):
            if group.port_group in mirror.groups:
                kept = tuple(each for each in mirror.groups if each != group.port_group)
                self._mirrors[mirror.switch, mirror.mirror] = replace(mirror, groups=kept)

    def _of_switch(self, switch: str) -> list[MirrorDefinition]:
        return [self._mirrors[key] for key in sorted(self._mirrors) if key[0] == switch]
