"""The outsides of NAT networks at uplinks: what a network may ask for there, and the port that it has.

The port (`nat.NETWORK`) belongs to this layer, lies in the untagged VLAN of its uplink, and leaves by that uplink
alone. It is made with the network and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError, NotFound
from lamina_kit.rng import Rng
from lamina_net.packets.address import format_address, parse_address, subnet
from lamina_vswitch.domain.definitions.refusals import unknown
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.nat.outside.station import OutsideAddress, OutsideStation
from lamina_vswitch.domain.nat.translator import NetworkTranslator
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition, Outside
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.uplink.definition import UPLINK_NAME, UplinkDefinition
from lamina_vswitch.io.ports.outside import OutsidePort
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.uplinks.uplinks import UplinkTable


def place_of(text: str, gateway: int) -> OutsideAddress | None:
    """Return what `ADDRESS/LENGTH` and a gateway are outside; None when the text is no host's address in a subnet."""
    host, _, length = text.partition("/")
    address = parse_address(host)
    if address is None or not length.isdigit() or len(length) > 2 or not 1 <= int(length) <= 30:
        return None
    found = subnet(address, int(length))
    return None if address in (found.network, found.broadcast) else OutsideAddress(address, found, gateway)


class NatOutsides:
    """Ports of NAT networks at uplinks, by network."""

    def __init__(self, catalog: Catalog, uplinks: UplinkTable, networks: Networks, clock: Clock, rng: Rng) -> None:
        self._catalog, self._uplinks, self._networks = catalog, uplinks, networks
        self._clock, self._rng = clock, rng
        self._ports: dict[str, OutsidePort] = {}
        self._openings: dict[str, Callable[[], None]] = {}
        """What opens a network's outside, also again when its uplink was gone with its switch."""
        networks.checks.append(self._check)
        uplinks.checks.append(self._check_uplink)
        uplinks.created.append(self._came)
        uplinks.changed.append(self._moved)
        catalog.unplugged.append(self._unplugged)

    def load(self) -> None:
        """Say which ports are this layer's, before the catalog restores them; uplinks and networks are read."""
        for state in self._networks.all():
            uplink = self._uplink_of(state.definition)
            if uplink is not None:
                self._catalog.expect_internal(uplink.switch, _port_id(state.definition), uplink.trunk.native)

    def open(
        self, definition: NetworkDefinition, router: Router, translator: NetworkTranslator,
        inside: Callable[[Sequence[bytes]], None],
    ) -> None:  # fmt: skip
        """Give a network its port and its station, where its uplink is. Raises `PORT_LIMIT`."""
        self._openings[definition.network] = lambda: self._open(definition, router, translator, inside)
        self._openings[definition.network]()

    def _open(
        self, definition: NetworkDefinition, router: Router, translator: NetworkTranslator,
        inside: Callable[[Sequence[bytes]], None],
    ) -> None:  # fmt: skip
        settings = definition.nat
        uplink, place = self._uplink_of(definition), place_of(settings.outside_address, settings.outside_gateway)
        if uplink is None or place is None:
            return  # the switch of the uplink was deleted by force: there is no way out, as guests are told
        port = self._catalog.find_port(uplink.switch, _port_id(definition))
        if port is None:
            port = self._catalog.create_internal_port(uplink.switch, _port_id(definition), uplink.trunk.native)
        slot, name = port.slot, f"{self._catalog.host}/{definition.network}"

        def lost() -> None:
            translator.leave_uplink(self._clock.now_ns())

        opened = OutsidePort(self._catalog.engine, slot, self._clock, inside, lost, self._catalog.failed)
        mac = b"\x02" + self._rng.child(name).bytes(5)

        def mtu_bytes() -> int:
            return self._catalog.mtu_bytes(slot)

        nat = translator.at_uplink(place.address, self._rng.child(f"{name}/ports"), opened.send)
        opened.join(OutsideStation(mac, place, nat, mtu_bytes, router.errors, opened.port.dropped))
        self._ports[definition.network] = opened
        self._catalog.attach(port, opened.port, self._clock.now_ns())
        self._uplinks.pin(port, uplink.uplink)

    def take(self, definition: NetworkDefinition) -> None:
        """Do nothing: limits are the translator's, and another place is another outside."""

    def close(self, network: str) -> None:
        """End what a network has outside; its port stays. Idempotent."""
        self._openings.pop(network, None)
        opened = self._ports.pop(network, None)
        if opened is not None:
            opened.close()

    def remove(self, definition: NetworkDefinition) -> None:
        """End what a network has outside, and delete its port."""
        self.close(definition.network)
        uplink = self._uplink_of(definition)
        if uplink is None:
            return
        self._uplinks.unpin(uplink.switch, _port_id(definition))
        port = self._catalog.find_port(uplink.switch, _port_id(definition))
        if port is not None:
            self._catalog.delete_internal_port(port, self._clock.now_ns())

    # Inside

    def _uplink_of(self, definition: NetworkDefinition) -> UplinkDefinition | None:
        """Return the uplink that a network has its outside at; None when it has none, or none any more."""
        if definition.mode is not Mode.NAT or definition.nat.outside is not Outside.UPLINK:
            return None
        try:
            return self._named(definition.nat.uplink)
        except NotFound:
            return None

    def _named(self, name: str) -> UplinkDefinition:
        """Return an uplink by its name. Raises NotFound `UPLINK_UNKNOWN`, InvalidArgument `NAME_MALFORMED`."""
        found = UPLINK_NAME.parse(name, "network.nat.uplink")
        if found["host"] != self._catalog.host:
            raise unknown("uplink", name)
        return self._uplinks.get(found["switch"], found["uplink"])

    def _check(self, wanted: NetworkDefinition) -> None:
        """Refuse an outside that cannot be."""
        if wanted.mode is not Mode.NAT or wanted.nat.outside is not Outside.UPLINK:
            return
        settings, field = wanted.nat, "network.nat.outside_address"
        uplink = self._named(settings.uplink)
        place = place_of(settings.outside_address, settings.outside_gateway)
        with Checks() as check:
            check.that(place is not None, field, "is not a host's address with the length of its subnet, 1 to 30")
            same = (wanted.switch, wanted.vlan) == (uplink.switch, uplink.trunk.native)
            check.that(not same, "network.nat.uplink", "carries the network's own VLAN untagged: both sides were one")
        if place is None:
            return
        with Checks() as check:
            gateway, inside = settings.outside_gateway, wanted.inside
            there = not gateway or (gateway in place.subnet and gateway != place.address)
            check.that(there, "network.nat.outside_gateway_address", f"is no other host of {place.subnet}")
            apart = place.subnet.network not in inside and inside.network not in place.subnet
            check.that(apart, field, f"is in {place.subnet}, which has addresses of the network itself")
            for other in self._networks.all():
                found = place_of(other.definition.nat.outside_address, 0)
                elsewhere = other.definition.network == wanted.network or other.definition.nat.uplink != settings.uplink
                free = elsewhere or found is None or found.address != place.address
                check.that(free, field, f"has {format_address(place.address)}, which another network has there")

    def _check_uplink(self, wanted: UplinkDefinition) -> None:
        """Refuse that an uplink carries the VLAN of a network untagged which has its outside there."""
        name = self._uplinks.name(wanted.switch, wanted.uplink)
        with Checks() as check:
            for state in self._networks.all():
                network = state.definition
                both = (network.switch, network.vlan) == (wanted.switch, wanted.trunk.native)
                same = both and network.nat.outside is Outside.UPLINK and network.nat.uplink == name
                said = f"is the VLAN of {network.network}, which has its outside here: both sides were one"
                check.that(not same, "uplink.trunk.native_vlan_id", said)

    def _came(self, uplink: UplinkDefinition) -> None:
        """Open the outsides at an uplink that is there again."""
        for network in sorted(self._openings):
            if network not in self._ports and self._uplink_of(self._networks.state(network).definition) == uplink:
                try:
                    self._openings[network]()
                except LaminaError as error:
                    details = (("message", error.message), ("reason", error.reason))
                    self._catalog.notice(Notice(self._networks.name(network), "network.refused", "", details))

    def _unplugged(self, port: PortDefinition) -> None:
        """End what a network has at a port that is gone with its switch."""
        for network in sorted(self._ports):
            if self._ports[network].port.slot == port.slot:
                lost = self._ports.pop(network)
                lost.close()
                lost.lost()

    def _moved(self, uplink: UplinkDefinition) -> None:
        """Let ports follow the untagged VLAN of their uplink."""
        for network in sorted(self._ports):
            definition = self._networks.state(network).definition
            if self._uplink_of(definition) == uplink:
                port = self._catalog.port(uplink.switch, _port_id(definition))
                self._catalog.expect_internal(port.switch, port.port, uplink.trunk.native)
                self._catalog.engine.set_vlan(port.slot, uplink.trunk.native, self._clock.now_ns())


def _port_id(definition: NetworkDefinition) -> str:
    return f"nat.{definition.network}"
