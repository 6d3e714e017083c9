"""`lamina vswitch`: switches, port groups, ports and MAC tables."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.vswitch import (
    backends,
    capture,
    frames,
    networks,
    overlays,
    policies,
    translations,
    uplinks,
    watching,
)
from lamina_cli.commands.vswitch.examples import EXAMPLES
from lamina_cli.commands.vswitch.names import name_in, new_part, part_name, port_name, switch_name
from lamina_cli.input import parse
from lamina_cli.input.verbs import Verbs
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.vswitch.v1.vswitch_pb2_grpc import PortsStub, SwitchesStub

NS = 10**9


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = Verbs(parser, "vswitch", EXAMPLES)
    command(verbs.add_parser("switches", help="list switches"), switches, lists=True)
    for verb, text, work in (
        ("create-switch", "create a switch", create_switch),
        ("delete-switch", "delete a switch", delete_switch),
        ("groups", "list the port groups of a switch", groups),
        ("ports", "list the ports of a switch", ports),
        ("macs", "show the MAC table of a switch", macs),
        ("flush", "forget the learned addresses of a switch", flush),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("switch", help="name of the switch")
        if work is delete_switch:
            sub.add_argument("--force", action="store_true", help="delete its ports too")
        if work is create_switch:
            sub.add_argument("--mtu", type=parse.INT32, default=0, help="largest payload in bytes (default 1500)")
        command(sub, work, lists=True)
    group = verbs.add_parser("create-group", help="create a port group")
    _new(group, "group")
    group.add_argument("--vlan", type=parse.INT32, default=0, help="VLAN, 0 for none (default 0)")
    command(group, create_group)
    sub = verbs.add_parser("delete-group", help="delete a port group")
    sub.add_argument("group", help="SWITCH/GROUP or the full name")
    command(sub, delete_group)
    port = verbs.add_parser("create-port", help="create a port")
    _new(port, "port")
    port.add_argument("--group", default="", help="name of its port group")
    command(port, create_port)
    sub = verbs.add_parser("delete-port", help="delete a port")
    sub.add_argument("port", help="SWITCH/PORT or the full name")
    command(sub, delete_port)
    sub = verbs.add_parser("link", help="take the link of a port down, or bring it up")
    sub.add_argument("port", help="SWITCH/PORT or the full name")
    sub.add_argument("link", choices=("up", "down"), help="what it shall be")
    command(sub, set_link)
    _configure_macs(verbs)
    trace = verbs.add_parser("trace-frame", help="tell what the switch would do with a frame, without sending it")
    trace.add_argument("port", help="port where it comes in: SWITCH/PORT or the full name")
    frames.configure(trace)
    command(trace, trace_frame, lists=True)
    capture.configure(verbs)
    translations.configure(verbs)
    policies.configure(verbs)
    watching.configure(verbs)
    networks.configure(verbs)
    overlays.configure(verbs)
    backends.configure(verbs)
    uplinks.configure(verbs)


def _new(parser: argparse.ArgumentParser, part: str) -> None:
    """Adds what names a part to be made: SWITCH NAME, or SWITCH/NAME."""
    parser.add_argument("switch", help=f"name of the switch, or SWITCH/{part.upper()}")
    parser.add_argument(part, nargs="?", default="", help=f"name of the {part}")


def _configure_macs(verbs: Verbs) -> None:
    sub = verbs.add_parser("add-mac", help="fix an address to a port: it does not age, and traffic does not move it")
    sub.add_argument("port", help="SWITCH/PORT or the full name")
    sub.add_argument("mac", help="the address")
    command(sub, add_mac)
    sub = verbs.add_parser("delete-mac", help="delete an entry of the MAC table, learned or fixed")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("mac", help="the address")
    sub.add_argument("--vlan", type=parse.INT32, default=0, help="its VLAN (default 0, the untagged one)")
    command(sub, delete_mac)


def _switches(client: Client) -> SwitchesStub:
    from lamina.vswitch.v1 import vswitch_pb2_grpc

    return client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)


def _ports(client: Client) -> PortsStub:
    from lamina.vswitch.v1 import vswitch_pb2_grpc

    return client.stub("vswitch", vswitch_pb2_grpc.PortsStub)


async def switches(client: Client, args: argparse.Namespace) -> None:
    """Lists switches."""
    from lamina.vswitch.v1 import vswitch_pb2

    printing.show(
        await collect(_switches(client).ListSwitches, vswitch_pb2.ListSwitchesRequest(), "switches"),
        ("SWITCH", "MTU", "PORTS", "MACS", "LIMIT", "MOVES", "AGEING"),
        lambda item: (
            last(item.name),
            item.mtu_bytes,
            item.port_count,
            item.mac_entry_count,
            item.mac_table_limit,
            item.mac_move_count,
            f"{item.mac_ageing_seconds} s",
        ),
        form=args.output,
    )


async def create_switch(client: Client, args: argparse.Namespace) -> None:
    """Creates a switch."""
    from lamina.vswitch.v1 import vswitch_pb2

    wanted = vswitch_pb2.Switch(mtu_bytes=args.mtu)
    request = vswitch_pb2.CreateSwitchRequest(switch_id=args.switch, switch=wanted)
    made = await _switches(client).CreateSwitch(request)
    print(made.name)


async def delete_switch(client: Client, args: argparse.Namespace) -> None:
    """Deletes a switch, with `--force` one that has ports."""
    from lamina.vswitch.v1 import vswitch_pb2

    name = await switch_name(client, args.switch)
    await _switches(client).DeleteSwitch(vswitch_pb2.DeleteSwitchRequest(name=name, force=args.force))
    print(f"deleted {name}")


async def groups(client: Client, args: argparse.Namespace) -> None:
    """Lists port groups."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.ListPortGroupsRequest(parent=await switch_name(client, args.switch))
    printing.show(
        await collect(_switches(client).ListPortGroups, request, "port_groups"),
        ("GROUP", "VLAN", "PORTS"),
        lambda item: (last(item.name), item.vlan_id or "-", item.port_count),
        form=args.output,
    )


async def create_group(client: Client, args: argparse.Namespace) -> None:
    """Creates a port group."""
    from lamina.vswitch.v1 import vswitch_pb2

    parent, name = await new_part(client, args.switch, args.group)
    request = vswitch_pb2.CreatePortGroupRequest(
        parent=parent,
        port_group_id=name,
        port_group=vswitch_pb2.PortGroup(vlan_id=args.vlan),
    )
    print((await _switches(client).CreatePortGroup(request)).name)


async def delete_group(client: Client, args: argparse.Namespace) -> None:
    """Deletes a port group."""
    from lamina.vswitch.v1 import vswitch_pb2

    name = await part_name(client, "portGroups", args.group)
    await _switches(client).DeletePortGroup(vswitch_pb2.DeletePortGroupRequest(name=name))
    print(f"deleted {name}")


async def ports(client: Client, args: argparse.Namespace) -> None:
    """Lists ports."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.ListPortsRequest(parent=await switch_name(client, args.switch))
    printing.show(
        await collect(_ports(client).ListPorts, request, "ports"),
        ("PORT", "GROUP", "VLAN", "STATE", "ADMIN", "OWNER"),
        lambda item: (
            last(item.name),
            last(item.port_group) or "-",
            item.vlan_id or "-",
            word(vswitch_pb2.Port.State, item.state),
            word(vswitch_pb2.Link, item.link),
            item.owner or "-",
        ),
        form=args.output,
    )


async def create_port(client: Client, args: argparse.Namespace) -> None:
    """Creates a port."""
    from lamina.vswitch.v1 import vswitch_pb2

    parent, name = await new_part(client, args.switch, args.port)
    group = args.group if "/" in args.group or not args.group else f"{parent}/portGroups/{args.group}"
    request = vswitch_pb2.CreatePortRequest(parent=parent, port_id=name, port=vswitch_pb2.Port(port_group=group))
    print((await _ports(client).CreatePort(request)).name)


async def delete_port(client: Client, args: argparse.Namespace) -> None:
    """Deletes a port."""
    from lamina.vswitch.v1 import vswitch_pb2

    name = await port_name(client, args.port)
    await _ports(client).DeletePort(vswitch_pb2.DeletePortRequest(name=name))
    print(f"deleted {name}")


async def set_link(client: Client, args: argparse.Namespace) -> None:
    """Takes the link of a port down, or brings it up."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.vswitch.v1 import vswitch_pb2

    link = vswitch_pb2.LINK_UP if args.link == "up" else vswitch_pb2.LINK_DOWN
    port = vswitch_pb2.Port(name=await port_name(client, args.port), link=link)
    request = vswitch_pb2.UpdatePortRequest(port=port, update_mask=FieldMask(paths=["link"]))
    found = await _ports(client).UpdatePort(request)
    print(f"{found.name} is {word(vswitch_pb2.Port.State, found.state)}")


async def macs(client: Client, args: argparse.Namespace) -> None:
    """Shows a MAC table."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.ListMacEntriesRequest(parent=await switch_name(client, args.switch))
    printing.show(
        await collect(_switches(client).ListMacEntries, request, "mac_entries"),
        ("MAC", "VLAN", "PORT", "TYPE", "AGE"),
        lambda item: (
            item.mac_address,
            item.vlan_id or "-",
            last(item.port),
            word(vswitch_pb2.MacEntry.Type, item.type),
            f"{item.age_ns // NS} s",
        ),
        form=args.output,
    )


async def add_mac(client: Client, args: argparse.Namespace) -> None:
    """Fixes an address to a port."""
    from lamina.vswitch.v1 import vswitch_pb2

    port = await port_name(client, args.port)
    entry = vswitch_pb2.MacEntry(mac_address=args.mac, port=port)
    request = vswitch_pb2.CreateMacEntryRequest(parent=port.partition("/ports/")[0], mac_entry=entry)
    print((await _switches(client).CreateMacEntry(request)).name)


async def delete_mac(client: Client, args: argparse.Namespace) -> None:
    """Deletes an entry of a MAC table."""
    from lamina.vswitch.v1 import vswitch_pb2

    digits = args.mac.lower().replace(":", "").replace("-", "")
    name = await name_in(client, "macEntries", args.switch, f"v{args.vlan}-{digits}")
    await _switches(client).DeleteMacEntry(vswitch_pb2.DeleteMacEntryRequest(name=name))
    print(f"deleted {name}")


async def flush(client: Client, args: argparse.Namespace) -> None:
    """Forgets learned addresses."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.FlushMacTableRequest(name=await switch_name(client, args.switch))
    done = await _switches(client).FlushMacTable(request)
    print(f"forgot {done.flushed_entries} addresses")


async def trace_frame(client: Client, args: argparse.Namespace) -> None:
    """Tells what the switch would do with a frame."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.TraceFrameRequest(
        port=await port_name(client, args.port), frame=frames.frame_of(args)
    )
    found = await _ports(client).TraceFrame(request)
    if args.output == "json":
        printing.as_json(found)
        return
    printing.table(("STAGE", "RULE", "DETAIL"), ((step.stage, step.rule, step.detail) for step in found.steps))
    verdict = word(vswitch_pb2.TraceFrameResponse.Verdict, found.verdict)
    print(f"{verdict}: {', '.join(last(port) for port in found.output_ports) or 'nowhere'}")
