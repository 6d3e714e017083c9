"""Overlays whose tunnels go by NICs: a VLAN that spans two machines, and the same history again from the same seed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import overlays_pb2, overlays_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.conftest import Device, Starter
from tests.integration.vswitch.nic_world import Hardware, NicBench
from tests.integration.vswitch.uplink_bench import BROADCAST, UplinkBench, frame, mac
from tests.virtual_time import clock_of_loop

from lamina_kit.virtual.loop import VirtualLoop

ENDS = ("192.0.2.1", "192.0.2.2")


class Machine:
    """A host with a switch `lan` for guests and a switch `wan` whose uplink drives a NIC; an overlay joins them."""

    def __init__(self, folder: Path) -> None:
        clock = clock_of_loop()
        self.hardware = Hardware("local", folder / "hardware", clock)
        self._starter = Starter("local", folder / "vswitch", clock)
        self.lan: UplinkBench

    async def start(self, here: str, there: str) -> None:
        """Start it; `there` is the other end of its tunnel."""
        self._starter.state_dir.mkdir(parents=True)
        running = await self._starter(channels={"hardware": await self.hardware.start()})
        await self.hardware.connect("nic0", rate_bits_per_second=10**9)
        self.lan = await UplinkBench(running, Device, "lan").open()
        wan = NicBench(running, Device, "wan")
        wish = vs.CreateSwitchRequest(switch_id="wan", switch=vs.Switch(mtu_bytes=1600))
        await running.switches.CreateSwitch(wish)
        uplink = await wan.nic_uplink("u1")
        while await wan.state("u1") != "UP":
            await self.hardware.clock.sleep_ns(10_000_000)
        stub = overlays_pb2_grpc.OverlaysStub(running.channel)
        overlay = overlays_pb2.Overlay(vni=7, uplink=uplink.name, local_address=f"{here}/24")
        create = overlays_pb2.CreateOverlayRequest(parent=self.lan.switch, overlay_id="o", overlay=overlay)
        made = await stub.CreateOverlay(create)
        far = overlays_pb2.RemoteEndpoint(address=there)
        request = overlays_pb2.CreateRemoteEndpointRequest(parent=made.name, remote_endpoint=far)
        await stub.CreateRemoteEndpoint(request)

    async def history(self) -> tuple[str, bytes]:
        """Return what its switch told, and what its NIC counted."""
        counters = await self.hardware.counters("nic0")
        return self.lan.running.state.events.json_lines(), counters.SerializeToString(deterministic=True)

    async def stop(self) -> None:
        """Stop it."""
        for running in self._starter.running:
            await running.stop()
        await self.hardware.stop()


async def spanned(folder: Path) -> list[Any]:
    """Let two guests of two machines talk in one VLAN; return what came, when, and what both machines recorded."""
    found: list[Any] = []
    async with AsyncExitStack() as stack:
        machines = []
        for here, there in (ENDS, ENDS[::-1]):
            machines.append(Machine(folder / here))
            stack.push_async_callback(machines[-1].stop)
            await machines[-1].start(here, there)
        left, right = machines
        alice, bob = await left.lan.guest("alice"), await right.lan.guest("bob")
        longest = mac(2) + mac(1) + b"\x88\xb5" + bytes(1500)
        for sender, receiver, sent in (
            (alice, bob, frame(BROADCAST, mac(1), "hello")),
            (bob, alice, frame(mac(1), mac(2), "answer")),
            (alice, bob, longest),
        ):
            sender.send([sent])
            assert await receiver.receive(1) == [sent]
            found += [sent, clock_of_loop().now_ns()]
        for machine in machines:
            found.append(await machine.history())
    return found


async def test_a_vlan_spans_machines_by_their_nics(tmp_path: Path) -> None:
    """A broadcast, its answer and a frame of the full MTU cross the tunnel whole, through both NICs."""
    await spanned(tmp_path)


@pytest.mark.real_time("makes virtual loops of its own")
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """On the virtual clock two runs of one seed bring the same frames at the same nanoseconds, and record the same."""
    one, two = (VirtualLoop(5, strict=True).run(spanned(tmp_path / name)) for name in ("one", "two"))
    assert one == two
