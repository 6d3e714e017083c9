"""Which uplinks of a host drive which NICs: taken when an uplink is made, given back when it is deleted.

The definition is the uplink's alone. What is opened here is opened again after a restart of this service or of the
hardware below, and an uplink whose NIC is gone stays, without a carrier, until it is deleted or the NIC is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.rpc.retry import is_lost
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.uplink.definition import (
    NicView,
    UplinkDefinition,
    hardware_unreachable,
    mtu_unsupported,
    nic_in_use,
    nics_unsupported,
)
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.nic.driver import HardwareBelow, NicWish
from lamina_vswitch.io.nic.port import NicPort
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.switches.policies import PolicyBook
from lamina_vswitch.uplinks.uplinks import UplinkTable

_TAKEN = ("DEVICE_DRIVEN", "DEVICE_ATTACHED")
Key = tuple[str, str]


class UplinkNics:
    """NICs by ids of switch and uplink."""

    def __init__(self, catalog: Catalog, uplinks: UplinkTable, policies: PolicyBook, clock: Clock) -> None:
        self._catalog, self._uplinks, self._clock = catalog, uplinks, clock
        self._below: HardwareBelow | None = None
        self._ports: dict[Key, NicPort] = {}
        self._closing: dict[asyncio.Task[None], None] = {}
        self._creating = asyncio.Lock()
        catalog.plugged.append(self._plugged)
        catalog.unplugged.append(self._unplugged)
        policies.resized.append(self._resized)

    def restore(self, below: HardwareBelow) -> None:
        """Begin to drive the NICs of the uplinks that are recorded, in the order of their names."""
        self._below = below
        for switch in self._catalog.switches():
            for uplink in self._uplinks.uplinks(switch.switch):
                if uplink.nic:
                    self._adopt(uplink, self._port(below, uplink))

    async def stop(self) -> None:
        """Give every NIC back: the service stops."""
        ports, self._ports = self._ports, {}
        for key in sorted(ports):
            await ports[key].close()
        await asyncio.gather(*self._closing)

    async def create(self, wanted: UplinkDefinition, link_up: bool, request_id: str) -> UplinkDefinition:
        """Take the NIC of an uplink and create the uplink, or return what the same request made before."""
        async with self._creating:
            known = self._uplinks.check_new(wanted, link_up, request_id)
            if known is not None:
                return known
            if self._below is None:
                raise nics_unsupported()
            await self.given_back()  # also by a switch that was deleted by force, which does not wait
            for other in self._ports:
                if self._uplinks.get(*other).nic == wanted.nic:
                    raise nic_in_use(wanted.nic, self._uplinks.name(*other))
            port = self._port(self._below, wanted, link_up)
            try:
                await self._open(port, wanted)
                made = self._uplinks.create(wanted, link_up, request_id)
            except BaseException:
                await port.close()
                raise
            self._adopt(wanted, port)
            return made

    async def given_back(self) -> None:
        """Wait until the NICs of deleted uplinks are given back."""
        await asyncio.gather(*self._closing)

    def view(self, uplink: UplinkDefinition) -> NicView | None:
        """Return the NIC of an uplink as it is now; None for one without."""
        if not uplink.nic:
            return None
        port = self._ports.get((uplink.switch, uplink.uplink))
        if port is None or port.driver is None:
            return NicView(driven=False)
        return NicView(True, port.rate_bits_per_second, len(port.driver.pairs))

    # Inside

    def _port(self, below: HardwareBelow, uplink: UplinkDefinition, link_up: bool = True) -> NicPort:
        key = (uplink.switch, uplink.uplink)
        clock = self._clock

        def wish() -> NicWish:
            port = self._catalog.find_port(*key)
            mtu_bytes = self._catalog.switch(uplink.switch).mtu_bytes
            return NicWish(uplink.nic, mtu_bytes, link_up if port is None else port.link_up)

        def plug(sink: NicPort, up: bool) -> None:
            port = self._catalog.find_port(*key)
            if port is None:
                return
            if up:
                takes = sink.driver.takes if sink.driver is not None else None
                self._catalog.attach(port, sink, clock.now_ns(), takes)
            else:
                self._catalog.detach(port, sink, clock.now_ns())

        def failed(error: LaminaError) -> None:
            details = (("message", error.message), ("nic", uplink.nic), ("reason", error.reason))
            self._catalog.notice(Notice(self._catalog.port_name(*key), "uplink.nic_failed", "", details))

        return NicPort(below, clock, wish, plug, failed)

    def _adopt(self, uplink: UplinkDefinition, nic: NicPort) -> None:
        """Let a NIC bring frames to the port of its uplink, which is there."""
        port = self._uplinks.port(uplink)
        self._ports[port.switch, port.port] = nic
        self._catalog.reserved[port.slot] = nic
        engine, slot = self._catalog.engine, port.slot
        nic.start(PortEnd(engine, slot, lambda: self._catalog.mtu_bytes(slot), self._clock.now_ns))

    async def _open(self, port: NicPort, wanted: UplinkDefinition) -> None:
        """Take a NIC. Raises the errors of CreateUplink."""
        try:
            await port.open()
        except LaminaError as error:
            if error.reason in _TAKEN:
                raise nic_in_use(wanted.nic, error.message) from error
            if any(each.field.endswith("mtu_bytes") for each in error.violations):
                raise mtu_unsupported(wanted.nic, self._catalog.switch(wanted.switch).mtu_bytes) from error
            if is_lost(error) or error.code in ("UNAVAILABLE", "ABORTED"):
                raise hardware_unreachable(wanted.nic) from error
            raise

    def _plugged(self, port: PortDefinition) -> None:
        """Have a NIC follow the link that is wanted, also when it is not attached as its own link is down."""
        if (port.switch, port.port) in self._ports:
            self._ports[port.switch, port.port].settings_changed()

    def _resized(self, switch: str) -> None:
        """Have the NICs of a switch's uplinks get its MTU."""
        for key in sorted(self._ports):
            if key[0] == switch:
                self._ports[key].settings_changed()

    def _unplugged(self, port: PortDefinition) -> None:
        """Give back the NIC of an uplink that is gone."""
        self._catalog.reserved.pop(port.slot, None)
        gone = self._ports.pop((port.switch, port.port), None)
        if gone is not None:
            self._spawn(gone.close())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing[task] = None
        task.add_done_callback(lambda done: self._closing.pop(done, None))
