"""`lamina vswitch overlays`, `overlay`, `delete-overlay`, `remote-ends`, `remote-macs`: VLANs that span hosts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.vswitch.names import part_name, switch_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last

if TYPE_CHECKING:
    from lamina.vswitch.v1.overlays_pb2_grpc import OverlaysStub

NS = 1_000_000_000


def configure(verbs: Any) -> None:
    """Adds the verbs."""
    sub = verbs.add_parser("overlays", help="list the overlays of a switch")
    sub.add_argument("switch", help="name of the switch")
    command(sub, overlays, lists=True)
    sub = verbs.add_parser("overlay", help="join a VLAN of a switch with VLANs of other hosts, by VXLAN")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("overlay", help="name of the overlay")
    sub.add_argument("vni", type=parse.INT32, help="VXLAN network identifier, 1 to 16777215")
    sub.add_argument("uplink", help="SWITCH/UPLINK or the full name: carries the tunnels")
    sub.add_argument("address", help="own address on the uplink's network: ADDRESS/LENGTH")
    sub.add_argument("--vlan", type=parse.INT32, default=0, help="VLAN of the switch (default 0)")
    sub.add_argument("--gateway", default="", metavar="ADDRESS", help="router on the uplink's network")
    sub.add_argument("--accept-unknown", action="store_true", help="accepts ends that it was not told of")
    command(sub, create)
    sub = verbs.add_parser("delete-overlay", help="delete an overlay with what it knows")
    sub.add_argument("overlay", help="SWITCH/OVERLAY or the full name")
    command(sub, delete)
    sub = verbs.add_parser("remote-ends", help="list the ends of an overlay on other hosts")
    sub.add_argument("overlay", help="SWITCH/OVERLAY or the full name")
    command(sub, remote_ends, lists=True)
    sub = verbs.add_parser("remote-end", help="tell an overlay of an end on another host")
    sub.add_argument("overlay", help="SWITCH/OVERLAY or the full name")
    sub.add_argument("address", help="its IPv4 address")
    sub.add_argument("--mac", action="append", default=[], metavar="MAC", help="an address behind it; repeatable")
    command(sub, tell)
    sub = verbs.add_parser("delete-remote-end", help="have an overlay forget an end on another host")
    sub.add_argument("overlay", help="SWITCH/OVERLAY or the full name")
    sub.add_argument("address", help="its IPv4 address")
    command(sub, forget)
    sub = verbs.add_parser("remote-macs", help="show which addresses are behind which ends of an overlay")
    sub.add_argument("overlay", help="SWITCH/OVERLAY or the full name")
    command(sub, remote_macs, lists=True)


def _stub(client: Client) -> OverlaysStub:
    from lamina.vswitch.v1 import overlays_pb2_grpc

    return client.stub("vswitch", overlays_pb2_grpc.OverlaysStub)


async def overlays(client: Client, args: argparse.Namespace) -> None:
    """Lists overlays."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    request = pb.ListOverlaysRequest(parent=await switch_name(client, args.switch))
    printing.show(
        await collect(_stub(client).ListOverlays, request, "overlays"),
        ("OVERLAY", "VNI", "VLAN", "UPLINK", "ADDRESS", "MTU", "REMOTE ENDS"),
        lambda item: (
            last(item.name),
            item.vni,
            item.vlan_id,
            last(item.uplink),
            item.local_address,
            item.mtu_bytes,
            item.remote_endpoint_count,
        ),
        form=args.output,
    )


async def create(client: Client, args: argparse.Namespace) -> None:
    """Creates an overlay."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    wanted = pb.Overlay(
        vni=args.vni,
        vlan_id=args.vlan,
        uplink=await part_name(client, "uplinks", args.uplink),
        local_address=args.address,
        gateway_address=args.gateway,
        accept_unknown_endpoints=args.accept_unknown,
    )
    parent = await switch_name(client, args.switch)
    request = pb.CreateOverlayRequest(parent=parent, overlay_id=args.overlay, overlay=wanted)
    print((await _stub(client).CreateOverlay(request)).name)


async def delete(client: Client, args: argparse.Namespace) -> None:
    """Deletes an overlay."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    name = await part_name(client, "overlays", args.overlay)
    await _stub(client).DeleteOverlay(pb.DeleteOverlayRequest(name=name))
    print(f"deleted {name}")


async def remote_ends(client: Client, args: argparse.Namespace) -> None:
    """Lists remote ends."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    request = pb.ListRemoteEndpointsRequest(parent=await part_name(client, "overlays", args.overlay))
    printing.show(
        await collect(_stub(client).ListRemoteEndpoints, request, "remote_endpoints"),
        ("ADDRESS", "KNOWN", "HEARD", "RECEIVED", "SENT", "MACS"),
        lambda item: (
            item.address,
            "told" if item.configured else "learned",
            f"{item.age_ns // NS} s ago" if item.age_ns >= 0 else "never",
            item.received_packets,
            item.sent_packets,
            len(item.mac_addresses),
        ),
        form=args.output,
    )


async def tell(client: Client, args: argparse.Namespace) -> None:
    """Tells an overlay of a remote end."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    end = pb.RemoteEndpoint(address=args.address, mac_addresses=args.mac)
    parent = await part_name(client, "overlays", args.overlay)
    request = pb.CreateRemoteEndpointRequest(parent=parent, remote_endpoint=end)
    print((await _stub(client).CreateRemoteEndpoint(request)).name)


async def forget(client: Client, args: argparse.Namespace) -> None:
    """Has an overlay forget a remote end."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    parent = await part_name(client, "overlays", args.overlay)
    name = f"{parent}/remoteEndpoints/{args.address.replace('.', '-')}"
    await _stub(client).DeleteRemoteEndpoint(pb.DeleteRemoteEndpointRequest(name=name))
    print(f"deleted {name}")


async def remote_macs(client: Client, args: argparse.Namespace) -> None:
    """Shows the addresses behind remote ends."""
    from lamina.vswitch.v1 import overlays_pb2 as pb

    request = pb.ListRemoteMacsRequest(parent=await part_name(client, "overlays", args.overlay))
    printing.show(
        await collect(_stub(client).ListRemoteMacs, request, "remote_macs"),
        ("MAC", "END", "KNOWN", "AGE"),
        lambda item: (
            item.mac_address,
            item.endpoint_address,
            "told" if item.configured else "learned",
            "-" if item.configured else f"{item.age_ns // NS} s",
        ),
        form=args.output,
    )
