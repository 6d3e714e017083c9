"""A vswitch service with one switch, and what makes networks, ports and guests on it."""

from __future__ import annotations

from typing import Any

from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import networks_pb2_grpc as nets_rpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.guest import Guest

SWITCH = "hosts/h1/switches/s1"
LAN = "hosts/h1/networks/lan"
SECOND_NS = 1_000_000_000


class NetworkBench:
    """One start of the service. Guests are numbered by the last byte of their MAC address."""

    def __init__(self, running: Any, device: Any) -> None:
        self.running, self._device = running, device
        self.networks = nets_rpc.NetworksStub(running.channel)

    async def open(self) -> NetworkBench:
        """Make the switch."""
        await self.running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s1", request_id="s1"))
        return self

    async def create(self, network: str = "lan", **fields: Any) -> nets.Network:
        """Make a network: host-only, 10.0.2.0/24, with DHCP and DNS, unless told otherwise."""
        defaults: dict[str, Any] = {"mode": nets.Network.MODE_HOST_ONLY, "switch": SWITCH, "subnet": "10.0.2.0/24"}
        if "dhcp" not in fields:
            defaults["dhcp"] = nets.DhcpServer(domain="lab")
        if "dns" not in fields:
            defaults["dns"] = nets.DnsResponder(domains=["lab"])
        wanted = nets.Network(**{key: value for key, value in {**defaults, **fields}.items() if value is not None})
        made = await self.networks.CreateNetwork(nets.CreateNetworkRequest(network_id=network, network=wanted))
        assert isinstance(made, nets.Network)
        return made

    async def group(self, name: str, vlan: int) -> str:
        """Make a port group and return its name."""
        made = await self.running.switches.CreatePortGroup(
            pb.CreatePortGroupRequest(parent=SWITCH, port_group_id=name, port_group=pb.PortGroup(vlan_id=vlan))
        )
        return str(made.name)

    async def guest(self, number: int, *, group: str = "", port: str = "") -> Guest:
        """Make a port and a guest at it."""
        request = pb.CreatePortRequest(parent=SWITCH, port_id=port or f"p{number}", port=pb.Port(port_group=group))
        made = await self.running.ports.CreatePort(request)
        device = await self._device(self.running.ports, made.handle).plug_in()
        return Guest(device, bytes.fromhex(f"0200000000{number:02x}"))

    async def leases(self, network: str = LAN) -> list[nets.Lease]:
        """Return the leases of a network."""
        return list((await self.networks.ListLeases(nets.ListLeasesRequest(parent=network))).leases)

    async def drops(self, port: str = f"{SWITCH}/ports/router.lan") -> dict[str, int]:
        """Return the drops of a port by reason."""
        counters = await self.running.ports.GetPortCounters(pb.GetPortCountersRequest(port=port))
        return {pb.DropReason.Name(drop.reason).removeprefix("DROP_REASON_"): drop.frames for drop in counters.drops}
