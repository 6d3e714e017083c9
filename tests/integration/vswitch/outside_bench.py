"""A NAT network whose outside is at an uplink: guests of switch `lan`, hosts at the wire of switch `wan`."""

from __future__ import annotations

from typing import Any

from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import networks_pb2_grpc, translations_pb2_grpc
from lamina.vswitch.v1 import translations_pb2 as pb
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.tcp_guest import TcpGuest
from tests.integration.vswitch.uplink_bench import UplinkBench, mac
from tests.virtual_time import clock_of_loop

from lamina_net.packets.address import parse_address

NAT = "hosts/h1/networks/nat"
U1 = "hosts/h1/switches/wan/uplinks/u1"


def address(text: str) -> int:
    """Return an address."""
    found = parse_address(text)
    assert found is not None
    return found


OUTSIDE, PEER, FAR = address("192.0.2.2"), address("192.0.2.9"), address("203.0.113.5")


class OutsideBench:
    """Two switches of one service, and who is on them."""

    def __init__(self, running: Any, device: Any) -> None:
        self.lan, self.wan = UplinkBench(running, device, "lan"), UplinkBench(running, device, "wan")
        self.networks = networks_pb2_grpc.NetworksStub(running.channel)
        self.translations = translations_pb2_grpc.TranslationsStub(running.channel)
        self.tcps: list[TcpGuest] = []
        self.outside: Guest

    async def open(self) -> OutsideBench:
        """Make the switches."""
        await self.lan.open()
        await self.wan.open()
        return self

    def stop(self) -> None:
        """Stop who has a TCP."""
        for each in self.tcps:
            each.stop()

    async def create(self, **settings: Any) -> nets.Network:
        """Make the network."""
        defaults = {"uplink": U1, "outside_address": "192.0.2.2/24", "outside_gateway_address": "192.0.2.9"}
        wanted = nets.Network(
            mode=nets.Network.MODE_NAT,
            switch=self.lan.switch,
            vlan_id=settings.pop("vlan_id", 0),
            subnet=settings.pop("subnet", "10.0.2.0/24"),
            nat=nets.NatSettings(outside=nets.NatSettings.OUTSIDE_UPLINK, **{**defaults, **settings}),
        )
        made: nets.Network = await self.networks.CreateNetwork(
            nets.CreateNetworkRequest(network_id="nat", network=wanted)
        )
        return made

    async def guest(self, number: int) -> Guest:
        """Return a guest inside, 10.0.2.NUMBER."""
        guest = Guest(await self.lan.guest(f"g{number}"), mac(number))
        guest.address = address("10.0.2.0") + number
        await guest.use_router(address("10.0.2.1"))
        return guest

    def host(self, device: Any, number: int = 9) -> Guest:
        """Return a host outside at a device, 192.0.2.NUMBER."""
        host = Guest(device, mac(100 + number))
        host.address = address("192.0.2.0") + number
        return host

    def tcp(self, guest: Guest) -> TcpGuest:
        """Give somebody a TCP, in the loop's time."""
        found = TcpGuest(guest)
        found.clock = clock_of_loop()
        self.tcps.append(found)
        return found

    async def forward(self, **fields: Any) -> pb.PortForward:
        """Forward a port to port 80 of 10.0.2.7."""
        defaults = {"protocol": pb.PROTOCOL_TCP, "inside_address": "10.0.2.7", "inside_port": 80}
        wanted = pb.PortForward(**{**defaults, **fields})
        request = pb.CreatePortForwardRequest(parent=NAT, port_forward_id="web", port_forward=wanted)
        made: pb.PortForward = await self.translations.CreatePortForward(request)
        return made

    async def entries(self) -> list[pb.NatEntry]:
        """Return the translation table."""
        return list((await self.translations.ListNatEntries(pb.ListNatEntriesRequest(parent=NAT))).nat_entries)
