"""NAT networks whose outside is the kernel of this machine: their devices and rules, made and taken away with them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_kit.checks import Checks
from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.refusals import outside_not_in_engine
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.domain.nat.translator import NetworkTranslator, inside_of
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition, Outside
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.engines.interface import TranslatingEngine
from lamina_vswitch.engines.linux.nat.rules import DEVICE_PREFIX, NatWanted
from lamina_vswitch.io.ports.tun import TunPort
from lamina_vswitch.nat.state import Outsides
from lamina_vswitch.networks.networks import Networks, Record
from lamina_vswitch.switches.catalog import Catalog

if TYPE_CHECKING:  # what talks with the kernel is loaded where somebody wants it
    from lamina_vswitch.engines.linux.nat.machine import NatMachine
    from lamina_vswitch.engines.linux.nat.network import KernelNat

CAPABILITY = "kernel-nat"
_DEVICE_DIGITS = 8


def device_of(network: str) -> str:
    """Return the device of a network by its resource name: the same after every start, and within 15 characters."""
    return DEVICE_PREFIX + hashlib.sha256(network.encode()).hexdigest()[:_DEVICE_DIGITS]


@dataclass(frozen=True, slots=True)
class Opened:
    """What a network has of the kernel; `slot` is its router's port."""

    kernel: KernelNat
    port: TunPort
    slot: int
    translator: NetworkTranslator


class KernelOutsides:
    """What networks have of the kernel. `namespace` is the path of a network namespace; empty: that of the process."""

    def __init__(self, catalog: Catalog, networks: Networks, namespace: str, record: Record) -> None:
        self._catalog, self._networks, self._namespace, self._record = catalog, networks, namespace, record
        self._machine: NatMachine | None = None
        self._open: dict[str, Opened] = {}
        self._recorded: set[str] = set()
        """Networks that are defined already: what is refused to them now must not undo that."""
        networks.checks.append(self._check)
        networks.unrouted.append(self._gone)

    def load(self) -> None:
        """Take away what a process left that was killed, and note whose outsides have to come back."""
        if CAPABILITY not in self._catalog.engine.capabilities:
            return
        self._recorded = {each.definition.network for each in self._networks.all() if _is_ours(each.definition)}
        try:
            for table in self._there().clean():
                self._record(f"hosts/{self._catalog.host}", "network.outside_cleaned", table=table)
        except LaminaError as error:
            self._record(f"hosts/{self._catalog.host}", "network.outside_refused", reason=error.reason, why=str(error))

    def open(
        self, definition: NetworkDefinition, router: Router, translator: NetworkTranslator,
        inside: Callable[[Sequence[bytes]], None],
    ) -> None:  # fmt: skip
        """Give a network its device and its rules. One that was recorded, and is refused now, stays without an outside.

        Raises PermissionDenied `DEVICE_FORBIDDEN`, `SETTINGS_FORBIDDEN`, FailedPrecondition `NFT_REFUSED`, Unavailable
        `KERNEL_REFUSED`.
        """
        from lamina_vswitch.engines.linux.nat.network import KernelNat

        name, was_recorded = self._networks.name(definition.network), definition.network in self._recorded
        self._recorded.discard(definition.network)
        state, wall_ns = self._networks.state(definition.network), self._networks.clock.wall_ns
        try:
            kernel = KernelNat(self._there(), _wanted(device_of(name), definition), state.mtu_bytes, wall_ns)
        except LaminaError as error:
            if not was_recorded:
                raise
            self._record(name, "network.outside_refused", reason=error.reason, why=error.message)
            return

        def lost(packet: bytes, now_ns: int) -> None:
            translator.lost(DropReason.KERNEL, packet, now_ns)

        def failed(why: str) -> None:
            self._record(name, "network.outside_lost", why=why)
            self.close(definition.network)
            self._recorded.add(definition.network)
            self.open(self._networks.state(definition.network).definition, router, translator, inside)
            self._bring_back(definition.network, translator)

        port = TunPort(kernel.tun, inside, lost, failed)
        slot = state.port.slot if state.port is not None else -1
        self._open[definition.network] = Opened(kernel, port, slot, translator)
        translator.at_kernel(kernel, port.send)
        if isinstance(self._catalog.engine, TranslatingEngine):
            self._catalog.engine.drops_elsewhere[slot] = kernel.drops

    def _bring_back(self, network: str, translator: NetworkTranslator) -> None:
        """Have forwarded ports lead inside again, where the device is a new one."""
        if network not in self._open:
            return
        kernel = self._open[network].kernel
        for forward in translator.forwards.all():
            try:
                at = kernel.open_port(forward.definition)
                why = at.value if isinstance(at, HostError) else ""
            except LaminaError as error:
                why = error.message
            if why:
                name = f"{self._networks.name(network)}/portForwards/{forward.definition.port_forward}"
                self._record(name, "port_forward.refused", why=why)

    def take(self, definition: NetworkDefinition) -> None:
        """Take new limits, destinations and ways of a network; flows that are open go on.

        If the kernel refuses them, the outside ends: rules of before may allow what is not allowed any more.
        """
        opened = self._open.get(definition.network)
        if opened is None:
            return
        try:
            opened.kernel.take(_wanted(device_of(self._networks.name(definition.network)), definition))
        except LaminaError as error:
            self._refused(definition.network, error)

    def close(self, network: str) -> None:
        """End what a network has outside. Idempotent."""
        opened = self._open.pop(network, None)
        if opened is None:
            return
        opened.translator.leave_kernel()
        if isinstance(self._catalog.engine, TranslatingEngine):
            self._catalog.engine.end_elsewhere(opened.slot)
        opened.port.close()
        try:
            opened.kernel.close()
        except LaminaError as error:
            self._record(self._networks.name(network), "network.outside_refused", reason=error.reason, why=str(error))

    def stop(self) -> None:
        """Let go of the machine, after the networks. Idempotent."""
        for network in sorted(self._open):
            self.close(network)
        machine, self._machine = self._machine, None
        if machine is None:
            return
        asyncio.get_running_loop().remove_reader(machine.ears.socket)
        try:
            machine.clean()  # what could not be taken away when it was due
        except LaminaError as error:
            self._record(f"hosts/{self._catalog.host}", "network.outside_refused", reason=error.reason, why=str(error))
        machine.close()

    def _there(self) -> NatMachine:
        from lamina_vswitch.engines.linux.nat.machine import NatMachine

        if self._machine is None:
            self._machine = NatMachine(self._namespace)
            asyncio.get_running_loop().add_reader(self._machine.ears.socket, self._mend)
        return self._machine

    def _mend(self) -> None:
        """Set rules again that somebody took away: a firewall that is loaded anew flushes those of everybody.

        Where the kernel refuses them, the outside ends: without its rules nothing walls the network in.
        """
        if self._machine is None or not self._machine.heard_of_removal():
            return
        for network in sorted(self._open):
            try:
                if self._open[network].kernel.mend():
                    name = self._networks.name(network)
                    self._record(name, "network.outside_mended", rule="somebody took the rules away")
            except LaminaError as error:
                self._refused(network, error)

    def _refused(self, network: str, error: LaminaError) -> None:
        """End an outside that the kernel does not keep as it shall be."""
        self._record(self._networks.name(network), "network.outside_refused", reason=error.reason, why=error.message)
        self.close(network)

    def _gone(self, definition: NetworkDefinition) -> None:
        self._recorded.discard(definition.network)

    def _check(self, wanted: NetworkDefinition) -> None:
        """Refuse an outside that cannot be; that clocks go their own way is said elsewhere."""
        if not _is_ours(wanted) or self._networks.clock.mode == "virtual":
            return
        with Checks() as check:
            check.that(not wanted.nat.host_alias, "network.nat.host_alias_address", "is of host sockets alone")
        if any(each.definition.network == wanted.network for each in self._networks.all()):
            self._recorded.add(wanted.network)
        if CAPABILITY not in self._catalog.engine.capabilities:
            raise outside_not_in_engine(self._catalog.engine.name)


class OutsidesByKind:
    """The outsides of networks: those of the kernel where that is the outside, else those at uplinks."""

    def __init__(self, kernel: KernelOutsides, uplinks: Outsides) -> None:
        self._kernel, self._uplinks = kernel, uplinks

    def open(
        self, definition: NetworkDefinition, router: Router, translator: NetworkTranslator,
        inside: Callable[[Sequence[bytes]], None],
    ) -> None:  # fmt: skip
        """Give a network its outside."""
        there = self._kernel if definition.nat.outside is Outside.KERNEL else self._uplinks
        there.open(definition, router, translator, inside)

    def take(self, definition: NetworkDefinition) -> None:
        """Take new settings of a network."""
        self._kernel.take(definition)

    def close(self, network: str) -> None:
        """End what a network has outside. Idempotent."""
        self._kernel.close(network)
        self._uplinks.close(network)

    def remove(self, definition: NetworkDefinition) -> None:
        """End it for good."""
        self._kernel.close(definition.network)
        self._uplinks.remove(definition)


def _is_ours(definition: NetworkDefinition) -> bool:
    return definition.mode is Mode.NAT and definition.nat.outside is Outside.KERNEL


def _wanted(device: str, definition: NetworkDefinition) -> NatWanted:
    settings = definition.nat
    return NatWanted(
        device, definition.gateway, inside_of(definition), settings.first_port, settings.last_port,
        settings.entry_limit, settings.entries_per_address, settings.allowed_destinations,
    )  # fmt: skip
