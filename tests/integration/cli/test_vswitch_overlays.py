"""Overlays from the command line: made, listed, told of another end and of its addresses, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from lamina.common.v1 import layer_pb2_grpc
from lamina.vswitch.v1 import uplinks_pb2, uplinks_pb2_grpc, vswitch_pb2, vswitch_pb2_grpc

from lamina_kit.layer.owner_session import handshake
from lamina_kit.rpc.channel import connect


@pytest.fixture(scope="module")
def hosts(up: Any) -> Iterator[Any]:
    """Returns the command with a switch for guests and a wider one with an uplink; in the end both are gone."""
    up.here("vswitch", "create-switch", "spanned")
    target = json.loads((up.home / "default" / "stack.json").read_text())["targets"]["vswitch"]
    asyncio.run(_open(target))
    yield up
    up.here("vswitch", "delete-switch", "spanned")
    asyncio.run(_close(target))


async def _open(target: str) -> None:
    channel = connect(target)
    host = (await handshake(layer_pb2_grpc.LayerStub(channel), "test")).host
    wide = vswitch_pb2.CreateSwitchRequest(switch_id="below", switch=vswitch_pb2.Switch(mtu_bytes=1600))
    await vswitch_pb2_grpc.SwitchesStub(channel).CreateSwitch(wide)
    uplink = uplinks_pb2.Uplink(backend_port=True)
    request = uplinks_pb2.CreateUplinkRequest(parent=f"hosts/{host}/switches/below", uplink_id="u", uplink=uplink)
    await uplinks_pb2_grpc.UplinksStub(channel).CreateUplink(request)
    await channel.close()


async def _close(target: str) -> None:
    channel = connect(target)
    host = (await handshake(layer_pb2_grpc.LayerStub(channel), "test")).host
    request = vswitch_pb2.DeleteSwitchRequest(name=f"hosts/{host}/switches/below", force=True)
    await vswitch_pb2_grpc.SwitchesStub(channel).DeleteSwitch(request)
    await channel.close()


def test_an_overlay_from_the_command_line(hosts: Any) -> None:
    """Tables show what was made and told, with the addresses behind an end; what was deleted is gone from them."""
    hosts.here("vswitch", "overlay", "spanned", "o", "7", "below/u", "192.0.2.1/24")
    hosts.here("vswitch", "remote-end", "spanned/o", "192.0.2.2", "--mac", "02:00:00:00:00:01")
    (row,) = hosts.here("vswitch", "overlays", "spanned").stdout.splitlines()[1:]
    assert row.split() == ["o", "7", "0", "u", "192.0.2.1/24", "1500", "1"]
    (row,) = hosts.here("vswitch", "remote-ends", "spanned/o").stdout.splitlines()[1:]
    assert row.split() == ["192.0.2.2", "told", "never", "0", "0", "1"]
    (made,) = json.loads(hosts.here("vswitch", "overlays", "spanned", "-o", "json").stdout)
    assert made["vni"] == 7
    (row,) = hosts.here("vswitch", "remote-macs", "spanned/o").stdout.splitlines()[1:]
    assert row.split() == ["02:00:00:00:00:01", "192.0.2.2", "told", "-"]
    gone = hosts.here("vswitch", "delete-remote-end", "spanned/o", "192.0.2.2").stdout.strip()
    assert gone.startswith("deleted ") and gone.endswith("/overlays/o/remoteEndpoints/192-0-2-2")
    for listing in ("remote-ends", "remote-macs"):
        assert hosts.here("vswitch", listing, "spanned/o", "-o", "json").stdout.strip() == "[]"
    refused = hosts.here("vswitch", "delete-remote-end", "spanned/o", "192.0.2.2", expect=1).stderr
    assert "REMOTE_ENDPOINT_UNKNOWN" in refused
    hosts.here("vswitch", "delete-overlay", "spanned/o")
    assert hosts.here("vswitch", "overlays", "spanned", "-o", "json").stdout.strip() == "[]"
