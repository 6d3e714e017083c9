"""The wires of a host, what carries them, and the NICs on them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lamina_hardware.devices.nic import NicDevice
from lamina_hardware.domain.wire import Quality, Wire
from lamina_hardware.io.media.medium import Medium
from lamina_hardware.io.timers import Timers
from lamina_hardware.request_ids import Requests
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from lamina_kit.rng import Rng

MAX_WIRES = 1024
MAX_STATIONS = 1024

Record = Callable[..., object]

_FABRICS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, list[Wire]]] = weakref.WeakKeyDictionary()
"""What hosts of one composition share: they live on one event loop, and nothing else does."""


class _Ports:
    """Time and chance of one wire."""

    def __init__(self, timers: Timers, chance: Rng) -> None:
        self.now_ns = timers.now_ns
        self._timers = timers
        self._chance = chance

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> None:
        """See `WirePorts.call_at`."""
        self._timers.call_at(when_ns, callback)

    def draw(self, below: int) -> int:
        """See `WirePorts.draw`."""
        return self._chance.randrange(below)


@dataclass(slots=True, eq=False)
class Line:
    """A wire of this host. `fabric` is the name of its fabric, empty when a medium carries it."""

    wire: Wire
    kind: object
    fabric: str = ""
    medium: Medium | None = None
    devices: dict[str, NicDevice] = field(default_factory=dict)
    ended: list[Callable[[], None]] = field(default_factory=list)
    """Who wants to hear of the wire's end."""

    @property
    def lost(self) -> int:
        """Frames that were lost on the wire and at its medium."""
        return self.wire.lost + (self.medium.lost if self.medium is not None else 0)


class HostWires:
    """All wires of one host, by name."""

    def __init__(self, timers: Timers, rng: Rng, record: Record, requests: Requests) -> None:
        self._timers = timers
        self._rng = rng
        self._record = record
        self._requests = requests
        self._lines: dict[str, Line] = {}

    def entries(self) -> list[Line]:
        """Returns the wires in the order of their names."""
        return [self._lines[name] for name in sorted(self._lines)]

    def find(self, name: str) -> Line | None:
        """Returns a wire, or None."""
        return self._lines.get(name)

    def get(self, name: str) -> Line:
        """Returns a wire. Raises `NotFound` `WIRE_UNKNOWN`."""
        found = self._lines.get(name)
        if found is None:
            raise NotFound(
                f"This host has no wire {name}.", reason="WIRE_UNKNOWN", next_step="List them with `Wires.ListWires`."
            )
        return found

    def of(self, nic: str) -> str:
        """Returns the wire that a NIC is on, empty for none."""
        return next((name for name, line in sorted(self._lines.items()) if nic in line.devices), "")

    def create_once(self, request_id: str, name: str, make: Callable[[], Line]) -> Line:
        """Returns the wire that a request made before, or makes one.

        Raises `AlreadyExists` `WIRE_EXISTS`, or `ResourceExhausted` `TOO_MANY_WIRES`.
        """
        known = self._requests.find("wire", request_id)
        if isinstance(known, Line) and known is self.find(known.wire.name):
            return known
        if name in self._lines:
            raise AlreadyExists(f"Wire {name} exists.", reason="WIRE_EXISTS", next_step="Take it, or another name.")
        if len(self._lines) >= MAX_WIRES:
            raise ResourceExhausted(
                f"This host has {MAX_WIRES} wires.", reason="TOO_MANY_WIRES", next_step="Delete one."
            )
        line = make()
        self._requests.remember("wire", request_id, line)
        return line

    def create(self, name: str, quality: Quality, kind: object, fabric: str, medium: Medium | None) -> Line:
        """Makes a wire over a fabric or an open medium."""
        wire = Wire(name, quality, _Ports(self._timers, self._rng.child(f"wire {name}")))
        line = self._lines[name] = Line(wire, kind, fabric, medium)
        loop = asyncio.get_running_loop()
        if medium is not None:
            wire.outside = medium.send
            medium.attach(loop, wire.arrive)
        else:
            others = _FABRICS.setdefault(loop, {}).setdefault(fabric, [])
            others.append(wire)
            wire.outside = lambda frames: _spread(others, wire, frames)
        self._record(name, "wire.created", rule=type(kind).__name__)
        return line

    def change(self, line: Line, quality: Quality) -> None:
        """Changes a wire; a cut shows at the NICs as a link that is down."""
        line.wire.change(quality)
        for device in line.devices.values():
            device.carrier(not quality.is_cut, quality.rate)
        self._record(line.wire.name, "wire.changed", cut=quality.is_cut)

    def delete(self, line: Line) -> None:
        """Deletes a wire; NICs on it lose their link."""
        for nic in list(line.devices):
            self.disconnect(nic)
        self._close(line)
        del self._lines[line.wire.name]
        _tell(line)
        self._record(line.wire.name, "wire.deleted")

    def stop(self) -> None:
        """Closes all media. Idempotent."""
        lines = self.entries()
        self._lines.clear()
        for line in lines:
            self._close(line)
            _tell(line)

    def connect(self, nic: str, device: NicDevice, line: Line) -> None:
        """Puts a NIC on a wire. Raises `FailedPrecondition` `NIC_CONNECTED` when it is on another one."""
        now = self.of(nic)
        if now == line.wire.name:
            return
        if now:
            raise FailedPrecondition(
                f"NIC {nic} is on wire {now}.", reason="NIC_CONNECTED", next_step="Disconnect it first."
            )
        if len(line.devices) >= MAX_STATIONS:
            raise ResourceExhausted(
                f"Wire {line.wire.name} has {MAX_STATIONS} NICs.",
                reason="TOO_MANY_STATIONS",
                next_step="Use another wire of the same fabric.",
            )
        line.devices[nic] = device
        line.wire.connect(nic, device.nic.receive)
        device.send = lambda frames: line.wire.send(nic, frames)
        device.carrier(not line.wire.quality.is_cut, line.wire.quality.rate)
        self._record(line.wire.name, "nic.connected", nic=nic)

    def disconnect(self, nic: str) -> None:
        """Takes a NIC off its wire. Idempotent."""
        name = self.of(nic)
        if not name:
            return
        line = self._lines[name]
        device = line.devices.pop(nic)
        line.wire.disconnect(nic)
        device.send = lambda frames: None
        device.carrier(False, 0)
        self._record(name, "nic.disconnected", nic=nic)

    def _close(self, line: Line) -> None:
        line.wire.outside = None
        if line.medium is not None:
            line.medium.close()
            return
        fabrics = _FABRICS.get(asyncio.get_running_loop(), {})
        others = fabrics.get(line.fabric, [])
        if line.wire in others:
            others.remove(line.wire)
        if not others:
            fabrics.pop(line.fabric, None)


def _tell(line: Line) -> None:
    for hear in list(line.ended):
        hear()


def _spread(wires: list[Wire], sender: Wire, frames: Sequence[bytes]) -> None:
    """Has the other wires of a fabric hear frames."""
    for wire in list(wires):
        if wire is not sender:
            wire.arrive(frames)
