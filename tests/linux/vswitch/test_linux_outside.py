"""Kernels on both sides of a NAT network whose outside is at an uplink: that of a guest, and that of a host there."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.conftest import Device, Starter
from tests.integration.vswitch.outside_bench import OutsideBench
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch.container import Container

from lamina_kit.clock import RealClock

PAGE = random.Random(5).randbytes(400_000)
GUEST, HOST, OURS = "10.0.2.7", "192.0.2.9", "192.0.2.2"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[OutsideBench]:
    """Returns a service on the machine's clock with the network."""
    needs_network()
    for program in ("ping", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no program {program}")
    starter = Starter("local", tmp_path / "state", RealClock())
    starter.state_dir.mkdir()
    made = await OutsideBench(await starter(), Device).open()
    await made.wan.create("u1")
    await made.create()
    yield made
    for running in starter.running:
        await running.stop()


@pytest.fixture
async def ends(bench: OutsideBench, tmp_path: Path) -> AsyncIterator[tuple[Container, Container]]:
    """Returns a guest inside, and a host outside that is not told of the inside."""
    networks = Network(), Network()
    names = f"in{os.getpid()}", f"out{os.getpid()}"  # for a moment they are the machine's, where others test too
    made = [Container(network, tmp_path / name, name) for network, name in zip(networks, names, strict=True)]
    ports = bench.lan.running.ports
    try:
        inner = await ports.CreatePort(vs.CreatePortRequest(parent=bench.lan.switch, port_id="inner"))
        outer = await ports.GetPort(vs.GetPortRequest(name=f"{bench.wan.switch}/ports/u1"))
        for container, port, address in ((made[0], inner, GUEST), (made[1], outer, HOST)):
            await container.plug_in(bench.lan.running, port)
            container.network.run(f"ip addr add {address}/24 dev {container.name}")
        made[0].network.run("ip route add default via 10.0.2.1")
        yield made[0], made[1]
    finally:
        for each, network in zip(made, networks, strict=True):
            each.close()
            network.close()


async def test_a_kernel_goes_out_and_is_reached(bench: OutsideBench, ends: tuple[Container, Container]) -> None:
    """Pings of any size, whole pages outwards and by a forwarded port inwards; the outside sees one address."""
    inner, outer = ends
    for size in (0, 1472, 8000):
        assert "3 received" in await inner.run(f"ping -c 3 -i 0.05 -W 5 -s {size} {HOST}")
    assert "3 received" in await outer.run(f"ping -c 3 -i 0.05 -W 5 {OURS}")
    await bench.forward(outside_port=8080)
    for server, client, address in ((outer, inner, HOST), (inner, outer, f"{OURS}:8080")):
        server.serve({"page": PAGE})
        await client.run(f"busybox wget -q -O {client.folder}/got http://{address}/page")
        assert (client.folder / "got").read_bytes() == PAGE
    neighbours = await outer.run("ip neigh show")
    assert OURS in neighbours
    assert "10.0.2." not in neighbours
    outsides = {entry.outside.rpartition(":")[0] for entry in await bench.entries()}
    assert outsides == {OURS}


async def test_a_path_that_ends_is_told(bench: OutsideBench, ends: tuple[Container, Container]) -> None:
    """A closed port and a host that is not there are told to the guest's kernel by errors that it understands."""
    inner, _ = ends
    refused = await inner.run("ping -c 1 -W 8 192.0.2.77", fails=True)
    assert "Destination Host Unreachable" in refused
    assert f"From {OURS}" in refused
    assert "1 received" in await inner.run(f"ping -c 1 -W 5 {HOST}")
