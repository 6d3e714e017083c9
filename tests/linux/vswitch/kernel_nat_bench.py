"""A service with the engine `linux` whose NAT networks go out by the kernel of a namespace, with a host beyond it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import backends_pb2, networks_pb2, networks_pb2_grpc, translations_pb2, translations_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc
from tests.integration.vswitch.plugging import plug
from tests.linux.hardware.network import Network, needs_network

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.engines.linux.engine import LinuxEngine
from lamina_vswitch.nat.kernel_outsides import device_of
from lamina_vswitch.server import build

SWITCH = "hosts/h1/switches/lan"
NET = "hosts/h1/networks/net"
DEVICE = device_of(NET)
SETTINGS = ("net/ipv4/ip_forward", "net/netfilter/nf_conntrack_acct", "net/netfilter/nf_conntrack_timestamp")
REDIRECTS = "net/ipv4/conf/all/accept_redirects"
MACHINE, HOST, GUEST = "192.0.2.1", "192.0.2.9", "10.5.0.9"


class World:
    """Three namespaces: a guest, the machine that translates, a host on its other side that knows no way inside."""

    def __init__(self) -> None:
        self.machine, self.host, self.guest = Network(), Network(), Network()
        try:
            self.machine.run("ip link set lo up")
            self._hand_over(self.machine, "right", self.host, "peer")
            self.machine.run(f"ip addr add {MACHINE}/24 dev left")
            self.host.run(f"ip addr add {HOST}/24 dev peer")
            self.host.run("ip link set peer up")
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """Returns where the machine's namespace is found."""
        return f"/proc/{self.machine.do(threading.get_native_id)}/ns/net"

    def plug_guest(self, interface: str) -> None:
        """Gives the guest an interface of the test's own namespace."""
        thread = self.guest.do(threading.get_native_id)
        subprocess.run(["ip", "link", "set", interface, "netns", str(thread)], check=True, timeout=20)
        self.guest.run(f"ip addr add {GUEST}/24 dev {interface}")
        self.guest.run(f"ip link set {interface} up")
        self.guest.run("ip route add default via 10.5.0.1")

    def close(self) -> None:
        """Ends all of them."""
        for network in (self.machine, self.host, self.guest):
            network.close()

    @staticmethod
    def _hand_over(giver: Network, interface: str, taker: Network, name: str) -> None:
        giver.run(f"ip link set {interface} netns {taker.do(threading.get_native_id)} name {name}")


class Running:
    """The service, with the switch `lan` and a network `net` that the kernel translates."""

    def __init__(self, folder: Path, world: World, engine: str = "linux") -> None:
        self.clock = RealClock()
        layer = LayerState("vswitch", "h1", self.clock, Rng("test"), engine=engine)
        environment = Environment("h1", self.clock, Rng("test"), folder, layer, {})
        self.service: Any = build(environment, VswitchConfig(nat_namespace=world.path))
        self.events = layer.events
        self.channel = local(self.service, layer)
        self.switches, self.ports = rpc.SwitchesStub(self.channel), rpc.PortsStub(self.channel)
        self.networks = networks_pb2_grpc.NetworksStub(self.channel)
        self.translations = translations_pb2_grpc.TranslationsStub(self.channel)
        self.backends: Any = None

    async def create(self, **settings: Any) -> Any:
        """Makes switch and network."""
        await self.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="lan", request_id="lan"))
        nat = networks_pb2.NatSettings(outside=networks_pb2.NatSettings.OUTSIDE_KERNEL, **settings)
        wanted = networks_pb2.Network(mode=networks_pb2.Network.MODE_NAT, switch=SWITCH, subnet="10.5.0.0/24", nat=nat)
        return await self.networks.CreateNetwork(networks_pb2.CreateNetworkRequest(network_id="net", network=wanted))

    async def plug(self, interface: str) -> Any:
        """Makes a port `guest` with an interface of the machine at its other end."""
        port = await self.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id="guest"))
        await plug(self, port, veth=backends_pb2.VethBackend(interface=interface))
        return port

    async def entries(self) -> list[Any]:
        """Returns the translation table."""
        request = translations_pb2.ListNatEntriesRequest(parent=NET)
        return list((await self.translations.ListNatEntries(request)).nat_entries)

    async def forward(self, port_id: str = "web", **fields: Any) -> Any:
        """Forwards a port to the guest's port 80."""
        fields.setdefault("protocol", translations_pb2.PROTOCOL_TCP)
        fields.update(inside_address=GUEST, inside_port=80)
        wanted = translations_pb2.PortForward(**fields)
        return await self.translations.CreatePortForward(
            translations_pb2.CreatePortForwardRequest(parent=NET, port_forward_id=port_id, port_forward=wanted)
        )

    async def drops(self) -> dict[int, int]:
        """Returns what was dropped at the router's port, by reason."""
        name = f"{SWITCH}/ports/router.net"
        counters = await self.ports.GetPortCounters(pb.GetPortCountersRequest(port=name))
        return {each.reason: each.frames for each in counters.drops}

    async def stop(self) -> None:
        """Ends the service."""
        await self.channel.close()
        await self.service.stop()


def answer(network: Network, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Returns a socket of a namespace at an address."""

    def made() -> socket.socket:
        found = socket.socket(socket.AF_INET, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.settimeout(15)
        found.bind((address, port))
        if kind == socket.SOCK_STREAM:
            found.listen()
        return found

    return network.do(made)


def dial(network: Network, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Returns a socket of a namespace, connected."""

    def made() -> socket.socket:
        found = socket.socket(socket.AF_INET, kind)
        found.settimeout(15)
        found.connect((address, port))
        return found

    return network.do(made)


@pytest.fixture(name="world")
def given_world() -> Any:
    """Returns the namespaces."""
    needs_network()
    if reasons := LinuxEngine.missing():
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    for program in ("nft", "ping"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no program {program}")
    made = World()
    try:
        made.machine.do(lambda: [Path("/proc/sys", name).write_text("0") for name in (SETTINGS[0], REDIRECTS)])
        yield made
    finally:
        made.close()


@pytest.fixture(name="running")
async def given_running(world: World, tmp_path: Path) -> AsyncIterator[Running]:
    """Returns a service that runs."""
    made = Running(tmp_path, world)
    await made.service.start()
    yield made
    await made.stop()


def said(network: Any, *command: str) -> str:
    """Returns what a command says in a namespace."""
    found = network.do(lambda: subprocess.run(command, capture_output=True, text=True, timeout=25))
    return str(found.stdout + found.stderr)


def settings(world: World) -> list[str]:
    """Returns what is switched on at the machine."""
    return world.machine.do(lambda: [Path("/proc/sys", each).read_text().strip() for each in SETTINGS])
