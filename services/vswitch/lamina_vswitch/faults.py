"""What can break at a host's switches: cables that break, cables with a bad contact, frames that get lost.

The kit serves them as `lamina.common.v1.Faults` (`kit/lamina_kit/faults/table.py`); here is what they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from lamina_kit.clock import Clock
from lamina_kit.errors import NotFound
from lamina_kit.faults.kinds import Breakage, FaultKind, Parameter
from lamina_kit.faults.table import FaultTable
from lamina_kit.rng import Rng
from lamina_kit.telemetry.events import EventLog
from lamina_vswitch.domain.definitions.switches import PORT_GROUP_NAME, PORT_NAME, PortDefinition, PortGroupDefinition
from lamina_vswitch.domain.port.loss import MILLION, Loss
from lamina_vswitch.switches.catalog import Catalog

MS = 1_000_000
_LONGEST_NS = 3600 * 10**9


class VswitchFaults:
    """Breaks cables. A port is down as long as any fault says so."""

    def __init__(self, catalog: Catalog, clock: Clock, rng: Rng, events: EventLog) -> None:
        self._catalog = catalog
        self._clock = clock
        self._rng = rng
        self._events = events
        self._table: FaultTable
        self._down: dict[int, dict[str, None]] = {}
        self._flaps: dict[str, asyncio.Task[None]] = {}
        self._losses: dict[tuple[str, str], tuple[str, int]] = {}
        catalog.plugged.append(self._plugged)
        catalog.unplugged.append(self._unplugged)
        catalog.group_gone.append(self._ungrouped)

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table."""
        self._table = table
        table.register(
            FaultKind(
                "link-down",
                PORT_NAME,
                "A port's cable is broken: the device behind it has no link, and what was learned there is forgotten.",
                self._cut,
                self._mend,
            )
        )
        table.register(
            FaultKind(
                "port-flap",
                PORT_NAME,
                "A port's cable has a bad contact: its link goes down and up again, time after time.",
                self._flap,
                self._mend,
                (
                    Parameter("down_ns", "how long the link is down each time", MS, _LONGEST_NS, default="100000000"),
                    Parameter("up_ns", "how long it is up in between", MS, _LONGEST_NS, default="900000000"),
                ),
            )
        )
        table.register(
            FaultKind(
                "frame-loss",
                PORT_GROUP_NAME,
                "Frames that enter or leave at the ports of a group are lost with a probability, by the seed, and "
                "counted as drops for FAULT.",
                self._lose,
                self._keep,
                (Parameter("ppm", "share that is lost, in parts per million", 1, MILLION),),
            )
        )

    def stop(self) -> None:
        """Ends the flapping."""
        for task in self._flaps.values():
            task.cancel()

    # ── links ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _cut(self, breakage: Breakage) -> Mapping[str, object]:
        port = self._port(breakage)
        was_up = self._catalog.engine.link(port.slot)
        self._set(port, breakage, True)
        return {"was": "up" if was_up else "down"}

    def _flap(self, breakage: Breakage) -> Mapping[str, object]:
        port = self._port(breakage)
        self._set(port, breakage, True)
        work = self._swing(port, breakage, breakage.numbers["down_ns"], breakage.numbers["up_ns"])
        self._flaps[breakage.name] = asyncio.get_running_loop().create_task(work)
        return {"slot": port.slot}

    async def _swing(self, port: PortDefinition, breakage: Breakage, down_ns: int, up_ns: int) -> None:
        while True:
            await self._clock.sleep_ns(down_ns)
            self._set(port, breakage, False)
            await self._clock.sleep_ns(up_ns)
            self._set(port, breakage, True)

    def _mend(self, breakage: Breakage) -> None:
        task = self._flaps.pop(breakage.name, None)
        if task is not None:
            task.cancel()
        self._set(self._port(breakage), breakage, False)

    def _set(self, port: PortDefinition, breakage: Breakage, down: bool) -> None:
        """Adds a fault to those that keep a port down, or takes it away; notes what changed."""
        faults = self._down.setdefault(port.slot, {})
        if down:
            faults[breakage.name] = None
        else:
            faults.pop(breakage.name, None)
        engine = self._catalog.engine
        before = engine.link(port.slot)
        engine.break_link(port.slot, bool(faults), self._clock.now_ns())
        if engine.link(port.slot) != before:
            self._events.record(breakage.object, "link.down" if before else "link.up", cause=breakage.name)

    # ── loss ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _lose(self, breakage: Breakage) -> Mapping[str, object]:
        group = self._group(breakage)
        self._losses[group.switch, group.port_group] = (breakage.name, breakage.numbers["ppm"])
        members = self._members(group)
        for port in members:
            self._plugged(port)
        return {"ports": len(members)}

    def _keep(self, breakage: Breakage) -> None:
        group = self._group(breakage)
        del self._losses[group.switch, group.port_group]
        for port in self._members(group):
            self._plugged(port)

    def _plugged(self, port: PortDefinition) -> None:
        """Gives a port that came, or changed its group, the loss of the group that it is in."""
        found = self._losses.get((port.switch, port.port_group))
        loss = Loss(found[1], self._rng.child(f"{found[0]}/{port.slot}")) if found is not None else None
        self._catalog.engine.set_loss(port.slot, loss)

    def _unplugged(self, port: PortDefinition) -> None:
        """Forgets the faults of a port that is gone."""
        self._down.pop(port.slot, None)
        name = self._catalog.port_name(port.switch, port.port)
        for fault in self._table.list(active_only=True, object=name):
            task = self._flaps.pop(fault.name, None)
            if task is not None:
                task.cancel()
        self._table.gone(name)

    def _ungrouped(self, group: PortGroupDefinition) -> None:
        """Forgets the faults of a port group that is gone; it had no ports."""
        self._losses.pop((group.switch, group.port_group), None)
        self._table.gone(self._catalog.port_group_name(group.switch, group.port_group))

    def _members(self, group: PortGroupDefinition) -> list[PortDefinition]:
        return [port for port in self._catalog.ports(group.switch) if port.port_group == group.port_group]

    def _port(self, breakage: Breakage) -> PortDefinition:
        self._check_host(breakage)
        return self._catalog.port(breakage.ids["switch"], breakage.ids["port"])

    def _group(self, breakage: Breakage) -> PortGroupDefinition:
        self._check_host(breakage)
        return self._catalog.port_group(breakage.ids["switch"], breakage.ids["port_group"])

    def _check_host(self, breakage: Breakage) -> None:
        if breakage.ids["host"] != self._catalog.host:
            raise NotFound(
                f"This service drives hosts/{self._catalog.host}, not hosts/{breakage.ids['host']}.",
                reason="HOST_UNKNOWN",
                next_step="Call the vswitch service of that host.",
            )
