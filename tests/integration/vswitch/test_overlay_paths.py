"""The way of a frame through overlays and uplinks: what is told is what then happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import backends_pb2, backends_pb2_grpc, overlays_pb2
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import overlays_pb2_grpc as overlays_rpc
from tests.integration.vswitch.test_frame_paths import told
from tests.integration.vswitch.test_overlays import HOST, A, OverlayBench
from tests.integration.vswitch.uplink_bench import BROADCAST, frame, mac

pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


class Paths(OverlayBench):
    """The bench with overlays of two hosts that know each other, and a guest on both."""

    async def fill(self) -> Paths:
        """Make everything but the wire."""
        await self.open()
        await self.create("a")
        other = (await self.create("b")).name
        await self.tell(A, "192.0.2.2", "02:00:00:00:00:02")
        await self.tell(other, "192.0.2.1")
        self.alice, self.bob = await self.guest("a", "alice"), await self.guest("b", "bob")
        return self

    async def path(self, data: bytes, port: str = "lan-a/ports/alice") -> pb.TraceFramePathResponse:
        """Trace a frame."""
        request = pb.TraceFramePathRequest(port=f"{HOST}/{port}", frame=data)
        found: pb.TraceFramePathResponse = await rpc.CapturesStub(self.running.channel).TraceFramePath(request)
        return found

    async def wire(self, folder: Path) -> None:
        """Join the uplinks by a pair of datagram sockets."""
        stub = backends_pb2_grpc.BackendsStub(self.running.channel)
        for here, there in ("ab", "ba"):
            sockets = backends_pb2.DatagramBackend(
                local_address=f"unix:{folder}/{here}", remote_address=f"unix:{folder}/{there}"
            )
            request = backends_pb2.CreateBackendRequest(
                parent=f"{HOST}/wan-{here}/ports/u", backend=backends_pb2.Backend(datagram=sockets)
            )
            await stub.CreateBackend(request)


@pytest.fixture
async def paths(start: Any, device: Any) -> Any:
    """Yields the service with its overlays."""
    made = await Paths(await start(), device).fill()
    yield made
    for wire in made.wires:
        wire.cancel()


async def test_a_frame_is_followed_to_the_wire(paths: Paths) -> None:
    """Before the other host is known by ARP it waits; then it leaves the host as the tunnel packet that is sent."""
    unicast = frame(mac(2), mac(1), "hello")
    assert told(await paths.path(unicast)) == [
        ("lan-a", -1, "flooded", "output.flood"),
        ("o", 0, "consumed", "tunnel.neighbor_unknown"),
    ]
    await paths.join()
    paths.alice.send([unicast])
    assert await paths.bob.receive(1) == [unicast]
    path = await paths.path(unicast)
    assert told(path) == [
        ("lan-a", -1, "flooded", "output.flood"),
        ("o", 0, "forwarded", "tunnel.sent"),
        ("wan-a", 1, "forwarded", "output.forward"),
        ("u", 2, "forwarded", "uplink.leaves_host"),
    ]
    assert path.hops[3].object == f"{HOST}/wan-a/uplinks/u"
    assert "leaves the host by what is attached to its port" in path.hops[3].decision.steps[0].detail
    assert path.hops[1].decision.steps[0].rule == "overlay.known"
    assert path.hops[3].decision.output_frame == path.hops[1].decision.output_frame


@pytest.mark.real_time("backends are sockets of this machine")
async def test_a_wire_between_two_uplinks_of_the_host_is_followed(
    paths: Paths, short_dir: Path, manual_clock: Any
) -> None:
    """The way goes through both switches below and ends at the guest of the other host, as the frame does."""
    manual_clock.mode = "real"
    await paths.wire(short_dir)
    hello, unicast = frame(BROADCAST, mac(1), "hello"), frame(mac(2), mac(1), "again")
    paths.alice.send([hello])
    assert await paths.bob.receive(1) == [hello]
    expected = [
        ("lan-a", -1, "flooded", "output.flood"),
        ("o", 0, "forwarded", "tunnel.sent"),
        ("wan-a", 1, "forwarded", "output.forward"),
        ("u", 2, "forwarded", "uplink.wire"),
        ("wan-b", 3, "forwarded", "output.forward"),
        ("o", 4, "forwarded", "overlay.accepted"),
        ("lan-b", 5, "flooded", "output.flood"),
    ]
    for data in (hello, unicast):
        path = await paths.path(data)
        assert told(path) == expected
        assert [hop.object for hop in path.hops[5:]] == [f"{HOST}/lan-b/overlays/o", f"{HOST}/lan-b"]
        assert path.hops[6].decision.output_frame == data
        assert list(path.hops[6].decision.output_ports) == [f"{HOST}/lan-b/ports/bob"]
    assert path.hops[1].decision.steps[0].rule == "overlay.known"
    paths.alice.send([unicast])
    assert await paths.bob.receive(1) == [unicast]


async def test_telling_changes_nothing_of_an_overlay(paths: Paths) -> None:
    """Nobody is asked by ARP, no packet counted, no end learned, no identification used up."""

    async def state() -> Any:
        counters = [
            await rpc.CapturesStub(paths.running.channel).ListCounters(pb.ListCountersRequest(parent=f"{HOST}/{s}"))
            for s in ("lan-a", "wan-a", "lan-b", "wan-b")
        ]
        macs = await paths.overlays.ListRemoteMacs(overlays_pb2.ListRemoteMacsRequest(parent=A))
        return counters, macs, await paths.ends(), await paths.ends(f"{HOST}/lan-b/overlays/o")

    await paths.join()
    paths.alice.send([frame(BROADCAST, mac(1))])
    await paths.bob.receive(1)
    before = await state()
    found = [(await paths.path(frame(BROADCAST, mac(9)))).hops[3].decision.output_frame for _ in range(2)]
    assert found[0] == found[1]
    for _ in range(2):
        await paths.path(found[0], "wan-b/ports/u")
    assert await state() == before


async def test_drops_of_an_overlay_are_told_with_their_reasons(paths: Paths) -> None:
    """No way to the end, no end, a stranger's frame, a VNI of nobody, and frames that are none of a tunnel's."""
    await paths.join()
    paths.alice.send([frame(BROADCAST, mac(1))])
    await paths.bob.receive(1)
    packet = (await paths.path(frame(mac(2), mac(1)))).hops[1].decision.output_frame
    stub = overlays_rpc.OverlaysStub(paths.running.channel)
    other = f"{HOST}/lan-b/overlays/o"

    async def last(data: bytes, port: str = "wan-b/ports/u") -> tuple[str, int, str, str]:
        return told(await paths.path(data, port))[-1]

    assert await last(packet) == ("lan-b", 1, "flooded", "output.flood")
    assert await last(packet[:46] + b"\0\0\1" + packet[49:]) == ("u", 0, "dropped", "overlay.drop_tunnel_vni_unknown")
    assert await last(packet[:30] + b"\1" + packet[31:]) == ("u", 0, "dropped", "overlay.drop_checksum_bad")
    gone = overlays_pb2.DeleteRemoteEndpointRequest(name=f"{other}/remoteEndpoints/192-0-2-1")
    await stub.DeleteRemoteEndpoint(gone)
    assert await last(packet) == ("o", 0, "dropped", "overlay.drop_tunnel_peer_unknown")
    assert await last(frame(BROADCAST, mac(7)), "lan-b/ports/bob") == ("o", 0, "dropped", "overlay.drop_no_destination")
    assert await last(frame(BROADCAST, mac(7))) == ("u", 0, "consumed", "tunnel.not_for_it")
    await paths.tell(other, "198.51.100.1")
    assert await last(frame(BROADCAST, mac(7)), "lan-b/ports/bob") == ("o", 0, "dropped", "overlay.drop_no_route")
    paths.bob.send([frame(BROADCAST, mac(7))])
    async with asyncio.timeout(10):
        while not await paths.drops("lan-b", "overlay.o"):
            await paths.ends()
    assert await paths.drops("lan-b", "overlay.o") == {"NO_ROUTE": 1}
