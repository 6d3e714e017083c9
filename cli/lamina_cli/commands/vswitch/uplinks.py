"""`lamina vswitch uplinks`, `uplink`, `delete-uplink` and `teaming`: ways out of the host, and who takes which."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.vswitch.names import in_switch, part_name, switch_name, vlan_ranges
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.vswitch.v1.uplinks_pb2_grpc import UplinksStub

BALANCING = ("port", "source-mac", "flow", "failover")


def configure(verbs: Any) -> None:
    """Adds the verbs."""
    sub = verbs.add_parser("uplinks", help="list the uplinks of a switch")
    sub.add_argument("switch", help="name of the switch")
    command(sub, uplinks, lists=True)
    sub = verbs.add_parser("uplink", help="make an uplink: of a NIC, or of what is plugged into its port")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("uplink", help="name of the uplink")
    sub.add_argument("--nic", help="NIC that it drives, its name or the full one; without, its port is the way out")
    sub.add_argument(
        "--vlans",
        nargs="+",
        type=_vlans,
        default=[],
        metavar="FIRST[-LAST]",
        help="VLANs that it carries (default all)",
    )
    sub.add_argument("--native-vlan", type=parse.INT32, default=0, help="VLAN that travels untagged (default 0)")
    command(sub, uplink, lists=True)
    sub = verbs.add_parser("delete-uplink", help="delete an uplink with its port")
    sub.add_argument("uplink", help="SWITCH/UPLINK or the full name")
    command(sub, delete_uplink)
    sub = verbs.add_parser("teaming", help="show how a port group shares uplinks, or change what options say")
    sub.add_argument("group", help="SWITCH/GROUP or the full name")
    sub.add_argument("--balancing", choices=BALANCING, help="what decides which uplink a frame takes")
    sub.add_argument("--active", nargs="+", default=[], metavar="UPLINK", help="uplinks in order of preference")
    sub.add_argument("--standby", nargs="+", default=[], metavar="UPLINK", help="uplinks that take over")
    sub.add_argument("--announce", action=argparse.BooleanOptionalAction, help="tell the physical network of moves")
    sub.add_argument("--failback", action=argparse.BooleanOptionalAction, help="go back to an uplink that returns")
    command(sub, teaming, lists=True)


def _vlans(text: str) -> tuple[int, int]:
    """Returns the first and the last VLAN of a range; whether they can be, the switch says."""
    first, _, end = text.partition("-")
    if not first.isdigit() or not (end or first).isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a VLAN nor a range FIRST-LAST")
    return int(first), int(end or first)


def _stub(client: Client) -> UplinksStub:
    from lamina.vswitch.v1 import uplinks_pb2_grpc

    return client.stub("vswitch", uplinks_pb2_grpc.UplinksStub)


def _show(found: Any, form: str) -> None:
    from lamina.vswitch.v1 import uplinks_pb2 as pb

    printing.show(
        found,
        ("UPLINK", "STATE", "WIRE", "VLANS", "NATIVE"),
        lambda item: (
            last(item.name),
            word(pb.Uplink.State, item.state),
            last(item.nic) or "port",
            vlan_ranges(item.trunk) or "all",
            item.trunk.native_vlan_id,
        ),
        form=form,
    )


async def uplinks(client: Client, args: argparse.Namespace) -> None:
    """Lists the uplinks of a switch."""
    from lamina.vswitch.v1 import uplinks_pb2 as pb

    request = pb.ListUplinksRequest(parent=await switch_name(client, args.switch))
    _show(await collect(_stub(client).ListUplinks, request, "uplinks"), args.output)


async def uplink(client: Client, args: argparse.Namespace) -> None:
    """Creates an uplink."""
    from lamina.vswitch.v1 import uplinks_pb2 as pb

    parent = await switch_name(client, args.switch)
    ranges = [pb.VlanRange(first_vlan_id=first, last_vlan_id=end) for first, end in args.vlans]
    wanted = pb.Uplink(backend_port=not args.nic, trunk=pb.VlanTrunk(ranges=ranges, native_vlan_id=args.native_vlan))
    if args.nic:
        host = parent.partition("/switches/")[0]
        wanted.nic = args.nic if "/" in args.nic else f"{host}/nics/{args.nic}"
    request = pb.CreateUplinkRequest(parent=parent, uplink_id=args.uplink, uplink=wanted)
    _show([await _stub(client).CreateUplink(request)], args.output)


async def delete_uplink(client: Client, args: argparse.Namespace) -> None:
    """Deletes an uplink."""
    from lamina.vswitch.v1 import uplinks_pb2 as pb

    name = await part_name(client, "uplinks", args.uplink)
    await _stub(client).DeleteUplink(pb.DeleteUplinkRequest(name=name))
    print(f"deleted {name}")


async def teaming(client: Client, args: argparse.Namespace) -> None:
    """Shows or changes the teaming of a port group."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.vswitch.v1 import uplinks_pb2 as pb

    group = await part_name(client, "portGroups", args.group)
    switch = group.partition("/portGroups/")[0]
    wanted = pb.TeamingPolicy(
        name=f"{group}/teamingPolicy",
        active_uplinks=[await in_switch(client, switch, "uplinks", each) for each in args.active],
        standby_uplinks=[await in_switch(client, switch, "uplinks", each) for each in args.standby],
    )
    changed = {
        "active_uplinks": bool(args.active),
        "standby_uplinks": bool(args.standby),
        "balancing": args.balancing is not None,
        "announce": args.announce is not None,
        "no_failback": args.failback is not None,
    }
    paths = [path for path, is_changed in changed.items() if is_changed]
    if args.balancing:
        wanted.balancing = pb.TeamingPolicy.Balancing.Value(f"BALANCING_{args.balancing.upper().replace('-', '_')}")
    wanted.announce, wanted.no_failback = args.announce is True, args.failback is False
    if paths:
        request = pb.UpdateTeamingPolicyRequest(teaming_policy=wanted, update_mask=FieldMask(paths=paths))
        found = await _stub(client).UpdateTeamingPolicy(request)
    else:
        found = await _stub(client).GetTeamingPolicy(pb.GetTeamingPolicyRequest(name=wanted.name))
    printing.show(
        [found],
        ("GROUP", "BALANCING", "ACTIVE", "STANDBY", "USED"),
        lambda item: (
            last(group),
            word(pb.TeamingPolicy.Balancing, item.balancing),
            " ".join(map(last, item.active_uplinks)) or "all",
            " ".join(map(last, item.standby_uplinks)) or "-",
            " ".join(map(last, item.used_uplinks)) or "-",
        ),
        form=args.output,
    )
