"""One network at work: definition, addresses and names, and in NAT and host-only mode the router behind its port."""

from __future__ import annotations

from collections.abc import Callable

from lamina_kit.clock import Clock
from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.network.definition import DEFAULT_ADDRESSES_PER_PORT, Mode, NetworkDefinition, usable
from lamina_vswitch.domain.network.dhcp import message as dhcp
from lamina_vswitch.domain.network.dhcp.lease import Pool
from lamina_vswitch.domain.network.dhcp.lease_book import LeaseBook
from lamina_vswitch.domain.network.dhcp.server import Advice, DhcpServer
from lamina_vswitch.domain.network.dns import message as dns
from lamina_vswitch.domain.network.dns.lease_names import NamesOfLeases, suffix_of
from lamina_vswitch.domain.network.dns.responder import Responder
from lamina_vswitch.domain.network.dns.zone import Zone
from lamina_vswitch.domain.network.router.dns_stream import DnsStream
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.domain.network.router.services import Answered, DhcpService, DnsService
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.io.dns_upstream import DnsUpstream
from lamina_vswitch.io.ports.router import RouterPort
from lamina_vswitch.io.store.networks import NetworkStore, RecordedNetwork
from lamina_vswitch.switches.catalog import Catalog

ROUTER_TAKES = Takes(checksum=True, tcp4=True)
"""What the router of a NAT network takes unfinished; its gateway ends TCP, and has no need of sums."""
_FIRST_UNICAST, _LAST_UNICAST = 0x01000000, 0xDFFFFFFF


class NetworkState:
    """A network of a switch. Everything but the definition is made from it, and made anew when it changes."""

    def __init__(
        self,
        recorded: RecordedNetwork,
        store: NetworkStore,
        catalog: Catalog,
        clock: Clock,
        rng: Rng,
        mtu_bytes: Callable[[NetworkDefinition], int],
    ) -> None:
        self.definition = recorded.definition
        self._mtu_bytes = mtu_bytes
        self._catalog = catalog
        self._clock = clock
        self._rng = rng
        now_ns = clock.now_ns()
        self.book = LeaseBook(pool_of(self.definition), store.leases_of(self.definition.network))
        self.book.restore(recorded.leases, recorded.reservations, now_ns)
        self.zone = Zone()
        self.zone.restore(recorded.records, recorded.revisions)
        self.names = NamesOfLeases(self.book, suffix_of(self.definition))
        self.router: Router | None = None
        self.port: RouterPort | None = None
        self._upstream: DnsUpstream | None = None

    @property
    def mtu_bytes(self) -> int:
        """Largest payload that guests are told, and that the router sends."""
        return self._mtu_bytes(self.definition)

    @property
    def dns_addresses(self) -> tuple[int, ...]:
        """DNS servers that devices are told: those configured, else the router if it answers."""
        if self.definition.dhcp is not None and self.definition.dhcp.dns:
            return self.definition.dhcp.dns
        return (self.definition.gateway,) if self.definition.dns is not None and self.definition.routed else ()

    def plug(self, port: PortDefinition, failed: Callable[[Exception], None]) -> Router:
        """Make the router and attach it to its port."""
        self.router = Router(self.definition, lambda: self.mtu_bytes, self.dropped)
        self.port = RouterPort(self.router, self._catalog.engine, port.slot, self._clock, failed)
        self.router.stream = DnsStream(self._rng.bytes(16))
        self._serve(self.router)
        takes = ROUTER_TAKES if self.definition.mode is Mode.NAT else None
        self._catalog.attach(port, self.port, self._clock.now_ns(), takes)
        return self.router

    def change(self, definition: NetworkDefinition) -> None:
        """Take a new definition. What is out stays out."""
        self.definition = definition
        self.book.reshape(pool_of(definition), self._clock.now_ns())
        self.names = NamesOfLeases(self.book, suffix_of(definition))
        if self.router is not None:
            self.router.configure(definition)
            self._serve(self.router)

    def close(self) -> None:
        """End the router. Idempotent."""
        if self.port is not None:
            self.port.close()
        if self._upstream is not None:
            self._upstream.close()

    def _serve(self, router: Router) -> None:
        """Give the router the services that the definition names."""
        definition = self.definition
        if self._upstream is not None:
            self._upstream.close()
        self._upstream = None
        router.services.clear()
        if router.stream is not None:
            router.stream.answer = None
        if definition.dhcp is not None and definition.subnet is not None:
            domain = definition.dhcp.domain
            advice = Advice(definition.subnet, definition.gateway, self.dns_addresses, domain, lambda: self.mtu_bytes)
            server = DhcpServer(definition.dhcp, advice, self.book)
            router.services[dhcp.SERVER_PORT] = DhcpService(router, server, self._port_of, self.dropped)
        if definition.dns is not None:
            self._upstream = DnsUpstream(definition.dns.upstreams, self._clock, self._rng)
            responder = Responder(definition.dns, self.zone, self.names)
            service = DnsService(router, responder, self._ask_upstream)
            router.services[dns.PORT] = service
            if router.stream is not None:
                router.stream.answer = service.answer

    def _port_of(self, mac: bytes, now_ns: int) -> str:
        """Return the id of the port behind which the switch learned an address; empty when it did not."""
        switch = self._catalog.switch_name(self.definition.switch)
        entry = self._catalog.engine.mac_entry(switch, self.definition.vlan, mac, now_ns)
        return self._catalog.port_in_slot(entry.slot).port if entry is not None else ""

    def dropped(self, reason: DropReason, frame: bytes, now_ns: int) -> None:
        """Count a frame that the router drops, at its port."""
        if self.port is not None:
            self._catalog.engine.refused(self.port.slot, reason, [frame], now_ns)

    def _ask_upstream(self, question: bytes, answered: Answered) -> None:
        def told(answer: bytes) -> None:
            if self.port is not None:
                self.port.send(answered(answer, self._clock.now_ns()))

        if self._upstream is not None:
            self._upstream.ask(question, told)


def pool_of(definition: NetworkDefinition) -> Pool:
    """Return which addresses a network has; in bridge mode without a subnet any that a host may have."""
    if definition.subnet is None:
        low, high = _FIRST_UNICAST, _LAST_UNICAST
    else:
        low, high = usable(definition.subnet)
    settings = definition.dhcp
    if settings is None:
        return Pool(low, high, low, high, definition.own_addresses, DEFAULT_ADDRESSES_PER_PORT)
    first, last = settings.first or low, settings.last or high
    return Pool(low, high, first, last, definition.own_addresses, settings.addresses_per_port)
