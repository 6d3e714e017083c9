"""Translations from the command line: forwarded ports, virtual servers, the table and its flush."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lamina.common.v1 import layer_pb2_grpc
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import networks_pb2_grpc as nets_rpc
from lamina.vswitch.v1 import translations_pb2 as pb
from lamina.vswitch.v1 import translations_pb2_grpc as rpc

from lamina_kit.layer.owner_session import handshake
from lamina_kit.rpc.channel import connect


@pytest.fixture(scope="module")
def lan(up: Any) -> Iterator[Any]:
    """Returns the command with a NAT network `lan` that has a virtual server; in the end nothing of it is left."""
    up.here("vswitch", "create-switch", "natted")
    target = json.loads((up.home / "default" / "stack.json").read_text())["targets"]["vswitch"]
    asyncio.run(_create(target))
    yield up
    asyncio.run(_delete(target))
    up.here("vswitch", "delete-switch", "natted")


async def _create(target: str) -> None:
    channel = connect(target)
    host = (await handshake(layer_pb2_grpc.LayerStub(channel), "test")).host
    network = nets.Network(mode=nets.Network.MODE_NAT, switch=f"hosts/{host}/switches/natted", subnet="10.77.0.0/24")
    await nets_rpc.NetworksStub(channel).CreateNetwork(nets.CreateNetworkRequest(network_id="lan", network=network))
    backends = [pb.VirtualServerBackend(address="10.77.0.2", port=8080, weight=2)]
    servers = [
        pb.VirtualServer(address="10.96.0.1", protocol=pb.PROTOCOL_TCP, port=80, backends=backends, description="web"),
        pb.VirtualServer(address="10.96.0.2", protocol=pb.PROTOCOL_UDP, port=53),
    ]
    request = pb.UpdateVirtualServersRequest(
        parent=f"hosts/{host}/networks/lan", virtual_servers=servers, source="test"
    )
    await rpc.TranslationsStub(channel).UpdateVirtualServers(request)
    await channel.close()


async def _delete(target: str) -> None:
    channel = connect(target)
    host = (await handshake(layer_pb2_grpc.LayerStub(channel), "test")).host
    await nets_rpc.NetworksStub(channel).DeleteNetwork(nets.DeleteNetworkRequest(name=f"hosts/{host}/networks/lan"))
    await channel.close()


def entries(lan: Any) -> list[Any]:
    """Returns the translations once there are any: the machine takes a connection before the layer hears of it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found: list[Any] = json.loads(lan.here("vswitch", "nat", "lan", "-o", "json").stdout)
        if found:
            return found
    raise TimeoutError("the connection is in no translation")


def test_a_port_is_forwarded_listed_and_deleted(lan: Any) -> None:
    """The port that was chosen is told; a connection to it shows in the list; both go again."""
    name, _, place = lan.here("vswitch", "forward", "lan", "web", "10.77.0.2:80").stdout.strip().partition(" ")
    assert name.endswith("/networks/lan/portForwards/web")
    address, _, port = place.partition(":")
    with socket.create_connection((address, int(port)), timeout=10):
        (entry,) = entries(lan)
    assert (entry["inside"], entry["via"], entry["state"]) == ("10.77.0.2:80", place, "STATE_OPENING")
    header, row = lan.here("vswitch", "forwards", "lan").stdout.splitlines()
    assert header.split() == ["FORWARD", "PROTOCOL", "OUTSIDE", "INSIDE", "REMOTE", "FLOWS"]
    assert row.split() == ["web", "tcp", place, "10.77.0.2:80", "no", "1"]
    assert lan.here("vswitch", "flush-nat", "lan").stdout == "forgot 1 translations\n"
    lan.here("vswitch", "delete-forward", "lan/web")
    assert json.loads(lan.here("vswitch", "forwards", "lan", "-o", "json").stdout) == []
    refused = lan.here("vswitch", "delete-forward", "web", expect=1).stderr
    assert "'web' names no network" in refused and "NETWORK/FORWARD" in refused


def test_virtual_servers_show_their_backends(lan: Any) -> None:
    """A line for each backend, and one for a server without."""
    _, first, second = lan.here("vswitch", "virtual-servers", "lan").stdout.splitlines()
    assert first.split() == ["10.96.0.1:80", "tcp", "10.77.0.2:8080", "2", "0", "0", "0", "test", "web"]
    assert second.split() == ["10.96.0.2:53", "udp", "-", "-", "0", "0", "0", "test", "-"]


def test_a_place_that_is_none_is_refused(lan: Any) -> None:
    """The inside is an address and a port, and the message shows how they are written."""
    refused = lan.here("vswitch", "forward", "lan", "web", "10.77.0.2", expect=2)
    assert "10.0.2.15:80" in refused.stderr
