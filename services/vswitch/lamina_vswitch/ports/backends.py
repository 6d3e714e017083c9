"""The backends of a host: opened, plugged into their ports, recorded, brought back after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lamina_kit.clock import Clock
from lamina_kit.errors import AlreadyExists, DataLoss, FailedPrecondition, LaminaError
from lamina_vswitch.domain.backend.address import SocketAddress, parse_address
from lamina_vswitch.domain.backend.definition import (
    BACKEND_NAME,
    FAMILIES,
    BackendDefinition,
    BackendState,
    BackendView,
    CaptureFile,
    Datagram,
    Packet,
    Stream,
    Tap,
    Veth,
    kind_word,
    to_text,
)
from lamina_vswitch.domain.definitions.refusals import port_attached, unknown
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition
from lamina_vswitch.domain.offload.features import PLAIN
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.backends.backend import Backend
from lamina_vswitch.io.backends.bypass import Bypass
from lamina_vswitch.io.backends.capture_file import FileBackend
from lamina_vswitch.io.backends.datagram import DatagramBackend
from lamina_vswitch.io.backends.packet import PacketBackend
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.stream import StreamBackend
from lamina_vswitch.io.backends.tap import TapBackend
from lamina_vswitch.io.backends.veth import VethBackend
from lamina_vswitch.io.store.backends import BackendStore
from lamina_vswitch.plane.loading import PlaneLoader
from lamina_vswitch.switches.catalog import Catalog


@dataclass(slots=True)
class _Entry:
    """What is kept of one: `backend` is None, and `failure` says why, when it could not be opened at a restart."""

    definition: BackendDefinition
    backend: Backend | None
    failure: str = ""


class BackendTable:
    """All backends. A port has at most one, and nothing else while it has."""

    def __init__(
        self, catalog: Catalog, store: BackendStore, clock: Clock, planes: PlaneLoader, *, bypass: bool = True
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._planes = planes
        self._bypass: Bypass | None = None
        self._is_bypass_tried = not bypass
        self._quickening: asyncio.Task[None] | None = None
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._requests = RequestLedger()
        catalog.unplugged.append(self._unplugged)

    def restore(self) -> None:
        """Open what the store holds again. What cannot be opened now is kept as failed."""
        self._store.open()
        for wanted, origin, ended in self._store.load():
            key = (wanted.switch, wanted.port)
            self._requests.remember("backend", key, origin)
            try:
                backend = self._open(wanted, resumed=True)
                self._plug(wanted, backend, skip=ended)
            except LaminaError as error:
                self._entries[key] = _Entry(wanted, None, error.message)
            else:
                self._entries[key] = _Entry(_shown(wanted, backend), backend)

    def stop(self) -> None:
        """Close all: the service stops."""
        if self._quickening is not None:
            self._quickening.cancel()
        for key in sorted(self._entries):
            self._close(self._entries[key])
        if self._bypass is not None:
            self._bypass.close()
            self._bypass = None

    def create(self, wanted: BackendDefinition, request_id: str) -> BackendView:
        """Open a backend and plug it into its port, or return what the same request made before."""
        port = self._catalog.port(wanted.switch, wanted.port)
        key = (wanted.switch, wanted.port)
        origin = Origin(request_id, repr(("backend", *key, to_text(wanted.kind), wanted.queue_frames)))
        if self._requests.replayed("backend", key, origin):
            return self._view(self._entries[key])
        if key in self._entries:
            raise AlreadyExists(
                f"{self.name(*key)} exists already.",
                reason="BACKEND_EXISTS",
                next_step="Delete it first; a port has one backend.",
            )
        if port.slot in self._catalog.reserved or self._catalog.engine.attached(port.slot):
            raise port_attached(self._catalog.port_name(*key))
        backend = self._open(wanted, resumed=False)
        chosen = _shown(wanted, backend)  # after a restart, the peer finds it where it was
        try:
            self._store.add(chosen, origin)
        except BaseException:
            backend.close()
            raise
        self._plug(wanted, backend)
        entry = self._entries[key] = _Entry(chosen, backend)
        self._requests.remember("backend", key, origin)
        self._note(key, "backend.created", kind=kind_word(wanted.kind))
        return self._view(entry)

    def get(self, switch: str, port: str) -> BackendView:
        """Return the backend of a port."""
        return self._view(self._entry(switch, port))

    def list(self, switch: str) -> list[BackendView]:
        """Return the backends of a switch, ordered by port."""
        self._catalog.switch(switch)
        return [self._view(self._entries[key]) for key in sorted(self._entries) if key[0] == switch]

    def delete(self, switch: str, port: str) -> None:
        """Unplug a backend and close it."""
        entry = self._entry(switch, port)
        self._store.remove(switch, port)
        self._forget(entry)
        self._note((switch, port), "backend.deleted")

    def name(self, switch: str, port: str) -> str:
        """Return the resource name of the backend of a port."""
        return BACKEND_NAME.format(host=self._catalog.host, switch=switch, port=port)

    def _open(self, wanted: BackendDefinition, *, resumed: bool) -> Backend:
        """Return the opened backend. Raises the errors of `CreateBackend`."""
        port = self._catalog.port(wanted.switch, wanted.port)
        engine, kind, capacity = self._catalog.engine, wanted.kind, wanted.queue_frames
        end = PortEnd(engine, port.slot, lambda: self._catalog.mtu_bytes(port.slot), self._clock.now_ns)
        if isinstance(kind, CaptureFile):
            name = self._catalog.port_name(wanted.switch, wanted.port)

            def ended() -> None:
                self._store.set_ended(wanted.switch, wanted.port)

            return FileBackend(end, kind, name, self._clock, ended, resumed=resumed)
        if self._clock.mode != "real":
            raise FailedPrecondition(
                f"A {kind_word(kind)} backend is outside of the stack's time, which is {self._clock.mode}.",
                reason="CLOCK_VIRTUAL",
                next_step="Run the stack in real time, or play a capture file.",
            )
        if isinstance(kind, Tap):
            return TapBackend(end, kind, capacity)
        if isinstance(kind, Veth):
            return VethBackend(engine, port.slot, kind)
        if isinstance(kind, Packet):
            return self._packet(end, kind, capacity, (wanted.switch, wanted.port))
        if isinstance(kind, Datagram):
            remote = _address(kind.remote_address, Datagram) if kind.remote_address else None
            return DatagramBackend(end, _address(kind.local_address, Datagram), remote, capacity)
        return StreamBackend(end, _address(kind.address, Stream), capacity, self._clock, listen=kind.listen)

    def _packet(self, end: PortEnd, kind: Packet, capacity: int, key: tuple[str, str]) -> PacketBackend:
        """Return a backend at an interface, which the kernel may bypass with known frames; tell if it does not."""
        if not self._is_bypass_tried and type(self._catalog.engine) is ModelEngine:
            self._is_bypass_tried = True
            try:
                self._bypass = Bypass(self._catalog.engine)
            except LaminaError as error:
                self._note(key, "backend.not_bypassed", why=error.message)
        backend = PacketBackend(end, kind, capacity, self._bypass)
        if backend.bypass_failure:
            self._note(key, "backend.not_bypassed", why=backend.bypass_failure)
        return backend

    def _plug(self, wanted: BackendDefinition, backend: Backend, *, skip: bool = False) -> None:
        port = self._catalog.port(wanted.switch, wanted.port)
        try:
            self._catalog.attach(port, backend, self._clock.now_ns(), backend.takes)
        except BaseException:
            backend.close()
            raise
        if not port.link_up:
            backend.link_changed(False)
        if skip and isinstance(backend, FileBackend):
            backend.skip()
        else:
            backend.start()
        if isinstance(backend, (TapBackend, PacketBackend)):
            self._quickening = self._quickening or asyncio.get_running_loop().create_task(self._quicken())

    async def _quicken(self) -> None:
        """Load the plane, and have all backends at devices of the kernel go on by it."""
        try:
            plane = await self._planes.load()
        finally:
            self._quickening = None
        for key in sorted(self._entries):
            backend = self._entries[key].backend
            if plane is None:
                return
            if isinstance(backend, (TapBackend, PacketBackend)) and not backend.quick:
                backend.quicken(plane)

    def _forget(self, entry: _Entry) -> None:
        wanted = entry.definition
        self._close(entry)
        del self._entries[wanted.switch, wanted.port]
        self._requests.forget("backend", (wanted.switch, wanted.port))

    def _close(self, entry: _Entry) -> None:
        if entry.backend is not None:
            entry.backend.close()
            port = self._catalog.find_port(entry.definition.switch, entry.definition.port)
            if port is not None:
                self._catalog.detach(port, entry.backend, self._clock.now_ns())

    def _unplugged(self, port: PortDefinition) -> None:
        """Close the backend of a port that is gone; the store has forgotten it with the port."""
        entry = self._entries.get((port.switch, port.port))
        if entry is not None:
            self._forget(entry)

    def _entry(self, switch: str, port: str) -> _Entry:
        found = self._entries.get((switch, port))
        if found is None:
            raise unknown("backend", self.name(switch, port))
        return found

    def _view(self, entry: _Entry) -> BackendView:
        wanted, backend = entry.definition, entry.backend
        name = self.name(wanted.switch, wanted.port)
        if backend is None:
            return BackendView(name, wanted, BackendState.FAILED, entry.failure, PLAIN)
        return BackendView(name, wanted, backend.state, backend.detail, backend.takes or PLAIN)

    def _note(self, key: tuple[str, str], event: str, **inputs: str) -> None:
        self._catalog.notice(Notice(self.name(*key), event, "", tuple(sorted(inputs.items()))))


def _address(text: str, kind: type[Datagram] | type[Stream]) -> SocketAddress:
    """Return an address that was checked when its backend was defined."""
    found = parse_address(text, FAMILIES[kind])
    if isinstance(found, str):
        raise DataLoss(
            f"The database has a backend at {text}, which {found}.",
            reason="STORE_CORRUPT",
            next_step="Delete the backend, and plug it in anew.",
        )
    return found


def _shown(wanted: BackendDefinition, backend: Backend) -> BackendDefinition:
    """Return a definition with the addresses that the system chose."""
    kind = wanted.kind
    if isinstance(backend, DatagramBackend) and isinstance(kind, Datagram):
        kind = Datagram(str(backend.local), kind.remote_address, kind.allow_remote)
    elif isinstance(backend, StreamBackend) and isinstance(kind, Stream):
        kind = Stream(str(backend.address), kind.listen, kind.allow_remote)
    return BackendDefinition(wanted.switch, wanted.port, kind, wanted.queue_frames)
