"""Between the contract and the domain, both ways: ranges of spaces, their settings, their statistics, their faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges

from lamina_kit.checks import Checks
from lamina_kit.paging import PAGE_SIZE, page_up
from lamina_mmu.convert import mmu
from lamina_mmu.domain.fault_feed import FaultEvent
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.names import Names
from lamina_mmu.domain.outcome import FaultResult
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.spaces.remap_spec import Move
from lamina_mmu.domain.spaces.settings import HugePages, LockFuture
from lamina_mmu.domain.tables.entry import EXECUTE, READ, WRITE
from lamina_mmu.domain.views import PinView, SettingsChange, SettingsView, SpaceStatistics

MAX_PINNED = 16 << 20
MAX_PINS = 4096
MAX_RESIDENCY = 1 << 40
MAX_SAMPLE = 1_000_000
MAX_GUARD_PAGES = 65_536
MOST_EVENTS = 1024
"""Faults of one `FaultBatch`."""
MOST_STEPS = 64
"""Steps of one fault that are told."""

_ACCESSES = {READ: 1, WRITE: 2, EXECUTE: 3}


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def request_id(text: str) -> None:
    """Bounds a request id."""
    with Checks() as check:
        check.max_bytes("request_id", text, mmu.MAX_REQUEST_ID)


def advice(value: int) -> Advice:
    """Returns advice, which must be given."""
    with Checks() as check:
        check.range("advice", value, Advice.NORMAL, Advice.POPULATE_WRITE)
    return Advice(value)


def pinned_range(request: ranges.PinRangeRequest) -> None:
    """Bounds a range to pin."""
    with Checks() as check:
        check.range("size_bytes", request.size_bytes, 1, MAX_PINNED)
        check.range("address", request.address, 0, mmu.MAX_SPACE - 1)
        check.max_bytes("request_id", request.request_id, mmu.MAX_REQUEST_ID)


def pins(request: ranges.UnpinRangesRequest) -> list[Handle]:
    """Returns pins to end."""
    mmu.count(len(request.pins), "pins", MAX_PINS)
    return [mmu.handle(pin) for pin in request.pins]


def heap(request: ranges.SetBreakRequest) -> tuple[int, int]:
    """Returns (start, end) of a heap."""
    with Checks() as check:
        check.aligned("start", request.start, PAGE_SIZE)
        check.range("start", request.start, 0, mmu.MAX_SPACE - PAGE_SIZE)
        check.range("end", request.end, 0, mmu.MAX_SPACE)
        check.that(not request.end or request.end >= request.start, "end", "lies before the start")
    return request.start, request.end


def move(request: ranges.RemapRangeRequest) -> Move:
    """Returns what to resize or to move."""
    target = request.new_address if request.HasField("new_address") else None
    old, new = request.old_size_bytes, request.new_size_bytes
    with Checks() as check:
        check.aligned("address", request.address, PAGE_SIZE)
        check.range("address", request.address, 0, mmu.MAX_SPACE - 1)
        check.range("old_size_bytes", old, 0, mmu.MAX_SPACE)
        check.range("new_size_bytes", new, 1, mmu.MAX_SPACE)
        check.aligned("new_address", target or 0, PAGE_SIZE)
        check.range("new_address", target or 0, 0, mmu.MAX_SPACE - 1)
        check.that(target is None or request.may_move, "new_address", "needs may_move")
        check.max_bytes("request_id", request.request_id, mmu.MAX_REQUEST_ID)
    return Move(request.address, page_up(old), page_up(new), request.may_move, target)


def residency_range(request: ranges.ReadResidencyRequest) -> tuple[int, int]:
    """Returns (start, end) of a range to look at."""
    with Checks() as check:
        check.range("size_bytes", request.size_bytes, 1, MAX_RESIDENCY)
        check.that(request.HasField("handle") or not request.clear_accessed, "clear_accessed", "needs a handle")
    return mmu.page_range(request.address, request.size_bytes)


def sample(request: pb.WatchFaultsRequest) -> int:
    """Returns one fault in how many is told."""
    with Checks() as check:
        check.range("sample", request.sample, 0, MAX_SAMPLE)
    return request.sample or 1


def _sized(field: str, high: int) -> Callable[[Checks, Any], int | None]:
    def read(check: Checks, settings: Any) -> int | None:
        if not settings.HasField(field):
            return None
        check.range(f"settings.{field}", getattr(settings, field), 0, high)
        return int(getattr(settings, field))

    return read


def _fault_around(check: Checks, settings: ranges.SpaceSettings) -> int:
    size = settings.fault_around_bytes
    check.range("settings.fault_around_bytes", size, PAGE_SIZE, 2 << 20)
    check.that(size & (size - 1) == 0, "settings.fault_around_bytes", f"is {size}, not a power of 2")
    return size


def _number(field: str, low: int, high: int) -> Callable[[Checks, Any], int]:
    def read(check: Checks, settings: Any) -> int:
        check.range(f"settings.{field}", getattr(settings, field), low, high)
        return int(getattr(settings, field))

    return read


def _choice(field: str, kind: type[HugePages] | type[LockFuture]) -> Callable[[Checks, Any], int]:
    def read(check: Checks, settings: Any) -> int:
        value = int(getattr(settings, field))
        return kind(value or 1) if check.that(0 <= value <= len(kind), f"settings.{field}", "is unknown") else 1

    return read


_FIELDS: dict[str, tuple[str, Callable[[Checks, Any], object]]] = {
    "huge_pages": ("huge_pages", _choice("huge_pages", HugePages)),
    "fault_around_bytes": ("fault_around_bytes", _fault_around),
    "locked_max_bytes": ("locked_max_bytes", _sized("locked_max_bytes", 1 << 50)),
    "mapped_max_bytes": ("mapped_max_bytes", _sized("mapped_max_bytes", 1 << 47)),
    "lock_future": ("lock_future", _choice("lock_future", LockFuture)),
    "stack_guard_pages": ("stack_guard_pages", _number("stack_guard_pages", 0, MAX_GUARD_PAGES)),
    "oom_score_adjust": ("oom_score_adjust", _number("oom_score_adjust", -1000, 1000)),
}
"""Path of the contract → name in the domain, and what reads and bounds it."""


def settings_change(request: ranges.UpdateSpaceSettingsRequest, host: str) -> SettingsChange:
    """Returns what to change; every path of the mask must be known, and there must be one."""
    settings, paths = request.settings, tuple(dict.fromkeys(request.update_mask.paths))
    fields: dict[str, object] = {}
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty")
        for path in paths:
            if path in _FIELDS:
                name, read = _FIELDS[path]
                fields[name] = read(check, settings)
            else:
                check.that(path in ("group", "label"), "update_mask", f"names {path[:80]!r}, which is no setting")
        if "label" in paths:
            check.that(len(settings.label) <= 127, "settings.label", f"has {len(settings.label)} characters")
    group = mmu.group_part(settings.group, host, "settings.group") if "group" in paths else None
    return SettingsChange(paths, group, settings.label if "label" in paths else None, fields)


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def pinned(view: PinView) -> ranges.PinnedRange:
    """Returns a pinned range as a message."""
    return ranges.PinnedRange(
        pin=mmu.handle_message(view.handle),
        runs=[ranges.FrameRun(address=run.address, frame=run.frame, frames=run.frames) for run in view.runs],
    )


def settings(view: SettingsView, names: Names) -> ranges.SpaceSettings:
    """Returns settings as a message."""
    found = view.settings
    return ranges.SpaceSettings(
        group=names.group(view.group),
        label=view.label,
        huge_pages=int(found.huge_pages),  # type: ignore[arg-type]
        fault_around_bytes=found.fault_around_bytes,
        locked_max_bytes=found.locked_max_bytes,
        mapped_max_bytes=found.mapped_max_bytes,
        lock_future=int(found.lock_future),  # type: ignore[arg-type]
        stack_guard_pages=found.stack_guard_pages,
        oom_score_adjust=found.oom_score_adjust,
    )


def statistics(found: SpaceStatistics) -> ranges.SpaceStatistics:
    """Returns statistics as a message."""
    return ranges.SpaceStatistics(
        mapped_pages=found.mapped,
        anonymous_pages=found.anonymous,
        object_pages=found.objects,
        private_pages=found.private,
        shared_pages=found.shared,
        proportional_bytes=found.proportional_bytes,
        swapped_pages=found.swapped,
        swap_cached_pages=found.swap_cached,
        locked_pages=found.locked,
        pinned_pages=found.pinned,
        huge_pages=found.huge,
        table_frames=found.table_frames,
        minor_faults=found.minor_faults,
        major_faults=found.major_faults,
        around_pages=found.around,
        readahead_pages=found.read_ahead,
        peak_resident_pages=found.peak_resident,
        time_ns=found.time_ns,
    )


def fault(result: FaultResult, names: Names, told: bool = True) -> pb.FaultResponse:
    """Returns how a fault ended as a message; what ran out of memory names the group and who is to be killed.

    Its steps are in it if they are to be `told`.
    """
    if not told and result.frame:  # the access is possible now
        return pb.FaultResponse(outcome=result.outcome, frame=result.frame, entry=result.entry)  # type: ignore[arg-type]
    out_of_memory = bool(result.limit_group)
    answer = mmu.fault(
        result,
        names.group(result.limit_group) if out_of_memory else "",
        names.space(result.victim_space) if result.victim_space else "",
    )
    del answer.steps[MOST_STEPS if told else 0 :]
    return answer


def fault_batch(events: Sequence[FaultEvent], missed: int, names: Names) -> pb.FaultBatch:
    """Returns faults as a message."""
    return pb.FaultBatch(faults=[_event(event, names) for event in events], missed=missed)


def _event(event: FaultEvent, names: Names) -> pb.FaultEvent:
    result = event.result
    return pb.FaultEvent(
        space=names.space(event.space),
        address=event.address,
        access=_ACCESSES[event.access],  # type: ignore[arg-type]
        time_ns=event.time_ns,
        duration_ns=event.duration_ns,
        answer=fault(result, names),
        around_pages=result.around,
        evicted_frame=result.frame if result.evicted else None,
    )
