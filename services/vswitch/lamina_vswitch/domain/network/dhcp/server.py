"""The DHCP server of one network: a message in, an answer out.

    device                         server
      | DISCOVER  ------------------> |  chooses an address, holds it for 60 s
      | <------------------  OFFER    |
      | REQUEST   ------------------> |  records the lease, then answers
      | <------------------  ACK      |
      | REQUEST (half of the time) -> |  records the new end, then answers
      | RELEASE   ------------------> |  the address is free

Nothing is answered before the lease is recorded: `kill -9` forgets no promise. A device that asks for an address that
it cannot have is told NAK, unless this server knows nothing of it and the address is free: then another start of the
device decides (RFC 2131, 4.3.2). The source of a message, as the switch learned it, is its port; a message whose source
the switch could not learn gets nothing, because nobody would be held to the limit for it.

A message only says whose it is. What belongs to a MAC address, a reservation or a lease that another port has, is given
to frames from that address alone, which policies can hold to their port.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.network.definition import DhcpSettings
from lamina_vswitch.domain.network.dhcp.lease import NS_PER_SECOND, Lease, LeaseOrigin
from lamina_vswitch.domain.network.dhcp.lease_book import LeaseBook
from lamina_vswitch.domain.network.dhcp.message import BOOTREPLY, BOOTREQUEST, Kind, Message, Option, addresses, number


@dataclass(frozen=True, slots=True)
class Advice:
    """What devices are told beside their address: subnet, router (it is the server), DNS servers, domain, MTU in bytes.

    The MTU is asked for each time: a switch may get another one.
    """

    subnet: Subnet
    router: int
    dns: tuple[int, ...]
    domain: str
    mtu_bytes: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a message: a reply or None; `exhausted` when there was no address for the device."""

    reply: Message | None = None
    exhausted: bool = False


_SILENCE = Answer()


class DhcpServer:
    """Answers the devices of one network. Raises what the book's keeper raises; then nothing has changed."""

    def __init__(self, settings: DhcpSettings, advice: Advice, book: LeaseBook) -> None:
        self._settings = settings
        self._advice = advice
        self._book = book

    def receive(self, message: Message, source: bytes, port: str, now_ns: int) -> Answer:
        """Answer a message whose frame came from the MAC address `source` and from `port`, empty when not known."""
        if message.op != BOOTREQUEST or message.relay:
            return _SILENCE
        if source != message.mac and self._belongs_to_another(message.mac, port, now_ns):
            return _SILENCE
        match message.kind:
            case Kind.DISCOVER:
                return self._discover(message, port, now_ns)
            case Kind.REQUEST:
                return self._request(message, port, now_ns)
            case Kind.DECLINE:
                self._give_up(message, port, message.address(Option.REQUESTED_ADDRESS), now_ns, declined=True)
            case Kind.RELEASE:
                self._give_up(message, port, message.client, now_ns, declined=False)
            case Kind.INFORM if message.client in self._advice.subnet:
                return Answer(self._reply(message, Kind.ACK, 0, lease=False))
        return _SILENCE

    def _belongs_to_another(self, mac: bytes, port: str, now_ns: int) -> bool:
        """Tell whether something is kept for a device that its port does not show to be this one."""
        held = self._book.of_device(mac, now_ns)
        return self._book.reservation(mac) is not None or (held is not None and held.port != port)

    def _discover(self, message: Message, port: str, now_ns: int) -> Answer:
        if not port:
            return Answer(exhausted=True)
        wanted = message.address(Option.REQUESTED_ADDRESS)
        address = self._book.choose(message.mac, port, wanted, now_ns)
        if address is None:
            return Answer(exhausted=True)
        self._book.offer(address, message.mac, port, message.host_name, now_ns)
        return Answer(self._reply(message, Kind.OFFER, address))

    def _request(self, message: Message, port: str, now_ns: int) -> Answer:
        """Answer a REQUEST: of an offer (server named), of a device that starts again, or of one that renews."""
        server = message.address(Option.SERVER_IDENTIFIER)
        if server and server != self._advice.router:
            return _SILENCE  # it took another server's offer; ours ends by itself
        address = message.address(Option.REQUESTED_ADDRESS) or message.client
        if address not in self._advice.subnet or self._book.obstacle(address, message.mac, now_ns) is not None:
            return self._refuse(message)
        held = self._book.of_device(message.mac, now_ns)
        known = (held is not None and held.address == address) or self._book.was_of(message.mac, port, address, now_ns)
        if not known:
            reserved = self._book.reservation(message.mac)
            known = reserved is not None and reserved.address == address
        if not known:
            return self._refuse(message) if server or held is not None else _SILENCE
        if not port or not self._book.has_room(port, message.mac, now_ns):
            return Answer(self._reply(message, Kind.NAK, 0, lease=False), exhausted=True)
        end_ns = now_ns + self._settings.lease_seconds * NS_PER_SECOND
        name = message.host_name
        self._book.commit(Lease(address, message.mac, port, name, LeaseOrigin.DHCP, end_ns), now_ns)
        return Answer(self._reply(message, Kind.ACK, address))

    def _give_up(self, message: Message, port: str, address: int, now_ns: int, *, declined: bool) -> None:
        held = self._book.of_device(message.mac, now_ns)
        if held is None or held.address != address or (held.port and held.port != port):
            return  # nobody gives up what another port has
        (self._book.decline if declined else self._book.release)(address, now_ns)

    def _refuse(self, message: Message) -> Answer:
        return Answer(self._reply(message, Kind.NAK, 0, lease=False))

    def _reply(self, message: Message, kind: Kind, address: int, *, lease: bool = True) -> Message:
        options = {
            int(Option.MESSAGE_TYPE): number(kind, 1),
            int(Option.SERVER_IDENTIFIER): addresses(self._advice.router),
        }
        if lease:
            seconds = self._settings.lease_seconds
            options[Option.LEASE_TIME] = number(seconds)
            options[Option.RENEWAL_TIME] = number(seconds // 2)
            options[Option.REBINDING_TIME] = number(seconds * 7 // 8)
        if kind is not Kind.NAK:
            options.update(self._told())
        client = message.client if kind is Kind.ACK else 0
        return Message(BOOTREPLY, message.xid, message.mac, options, message.flags, client=client, yours=address)

    def _told(self) -> dict[int, bytes]:
        advice = self._advice
        told = {
            int(Option.SUBNET_MASK): addresses(advice.subnet.mask),
            int(Option.ROUTER): addresses(advice.router),
            int(Option.BROADCAST_ADDRESS): addresses(advice.subnet.broadcast),
            int(Option.INTERFACE_MTU): number(advice.mtu_bytes(), 2),
        }
        if advice.dns:
            told[Option.DNS_SERVER] = addresses(*advice.dns)
        if advice.domain:
            told[Option.DOMAIN_NAME] = advice.domain.encode()
        return told
