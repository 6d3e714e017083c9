"""Linux's vxlan device at the other end of an overlay of ours; Wireshark reads what goes between them."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import overlays_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.conftest import Device, Starter
from tests.integration.vswitch.test_captures import Reader
from tests.integration.vswitch.test_overlays import HOST, A, OverlayBench
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch import wireshark
from tests.linux.vswitch.container import Container

from lamina_kit.clock import RealClock

OURS, THEIRS = "192.0.2.1", "192.0.2.2"
OUR_GUEST, THEIR_GUEST = "10.7.0.1", "10.7.0.2"
OUR_MAC, THEIR_MAC = "02:00:00:00:07:01", "02:00:00:00:07:02"
PAGE = random.Random(3).randbytes(400_000)
GOOD = "1"


class Host:
    """A namespace that is another host: a vxlan device for each VNI over the wire of our uplink."""

    def __init__(self, under: Container) -> None:
        self.under = under
        under.network.run(f"ip addr add {THEIRS}/24 dev {under.name}")

    def vxlan(self, vni: int, address: str, mac: str, mtu: int = 1500) -> None:
        """Have a device `vxVNI` whose one remote end is ours."""
        made = f"type vxlan id {vni} dev {self.under.name} local {THEIRS} remote {OURS} dstport 4789"
        self.under.network.run(f"ip link add vx{vni} address {mac} mtu {mtu} {made}")
        self.under.network.do(lambda: Path(f"/proc/sys/net/ipv6/conf/vx{vni}/disable_ipv6").write_text("1"))
        self.under.network.run(f"ip addr add {address}/24 dev vx{vni}")
        self.under.network.run(f"ip link set vx{vni} up")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[OverlayBench]:
    """Returns a service on the machine's clock with the overlay `o` of VNI 7, told of the other host."""
    needs_network()
    if shutil.which("ping") is None:
        pytest.skip("there is no program ping")
    starter = Starter("local", tmp_path / "state", RealClock())
    made = await OverlayBench(await starter(), Device).open()
    await made.create()
    await made.tell(A, THEIRS)
    yield made
    for running in starter.running:
        await running.stop()


@pytest.fixture
async def ends(bench: OverlayBench, tmp_path: Path) -> AsyncIterator[tuple[Container, Host]]:
    """Returns a container of ours in the overlay, and the other host."""
    networks = Network(), Network()
    names = f"guest{os.getpid()}", f"wire{os.getpid()}"  # for a moment they are the machine's, where others test too
    made = [Container(network, tmp_path / name, name) for network, name in zip(networks, names, strict=True)]
    try:
        port = await bench.running.ports.CreatePort(vs.CreatePortRequest(parent=f"{HOST}/lan-a", port_id="inner"))
        await made[0].plug_in(bench.running, port, OUR_MAC)
        made[0].network.run(f"ip addr add {OUR_GUEST}/24 dev {made[0].name}")
        wire = await bench.running.ports.GetPort(vs.GetPortRequest(name=f"{HOST}/wan-a/ports/u"))
        await made[1].plug_in(bench.running, wire)
        host = Host(made[1])
        host.vxlan(7, THEIR_GUEST, THEIR_MAC)
        yield made[0], host
    finally:
        for each, network in zip(made, networks, strict=True):
            each.close()
            network.close()


async def test_an_overlay_reaches_a_vxlan_device(bench: OverlayBench, ends: tuple[Container, Host]) -> None:
    """Pings of every size and pages pass both ways; each side learned the other's address behind its tunnel."""
    ours, theirs = ends[0], ends[1].under
    for size in (0, 1472, 8000):
        assert "3 received" in await ours.run(f"ping -c 3 -i 0.05 -w 15 -s {size} {THEIR_GUEST}")
    assert "3 received" in await theirs.run(f"ping -c 3 -i 0.05 -w 15 -M do -s 1472 {OUR_GUEST}")
    for server, client, address in ((theirs, ours, THEIR_GUEST), (ours, theirs, OUR_GUEST)):
        server.serve({"page": PAGE})
        await client.run(f"busybox wget -q -O {client.folder}/got http://{address}/page")
        assert (client.folder / "got").read_bytes() == PAGE
    found = await bench.overlays.ListRemoteMacs(pb.ListRemoteMacsRequest(parent=A))
    assert [(each.mac_address, each.endpoint_address) for each in found.remote_macs] == [(THEIR_MAC, THEIRS)]
    assert f"{OUR_MAC} dst {OURS}" in await theirs.run("bridge fdb show dev vx7")
    assert await bench.drops("lan-a", "overlay.o") == {}
    assert await bench.drops("wan-a", "tunnel.u.192-0-2-1") == {}


async def test_networks_stay_apart_and_long_frames_outside(
    bench: OverlayBench, ends: tuple[Container, Host], eventually: Any
) -> None:
    """A VNI of nobody, one of another VLAN, and frames above the VLAN's MTU reach nobody, and are counted."""
    ours, host = ends
    other = await bench.create(name="p", vni=8, vlan_id=5)
    await bench.tell(other.name, THEIRS)
    host.vxlan(8, "10.7.0.8", "02:00:00:00:08:02")
    host.vxlan(9, "10.7.0.9", "02:00:00:00:09:02")
    host.under.network.run("ip link set vx7 mtu 1550")
    for interface in ("vx8", "vx9"):
        assert "0 received" in await lost(host.under, f"-I {interface} {OUR_GUEST}")
    assert "3 received" in await host.under.run(f"ping -c 3 -i 0.05 -w 15 -I vx7 {OUR_GUEST}")
    assert "0 received" in await lost(host.under, f"-I vx7 -M do -s 1500 {OUR_GUEST}")
    assert set(await bench.drops("wan-a", "tunnel.u.192-0-2-1")) == {"TUNNEL_VNI_UNKNOWN"}
    assert await bench.drops("lan-a", "overlay.o") == {"OVERSIZE": 2}
    found = await bench.overlays.ListRemoteMacs(pb.ListRemoteMacsRequest(parent=other.name))
    assert [each.mac_address for each in found.remote_macs] == ["02:00:00:00:08:02"]
    assert "02:00:00:00:08" not in await ours.run("ip neigh show")


async def lost(container: Container, words: str) -> str:
    """Pings in vain; returns what was printed."""
    return await container.run(f"ping -c 2 -i 0.05 -W 0.2 {words}", fails=True)


async def test_wireshark_reads_our_tunnel(bench: OverlayBench, ends: tuple[Container, Host], tmp_path: Path) -> None:
    """No malformation, good sums inside and out, one source port for each flow and many for many flows."""
    wireshark.needs_wireshark()
    ours, host = ends
    reader = Reader(bench.running, switch=f"{HOST}/wan-a", ports=[f"{HOST}/wan-a/ports/u"])
    await reader.more()
    host.under.serve({"page": PAGE[:50_000]})
    for _ in range(3):
        await ours.run(f"busybox wget -q -O {ours.folder}/got http://{THEIR_GUEST}/page")
    ours.network.do(many_flows)
    while b"last of many flows" not in reader.data:
        assert await reader.more()
    reader.call.cancel()
    path = tmp_path / "tunnel.pcapng"
    path.write_bytes(reader.data)
    theirs = {number for number, row in enumerate(wireshark.read(path, "ip.src"), 1) if row[0].startswith(THEIRS)}
    found = wireshark.problems(path)
    assert not any("malformed" in each.lower() for each in found.values())
    assert set(found) <= theirs, found  # the kernel leaves sums of what it sends by its device to others
    fields = ("ip.src", "vxlan.vni", "udp.srcport", "ip.checksum.status", "udp.checksum.status", "tcp.checksum.status")
    rows = [row for row in wireshark.read(path, *fields, "tcp.srcport") if row[1]]
    assert {row[1] for row in rows} == {"7"}
    sent = [row for row in rows if row[0].startswith(OURS)]
    sums = {each for row in sent for column in row[3:6] for each in column.split(",") if each}
    assert sums <= {GOOD, "3"}, sums  # 3: a UDP sum that is not there, as that of the tunnel
    of_udp = {row[2].split(",")[1]: int(row[2].split(",")[0]) for row in sent if "," in row[2]}
    assert len(of_udp) == FLOWS and len(set(of_udp.values())) > FLOWS * 3 // 4
    assert all(49152 <= port <= 65535 for port in of_udp.values())
    of_tcp = {(row[6], row[2]) for row in sent if row[6]}
    assert len(of_tcp) == len({flow for flow, _ in of_tcp}) == 3


FLOWS = 64


def many_flows() -> None:
    """Sends one datagram of each of many flows into the overlay; nobody listens."""
    for number in range(FLOWS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((OUR_GUEST, 20_000 + number))
            sender.sendto(b"last of many flows" if number == FLOWS - 1 else b"one", (THEIR_GUEST, 9))
