"""Devices of the kernel through the service: plugged in, shown, kept to policies, brought back after a restart."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import (
    backends_pb2,
    captures_pb2,
    captures_pb2_grpc,
    networks_pb2,
    networks_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
)
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc
from tests.integration.vswitch.plugging import FAILED, OPEN, plug, state
from tests.integration.vswitch.test_attach import reason_of
from tests.integration.vswitch.test_captures import Reader
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch.device_bench import ALL, A, B, frame

from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.engines.linux.engine import LinuxEngine
from lamina_vswitch.server import build

SWITCH = "hosts/h1/switches/lan"
GROUP = f"{SWITCH}/portGroups/watched"
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_NOT_IN_KERNEL")
HEARS_ALL = policies_pb2.SecurityPolicy(promiscuous=True)


class Running:
    """A service with the engine `linux`, in this process."""

    def __init__(self, folder: Path, clock: Any) -> None:
        layer = LayerState("vswitch", "h1", clock, Rng("test"), engine="linux")
        self.service = build(Environment("h1", clock, Rng("test"), folder, layer, {}), VswitchConfig())
        self.channel = local(self.service, layer)
        self.switches, self.ports = rpc.SwitchesStub(self.channel), rpc.PortsStub(self.channel)
        self.policies = policies_pb2_grpc.PoliciesStub(self.channel)
        self.networks = networks_pb2_grpc.NetworksStub(self.channel)

    async def port(self, port_id: str) -> pb.Port:
        """Return a port, made if need be."""
        made: pb.Port = await self.ports.CreatePort(
            pb.CreatePortRequest(parent=SWITCH, port_id=port_id, request_id=f"make-{port_id}")
        )
        return made

    async def stop(self) -> None:
        """End the service."""
        await self.channel.close()
        await self.service.stop()


@pytest.fixture
async def start(tmp_path: Path, manual_clock: Any) -> AsyncIterator[Callable[[], Coroutine[Any, Any, Running]]]:
    """Returns what starts the service, again and again in the same folder."""
    needs_network()
    if reasons := LinuxEngine.missing():
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    if shutil.which("nft") is None or shutil.which("ping") is None:
        pytest.skip("there is no program nft or no program ping")
    manual_clock.mode = "real"
    running: list[Running] = []

    async def started() -> Running:
        for each in running:
            await each.stop()
        running[:] = [Running(tmp_path, manual_clock)]
        await running[0].service.start()
        return running[0]

    yield started
    for each in running:
        await each.stop()


async def test_a_device_reaches_the_router_of_its_network(start: Any) -> None:
    """An interface that was moved into a namespace pings the router, which is a port of this process; it comes back
    with the service, and is told of when somebody takes it away."""
    running = await start()
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="lan"))
    wanted = networks_pb2.Network(mode=networks_pb2.Network.MODE_NAT, switch=SWITCH, subnet="10.5.0.0/24")
    await running.networks.CreateNetwork(networks_pb2.CreateNetworkRequest(network_id="net", network=wanted))
    port = await running.port("guest")
    made = await plug(running, port, veth=backends_pb2.VethBackend(interface="lamina-tv0"))
    assert (made.WhichOneof("kind"), made.veth.interface, made.state) == ("veth", "lamina-tv0", OPEN)
    inside = Network()
    try:
        await asyncio.to_thread(_move, "lamina-tv0", inside)
        command = ["ping", "-c", "2", "-i", "0.1", "-W", "5", "10.5.0.1"]
        pinged = await asyncio.to_thread(
            inside.do, lambda: subprocess.run(command, capture_output=True, text=True, timeout=25)
        )
        assert "2 received" in pinged.stdout, pinged.stdout + pinged.stderr
        counters = await running.ports.GetPortCounters(pb.GetPortCountersRequest(port=port.name))
        assert counters.received_frames >= 3
    finally:
        inside.close()
    assert (await state(running, port)).state in (OPEN, FAILED)  # the namespace takes its devices along, in its time
    again = await start()
    found = await state(again, port)
    assert (found.state, found.veth.interface) == (OPEN, "lamina-tv0")
    await asyncio.to_thread(subprocess.run, ["ip", "link", "del", "lamina-tv0"], check=True, timeout=20)
    lost = await state(again, port)
    assert (lost.state, "lamina-tv0 went away" in lost.state_detail) == (FAILED, True)


def _move(interface: str, network: Network) -> None:
    """Move an interface into a namespace, and give it an address there."""
    thread = network.do(threading.get_native_id)
    subprocess.run(["ip", "link", "set", interface, "netns", str(thread)], check=True, timeout=20)
    network.run(f"ip addr add 10.5.0.9/24 dev {interface}")
    network.run(f"ip link set {interface} up")


async def test_policies_beyond_the_kernel_are_refused_by_every_way(start: Any) -> None:
    """By the port's own policy, its group's, and another group; what held before holds on."""
    running = await start()
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="lan"))
    await running.switches.CreatePortGroup(pb.CreatePortGroupRequest(parent=SWITCH, port_group_id="watched"))
    port = await running.port("a")
    await plug(running, port, veth=backends_pb2.VethBackend(interface="lamina-tv1"))
    own = policies_pb2.PortPolicy(name=f"{port.name}/policy", security=HEARS_ALL)
    assert (
        await reason_of(running.policies.UpdatePortPolicy(policies_pb2.UpdatePortPolicyRequest(policy=own))) == REFUSED
    )
    shared = policies_pb2.PortGroupPolicy(name=f"{GROUP}/policy", security=HEARS_ALL)
    await running.policies.UpdatePortGroupPolicy(policies_pb2.UpdatePortGroupPolicyRequest(policy=shared))
    moved = pb.UpdatePortRequest(port=pb.Port(name=port.name, port_group=GROUP))
    assert await reason_of(running.ports.UpdatePort(moved)) == REFUSED
    shared.security.promiscuous, shared.security.dhcp_guard = False, True
    await running.policies.UpdatePortGroupPolicy(policies_pb2.UpdatePortGroupPolicyRequest(policy=shared))
    await running.ports.UpdatePort(moved)
    shared.security.promiscuous = True
    update = policies_pb2.UpdatePortGroupPolicyRequest(policy=shared)
    assert await reason_of(running.policies.UpdatePortGroupPolicy(update)) == REFUSED
    asked = policies_pb2.GetPortPolicyRequest(name=f"{port.name}/policy")
    effective = (await running.policies.GetPortPolicy(asked)).effective
    assert (effective.security.dhcp_guard, effective.security.promiscuous) == (True, False)
    other = await running.port("b")
    own.name = f"{other.name}/policy"
    await running.policies.UpdatePortPolicy(policies_pb2.UpdatePortPolicyRequest(policy=own))
    wanted = plug(running, other, veth=backends_pb2.VethBackend(interface="lamina-tv2"))
    assert await reason_of(wanted) == REFUSED
    assert "lamina-tv2" not in [name for _, name in socket.if_nameindex()]
    taken = plug(running, await running.port("c"), veth=backends_pb2.VethBackend(interface="lamina-tv1"))
    assert await reason_of(taken) == (grpc.StatusCode.FAILED_PRECONDITION, "DEVICE_IN_USE")


async def test_a_policy_whose_rules_are_not_taken_does_not_hold(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program nft it is refused before anything is noted, by the port's way and its group's."""
    running = await start()
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="lan"))
    await running.switches.CreatePortGroup(pb.CreatePortGroupRequest(parent=SWITCH, port_group_id="watched"))
    port = await running.port("a")
    await running.ports.UpdatePort(pb.UpdatePortRequest(port=pb.Port(name=port.name, port_group=GROUP)))
    await plug(running, port, veth=backends_pb2.VethBackend(interface="lamina-tv3"))
    monkeypatch.setenv("PATH", "")
    guarded = policies_pb2.SecurityPolicy(dhcp_guard=True)
    own = policies_pb2.PortPolicy(name=f"{port.name}/policy", security=guarded)
    shared = policies_pb2.PortGroupPolicy(name=f"{GROUP}/policy", security=guarded)
    for update in (
        running.policies.UpdatePortPolicy(policies_pb2.UpdatePortPolicyRequest(policy=own)),
        running.policies.UpdatePortGroupPolicy(policies_pb2.UpdatePortGroupPolicyRequest(policy=shared)),
    ):
        assert await reason_of(update) == (grpc.StatusCode.FAILED_PRECONDITION, "NFT_REFUSED")
    asked = policies_pb2.GetPortPolicyRequest(name=f"{port.name}/policy")
    assert not (await running.policies.GetPortPolicy(asked)).effective.security.dhcp_guard
    monkeypatch.undo()
    await running.policies.UpdatePortPolicy(policies_pb2.UpdatePortPolicyRequest(policy=own))
    assert (await running.policies.GetPortPolicy(asked)).effective.security.dhcp_guard


async def test_the_service_captures_and_mirrors_what_only_the_kernel_has(start: Any) -> None:
    """A capture is a file of both directions at the ports that it names; a mirror copies to a third device."""
    running = await start()
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="lan"))
    names = ("a", "b", "m")
    ports = {name: await running.port(name) for name in names}
    ends = {}
    for name in names:
        await plug(running, ports[name], veth=backends_pb2.VethBackend(interface=f"lamina-k{name}", up=True))
        ends[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        ends[name].bind((f"lamina-k{name}", 0x88B5))
    capture = Reader(running, switch=SWITCH, ports=[ports["a"].name], filter="ether proto 0x88b5")
    assert await capture.more()  # it has begun
    ends["a"].send(frame(ALL, A))
    ends["b"].send(frame(A, B))
    packets = await capture.packets(2)
    assert [(each.data, each.direction) for each in packets] == [(frame(ALL, A), 1), (frame(A, B), 2)]
    capture.call.cancel()
    source, target = ports["b"].name, ports["m"].name
    wanted = captures_pb2.Mirror(source_ports=[source], destination_port=target, filter=f"ether src {B.hex(':')}")
    stub = captures_pb2_grpc.CapturesStub(running.channel)
    await stub.CreateMirror(captures_pb2.CreateMirrorRequest(parent=SWITCH, mirror_id="m", mirror=wanted))
    ends["b"].send(frame(A, B))
    async with asyncio.timeout(20):
        found = [await asyncio.get_running_loop().sock_recv(ends["m"], 2048) for _ in range(2)]
    assert found == [frame(ALL, A), frame(A, B)]  # flooded before it was a destination; copied
    for end in ends.values():
        end.close()
