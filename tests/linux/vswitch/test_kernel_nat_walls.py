"""What walls NAT by the kernel in, and what becomes of the machine when something of it fails."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from lamina.vswitch.v1 import networks_pb2, translations_pb2
from tests.integration.vswitch.test_attach import reason_of
from tests.linux.vswitch.kernel_nat_bench import (  # noqa: F401 (two are fixtures)
    DEVICE,
    HOST,
    MACHINE,
    NET,
    SETTINGS,
    Running,
    World,
    given_running,
    given_world,
    said,
    settings,
)

from lamina_net.packets import ethernet, ipv4, udp
from lamina_net.packets.address import Subnet, parse_address
from lamina_vswitch.engines.linux.nat import conntrack
from lamina_vswitch.engines.linux.nat import machine as nat_machine
from lamina_vswitch.engines.linux.nat.machine import GivenNamespace, NatMachine
from lamina_vswitch.engines.linux.nat.rules import NatWanted
from lamina_vswitch.engines.linux.refusal import KernelRefusal

UDP = translations_pb2.PROTOCOL_UDP


async def test_neighbours_do_not_reach_ports_at_127_0_0_1(running: Running, world: World) -> None:
    """A frame from outside to 127.0.0.1 is not translated, as one to an address of the machine is."""
    await running.create()
    local = await running.forward("local", protocol=UDP)
    await running.forward("far", protocol=UDP, outside_address=MACHINE, outside_port=8090, allow_remote=True)
    told = said(world.machine, "ip", "-o", "link", "show", "left").split()
    mac = bytes.fromhex(told[told.index("link/ether") + 1].replace(":", ""))
    with world.host.end("peer") as wire:
        for address, port in (("127.0.0.1", local.outside_port), (MACHINE, 8090)):
            src, dst = parse_address(HOST) or 0, parse_address(address) or 0
            datagram = udp.build(src, dst, udp.Datagram(1000, port, b"x"))
            packet = ipv4.build(ipv4.Packet(src, dst, ipv4.UDP, datagram))
            wire.send(ethernet.build(mac, mac, ethernet.IPV4, packet))
    request = translations_pb2.ListPortForwardsRequest(parent=NET)
    async with asyncio.timeout(30):
        flows = [0, 0]
        while not flows[0]:
            listed = await running.translations.ListPortForwards(request)
            flows = [each.flow_count for each in listed.port_forwards]
            await asyncio.sleep(0)
    assert flows == [1, 0]


async def test_without_rules_there_is_no_outside(running: Running, world: World, monkeypatch: Any) -> None:
    """Where flushed rules cannot be set again, or changed ones are refused, the network is cut off; nothing stays."""
    network = await running.create()
    nft = shutil.which("nft")
    monkeypatch.setenv("PATH", "/nowhere")
    world.machine.run(f"{nft} flush ruleset")
    async with asyncio.timeout(30):
        while "network.outside_refused" not in [each.event for each in running.events.list(NET)]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert settings(world) == ["0", "0", "0"]
    assert (await reason_of(running.forward()))[0] is grpc.StatusCode.FAILED_PRECONDITION
    monkeypatch.undo()
    assert DEVICE not in said(world.machine, "ip", "link")
    for outside in (networks_pb2.NatSettings.OUTSIDE_SOCKETS, networks_pb2.NatSettings.OUTSIDE_KERNEL):
        network.nat.outside = outside
        await running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
    assert DEVICE in said(world.machine, "ip", "link")
    monkeypatch.setenv("PATH", "/nowhere")
    network.nat.allowed_destinations.append(f"{HOST}/32")
    await running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
    monkeypatch.undo()
    assert DEVICE not in said(world.machine, "ip", "link")
    await running.service.stop()
    assert settings(world) == ["0", "0", "0"]
    assert said(world.machine, "nft", "list", "ruleset") == ""


async def test_a_stop_restores_what_it_can(running: Running, world: World, monkeypatch: Any) -> None:
    """Also when the kernel does not tell what it tracks."""
    await running.create()

    def refuses(*_: object) -> Any:
        raise KernelRefusal("a request", errno.ENOBUFS)

    monkeypatch.setattr(conntrack, "tracked", refuses)
    await running.service.stop()
    assert settings(world) == ["0", "0", "0"]
    assert said(world.machine, "nft", "list", "ruleset") == ""
    assert DEVICE not in said(world.machine, "ip", "link")


async def test_what_is_set_between_is_not_undone(running: Running, world: World) -> None:
    """A machine that is told to forward after an outside was refused goes on to do so, for all, with one and after."""
    world.machine.run(f"ip tuntap add {DEVICE} mode tun")
    assert await reason_of(running.create()) == (grpc.StatusCode.UNAVAILABLE, "KERNEL_REFUSED")
    world.machine.run(f"ip link del {DEVICE}")
    world.machine.do(lambda: Path("/proc/sys", SETTINGS[0]).write_text("1"))
    await running.create()
    assert 'oifname != "lnat-*"' not in said(world.machine, "nft", "list", "ruleset")
    await running.networks.DeleteNetwork(networks_pb2.DeleteNetworkRequest(name=NET))
    assert settings(world) == ["1", "0", "0"]


async def test_services_that_start_at_once_note_the_same(world: World, monkeypatch: Any) -> None:
    """While one looks at what is set, no other sets it: the last table that goes restores what was before both."""
    first, second = NatMachine(world.path), NatMachine(world.path)
    plain = NatWanted("lnat-1", 0x0A050001, (Subnet(0x0A050000, 24),), 32768, 60999, 65536, 8192)
    other = replace(plain, device="lnat-2")
    look, reached = NatMachine._tables, threading.Event()
    threads: list[threading.Thread] = []

    def sets() -> None:
        second.set(other)
        reached.set()

    def looks(machine: NatMachine) -> dict[str, str]:
        found = look(machine)
        if machine is first and not threads:
            threads.append(threading.Thread(target=sets))
            threads[0].start()
            assert reached.wait(60)  # it has set all, or waits for its turn
        return found

    def waits(seconds: float) -> None:
        reached.set()
        threading.Event().wait(seconds)

    monkeypatch.setattr(NatMachine, "_tables", looks)
    monkeypatch.setattr(nat_machine, "_LONGEST_WAIT_S", 60.0)
    monkeypatch.setattr(nat_machine, "time", SimpleNamespace(monotonic=time.monotonic, sleep=waits))
    await asyncio.to_thread(first.set, plain)
    await asyncio.to_thread(threads[0].join, 60)
    assert settings(world) == ["1", "1", "1"]
    for machine, device in ((second, "lnat-2"), (first, "lnat-1")):
        machine.unset(device)
        machine.close()
    assert settings(world) == ["0", "0", "0"]


async def test_who_keeps_the_lock_is_not_waited_for(running: Running, world: World, monkeypatch: Any) -> None:
    """A change is refused after two seconds, others then at once; nothing is left, and later changes are made."""
    slept: list[float] = []
    watch = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(nat_machine, "time", watch)
    other = GivenNamespace(world.path)
    try:
        fcntl.flock(other.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _ in range(3):
            assert await reason_of(running.create()) == (grpc.StatusCode.UNAVAILABLE, "KERNEL_REFUSED")
            assert 1.9 < sum(slept) < 2.1
        assert DEVICE not in said(world.machine, "ip", "link")
    finally:
        other.close()
    await running.create()
    assert settings(world) == ["1", "1", "1"]
