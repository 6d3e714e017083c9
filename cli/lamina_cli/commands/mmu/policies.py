"""`lamina mmu policies`, `candidates`, `evictions`, `policy`, `group`: replacement and memory groups in depth."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.resource_names import full_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.mmu.v1.mmu_pb2_grpc import GroupsStub
    from lamina.mmu.v1.policies_pb2_grpc import PoliciesStub

COUNTS = (
    *("anonymous_pages", "object_pages", "table_frames", "allocated_frames", "locked_pages", "huge_pages"),
    *("dirty_pages", "swapped_pages", "minor_faults", "major_faults", "scanned_pages"),
    *("reclaimed_pages", "refaulted_pages"),
)
"""Fields of `GroupStatistics` that are shown as they are."""


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("policies", help="list replacement policies"), policies, lists=True)
    chosen = verbs.add_parser("policy", help="choose the replacement policy of a memory group")
    chosen.add_argument("group", help="name of the group, root for the whole host")
    chosen.add_argument("policy", help="name of the policy; '' for that of the parent")
    order = verbs.add_parser("candidates", help="list the pages of a memory group, the first to go first")
    order.add_argument("--group", default="root", help="name of the group (default: the whole host)")
    order.add_argument("--count", type=parse.INT64, default=20, help="how many to list, at most 1000")
    gone = verbs.add_parser("evictions", help="list what left RAM and why, newest first")
    gone.add_argument("--group", default="", help="only of this memory group")
    gone.add_argument("--count", type=parse.INT64, default=20, help="how many to list, at most 1000")
    group = verbs.add_parser("group", help="show what a memory group uses, and its pressure")
    group.add_argument("group", help="name of the group")

    def named(run: Callable[..., Awaitable[None]]) -> Callable[[Client, argparse.Namespace], Awaitable[None]]:
        async def call(client: Client, args: argparse.Namespace) -> None:
            name = await full_name(client, "memoryGroups", args.group) if args.group else ""
            await run(client, args, name)

        call.__doc__ = run.__doc__
        return call

    for parser, run in ((chosen, choose), (order, candidates), (gone, evictions), (group, statistics)):
        command(parser, named(run), lists=True)


def _policies(client: Client) -> PoliciesStub:
    from lamina.mmu.v1 import policies_pb2_grpc

    return client.stub("mmu", policies_pb2_grpc.PoliciesStub)


def _groups(client: Client) -> GroupsStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.GroupsStub)


async def policies(client: Client, args: argparse.Namespace) -> None:
    """Lists replacement policies."""
    from lamina.mmu.v1 import policies_pb2

    listed = await _policies(client).ListPolicies(policies_pb2.ListPoliciesRequest())
    printing.show(
        listed.policies,
        ("POLICY", "ORIGIN", "USE", "GROUPS", "SUMMARY"),
        lambda one: (
            one.name,
            word(policies_pb2.Policy.Origin, one.origin),
            "replays" if one.offline else "all",
            len(one.groups),
            one.summary,
        ),
        form=args.output,
    )


async def choose(client: Client, args: argparse.Namespace, group: str) -> None:
    """Chooses the policy of a group."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.mmu.v1 import group_events_pb2

    request = group_events_pb2.UpdateGroupProtectionRequest(
        name=group,
        protection=group_events_pb2.GroupProtection(policy=args.policy),
        update_mask=FieldMask(paths=["policy"]),
    )
    changed = await _groups(client).UpdateGroupProtection(request)
    row = (last(group), changed.policy or "that of its parent", changed.swappiness)
    printing.show([changed], ("GROUP", "POLICY", "SWAPPINESS"), lambda _: row, form=args.output, one=True)


def place(one: Any) -> str:
    """Returns where a page is used, for example `s-1 0x400000`."""
    return f"{last(one.user)} {one.address:#x}" if one.user else "-"


async def candidates(client: Client, args: argparse.Namespace, group: str) -> None:
    """Lists the pages of a group in the order of its policy."""
    from lamina.mmu.v1 import policies_pb2

    request = policies_pb2.ListCandidatesRequest(group=group, page_size=args.count)
    listed = await _policies(client).ListCandidates(request)
    printing.show(
        listed.candidates,
        ("FRAME", "PAGE", "AGE", "DIRTY", "STANDING"),
        lambda one: (f"{one.frame:#x}", place(one), one.age, "yes" if one.dirty else "no", one.standing),
        form=args.output,
    )


async def evictions(client: Client, args: argparse.Namespace, group: str) -> None:
    """Lists evictions with their reasons."""
    from lamina.mmu.v1 import policies_pb2

    request = policies_pb2.ListEvictionsRequest(group=group, page_size=args.count)
    listed = await _policies(client).ListEvictions(request)
    printing.show(
        listed.evictions,
        ("NUMBER", "GROUP", "PAGE", "TO", "POLICY", "REASON", "NEXT"),
        lambda one: (
            one.sequence,
            last(one.group),
            place(one.victim),
            f"slot {one.swap_slot}" if one.HasField("swap_slot") else "dropped",
            one.policy,
            one.reason,
            place(one.others[0]) if one.others else "-",
        ),
        form=args.output,
    )


async def statistics(client: Client, args: argparse.Namespace, group: str) -> None:
    """Shows what a group uses, what was done to it, and its pressure."""
    from lamina.mmu.v1 import group_events_pb2

    found = await _groups(client).GetGroupStatistics(group_events_pb2.GetGroupStatisticsRequest(name=group))
    if args.output == "json":
        printing.as_json(found)
        return
    rows: list[tuple[str, str]] = [(name.replace("_", " "), f"{getattr(found, name):,}") for name in COUNTS]
    rows += [(f"event: {word(group_events_pb2.GroupEventKind, one.kind)}", f"{one.count:,}") for one in found.events]
    for kind in ("some", "full"):
        shares = [getattr(found.pressure, f"{kind}_{window}s_ppm") for window in (10, 60, 300)]
        text = "  ".join(f"{share / 10_000:.2f} %" for share in shares)
        rows.append((f"pressure: {kind} of 10, 60, 300 s", text if found.HasField("pressure") else "not kept here"))
    printing.table((last(group).upper(), ""), rows)
