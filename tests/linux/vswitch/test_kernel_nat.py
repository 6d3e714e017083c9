"""NAT by the kernel: guests go out, are reached and limited; what is set on the machine comes and goes with it."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.vswitch.v1 import networks_pb2, translations_pb2
from tests.integration.vswitch.test_attach import reason_of
from tests.linux.vswitch.kernel_nat_bench import (  # noqa: F401 (two are fixtures)
    DEVICE,
    GUEST,
    HOST,
    MACHINE,
    NET,
    REDIRECTS,
    Running,
    World,
    answer,
    dial,
    given_running,
    given_world,
    said,
    settings,
)

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.engines.linux.nat.network import Look
from lamina_vswitch.engines.linux.nat.rules import table_of

UDP, ICMP, TCP = translations_pb2.PROTOCOL_UDP, translations_pb2.PROTOCOL_ICMP, translations_pb2.PROTOCOL_TCP
Entry = translations_pb2.NatEntry


async def dropped(running: Running, wanted: dict[DropReason, int]) -> None:
    """Waits until as much was dropped as is wanted."""
    found: dict[int, int] = {}
    try:
        async with asyncio.timeout(30):
            while found != wanted:
                found = await running.drops()
                await asyncio.sleep(0)
    except TimeoutError:
        pytest.fail(f"dropped: {found}, wanted: {wanted}")


def exchange(asks: socket.socket, answers: socket.socket) -> tuple[str, bytes]:
    """Sends a datagram one way, and one back; returns whom the answering side saw, and what came back."""
    asks.send(b"there?")
    data, sender = answers.recvfrom(100)
    answers.sendto(data + b" here", sender)
    return f"{sender[0]}:{sender[1]}", asks.recv(100)


async def test_guests_go_out_and_what_is_set_goes_with_the_network(running: Running, world: World) -> None:
    """Pings of any size, TCP and UDP leave from the machine's address; the table tells them; deleting restores all."""
    assert settings(world) == ["0", "0", "0"]
    await running.create()
    assert settings(world) == ["1", "1", "1"]
    await running.plug("lamina-tn0")
    await asyncio.to_thread(world.plug_guest, "lamina-tn0")
    for size in ("0", "1472", "6000"):
        pinged = await asyncio.to_thread(
            said, world.guest, "ping", "-c", "2", "-i", "0.05", "-W", "9", "-s", size, HOST
        )
        assert "2 received" in pinged
    server = answer(world.host, HOST, 9000, socket.SOCK_DGRAM)
    with server, await asyncio.to_thread(dial, world.guest, HOST, 9000, socket.SOCK_DGRAM) as client:
        seen, back = await asyncio.to_thread(exchange, client, server)
        assert (seen.startswith(f"{MACHINE}:"), back) == (True, b"there? here")
        (found,) = [each for each in await running.entries() if each.protocol == UDP]
        port = client.getsockname()[1]
    assert (found.inside, found.peer, found.outside) == (f"{GUEST}:{port}", f"{HOST}:9000", seen)
    assert (found.state, found.sent_packets, found.received_packets) == (Entry.STATE_REPLIED, 1, 1)
    assert found.sent_bytes == 28 + 6
    assert 0 <= found.age_ns < 60e9
    assert 200e9 < found.expires_in_ns <= 300e9
    assert 32768 <= int(seen.rpartition(":")[2]) <= 60999
    with answer(world.host, HOST, 9001) as listener, await asyncio.to_thread(dial, world.guest, HOST, 9001):
        taken, sender = await asyncio.to_thread(listener.accept)
        (found,) = [each for each in await running.entries() if each.protocol == TCP]
        taken.close()
    assert (found.state, found.outside) == (Entry.STATE_ESTABLISHED, f"{sender[0]}:{sender[1]}")
    assert 7000e9 < found.expires_in_ns <= 7440e9
    flushed = await running.translations.FlushNatEntries(
        translations_pb2.FlushNatEntriesRequest(parent=NET, inside_address=GUEST)
    )
    assert flushed.flushed_entries >= 3
    assert await running.entries() == []
    await running.networks.DeleteNetwork(networks_pb2.DeleteNetworkRequest(name=NET, force=True))
    assert settings(world) == ["0", "0", "0"]
    assert world.machine.do(lambda: Path("/proc/sys", REDIRECTS).read_text()) == "0\n"
    assert said(world.machine, "nft", "list", "ruleset") == ""
    assert DEVICE not in said(world.machine, "ip", "link")


async def test_ports_of_the_machine_lead_inside(running: Running, world: World) -> None:
    """From the machine at 127.0.0.1, from elsewhere at an address of it, from the guest itself, and to nobody else."""
    await running.create()
    await running.plug("lamina-tn1")
    await asyncio.to_thread(world.plug_guest, "lamina-tn1")
    made = await running.forward()
    assert (made.outside_address, made.outside_port > 0) == ("127.0.0.1", True)
    refused = (grpc.StatusCode.FAILED_PRECONDITION, "ADDRESS_NOT_LOOPBACK")
    assert await reason_of(running.forward("far", outside_address=MACHINE, outside_port=8080)) == refused
    far = {"outside_address": MACHINE, "outside_port": 8080, "allow_remote": True}
    with answer(world.machine, MACHINE, 8080):
        taken = (grpc.StatusCode.FAILED_PRECONDITION, "OUTSIDE_PORT_TAKEN")
        assert await reason_of(running.forward("far", **far)) == taken
    await running.forward("far", **far)
    nowhere = running.forward("lost", outside_address="192.0.2.77", allow_remote=True)
    assert (await reason_of(nowhere))[0] is grpc.StatusCode.INVALID_ARGUMENT
    with answer(world.guest, GUEST, 80) as listener:
        for network, address, port, seen in (
            (world.machine, "127.0.0.1", made.outside_port, "10.5.0.1"),
            (world.host, MACHINE, 8080, HOST),
            (world.machine, MACHINE, 8080, MACHINE),
            (world.guest, MACHINE, 8080, "10.5.0.1"),
        ):
            with await asyncio.to_thread(dial, network, address, port):
                connection, sender = await asyncio.to_thread(listener.accept)
                connection.close()
                assert sender[0] == seen
    found = {each.via: each for each in await running.entries() if each.inside == f"{GUEST}:80"}
    assert sorted(found) == sorted([f"127.0.0.1:{made.outside_port}", f"{MACHINE}:8080"])
    listed = await running.translations.ListPortForwards(translations_pb2.ListPortForwardsRequest(parent=NET))
    assert [each.flow_count for each in listed.port_forwards] == [3, 1]
    name = translations_pb2.DeletePortForwardRequest(name=f"{NET}/portForwards/far")
    await running.translations.DeletePortForward(name)
    listed = await running.translations.ListPortForwards(translations_pb2.ListPortForwardsRequest(parent=NET))
    assert [each.name for each in listed.port_forwards] == [made.name]
    await running.forward("far", **far)
    listed = await running.translations.ListPortForwards(translations_pb2.ListPortForwardsRequest(parent=NET))
    assert [each.flow_count for each in listed.port_forwards] == [0, 1]
    await running.translations.DeletePortForward(name)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(dial, world.host, MACHINE, 8080)
    world.host.run(f"ip route add 10.5.0.0/24 via {MACHINE}")
    assert "0 received" in await asyncio.to_thread(said, world.host, "ping", "-c", "1", "-W", "0.3", GUEST)
    assert "1 received" not in await asyncio.to_thread(said, world.machine, "ping", "-c", "1", "-W", "0.3", GUEST)
    assert (await running.drops())[DropReason.NAT_NO_ENTRY] >= 2


async def test_limits_and_destinations_hold_in_the_kernel(running: Running, world: World) -> None:
    """The machine's 127.0.0.0/8 and what is not allowed are refused, as is one flow too many; limits can be changed."""
    await running.create(allowed_destinations=[f"{HOST}/32"], entry_limit=17, entries_per_address=16)
    await running.plug("lamina-tn2")
    await asyncio.to_thread(world.plug_guest, "lamina-tn2")
    said_no = await asyncio.to_thread(said, world.guest, "ping", "-c", "1", "-W", "9", MACHINE)
    assert "Packet filtered" in said_no
    clients = [dial(world.guest, HOST, 9000, socket.SOCK_DGRAM) for _ in range(20)]
    with answer(world.host, HOST, 9000, socket.SOCK_DGRAM) as server:
        for client in clients:
            client.send(b"x")
        for _ in range(16):
            await asyncio.to_thread(server.recv, 10)
    await dropped(running, {DropReason.NAT_ADDRESS_LIMIT: 4, DropReason.NAT_DESTINATION_FORBIDDEN: 1})
    assert len(await running.entries()) == 16
    world.machine.run("nft add table ip other")
    world.machine.run("nft add chain ip other pre { type nat hook prerouting priority -101 ; }")
    world.machine.run(f"nft add rule ip other pre ip daddr {MACHINE} udp dport 7777 dnat to {HOST}:9000")
    clients.append(dial(world.guest, MACHINE, 7777, socket.SOCK_DGRAM))
    clients[-1].send(b"by a rule of somebody else")
    await dropped(running, {DropReason.NAT_ADDRESS_LIMIT: 4, DropReason.NAT_DESTINATION_FORBIDDEN: 2})
    network = await running.networks.GetNetwork(networks_pb2.GetNetworkRequest(name=NET))
    network.nat.entries_per_address = network.nat.entry_limit = 100
    del network.nat.allowed_destinations[:]
    await running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
    with answer(world.host, HOST, 9000, socket.SOCK_DGRAM) as server:
        seen, _ = await asyncio.to_thread(exchange, clients[19], server)
    assert seen.startswith(MACHINE)
    assert "1 received" in await asyncio.to_thread(said, world.guest, "ping", "-c", "1", "-W", "9", MACHINE)
    request = translations_pb2.ListNatEntriesRequest(parent=NET, page_size=5)
    listed: list[str] = []
    while not listed or request.page_token:
        page = await running.translations.ListNatEntries(request)
        listed += [each.inside for each in page.nat_entries]
        request.page_token = page.next_page_token
    assert listed == [each.inside for each in await running.entries()]
    assert len(listed) >= 17
    for client in clients:
        client.close()


async def test_who_lists_or_flushes_much_keeps_nobody_waiting(running: Running, monkeypatch: Any) -> None:
    """While the kernel is read, once at a time, the service answers others; a network that goes is listed no more."""
    await running.create()
    other_was_answered, waited, turn = threading.Event(), [], threading.Lock()
    read, forget = Look.entries, Look.flush

    @contextmanager
    def alone() -> Iterator[None]:
        assert turn.acquire(blocking=False)
        yield
        turn.release()

    def slow_entries(look: Look, now_ns: int) -> list[Any]:
        with alone():
            waited.append(other_was_answered.wait(30))
            return read(look, now_ns)

    def slow_flush(look: Look, inside: int | None) -> int:
        with alone():
            waited.append(other_was_answered.wait(30))
            return forget(look, inside)

    monkeypatch.setattr(Look, "entries", slow_entries)
    monkeypatch.setattr(Look, "flush", slow_flush)
    flush = translations_pb2.FlushNatEntriesRequest(parent=NET)
    calls: tuple[Any, ...] = running.entries(), running.translations.FlushNatEntries(flush)
    asking = [asyncio.ensure_future(each) for each in calls]
    await running.drops()
    other_was_answered.set()
    found, flushed = await asyncio.gather(*asking)
    assert (found, flushed.flushed_entries, waited) == ([], 0, [True, True])
    monkeypatch.setattr(Look, "flush", forget)
    other_was_answered.clear()
    asked = asyncio.ensure_future(reason_of(running.entries()))
    await running.networks.DeleteNetwork(networks_pb2.DeleteNetworkRequest(name=NET))
    other_was_answered.set()
    assert (await asked)[0] == grpc.StatusCode.NOT_FOUND


async def test_a_killed_service_is_cleaned_after_and_flows_go_on(world: World, tmp_path: Path) -> None:
    """What a process left that was killed is found: its rules are taken over, or away; its flows are still known."""
    first = Running(tmp_path, world)
    await first.service.start()
    await first.create()
    await first.forward(outside_port=8081)
    client = world.machine.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.setblocking(False)
    assert client.connect_ex(("127.0.0.1", 8081)) == errno.EINPROGRESS
    (before,) = await first.entries()
    _kill(first)
    assert table_of(DEVICE) in said(world.machine, "nft", "list", "ruleset")
    again = Running(tmp_path, world)
    await again.service.start()
    listed = await again.translations.ListPortForwards(translations_pb2.ListPortForwardsRequest(parent=NET))
    assert [each.outside_port for each in listed.port_forwards] == [8081]
    assert DEVICE in said(world.machine, "ip", "link")
    (after,) = await again.entries()
    assert (after.outside, after.peer, after.via) == (before.outside, before.peer, "127.0.0.1:8081")
    client.close()
    _kill(again)
    other = Running(tmp_path / "other", world)
    (tmp_path / "other").mkdir()
    await other.service.start()
    try:
        assert said(world.machine, "nft", "list", "ruleset") == ""
        assert settings(world) == ["0", "0", "0"]
    finally:
        await other.stop()


def _kill(running: Running) -> None:
    """Lets go of what goes with a process, and of nothing else."""
    opened = running.service._kernel._open.pop("net")
    kernel = opened.kernel
    opened.port.close()
    kernel.tun.close()
    for held in kernel._held.values():
        held.close()
    asyncio.get_running_loop().remove_reader(kernel._machine.ears.socket)
    kernel._machine.close()
    running.service._store.close()


async def test_rules_that_somebody_flushes_come_back(running: Running, world: World) -> None:
    """A firewall that is loaded anew takes the rules of everybody away; those of networks are set again."""
    await running.create()
    await running.forward(outside_port=8082)
    assert "0 received" in await asyncio.to_thread(said, world.machine, "ping", "-c", "1", "-W", "0.3", GUEST)
    assert await running.drops() == {DropReason.NAT_NO_ENTRY: 1}
    world.machine.run("nft flush ruleset")
    async with asyncio.timeout(20):
        while "tcp dport 8082" not in await asyncio.to_thread(said, world.machine, "nft", "list", "ruleset"):  # noqa: ASYNC110 (it tells when it is asked)
            await asyncio.sleep(0)
    assert [each.event for each in running.events.list(NET)].count("network.outside_mended") == 1
    assert await running.drops() == {DropReason.NAT_NO_ENTRY: 1}
    assert "0 received" in await asyncio.to_thread(said, world.machine, "ping", "-c", "1", "-W", "0.3", GUEST)
    world.machine.run(f"ip link del {DEVICE}")
    async with asyncio.timeout(20):
        while "network.outside_lost" not in [each.event for each in running.events.list(NET)]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await running.drops() == {DropReason.NAT_NO_ENTRY: 2}
    await running.networks.DeleteNetwork(networks_pb2.DeleteNetworkRequest(name=NET))
    assert settings(world) == ["0", "0", "0"]


async def test_a_device_that_somebody_deletes_comes_back(running: Running, world: World) -> None:
    """With its rules and forwarded ports; the log says what happened."""
    await running.create()
    await running.forward(outside_port=8083)
    world.machine.run(f"ip link del {DEVICE}")
    async with asyncio.timeout(20):
        while DEVICE not in await asyncio.to_thread(said, world.machine, "ip", "link"):  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0)
    assert [each.event for each in running.events.list(NET)].count("network.outside_lost") == 1
    assert "tcp dport 8083" in said(world.machine, "nft", "list", "ruleset")
    assert f"10.5.0.0/24 dev {DEVICE}" in said(world.machine, "ip", "route")


async def test_a_network_changes_its_outside(running: Running, world: World, monkeypatch: Any) -> None:
    """From the kernel to sockets and back; where the kernel refuses a change, the network stays and the log says it."""
    network = await running.create()
    outside = networks_pb2.NatSettings.OUTSIDE_SOCKETS, networks_pb2.NatSettings.OUTSIDE_KERNEL
    for wanted, on in zip(outside, ("0", "1"), strict=True):
        network.nat.outside = wanted
        await running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
        assert settings(world) == [on] * 3
    network.nat.host_alias_address = "10.5.0.2"
    update = running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
    assert (await reason_of(update))[0] is grpc.StatusCode.INVALID_ARGUMENT
    network.nat.host_alias_address, network.nat.outside = "", outside[0]
    await running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
    monkeypatch.setenv("PATH", "/nowhere")
    network.nat.outside = outside[1]
    found = await running.networks.UpdateNetwork(networks_pb2.UpdateNetworkRequest(network=network))
    assert found.nat.outside == outside[1]
    assert [each.event for each in running.events.list(NET)].count("network.outside_refused") == 1
    other = networks_pb2.Network(
        mode=network.mode, switch=network.switch, subnet="10.9.0.0/24", vlan_id=0, nat=network.nat
    )
    await running.networks.DeleteNetwork(networks_pb2.DeleteNetworkRequest(name=NET))
    create = running.networks.CreateNetwork(networks_pb2.CreateNetworkRequest(network_id="net", network=other))
    assert await reason_of(create) == (grpc.StatusCode.FAILED_PRECONDITION, "NFT_REFUSED")
    monkeypatch.undo()
    assert settings(world) == ["0", "0", "0"]
    assert DEVICE not in said(world.machine, "ip", "link")


async def test_a_subnet_that_the_machine_has_is_refused(running: Running, world: World) -> None:
    """Nothing is left of the network that was not made."""
    world.machine.run("ip addr add 10.5.0.77/24 dev left")
    refused = (grpc.StatusCode.UNAVAILABLE, "KERNEL_REFUSED")
    assert await reason_of(running.create()) == refused
    assert settings(world) == ["0", "0", "0"]
    assert DEVICE not in said(world.machine, "ip", "link")
    listed = await running.networks.ListNetworks(networks_pb2.ListNetworksRequest())
    assert list(listed.networks) == []


async def test_the_model_refuses(world: World, tmp_path: Path) -> None:
    """An engine that has no way into the kernel says so."""
    running = Running(tmp_path, world, engine="model")
    await running.service.start()
    try:
        refused = (grpc.StatusCode.FAILED_PRECONDITION, "OUTSIDE_NOT_IN_ENGINE")
        assert await reason_of(running.create()) == refused
    finally:
        await running.stop()
