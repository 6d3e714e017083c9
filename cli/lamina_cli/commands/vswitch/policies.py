"""`lamina vswitch policy`, `group-policy`, `trunk`, `set-vlan`, `settings`, `reopen`: what ports and switches allow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.commands.vswitch.names import name_in, port_name, switch_name, vlan_ranges
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.vswitch.v1.policies_pb2_grpc import PoliciesStub

    from lamina_kit.errors import InvalidArgument

SWITCHES = (
    *("promiscuous", "reject_forged_transmits", "reject_mac_changes", "dhcp_guard", "router_guard", "source_guard"),
    "shut_at_mac_limit",
)
RATES = ("broadcast", "multicast", "unknown_unicast")
PARTS = ("security", "storm_control", "ingress_shaping", "egress_shaping")


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    port = verbs.add_parser("policy", help="show or change the policy of a port")
    port.add_argument("port", help="SWITCH/PORT or the full name")
    port.add_argument("--mac", help="address that the device was given; '' for none")
    _parts(port, "part that follows the group again")
    command(port, port_policy, lists=True)
    group = verbs.add_parser("group-policy", help="show or change the policy of a port group")
    _group(group)
    group.add_argument("--isolated", choices=("yes", "no"), help="ports do not hear each other")
    _parts(group, "part that goes back to its default")
    command(group, group_policy, lists=True)
    trunk = verbs.add_parser("trunk", help="make the ports of a group trunks, or access ports again")
    _group(trunk, "and VLANs, for example 10-20,30 (default: all)")
    trunk.add_argument("--native", type=parse.INT32, default=0, help="VLAN that travels untagged (default 0)")
    trunk.add_argument("--provider-tags", action="store_true", help="pass 802.1ad tags on by the outer one")
    trunk.add_argument("--off", action="store_true", help="make them access ports again")
    command(trunk, make_trunk, lists=True)
    vlan = verbs.add_parser("set-vlan", help="give a port group another VLAN")
    _group(vlan, "and the VLAN, 0 for none")
    command(vlan, set_vlan)
    whole = verbs.add_parser("settings", help="show or change the settings of a switch")
    whole.add_argument("switch", help="name of the switch")
    whole.add_argument("--mtu", type=parse.INT32, help="largest payload in bytes")
    whole.add_argument("--ageing", type=parse.INT64, help="seconds for which an address is kept")
    whole.add_argument("--limit", type=parse.INT32, help="most entries of the MAC table")
    whole.add_argument("--loop-detection", choices=("on", "off"), help="send probes and shut ports of loops")
    whole.add_argument(
        "--reopen-after",
        type=parse.duration,
        default=0,
        help="when a port that a loop shut is tried again, with --loop-detection on (default: never)",
    )
    command(whole, settings, lists=True)
    again = verbs.add_parser("reopen", help="open a port that was shut")
    again.add_argument("port", help="SWITCH/PORT or the full name")
    command(again, reopen)


def _group(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Adds what names a port group: SWITCH/GROUP, or SWITCH GROUP; `more` is said of what may follow."""
    parser.add_argument("group", nargs="+", metavar="SWITCH/GROUP", help=f"the port group {more}".rstrip())


def _told(words: Sequence[str], most: int = 0) -> tuple[str, str, list[str]]:
    """Returns switch, group (empty when the first word names both) and what follows, at most `most` words.

    Raises:
        InvalidArgument: `GROUP_MISSING`, a word is missing or there are too many.
    """
    from lamina_kit.errors import InvalidArgument

    first, *rest = words
    group = "" if "/" in first else rest.pop(0) if rest else None
    if group is None or len(rest) > most:
        wrong = (
            f"{first} is a switch, and no port group is named" if group is None else f"{rest[-1]} is a word too many"
        )
        raise InvalidArgument(
            wrong,
            reason="GROUP_MISSING",
            next_step="give SWITCH/GROUP, for example lan/web; `lamina vswitch groups SWITCH` lists port groups",
        )
    return first, group, rest


def _parts(parser: argparse.ArgumentParser, cleared: str) -> None:
    """Adds the options that ports and groups share."""
    for field in SWITCHES:
        parser.add_argument(_option(field), choices=("yes", "no"), dest=field)
    parser.add_argument("--mac-limit", type=parse.INT32, help="most addresses behind a port, 0 for no limit")
    for name in RATES:
        parser.add_argument(_option(name), type=parse.INT64, dest=name, metavar="RATE", help="most a second, 0 for all")
    parser.add_argument("--shut-after", type=parse.duration, help="shut the port when a storm lasts this long")
    for way in ("ingress", "egress"):
        parser.add_argument(f"--{way}", metavar="RATE[:PEAK[:BURST]]", help=f"{way} shaping: bits a second, bytes")
    parser.add_argument(
        "--clear", action="append", default=[], choices=[_option(part)[2:] for part in PARTS], help=cleared
    )


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _policies(client: Client) -> PoliciesStub:
    from lamina.vswitch.v1 import policies_pb2_grpc

    return client.stub("vswitch", policies_pb2_grpc.PoliciesStub)


def _changed(args: argparse.Namespace, wanted: Any, now: Any) -> list[str]:
    """Fills in `wanted` from the options, beside what holds in `now`; returns the fields that change."""
    paths = [part.replace("-", "_") for part in args.clear]
    given = {field: getattr(args, field) == "yes" for field in SWITCHES if getattr(args, field) is not None}
    if args.mac_limit is not None:
        given["mac_limit"] = args.mac_limit
    if given:
        wanted.security.CopyFrom(now.security)
        for field, value in given.items():
            setattr(wanted.security, field, value)
        paths.append("security")
    rates = {f"{name}_frames_per_second": getattr(args, name) for name in RATES if getattr(args, name) is not None}
    if args.shut_after is not None:
        rates["shut_after_ns"] = args.shut_after
    if rates:
        wanted.storm_control.CopyFrom(now.storm_control)
        for field, value in rates.items():
            setattr(wanted.storm_control, field, value)
        paths.append("storm_control")
    for way in ("ingress", "egress"):
        text = getattr(args, way)
        if text is not None:
            _shape(getattr(wanted, f"{way}_shaping"), text, way)
            paths.append(f"{way}_shaping")
    return paths


def _shape(shaping: Any, text: str, way: str) -> None:
    from lamina_kit.errors import InvalidArgument, Violation

    numbers = text.split(":")
    if len(numbers) > 3 or not all(number.isdecimal() and len(number) < 19 for number in numbers):
        raise InvalidArgument(
            "the shaping is not RATE, RATE:PEAK or RATE:PEAK:BURST",
            reason="SHAPING_MALFORMED",
            violations=[Violation(way, f"is {text[:40]!r}")],
            next_step="give whole numbers, for example 10000000:20000000:65536",
        )
    fields = ("average_bits_per_second", "peak_bits_per_second", "burst_bytes")
    for field, number in zip(fields, numbers, strict=False):
        setattr(shaping, field, int(number))


async def port_policy(client: Client, args: argparse.Namespace) -> None:
    """Shows or changes the policy of a port."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.vswitch.v1 import policies_pb2 as pb

    name = f"{await port_name(client, args.port)}/policy"
    found = await _policies(client).GetPortPolicy(pb.GetPortPolicyRequest(name=name))
    wanted = pb.PortPolicy(name=name, mac_address=args.mac or "")
    paths = _changed(args, wanted, found.effective)
    if args.mac is not None:
        paths.append("mac_address")
    if paths:
        request = pb.UpdatePortPolicyRequest(policy=wanted, update_mask=FieldMask(paths=paths))
        found = await _policies(client).UpdatePortPolicy(request)
    if args.output == "json":
        printing.as_json(found)
        return
    own = [part for part in PARTS if found.HasField(part)]  # type: ignore[arg-type]
    rows = [*_rows(found.effective), ("own", ", ".join(own) or "-"), ("address", found.mac_address or "-")]
    if found.shut_reason:
        loop = f" with {last(found.loop_peer)}" if found.loop_peer else ""
        rows.append(("shut", word(pb.ShutReason, found.shut_reason) + loop))
    printing.table(("PORT", args.port), rows)


async def group_policy(client: Client, args: argparse.Namespace) -> None:
    """Shows or changes the policy of a port group."""
    from lamina.vswitch.v1 import policies_pb2 as pb

    switch, group, _ = _told(args.group)
    name = f"{await name_in(client, 'portGroups', switch, group)}/policy"
    found = await _policies(client).GetPortGroupPolicy(pb.GetPortGroupPolicyRequest(name=name))
    wanted = pb.PortGroupPolicy(name=name, isolated=args.isolated == "yes")
    paths = _changed(args, wanted, found)
    if args.isolated is not None:
        paths.append("isolated")
    await _show_group(client, args, wanted, paths, found)


async def make_trunk(client: Client, args: argparse.Namespace) -> None:
    """Makes the ports of a group trunks, or access ports again."""
    from lamina.vswitch.v1 import policies_pb2 as pb
    from lamina.vswitch.v1 import uplinks_pb2

    switch, group, vlans = _told(args.group, most=1)
    if args.off and (vlans or args.native or args.provider_tags):
        raise _without_effect("what describes a trunk", "leave --off out, or all else: an access port is in one VLAN")
    wanted = pb.PortGroupPolicy(name=f"{await name_in(client, 'portGroups', switch, group)}/policy")
    if not args.off:
        ranges = [
            uplinks_pb2.VlanRange(first_vlan_id=first, last_vlan_id=final) for first, final in _ranges("".join(vlans))
        ]
        trunk = uplinks_pb2.VlanTrunk(ranges=ranges, native_vlan_id=args.native, provider_tags=args.provider_tags)
        wanted.trunk.CopyFrom(trunk)
    await _show_group(client, args, wanted, ["trunk"], wanted)


def _without_effect(what: str, next_step: str) -> InvalidArgument:
    from lamina_kit.errors import InvalidArgument

    return InvalidArgument(f"{what} would have no effect", reason="OPTION_WITHOUT_EFFECT", next_step=next_step)


def _ranges(text: str) -> list[tuple[int, int]]:
    """Returns the first and last VLAN of each range of `10-20,30`."""
    from lamina_kit.errors import InvalidArgument, Violation

    ranges = []
    for part in filter(None, text.split(",")):
        first, _, final = part.partition("-")
        if not first.isdecimal() or not (final or first).isdecimal() or len(part) > 9:
            raise InvalidArgument(
                "the VLANs are not numbers and ranges",
                reason="VLANS_MALFORMED",
                violations=[Violation("vlans", f"has {part[:40]!r}")],
                next_step="give them as 10-20,30",
            )
        ranges.append((int(first), int(final or first)))
    return ranges


async def _show_group(client: Client, args: argparse.Namespace, wanted: Any, paths: list[str], found: Any) -> None:
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.vswitch.v1 import policies_pb2 as pb

    if paths:
        request = pb.UpdatePortGroupPolicyRequest(policy=wanted, update_mask=FieldMask(paths=paths))
        found = await _policies(client).UpdatePortGroupPolicy(request)
    if args.output == "json":
        printing.as_json(found)
    else:
        printing.table(("GROUP", last(found.name.removesuffix("/policy"))), _rows(found))


def _rows(policy: Any) -> list[tuple[str, str]]:
    """Returns what a policy says, a line for each part."""
    trunk, storm = policy.trunk, policy.storm_control
    vlans = vlan_ranges(trunk) or "all"
    guarded = [field.replace("_", " ") for field in SWITCHES if getattr(policy.security, field)]
    if policy.security.mac_limit:
        guarded.append(f"{policy.security.mac_limit} addresses")
    rates = [(name, getattr(storm, f"{name}_frames_per_second")) for name in RATES]
    limits = [f"{rate:,} {name.replace('_', ' ')} a second" for name, rate in rates if rate]
    return [
        ("trunk", f"{vlans}, native {trunk.native_vlan_id}" if policy.HasField("trunk") else "-"),
        ("security", ", ".join(guarded) or "-"),
        ("storm control", ", ".join(limits) or "-"),
        ("ingress", _shaped(policy.ingress_shaping)),
        ("egress", _shaped(policy.egress_shaping)),
        ("isolated", "yes" if policy.isolated else "no"),
    ]


def _shaped(shaping: Any) -> str:
    if not shaping.average_bits_per_second:
        return "-"
    peak = f", {shaping.peak_bits_per_second:,} at most" if shaping.peak_bits_per_second else ""
    return f"{shaping.average_bits_per_second:,} bits a second{peak}"


async def set_vlan(client: Client, args: argparse.Namespace) -> None:
    """Gives a port group another VLAN."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc

    from lamina_kit.errors import InvalidArgument

    switch, group, rest = _told(args.group, most=1)
    if not rest or not (rest[0].isascii() and rest[0].isdecimal() and len(rest[0]) < 10):
        raise InvalidArgument(
            f"{rest[0][:40]!r} is not a VLAN" if rest else "no VLAN is given",
            reason="VLANS_MALFORMED",
            next_step="give its number, 0 to 4094, for example `lamina vswitch set-vlan lan/web 20`",
        )
    name = await name_in(client, "portGroups", switch, group)
    request = vswitch_pb2.UpdatePortGroupRequest(
        port_group=vswitch_pb2.PortGroup(name=name, vlan_id=int(rest[0])), update_mask=FieldMask(paths=["vlan_id"])
    )
    found = await client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub).UpdatePortGroup(request)
    print(f"{found.name} is in VLAN {found.vlan_id}")


async def settings(client: Client, args: argparse.Namespace) -> None:
    """Shows or changes the settings of a switch."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.vswitch.v1 import policies_pb2 as pb

    if args.reopen_after and args.loop_detection != "on":
        raise _without_effect("--reopen-after", "give --loop-detection on, too: it sets both")
    name = f"{await switch_name(client, args.switch)}/settings"
    given = {"mtu_bytes": args.mtu, "mac_ageing_seconds": args.ageing, "mac_table_limit": args.limit}
    given = {field: value for field, value in given.items() if value is not None}
    wanted = pb.SwitchSettings(name=name, **given)
    paths = [*given]
    if args.loop_detection is not None:
        paths.append("loop_detection")
    if args.loop_detection == "on":
        wanted.loop_detection.reopen_after_ns = args.reopen_after
        wanted.loop_detection.SetInParent()
    if paths:
        request = pb.UpdateSwitchSettingsRequest(settings=wanted, update_mask=FieldMask(paths=paths))
        found = await _policies(client).UpdateSwitchSettings(request)
    else:
        found = await _policies(client).GetSwitchSettings(pb.GetSwitchSettingsRequest(name=name))
    printing.show(
        [found],
        ("SWITCH", "MTU", "AGEING", "LIMIT", "LOOPS"),
        lambda one: (
            name.split("/")[-2],
            one.mtu_bytes,
            f"{one.mac_ageing_seconds} s",
            one.mac_table_limit,
            "watched" if one.HasField("loop_detection") else "-",
        ),
        form=args.output,
        one=True,
    )


async def reopen(client: Client, args: argparse.Namespace) -> None:
    """Opens a port that was shut."""
    from lamina.vswitch.v1 import policies_pb2 as pb

    name = await port_name(client, args.port)
    done = await _policies(client).ReopenPort(pb.ReopenPortRequest(port=name))
    was = f"had been shut: {word(pb.ShutReason, done.previous_reason)}" if done.previous_reason else "was not shut"
    print(f"{last(name)} {was}")
