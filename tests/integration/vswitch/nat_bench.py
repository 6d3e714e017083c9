"""A service with a NAT network to host sockets, on the machine's clock."""

from __future__ import annotations

from typing import Any

from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import translations_pb2 as pb
from lamina.vswitch.v1 import translations_pb2_grpc as rpc
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.network_bench import LAN, NetworkBench
from tests.integration.vswitch.tcp_guest import TcpGuest

from lamina_net.packets.address import parse_address

ALIAS = parse_address("10.0.2.200") or 0
LOOPBACK = "127.0.0.1"


class NatBench(NetworkBench):
    """A NAT network to host sockets, in which guests find this machine at 10.0.2.200."""

    guests: list[TcpGuest]

    def stop(self) -> None:
        """Stop the guests with a TCP."""
        for guest in self.guests:
            guest.stop()

    async def tcp_guest(self, number: int = 1) -> TcpGuest:
        """Return a guest with an address and a TCP."""
        self.guests.append(TcpGuest(await self.joined(number)))
        return self.guests[-1]

    async def nat(self, **settings: Any) -> NatBench:
        """Make the network."""
        self.connect()
        wanted = {"allowed_destinations": ["127.0.0.1/32"], "host_alias_address": "10.0.2.200", **settings}
        await self.create(mode=nets.Network.MODE_NAT, nat=nets.NatSettings(**wanted), dhcp=nets.DhcpServer())
        return self

    def connect(self) -> None:
        """Be ready to ask."""
        self.guests = []
        self.translations = rpc.TranslationsStub(self.running.channel)

    async def joined(self, number: int = 1) -> Guest:
        """Return a guest with an address."""
        guest = await self.guest(number)
        await guest.get_address()
        return guest

    async def entries(self) -> list[pb.NatEntry]:
        """Return the translation table."""
        return list((await self.translations.ListNatEntries(pb.ListNatEntriesRequest(parent=LAN))).nat_entries)

    async def forward(self, **fields: Any) -> pb.PortForward:
        """Forward a free port of the machine to port 80 of the first guest, unless told otherwise."""
        defaults = {"protocol": pb.PROTOCOL_TCP, "inside_address": "10.0.2.2", "inside_port": 80}
        wanted = pb.PortForward(**{**defaults, **fields})
        request = pb.CreatePortForwardRequest(parent=LAN, port_forward_id="web", port_forward=wanted)
        made = await self.translations.CreatePortForward(request)
        assert isinstance(made, pb.PortForward)
        return made
