"""The engines that are registered for the vswitch layer, each with one switch to test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lamina_kit.engines import engines_of
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.sampling import Notice

SWITCH = "hosts/h1/switches/s1"
SECOND_NS = 1_000_000_000


class Sink:
    """A device behind a port that takes up to `room` frames."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.frames: list[bytes] = []
        self.links: list[bool] = []
        self.gone = False

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take what fits."""
        taken = frames[: self.room - len(self.frames)]
        self.frames.extend(taken)
        return len(taken)

    def link_changed(self, up: bool) -> None:
        """Note the link."""
        self.links.append(up)

    def removed(self) -> None:
        """Note the end."""
        self.gone = True

    def take(self) -> list[bytes]:
        """Return what has come since the last call."""
        frames, self.frames = self.frames, []
        return frames


class Bench:
    """An engine with the switch `s1`, whose ports are numbered by their slots."""

    def __init__(self, engine_class: type[Any], **options: int) -> None:
        self.notices: list[Notice] = []
        self.engine = engine_class(self.notices.append)
        self.engine.add_switch(SWITCH, SwitchDefinition("s1", **options))
        self.sinks: dict[int, Sink] = {}

    def needs(self, capability: str) -> None:
        """Skip the test when the engine does not name a capability."""
        if capability not in self.engine.capabilities:
            pytest.skip(f"the engine has no {capability}")

    def port(self, slot: int, vlan: int = 0, *, attach: bool = True, room: int = 1 << 30) -> Sink:
        """Make a port and, if wanted, attach a sink to it."""
        self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", vlan, True)
        self.sinks[slot] = Sink(room)
        if attach:
            self.engine.attach(slot, self.sinks[slot], 0)
        return self.sinks[slot]

    def reached(self, slot: int, frame: bytes, now_ns: int = 0) -> dict[int, list[bytes]]:
        """Send one frame and return what came out of which port."""
        self.engine.transmit(slot, [frame], now_ns)
        return {port: frames for port, sink in self.sinks.items() if (frames := sink.take())}

    def drops(self, slot: int) -> dict[str, int]:
        """Return the drop counters of a port by the reason's name."""
        return {reason.name: count for reason, count in self.engine.counters(slot).drops_by_reason()}

    def table(self, now_ns: int = 0) -> list[tuple[int, bytes, int]]:
        """Return (VLAN, address, port) of the live entries."""
        return [(e.vlan, e.mac, e.slot) for e in self.engine.mac_entries(SWITCH, now_ns)]


@pytest.fixture(params=sorted(engines_of("vswitch").items()), ids=lambda item: item[0])
def bench(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Returns what makes a `Bench` on each registered engine that can run here; all of them end with the test."""
    _, engine_class = request.param
    if reasons := engine_class.missing():
        pytest.skip("; ".join(reasons))

    made: list[Bench] = []

    def make(**options: int) -> Bench:
        made.append(Bench(engine_class, **options))
        return made[-1]

    yield make
    for each in made:
        each.engine.close()
