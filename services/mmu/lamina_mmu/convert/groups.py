"""Between the contract and the domain: memory groups beyond their limits."""

from __future__ import annotations

from typing import Any

from lamina.mmu.v1 import group_events_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.telemetry.pressure_message import pressure_message
from lamina_mmu.convert.mmu import MAX_LIMIT, group_part
from lamina_mmu.domain.groups.events import GroupEvent, GroupEventKind
from lamina_mmu.domain.groups.views import ProtectionView, StatisticsView
from lamina_mmu.domain.names import Names

SETTINGS = (
    "min_bytes",
    "low_bytes",
    "high_bytes",
    "swap_high_bytes",
    "oom_group",
    "policy",
    "policy_parameters",
    "swappiness",
)
"""What a mask may name."""
OPTIONAL = ("high_bytes", "swap_high_bytes")
MOST_PARAMETERS = 32
MOST_SWAPPINESS = 200
MOST_WATCHED = 1024
MILLION = 1_000_000


def changes(request: pb.UpdateGroupProtectionRequest) -> dict[str, Any]:
    """Returns what an update changes, by name; parameters of the policy as texts by name, an absent limit as None."""
    wanted, paths = request.protection, list(request.update_mask.paths)
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty; it names what is to change")
        for path in paths:
            check.one_of("update_mask", path, SETTINGS)
        for name in SETTINGS[:4]:
            check.range(f"protection.{name}", getattr(wanted, name), 0, MAX_LIMIT)
        check.range("protection.swappiness", wanted.swappiness, 0, MOST_SWAPPINESS)
        check.that(len(wanted.policy) <= 31, "protection.policy", f"has {len(wanted.policy)} characters, more than 31")
        names = [one.name for one in wanted.policy_parameters]
        check.that(len(names) <= MOST_PARAMETERS, "protection.policy_parameters", f"are {len(names)}, more than 32")
        check.that(len(set(names)) == len(names), "protection.policy_parameters", "name one twice")
    found: dict[str, Any] = {}
    for path in paths:
        if path in OPTIONAL:
            found[path] = getattr(wanted, path) if wanted.HasField(path) else None  # type: ignore[arg-type]
        elif path == "policy_parameters":
            found[path] = {one.name: one.value for one in wanted.policy_parameters}
        else:
            found[path] = getattr(wanted, path)
    return found


def protection(view: ProtectionView) -> pb.GroupProtection:
    """Returns what protects a group as a message."""
    return pb.GroupProtection(
        min_bytes=view.min_bytes,
        low_bytes=view.low_bytes,
        high_bytes=view.high_bytes,
        swap_high_bytes=view.swap_high_bytes,
        oom_group=view.oom_group,
        policy=view.policy,
        policy_parameters=[
            pb.PolicyParameter(name=name, value=str(value)) for name, value in sorted(view.parameters.items())
        ],
        swappiness=view.swappiness,
    )


def statistics(view: StatisticsView, names: Names) -> pb.GroupStatistics:
    """Returns a group's statistics as a message."""
    return pb.GroupStatistics(
        name=names.group(view.name),
        time_ns=view.time_ns,
        anonymous_pages=view.anonymous,
        object_pages=view.objects,
        table_frames=view.tables,
        allocated_frames=view.allocated,
        locked_pages=view.locked,
        huge_pages=view.huge,
        dirty_pages=view.dirty,
        swapped_pages=view.swapped,
        minor_faults=view.minor_faults,
        major_faults=view.major_faults,
        scanned_pages=view.scanned,
        reclaimed_pages=view.reclaimed,
        refaulted_pages=view.refaulted,
        events=[
            pb.GroupEventCount(kind=kind, count=count)  # type: ignore[arg-type]
            for kind, count in sorted(view.events.items())
        ],
        pressure=pressure_message(view.pressure) if view.pressure is not None else None,
    )


def watched(request: pb.WatchGroupsRequest, host: str) -> tuple[list[str], list[int], int, int | None]:
    """Returns the groups' last name parts, the kinds, the pressure, and the position behind which to begin."""
    with Checks() as check:
        check.that(len(request.groups) <= MOST_WATCHED, "groups", f"are {len(request.groups)}, more than 1024")
        check.range("pressure_ppm", request.pressure_ppm, 0, MILLION)
        check.range("after_sequence", request.after_sequence, 0, (1 << 63) - 1)
        for kind in request.kinds:
            check.range("kinds", kind, 1, len(GroupEventKind))
    groups = [group_part(name, host, "groups") for name in request.groups]
    after = request.after_sequence if request.HasField("after_sequence") else None
    return groups, list(request.kinds), request.pressure_ppm, after


def event(found: GroupEvent, names: Names) -> pb.GroupEvent:
    """Returns an event as a message."""
    return pb.GroupEvent(
        sequence=found.sequence,
        time_ns=found.time_ns,
        group=names.group(found.group),
        kind=found.kind,  # type: ignore[arg-type]
        usage_bytes=found.usage_bytes,
        limit_bytes=found.limit_bytes,
        spaces=[names.space(number) for number in found.spaces],
        reason=found.reason,
        address=found.address,
        pressure_ppm=found.pressure_ppm,
        cause=found.cause,
    )
