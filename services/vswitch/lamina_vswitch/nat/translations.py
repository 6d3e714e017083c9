"""Translations of a host: tables, forwarded ports and virtual servers of its routed networks.

Order of a change: check, open what it needs of the machine, record in the store, apply. What was recorded joins the
router when the network does, so it is there again after a start; a forwarded port that the machine then does not give
stays defined and silent, and the event log says why.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng
from lamina_net.packets.address import format_address, is_loopback, parse_address
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.flows.forwards import PORT_FORWARD_NAME, Forward, ForwardDefinition
from lamina_vswitch.domain.nat.flows.listing import order
from lamina_vswitch.domain.nat.refusals import (
    forward_exists,
    not_loopback,
    not_nat,
    port_not_had,
    port_taken,
    unknown_forward,
)
from lamina_vswitch.domain.nat.servers.book import ServerChange
from lamina_vswitch.domain.nat.servers.definition import Server, ServerKey
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition, Outside
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.io.host_sockets import SocketBudget
from lamina_vswitch.io.store.translations import RecordedTranslations, TranslationStore
from lamina_vswitch.nat.state import Outsides, TranslationState
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.networks.state import NetworkState

Record = Callable[..., object]


class Translations:
    """Translations by network. `record` notes in the event log what happens to them."""

    def __init__(self, networks: Networks, store: TranslationStore, clock: Clock, rng: Rng, record: Record) -> None:
        self._networks = networks
        self._store = store
        self._clock = clock
        self._rng = rng
        self._record = record
        self._states: dict[str, TranslationState] = {}
        self._recorded: dict[str, RecordedTranslations] = {}
        self._requests = RequestLedger()
        self._listed: dict[str, list[Entry]] = {}
        """What the kernel tracked of a network when somebody last began to list it."""
        self._reading = asyncio.Lock()
        """Held while a thread has what the kernel tracks: it may be much, and is not had twice at once."""
        self._budget = SocketBudget()
        self.outsides: Outsides
        """What gives networks an outside that is not sockets of this process; set before networks are restored."""
        networks.routed.append(self._joined)
        networks.unrouted.append(self._left)

    def load(self) -> None:
        """Read what is recorded, before networks plug their routers."""
        self._store.prepare()
        self._recorded = self._store.load()

    def resized(self, switch: str) -> None:
        """Take the MTU of a switch, or of what an overlay goes by there; connections that are open keep theirs."""
        for network in sorted(self._states):
            self._states[network].translator.resize(self._networks.state(network).mtu_bytes)

    def stop(self) -> None:
        """End every flow and forwarded port. Idempotent."""
        for network in sorted(self._states):
            self._states[network].close()
        self._states.clear()

    def forward_name(self, forward: ForwardDefinition) -> str:
        """Return the resource name of a forwarded port."""
        return self._name(forward.network, forward.port_forward)

    # Tables

    async def entries(
        self, network: str, inside: int | None, protocol: int | None, *, goes_on: bool = False
    ) -> tuple[Sequence[Entry], int]:
        """Return the entries of an inside address and a protocol, or all, in the order of the list; and the time.

        A list that goes on page by page is of what the kernel tracked when it began: it tells all or nothing of it.
        The kernel is read in a thread: it may track more than others can wait for.
        """
        kernel = self._state(network).translator.kernel
        if kernel is not None and not (goes_on and network in self._listed):
            async with self._reading:
                seen = await asyncio.to_thread(kernel.look().entries, self._clock.now_ns())
            self._state(network)  # it may be gone meanwhile
            self._listed[network] = seen
        now_ns, translator = self._clock.now_ns(), self._state(network).translator
        found = translator.table.entries(now_ns, inside, protocol)
        if translator.kernel is not None and network in self._listed:
            tracked = [
                each for each in self._listed[network]
                if inside in (None, each.inside[0]) and protocol in (None, each.protocol) and each.ends_ns > now_ns
            ]  # fmt: skip
            found = sorted((*found, *tracked), key=order)
        return found, now_ns

    def listed(self, network: str) -> None:
        """Learn that a list of entries has come to its end."""
        self._listed.pop(network, None)

    async def flush(self, network: str, inside: int | None) -> int:
        """Forget the entries of an inside address, or all; return how many. The kernel is asked in a thread."""
        state = self._state(network)
        count, kernel = state.flush(inside), state.translator.kernel
        if kernel is None:
            return count
        async with self._reading:
            return count + await asyncio.to_thread(kernel.look().flush, inside)

    # Forwarded ports

    def create_forward(self, wanted: ForwardDefinition, request_id: str) -> Forward:
        """Forward a port, or return what the same request made before."""
        definition = self._networks.state(wanted.network).definition
        name, key, origin = (
            self.forward_name(wanted),
            (wanted.network, wanted.port_forward),
            Origin(request_id, repr(wanted)),
        )
        if definition.mode is not Mode.NAT:
            raise not_nat(self._networks.name(wanted.network))
        wanted, state = _placed(wanted, definition), self._states[wanted.network]
        known = state.translator.forwards.of(wanted.port_forward)
        if self._requests.replayed("port_forward", key, origin) and known is not None:
            return known
        if known is not None:
            raise forward_exists(name)
        self._check_forward(wanted, definition)
        opened = self._open(state, wanted)
        try:
            self._store.add_forward(opened, origin)
        except LaminaError:
            self._close(state, opened)
            raise
        self._requests.remember("port_forward", key, origin)
        self._record(name, "port_forward.created", outside=_text(opened.outside), inside=_text(opened.inside))
        return state.translator.forwards.add(opened)

    def forwards(self, network: str) -> list[Forward]:
        """Return the forwarded ports of a network, ordered by id."""
        self._networks.state(network)
        state = self._states.get(network)
        if state is None:
            return []
        found = state.translator.forwards.all()
        if state.translator.kernel is not None:
            for each in found:
                each.flows = state.translator.kernel.flows(each.definition.port_forward)
        return found

    def delete_forward(self, network: str, port_forward: str) -> None:
        """Delete a forwarded port; connections that came through it go on."""
        state = self._states.get(network)
        forward = state.translator.forwards.of(port_forward) if state else None
        if state is None or forward is None:
            raise unknown_forward(self._name(network, port_forward))
        self._store.remove_forward(network, port_forward)
        state.translator.forwards.remove(port_forward)
        self._close(state, forward.definition)
        self._requests.forget("port_forward", (network, port_forward))
        self._record(self.forward_name(forward.definition), "port_forward.deleted", flows=forward.flows)

    # Virtual servers

    def update_servers(self, network: str, change: ServerChange) -> tuple[int, int]:
        """Change virtual servers, all or none; return the newest revision of the source and how many it has."""
        state = self._state(network)
        with Checks() as check:
            for each in change.wanted:
                own = each.address in state.definition.own_addresses
                check.that(not own, "virtual_servers", f"has {format_address(each.address)}, the router's own address")
        balancer = state.translator.balancer
        delta = balancer.book.delta(change)
        if delta is not None:
            self._store.change_servers(network, delta)
            state.send(balancer.apply(delta, self._clock.now_ns(), reset_removed=change.reset_removed))
        return balancer.book.revisions.get(change.source, 0), balancer.book.count(change.source)

    def servers(self, network: str) -> tuple[list[Server], Counter[tuple[ServerKey, Endpoint]]]:
        """Return the virtual servers of a network in the order of the list, and open flows by server and backend."""
        self._networks.state(network)
        state = self._states.get(network)
        if state is None:
            return [], Counter()
        return state.translator.balancer.book.all(), state.translator.balancer.open_flows(self._clock.now_ns())

    # Networks that come and go

    def _joined(self, definition: NetworkDefinition, router: Router, network: NetworkState) -> None:
        """Join a router that came, or take what its network has become."""
        state = self._states.get(definition.network)
        if state is not None and state.can_take(definition):
            state.take(definition)
            return
        recorded = self._recorded.pop(definition.network, RecordedTranslations())
        if state is not None:
            recorded = self._store.load().get(definition.network, RecordedTranslations())
            state.close()
            self.outsides.remove(state.definition)
        if network.port is None:
            return  # a router that was not plugged hears nothing that could be translated
        rng = self._rng.child(definition.network)
        state = TranslationState(
            definition, router, network.port, network.mtu_bytes, self._clock, rng, self._budget,
            network.dropped, self.outsides,
        )  # fmt: skip
        self._states[definition.network] = state
        state.translator.balancer.restore(recorded.servers, recorded.revisions)
        for forward, origin in recorded.forwards:
            self._reopen(state, forward, origin)

    def _left(self, definition: NetworkDefinition) -> None:
        """End what a network had that is gone."""
        state = self._states.pop(definition.network, None)
        self._listed.pop(definition.network, None)
        if state is None:
            return
        for forward in state.translator.forwards.all():
            self._requests.forget("port_forward", (definition.network, forward.definition.port_forward))
        state.close()
        self.outsides.remove(state.definition)

    def _reopen(self, state: TranslationState, forward: ForwardDefinition, origin: Origin) -> None:
        key = (forward.network, forward.port_forward)
        if not self._requests.knows("port_forward", key):
            self._requests.remember("port_forward", key, origin)
        try:
            self._open(state, forward)
        except LaminaError as error:
            self._record(self.forward_name(forward), "port_forward.refused", reason=error.reason, why=error.message)
        state.translator.forwards.add(forward)

    # Inside

    def _state(self, network: str) -> TranslationState:
        self._networks.routed_state(network)
        return self._states[network]

    def _check_forward(self, wanted: ForwardDefinition, definition: NetworkDefinition) -> None:
        subnet = definition.subnet
        with Checks() as check:
            address = wanted.inside[0]
            inside = subnet is not None and address in subnet and address not in definition.own_addresses
            inside = inside and subnet is not None and address not in (subnet.network, subnet.broadcast)
            check.that(inside, "port_forward.inside_address", f"is not a device's in {subnet}")
        if definition.nat.outside is Outside.UPLINK:
            own = definition.nat.outside_address.partition("/")[0]
            with Checks() as check:
                is_own = wanted.outside[0] == parse_address(own)
                check.that(is_own, "port_forward.outside_address", f"is not {own}, the network's address outside")
            others = [self._states[wanted.network]]
        elif not is_loopback(wanted.outside[0]) and not wanted.allow_remote:
            raise not_loopback(wanted.outside[0])
        else:
            others = list(self._states.values())
        for other in others:
            taken = other.translator.forwards.at(wanted.key)
            if taken is not None:
                raise port_taken(wanted.outside, self.forward_name(taken.definition))

    def _open(self, state: TranslationState, wanted: ForwardDefinition) -> ForwardDefinition:
        """Open the socket of a forwarded port; return the forward with the port that it has."""
        gateway, uplink, kernel = state.translator.gateway, state.translator.uplink, state.translator.kernel
        if uplink is not None:
            port = uplink.open_port(wanted.protocol, wanted.outside[1])
            if port is None:
                raise port_taken(wanted.outside, "a flow of the network")
            return replace(wanted, outside=(uplink.address, port))
        if gateway is not None:
            at = gateway.open_port(wanted.port_forward, wanted.protocol, wanted.outside)
        elif kernel is not None:
            at = kernel.open_port(wanted)
        else:
            raise not_nat(self._networks.name(wanted.network))
        if isinstance(at, HostError):
            with Checks() as check:
                has = at is not HostError.NO_ADDRESS
                check.that(has, "port_forward.outside_address", "is an address that this machine does not have")
            raise port_not_had(wanted.outside, at)
        return ForwardDefinition(
            wanted.network, wanted.port_forward, wanted.protocol, at, wanted.inside, wanted.allow_remote
        )

    def _close(self, state: TranslationState, forward: ForwardDefinition) -> None:
        if state.translator.gateway is not None:
            state.translator.gateway.close_port(forward.port_forward)
        if state.translator.kernel is not None:
            state.translator.kernel.close_port(forward.port_forward)
        if state.translator.uplink is not None:
            state.translator.uplink.close_port(forward.protocol, forward.outside[1], self._clock.now_ns())

    def _name(self, network: str, port_forward: str) -> str:
        host = self._networks.catalog.host
        return PORT_FORWARD_NAME.format(host=host, network=network, port_forward=port_forward)


def _placed(wanted: ForwardDefinition, definition: NetworkDefinition) -> ForwardDefinition:
    """Return a forward at the network's own address outside when it names none and that is at an uplink."""
    if definition.nat.outside is not Outside.UPLINK or not is_loopback(wanted.outside[0]):
        return wanted
    own = parse_address(definition.nat.outside_address.partition("/")[0])
    return replace(wanted, outside=(own or 0, wanted.outside[1]))


def _text(place: Endpoint) -> str:
    return f"{format_address(place[0])}:{place[1]}"
