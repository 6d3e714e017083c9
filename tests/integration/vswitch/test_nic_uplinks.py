"""Uplinks that drive NICs: frames through rings and wires, links, teams, who has a NIC, and restarts of either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc
from lamina.hardware.v1 import iommu_pb2, iommu_pb2_grpc, nics_pb2
from lamina.vswitch.v1 import policies_pb2, policies_pb2_grpc
from lamina.vswitch.v1 import uplinks_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.conftest import Starter
from tests.integration.vswitch.nic_world import Hardware, NicBench
from tests.integration.vswitch.outside_bench import OUTSIDE, OutsideBench
from tests.integration.vswitch.refusals import refusal
from tests.integration.vswitch.ring_device import RingDevice
from tests.integration.vswitch.test_devices import HEADER
from tests.integration.vswitch.uplink_bench import BROADCAST, frame, mac
from tests.offload_frames import packet
from tests.virtual_time import clock_of_loop

from lamina_net.offload.headers import is_transport_sum_good, parse
from lamina_net.packets import icmp, ipv4


@dataclass
class Host:
    """One host: its hardware, what starts its vswitch, and a bench of the running one."""

    hardware: Hardware
    starter: Starter
    bench: NicBench


Hosts = Callable[[str], Awaitable[Host]]


@pytest.fixture(params=["local", "sockets"])
async def hosts(request: pytest.FixtureRequest, tmp_path: Path, device: Any) -> AsyncIterator[Hosts]:
    """Returns what starts a host with a switch; all are switched off at the end."""
    made: list[Host] = []

    async def host(name: str) -> Host:
        clock = clock_of_loop()
        hardware = Hardware(request.param, tmp_path / name / "hardware", clock)
        starter = Starter(request.param, tmp_path / name / "vswitch", clock)
        starter.state_dir.mkdir(parents=True)
        running = await starter(channels={"hardware": await hardware.start()})
        bench = NicBench(running, device)
        await bench.open()
        made.append(Host(hardware, starter, bench))
        return made[-1]

    yield host
    for each in made:
        for running in each.starter.running:
            await running.stop()
        await each.hardware.stop()


async def until(look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Ask a service until it answers as wanted, at most ten seconds of the loop's time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 10
    while (found := await look()) != wanted:
        assert loop.time() < end, f"{found} is not {wanted}"
        await clock_of_loop().sleep_ns(10_000_000)


async def up(host: Host, name: str = "u1") -> None:
    """Wait until frames pass at an uplink."""
    await until(lambda: host.bench.state(name), "UP")


async def test_frames_cross_two_hosts(hosts: Hosts) -> None:
    """What a port of one switch sends goes through both NICs and their wire to a port of the other, and back."""
    left, right = await hosts("left"), await hosts("right")
    for host in (left, right):
        await host.hardware.connect("nic0", rate_bits_per_second=10**10)
        made = await host.bench.nic_uplink("u1")
        assert (made.nic, made.backend_port, made.mtu_bytes, made.queue_pairs) == ("hosts/h1/nics/nic0", False, 1500, 4)
        await up(host)
        assert await host.hardware.driver("nic0") == "h1/vswitch"
    found = await left.bench.uplinks.GetUplink(pb.GetUplinkRequest(name=made.name))
    assert found.rate_bits_per_second == 10**10
    alice, bob = await left.bench.guest("alice"), await right.bench.guest("bob")
    asked, answered = frame(BROADCAST, mac(1), "hello"), frame(mac(1), mac(2), "world")
    await left.bench.send("alice", asked)
    assert await bob.receive(1) == [asked]
    await right.bench.send("bob", answered)
    assert await alice.receive(1) == [answered]
    group = await left.bench.group("seven", vlan=7)
    other = await right.bench.group("seven", vlan=7)
    await left.bench.guest("a7", group)
    seven = await right.bench.guest("b7", other)
    await left.bench.send("a7", frame(mac(2), mac(1), "tagged"))
    assert await seven.receive(1) == [frame(mac(2), mac(1), "tagged")]
    sent = await left.hardware.counters("nic0")
    assert (sent.sent_frames, sent.received_frames) == (2, 1)
    assert sent.sent_bytes == 62 + 62


async def test_many_frames_keep_their_order(hosts: Hosts) -> None:
    """Thousands of frames, more than the rings have places, arrive whole and each flow in its order."""
    left, right = await hosts("left"), await hosts("right")
    for host in (left, right):
        await host.hardware.connect("nic0")
        await host.bench.nic_uplink("u1")
        await up(host)
    await left.bench.guest("alice")
    bob = await right.bench.guest("bob")
    sent = [frame(BROADCAST, mac(1 + n % 8), f"{n:05}") + bytes(n % 1000) for n in range(2000)]
    for begin in range(0, len(sent), 200):
        await left.bench.send("alice", *sent[begin : begin + 200])
        got = await bob.receive(200)
        for flow in range(1, 9):
            expected = [each for each in sent[begin : begin + 200] if each[6:12] == mac(flow)]
            assert [each for each in got if each[6:12] == mac(flow)] == expected


async def test_the_link_of_the_nic_is_the_carrier(hosts: Hosts) -> None:
    """A cut wire takes the carrier, and the team shifts; mended it comes back; link down is seen at the far end."""
    host = await hosts("one")
    await host.hardware.connect("nic0", wire="a")
    await host.hardware.connect("nic1", wire="b")
    bench = host.bench
    group = await bench.group("g")
    await bench.nic_uplink("u1", "nic0")
    await bench.nic_uplink("u2", "nic1")
    await bench.team(
        group, balancing=pb.TeamingPolicy.BALANCING_FAILOVER, active_uplinks=["u1"], standby_uplinks=["u2"]
    )
    await until(lambda: bench.used(group), ["u1"])
    await host.hardware.cut(True, "a")
    await until(lambda: bench.state("u1"), "NO_CARRIER")
    assert await bench.used(group) == ["u2"]
    await host.hardware.cut(False, "a")
    await until(lambda: bench.used(group), ["u1"])
    assert (await bench.set_link("u1", False)).state == pb.Uplink.STATE_DOWN

    async def link() -> int:
        nic = await host.hardware.nics.GetNic(_get("nic0"))
        return int(nic.link)

    await until(link, 2)
    assert (await bench.set_link("u1", True)).link == vs.LINK_UP
    await until(lambda: bench.state("u1"), "UP")
    assert await link() == 1


def _get(nic: str) -> Any:
    return nics_pb2.GetNicRequest(name=f"hosts/h1/nics/{nic}")


async def test_a_nic_has_one_user(hosts: Hosts) -> None:
    """A NIC that is not there, one of another uplink, and a port that a NIC has are refused; deleted, it is free."""
    host = await hosts("one")
    bench = host.bench
    assert await refusal(bench.nic_uplink("u1", "nic9")) == ("NOT_FOUND", "NIC_UNKNOWN")
    assert not (await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=bench.switch))).ports
    made = await bench.nic_uplink("u1", request_id="one")
    assert await bench.nic_uplink("u1", request_id="one") == made
    assert await refusal(bench.nic_uplink("u2")) == ("FAILED_PRECONDITION", "NIC_IN_USE")
    port = await bench.running.ports.GetPort(vs.GetPortRequest(name=made.port))
    assert port.state == vs.Port.STATE_DETACHED
    assert await refusal(bench.plug("u1")) == ("FAILED_PRECONDITION", "PORT_ATTACHED")
    await bench.uplinks.DeleteUplink(pb.DeleteUplinkRequest(name=made.name))
    assert await host.hardware.driver("nic0") == ""
    assert (await bench.nic_uplink("u2")).nic == "hosts/h1/nics/nic0"


async def test_the_mtu_follows_the_switch(hosts: Hosts) -> None:
    """A switch's larger MTU is the NIC's, and longer frames then pass in several buffers; so is a smaller one again."""
    left, right = await hosts("left"), await hosts("right")
    for host in (left, right):
        await host.hardware.connect("nic0")
        await host.bench.nic_uplink("u1")
        await up(host)
        await _set_mtu(host, 9000)
    await left.bench.guest("alice")
    bob = await right.bench.guest("bob")
    long = frame(BROADCAST, mac(1), "long").ljust(9014, b"x")
    await left.bench.send("alice", long)
    assert await bob.receive(1) == [long]
    await left.bench.send("alice", long, long)
    await _set_mtu(left, 1500)
    assert await bob.receive(2) == [long, long]


async def _set_mtu(host: Host, mtu_bytes: int) -> None:
    """Give a switch an MTU, and wait until its NIC has it."""
    wanted = policies_pb2.SwitchSettings(name=f"{host.bench.switch}/settings", mtu_bytes=mtu_bytes)
    stub = policies_pb2_grpc.PoliciesStub(host.bench.running.channel)
    await stub.UpdateSwitchSettings(policies_pb2.UpdateSwitchSettingsRequest(settings=wanted))

    async def mtu() -> int:
        return int((await host.hardware.nics.GetNic(_get("nic0"))).mtu_bytes)

    await until(mtu, mtu_bytes)


@pytest.mark.parametrize("hosts", ["sockets"], indirect=True)
async def test_hardware_that_goes_and_comes(hosts: Hosts) -> None:
    """The uplink is FAILED while there is no hardware, keeps its definition, and works when it is back."""
    host = await hosts("one")
    bench = host.bench
    await bench.nic_uplink("u1")
    await host.hardware.connect("nic0")
    await until(lambda: bench.state("u1"), "UP")
    await host.hardware.power_off()
    await until(lambda: bench.state("u1"), "FAILED")
    assert await refusal(bench.nic_uplink("u2", "nic1")) == ("UNAVAILABLE", "HARDWARE_UNREACHABLE")
    await host.hardware.start()
    await host.hardware.connect("nic0")
    await until(lambda: bench.state("u1"), "UP")
    assert await host.hardware.driver("nic0") == "h1/vswitch"


async def test_a_switch_that_starts_again(hosts: Hosts, device: Any) -> None:
    """After a restart of the vswitch its uplinks have their NICs again, and hardware keeps nothing of the old ones."""
    host = await hosts("one")
    await host.hardware.connect("nic0")
    await host.bench.nic_uplink("u1")
    await until(lambda: host.bench.state("u1"), "UP")
    before = await _domains(host)
    channel = host.hardware.channel
    await host.bench.running.stop()
    assert await host.hardware.driver("nic0") == ""
    again = NicBench(await host.starter(channels={"hardware": channel}), device)
    await until(lambda: again.state("u1"), "UP")
    assert await _domains(host) == before == 1


async def _domains(host: Host) -> int:
    stub = iommu_pb2_grpc.IommuStub(host.hardware.channel)
    return len((await stub.ListDmaDomains(iommu_pb2.ListDmaDomainsRequest())).dma_domains)


async def test_long_segments_are_left_to_the_nic(hosts: Hosts) -> None:
    """A guest's TCP packet of 30,000 bytes goes to the NIC in one send, which cuts it and fills the sums in."""
    left, right = await hosts("left"), await hosts("right")
    for host in (left, right):
        await host.hardware.connect("nic0")
        await host.bench.nic_uplink("u1")
        await up(host)
    bob = await right.bench.guest("bob")
    running = left.bench.running
    request = vs.CreatePortRequest(parent=left.bench.switch, port_id="alice")
    alice = await RingDevice(running, (await running.ports.CreatePort(request)).handle).plug_in()
    header = HEADER.pack(1, 1, 54, 1446, 34, 16, 0, 0, 0, 0)
    alice.send([packet(4, 6, bytes(30_000))], offload_headers=header)
    pieces = await bob.receive(21)
    assert [len(piece) for piece in pieces] == [1500] * 20 + [54 + 30_000 - 20 * 1446]
    assert all(is_transport_sum_good(piece, parse(piece)) for piece in pieces)
    counted = await left.hardware.counters("nic0")
    assert (counted.segmented_sends, counted.sent_frames) == (1, 21)


@pytest.mark.parametrize("kind", ["device-failed", "dma-fault"])
async def test_a_nic_that_breaks_is_opened_again(hosts: Hosts, kind: str) -> None:
    """A device that fails, or whose DMA is refused, is told and takes the carrier; mended, frames leave by it."""
    host, other = await hosts("one"), await hosts("other")
    bench = host.bench
    for each in (host, other):
        await each.hardware.connect("nic0")
        await each.bench.nic_uplink("u1")
        await up(each)
    far = await other.bench.guest("far")
    faults = faults_pb2_grpc.FaultsStub(host.hardware.channel)
    wanted = faults_pb2.Fault(kind=kind, object="hosts/h1/devices/nic0")
    made = await faults.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))
    await bench.guest("alice")
    await bench.send("alice", *(frame(BROADCAST, mac(n), "x") for n in range(1, 9)))
    log = host.starter.running[-1].state.events

    async def failures() -> list[str]:
        return [each.event for each in log.list(f"{bench.switch}/ports/u1") if each.event == "uplink.nic_failed"]

    await until(failures, ["uplink.nic_failed"])
    if kind == "device-failed":  # a refused transfer happens once
        await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))
    await up(host)
    again = frame(BROADCAST, mac(9), "again")
    await bench.send("alice", again)
    while await far.receive(1) != [again]:  # what came before it broke comes first
        pass


async def test_a_nat_network_goes_out_by_a_nic(hosts: Hosts) -> None:
    """A guest behind NAT pings a host of another machine through both NICs, and bridge mode goes beside it."""
    left, right = await hosts("left"), await hosts("right")
    for host in (left, right):
        await host.hardware.connect("nic0")
        await host.bench.nic_uplink("u1")
        await up(host)
    bench = await OutsideBench(left.bench.running, left.bench.device).open()
    await bench.create(uplink=f"{left.bench.switch}/uplinks/u1")
    far = bench.host(await right.bench.guest("far"))
    guest = await bench.guest(7)
    guest.ping(far.address)
    asked = await far.packet(lambda packet: packet if packet.protocol == ipv4.ICMP else None)
    message = icmp.parse(asked.payload)
    assert asked.src == OUTSIDE
    assert isinstance(message, icmp.Message)
    far.router_mac = await far.resolve_mac(OUTSIDE)
    far.send_packet(ipv4.Packet(far.address, asked.src, ipv4.ICMP, icmp.build(icmp.echo_reply(message))))
    assert (await guest.icmp())[0] == far.address
    near = await left.bench.guest("near")
    await right.bench.send("far", frame(BROADCAST, mac(77), "bridged"))
    assert await near.receive(1) == [frame(BROADCAST, mac(77), "bridged")]


async def test_an_uplink_that_goes_while_frames_come(hosts: Hosts) -> None:
    """A NIC is reset and given back whole in the middle of traffic: no failure is told, and another uplink gets it."""
    left, right = await hosts("left"), await hosts("right")
    for host in (left, right):
        await host.hardware.connect("nic0")
        await host.bench.nic_uplink("u1")
        await up(host)
    await right.bench.guest("bob")
    for _ in range(20):
        right.bench.devices["bob"].send([frame(BROADCAST, mac(2), f"{n}") for n in range(50)])
    left_switch = left.bench.running.switches
    await left_switch.DeleteSwitch(vs.DeleteSwitchRequest(name=left.bench.switch, force=True))
    await left.bench.open()
    await left.bench.nic_uplink("u2")
    assert await _domains(left) == 1
    log = left.starter.running[-1].state.events
    assert "uplink.nic_failed" not in log.json_lines()
