"""`lamina vswitch`: switches, port groups, ports and MAC tables."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lamina_cli import output, parse
from lamina_cli.client import Client, command
from lamina_cli.commands import (
    vswitch_backends,
    vswitch_capture,
    vswitch_networks,
    vswitch_overlays,
    vswitch_policies,
    vswitch_translations,
    vswitch_uplinks,
    vswitch_watching,
)
from lamina_cli.commands.vswitch_names import frame_bytes, port_name, switch_name
from lamina_cli.paging import collect
from lamina_cli.words import last, word

if TYPE_CHECKING:
    from lamina.vswitch.v1.vswitch_pb2_grpc import PortsStub, SwitchesStub

NS = 10**9


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
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
        command(sub, work, lists=True)
    group = verbs.add_parser("create-group", help="create a port group")
    group.add_argument("switch", help="name of the switch")
    group.add_argument("group", help="name of the port group")
    group.add_argument("--vlan", type=parse.INT32, default=0, help="VLAN, 0 for none (default 0)")
    command(group, create_group)
    port = verbs.add_parser("create-port", help="create a port")
    port.add_argument("switch", help="name of the switch")
    port.add_argument("port", help="name of the port")
    port.add_argument("--group", default="", help="name of its port group")
    command(port, create_port)
    sub = verbs.add_parser("delete-port", help="delete a port")
    sub.add_argument("port", help="SWITCH/PORT or the full name")
    command(sub, delete_port, lists=True)
    trace = verbs.add_parser("trace-frame", help="tell what the switch would do with a frame, without sending it")
    trace.add_argument("port", help="port where it comes in: SWITCH/PORT or the full name")
    trace.add_argument("frame", help="the frame in hexadecimal")
    command(trace, trace_frame, lists=True)
    vswitch_capture.configure(verbs)
    vswitch_translations.configure(verbs)
    vswitch_policies.configure(verbs)
    vswitch_watching.configure(verbs)
    vswitch_networks.configure(verbs)
    vswitch_overlays.configure(verbs)
    vswitch_backends.configure(verbs)
    vswitch_uplinks.configure(verbs)


def _switches(client: Client) -> SwitchesStub:
    from lamina.vswitch.v1 import vswitch_pb2_grpc

    return client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)


def _ports(client: Client) -> PortsStub:
    from lamina.vswitch.v1 import vswitch_pb2_grpc

    return client.stub("vswitch", vswitch_pb2_grpc.PortsStub)


async def switches(client: Client, args: argparse.Namespace) -> None:
    """Lists switches."""
    from lamina.vswitch.v1 import vswitch_pb2

    output.show(
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

    made = await _switches(client).CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id=args.switch))
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
    output.show(
        await collect(_switches(client).ListPortGroups, request, "port_groups"),
        ("GROUP", "VLAN", "PORTS"),
        lambda item: (last(item.name), item.vlan_id or "-", item.port_count),
        form=args.output,
    )


async def create_group(client: Client, args: argparse.Namespace) -> None:
    """Creates a port group."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.CreatePortGroupRequest(
        parent=await switch_name(client, args.switch),
        port_group_id=args.group,
        port_group=vswitch_pb2.PortGroup(vlan_id=args.vlan),
    )
    print((await _switches(client).CreatePortGroup(request)).name)


async def ports(client: Client, args: argparse.Namespace) -> None:
    """Lists ports."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.ListPortsRequest(parent=await switch_name(client, args.switch))
    output.show(
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

    parent = await switch_name(client, args.switch)
    group = args.group if "/" in args.group or not args.group else f"{parent}/portGroups/{args.group}"
    request = vswitch_pb2.CreatePortRequest(parent=parent, port_id=args.port, port=vswitch_pb2.Port(port_group=group))
    print((await _ports(client).CreatePort(request)).name)


async def delete_port(client: Client, args: argparse.Namespace) -> None:
    """Deletes a port."""
    from lamina.vswitch.v1 import vswitch_pb2

    name = await port_name(client, args.port)
    await _ports(client).DeletePort(vswitch_pb2.DeletePortRequest(name=name))
    print(f"deleted {name}")


async def macs(client: Client, args: argparse.Namespace) -> None:
    """Shows a MAC table."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.ListMacEntriesRequest(parent=await switch_name(client, args.switch))
    output.show(
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


async def flush(client: Client, args: argparse.Namespace) -> None:
    """Forgets learned addresses."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.FlushMacTableRequest(name=await switch_name(client, args.switch))
    done = await _switches(client).FlushMacTable(request)
    print(f"forgot {done.flushed_entries} addresses")


async def trace_frame(client: Client, args: argparse.Namespace) -> None:
    """Tells what the switch would do with a frame."""
    from lamina.vswitch.v1 import vswitch_pb2

    request = vswitch_pb2.TraceFrameRequest(port=await port_name(client, args.port), frame=frame_bytes(args.frame))
    found = await _ports(client).TraceFrame(request)
    if args.output == "json":
        output.as_json(found)
        return
    output.table(("STAGE", "RULE", "DETAIL"), ((step.stage, step.rule, step.detail) for step in found.steps))
    verdict = word(vswitch_pb2.TraceFrameResponse.Verdict, found.verdict)
    print(f"{verdict}: {', '.join(last(port) for port in found.output_ports) or 'nowhere'}")
