"""A guest in QEMU at ports of ours: an address by DHCP, names, echo, and pages of a container and a modelled guest."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lamina.vswitch.v1 import backends_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.conftest import Device, Starter
from tests.integration.vswitch.network_bench import SWITCH, NetworkBench
from tests.integration.vswitch.plugging import plug
from tests.linux.hardware.network import Network, needs_network
from tests.linux.vswitch import qemu
from tests.linux.vswitch.container import LEASED, Container
from tests.linux.vswitch.stack_host import StackHost

from lamina_kit.clock import RealClock

DEADLINE_S = 180  # ten seconds on an idle machine; emulation is slow where others work too
PAGE, MODELLED_PAGE = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
BODY = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b"
WIRES = ("dgram-udp", "dgram-unix", "stream-tcp", "stream-unix")

JUDGE = """
judge() {
    echo "wire $1"
    udhcpc -i $1 -n -q -t 20 -T 1 -x hostname:vm$1 -s /bin/leased
    echo "nameserver 10.0.2.1" >/etc/resolv.conf
    nslookup web.lab 10.0.2.1
    ping -c 3 -i 0.1 -W 5 10.0.2.1
    ping -c 3 -i 0.1 -W 5 -s 4000 web.lab
    echo "container $(wget -q -O - http://web.lab/page | sha256sum)"
    echo "modelled $(wget -q -O - http://model.lab:8000/ | sha256sum)"
    ip addr flush dev $1
    ip link set $1 down
}
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[NetworkBench]:
    """Returns a service on the machine's clock, with a switch and a host-only network."""
    needs_network()
    qemu.needs_qemu()
    starter = Starter("local", tmp_path / "state", RealClock())
    made = await NetworkBench(await starter(), Device).open()
    await made.create()
    yield made
    for running in starter.running:
        await running.stop()


@pytest.fixture
async def container(bench: NetworkBench, tmp_path: Path) -> AsyncIterator[Container]:
    """Returns a container on the network, called `web`, with a page."""
    network = Network()
    made = Container(network, tmp_path / "web", "web")
    try:
        await made.plug_in(bench.running, await port(bench, "web"))
        assert "web has 10.0.2.2/24 via 10.0.2.1" in await made.get_address()
        made.serve({"page": PAGE})
        yield made
    finally:
        made.close()
        network.close()


@pytest.fixture
async def modelled(bench: NetworkBench, container: Container) -> AsyncIterator[StackHost]:
    """Returns a modelled guest on the network, called `model`, with a page."""
    guest = await bench.guest(9)
    await guest.get_address(host_name=b"model")
    host = StackHost(guest.device, guest.mac, guest.address)
    host.serve(8000, BODY % (len(MODELLED_PAGE), MODELLED_PAGE))
    yield host
    host.stop()


async def port(bench: NetworkBench, name: str) -> pb.Port:
    """Makes a port."""
    made: pb.Port = await bench.running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id=name))
    return made


async def wires(bench: NetworkBench, folder: Path) -> list[tuple[str, str]]:
    """Makes a port for each kind of wire; returns what QEMU plugs in, and as whom."""
    paths = {name: folder / name for name in ("dgram", "guest", "stream")}
    udp = backends_pb2.DatagramBackend(local_address="udp:127.0.0.1:0")
    unix = backends_pb2.DatagramBackend(local_address=f"unix:{paths['dgram']}", remote_address=f"unix:{paths['guest']}")
    tcp = backends_pb2.StreamBackend(address="tcp:127.0.0.1:0", listen=True)
    local = backends_pb2.StreamBackend(address=f"unix:{paths['stream']}", listen=True)
    made = [await plug(bench.running, await port(bench, WIRES[0]), datagram=udp)]
    made.append(await plug(bench.running, await port(bench, WIRES[1]), datagram=unix))
    made.append(await plug(bench.running, await port(bench, WIRES[2]), stream=tcp))
    made.append(await plug(bench.running, await port(bench, WIRES[3]), stream=local))
    udp_port, tcp_port = (each.rpartition(":")[2] for each in (made[0].datagram.local_address, made[2].stream.address))
    inet = "type=inet,{0}.host=127.0.0.1,{0}.port="
    netdevs = (
        f"dgram,local.{inet.format('local')}0,remote.{inet.format('remote')}{udp_port}",
        f"dgram,local.type=unix,local.path={paths['guest']},remote.type=unix,remote.path={paths['dgram']}",
        f"stream,server=off,addr.{inet.format('addr')}{tcp_port}",
        f"stream,server=off,addr.type=unix,addr.path={paths['stream']}",
    )
    return [(netdev, f"02:00:00:00:01:{number:02x}") for number, netdev in enumerate(netdevs)]


@pytest.mark.timeout(240)
async def test_a_guest_of_qemu_is_at_home(
    bench: NetworkBench, modelled: StackHost, tmp_path: Path, short_dir: Path
) -> None:
    """Over each kind of wire: a lease, a name, echoes of any size, and both pages byte by byte; nothing is dropped."""
    kernel, modules = qemu.needs_qemu()
    script = JUDGE + "".join(f"judge eth{number}\n" for number in range(len(WIRES)))
    initrd = tmp_path / "initrd"
    initrd.write_bytes(qemu.first_files(modules, script, {"bin/leased": "#!/bin/busybox sh\n" + LEASED}))
    async with qemu.booted(kernel, initrd, await wires(bench, short_dir)) as console:
        said = await qemu.said(console, DEADLINE_S)
    parts = said.split("wire eth")[1:]
    assert len(parts) == len(WIRES), said
    for number, (part, wire) in enumerate(zip(parts, WIRES, strict=True)):
        assert f"eth{number} has 10.0.2.{4 + number}/24 via 10.0.2.1, names by 10.0.2.1 in lab" in part, said
        assert "Name:\tweb.lab\nAddress: 10.0.2.2" in part, part
        assert part.count("3 packets transmitted, 3 packets received, 0% packet loss") == 2, part
        assert f"container {hashlib.sha256(PAGE).hexdigest()}" in part, part
        assert f"modelled {hashlib.sha256(MODELLED_PAGE).hexdigest()}" in part, part
        assert await bench.drops(f"{SWITCH}/ports/{wire}") == {}, wire
    assert len(modelled.asked) == len(WIRES)
    names = {lease.host_name: lease.address for lease in await bench.leases()}
    assert names["vmeth0"] == "10.0.2.4/24" and set(names) == {"web", "model", *(f"vmeth{n}" for n in range(4))}
