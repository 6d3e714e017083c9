"""Bounds of requests, each at its edge, and what becomes of them; answers with what is absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.mmu.v1 import frames_pb2, ranges_pb2, swap_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import replay_pb2 as replay_pb

from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import PAGE_SIZE
from lamina_kit.rpc.inproc.call import MAX_ANSWER
from lamina_mmu.convert import frames, mmu, ranges, replay, swap
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.spaces.remap_spec import Move
from lamina_mmu.domain.spaces.space import Kind

MIB, GIB = 1 << 20, 1 << 30


def refused(field: str, call: Callable[..., object], *arguments: Any) -> None:
    """Calls what must be refused because of a field."""
    with pytest.raises(InvalidArgument) as error:
        call(*arguments)
    assert field in str(error.value), str(error.value)


def edges(field: str, call: Callable[[int], object], low: int, high: int, step: int = 1) -> None:
    """Checks that the bounds of a field are taken, and what lies beyond them is refused."""
    call(low)
    call(high)
    refused(field, call, high + step)
    if low > 0:
        refused(field, call, low - step)


def test_mappings_are_bounded() -> None:
    """Sizes up to 2^47, whole pages; a downwards growing one is private anonymous; only a fixed one replaces."""

    def made(**fields: Any) -> Any:
        return mmu.map_spec(pb.MapRangeRequest(**{"size_bytes": 1, **fields}))

    edges("size_bytes", lambda size: made(size_bytes=size), 1, 1 << 47)
    edges("object_offset", lambda offset: made(object_offset=offset), 0, 1 << 40, PAGE_SIZE)
    assert len(made(label="é" * 255).label) == 255
    for field, wrong in (
        ("label", {"label": "x" * 256}),
        ("address", {"address": 1}),
        ("object_offset", {"object_offset": 1}),
        ("replace", {"replace": True}),
        ("grows_down", {"grows_down": True, "shared": True}),
        ("grows_down", {"grows_down": True, "object": handle_pb2.Handle(id=1)}),
        ("request_id", {"request_id": "x" * 128}),
    ):
        refused(field, lambda wrong=wrong: made(**wrong))
    given = made(
        size_bytes=4097, address=8192, fixed=True, replace=True, object_offset=4096, shared=True,
        object=handle_pb2.Handle(id=3, generation=4), protection=pb.Protection(read=True, execute=True), label="a",
    )  # fmt: skip
    assert (given.size, given.address, given.fixed, given.replace, given.offset, given.shared) == (
        8192, 8192, True, True, 4096, True,
    )  # fmt: skip
    assert (given.object, given.rights, given.label, given.grows_down) == (Handle(3, 4), 1 | 4, "a", False)
    assert made().object is None and made(grows_down=True).grows_down


def test_ranges_of_pages_end_within_the_space() -> None:
    """The end is rounded up to a page and never lies beyond 2^47."""
    assert mmu.page_range(4096, 1) == (4096, 8192) and mmu.page_range(4096, 4097) == (4096, 12288)
    assert mmu.page_range((1 << 47) - PAGE_SIZE, 1 << 47) == ((1 << 47) - PAGE_SIZE, 1 << 47)
    edges("size_bytes", lambda size: mmu.page_range(0, size), 1, 1 << 47)
    refused("address", mmu.page_range, 1 << 47, 1)
    refused("address", mmu.page_range, 1, 1)


def test_bytes_counts_and_frames_are_bounded() -> None:
    """Reads, writes, pieces, allocations."""
    edges("data", lambda size: mmu.bytes_written(0, size), 1, 4 * MIB)
    edges("size_bytes", lambda size: mmu.bytes_read(0, size), 1, MAX_ANSWER)
    edges("address", lambda address: mmu.bytes_read(address, 1), 0, (1 << 64) - 1 - 4 * MIB)
    edges("pages", lambda value: mmu.count(value, "pages", 9), 1, 9)
    assert mmu.count(5, "pages", 9) == 5

    def allocate(count: int, owner: str = "a", request: str = "") -> None:
        mmu.allocation(pb.AllocateFramesRequest(count=count, owner=owner, request_id=request))

    edges("count", allocate, 1, 65_536)
    allocate(1, "x" * 127, "r" * 127)
    for field, wrong in (("owner", ("x" * 128, "")), ("owner", ("", "")), ("request_id", ("a", "r" * 128))):
        refused(field, allocate, 1, *wrong)
    mmu.piece(pb.WriteObjectRequest(data=bytes(MIB), offset=1 << 40))
    refused("data", mmu.piece, pb.WriteObjectRequest(data=bytes(MIB + 1)))
    refused("offset", mmu.piece, pb.WriteObjectRequest(offset=(1 << 40) + 1))
    mmu.label("x" * 9, "r" * 127, 9, "label")
    refused("label", mmu.label, "x" * 10, "", 9, "label")
    refused("request_id", mmu.label, "", "r" * 128, 9, "label")


def test_kinds_and_accesses_are_those_of_the_contract() -> None:
    """A space of no kind is a process; an access must be said."""
    assert (mmu.kind(0), mmu.kind(1), mmu.kind(2)) == (Kind.PROCESS, Kind.PROCESS, Kind.GUEST_RAM)
    refused("kind", mmu.kind, 3)
    assert [mmu.access(value) for value in (1, 2, 3)] == [1, 2, 4]
    for value in (0, 4):
        refused("access", mmu.access, value)
    assert mmu.rights(pb.Protection(write=True)) == 2 and mmu.rights(pb.Protection()) == 0


def test_limits_say_none_in_two_ways() -> None:
    """A new group: 0 of RAM is none, swap left out is none; an update: what is left out stays, swap -1 is none."""
    assert mmu.limits(pb.Group(), True) == {"max_bytes": None}
    assert mmu.limits(pb.Group(max_bytes=5, swap_max_bytes=0), True) == {"max_bytes": 5, "swap_max_bytes": 0}
    refused("swap_max_bytes", mmu.limits, pb.Group(swap_max_bytes=-1), True)
    update = pb.UpdateGroupRequest
    assert mmu.limits(update(), False) == {}
    assert mmu.limits(update(max_bytes=0, swap_max_bytes=-1), False) == {"max_bytes": None, "swap_max_bytes": None}
    edges("max_bytes", lambda value: mmu.limits(update(max_bytes=value), False), 0, 1 << 50)
    edges("swap_max_bytes", lambda value: mmu.limits(update(swap_max_bytes=value), False), 0, 1 << 50)
    refused("swap_max_bytes", mmu.limits, update(swap_max_bytes=-2), False)


def test_pages_of_lists_have_a_size_and_a_token_of_ours() -> None:
    """At most a thousand, a hundred when it is not said; any other token is refused."""
    assert mmu.page(pb.ListSpacesRequest()) == (0, 100) and mmu.page(pb.ListSpacesRequest(), 7) == (0, 7)
    assert mmu.page(pb.ListSpacesRequest(page_size=1000, page_token="9" * 18)) == (int("9" * 18), 1000)
    refused("page_size", mmu.page, pb.ListSpacesRequest(page_size=1001))
    for token in ("x", "-1", "²", "9" * 19):
        refused("page_token", mmu.page, pb.ListSpacesRequest(page_token=token))


def test_names_are_of_this_host() -> None:
    """Another host's is refused; no name of a group is the root."""
    assert mmu.group_part("", "h1", "group") == "" and mmu.group_part("hosts/h1/memoryGroups/a", "h1", "group") == "a"
    refused("group", mmu.group_part, "hosts/h2/memoryGroups/a", "h1", "group")


def test_frames_and_extents_are_bounded() -> None:
    """Uses are told apart from none; extents are of 2 MiB or 1 GiB; the order says how many frames each has."""
    assert (frames.use(0), frames.use(1), frames.use(len(Use))) == (None, Use(0), Use(len(Use) - 1))
    refused("use", frames.use, len(Use) + 1)
    edges("huge_blocks", lambda n: frames.blocks(frames_pb2.CompactFramesRequest(huge_blocks=n)), 1, MIB)

    def extents(count: int = 1, size: int = 2 * MIB, owner: str = "a", request: str = "") -> int:
        given = frames_pb2.AllocateExtentsRequest(count=count, extent_bytes=size, owner=owner, request_id=request)
        return frames.extents(given)

    assert (extents(), extents(size=GIB)) == (9, 18) and extents(owner="x" * 127) == 9
    edges("count", extents, 1, 4096)
    for field, wrong in (
        ("extent_bytes", {"size": 4096}), ("owner", {"owner": ""}), ("owner", {"owner": "x" * 128}),
        ("request_id", {"request": "x" * 128}),
    ):  # fmt: skip
        refused(field, lambda wrong=wrong: extents(**wrong))
    free, failing = frames_pb2.FreeExtentsRequest, frames_pb2.OfflineFramesRequest
    edges("first_frames", lambda n: frames.first_frames(free(first_frames=range(n))), 1, 4096)
    edges("frames", lambda n: frames.failing(failing(frames=range(n))), 1, 4096)
    some = [pb.Frame(frame=n) for n in (3, 5, 8)]
    assert (frames.frame_token(some, 2), frames.frame_token(some, 3), frames.frame_token(some, 4)) == ("5", "", "")


def test_pins_heaps_and_moves_are_bounded() -> None:
    """Pins up to 16 MiB, 4096 at once; a heap ends behind its start; a target needs leave to move."""
    pin = ranges_pb2.PinRangeRequest
    edges("size_bytes", lambda size: ranges.pinned_range(pin(size_bytes=size)), 1, 16 * MIB)
    edges("address", lambda at: ranges.pinned_range(pin(size_bytes=1, address=at)), 0, (1 << 47) - 1)
    refused("request_id", ranges.pinned_range, pin(size_bytes=1, request_id="x" * 128))
    unpin = ranges_pb2.UnpinRangesRequest
    edges("pins", lambda n: ranges.pins(unpin(pins=[handle_pb2.Handle(id=1)] * n)), 1, 4096)

    def heap(start: int, end: int) -> tuple[int, int]:
        return ranges.heap(ranges_pb2.SetBreakRequest(start=start, end=end))

    assert (heap(4096, 0), heap(4096, 4096), heap(0, 1 << 47)) == ((4096, 0), (4096, 4096), (0, 1 << 47))
    heap((1 << 47) - PAGE_SIZE, 0)
    beyond = (("start", (1 << 47, 0)), ("end", (0, (1 << 47) + 1)))
    for field, wrong in (("end", (8192, 4096)), ("start", (1, 0)), *beyond):
        refused(field, heap, *wrong)

    def move(**fields: Any) -> Move:
        return ranges.move(ranges_pb2.RemapRangeRequest(**{"new_size_bytes": 1, **fields}))

    assert move(address=4096, old_size_bytes=4097, may_move=True) == Move(4096, 8192, 4096, True, None)
    assert move(new_address=0, may_move=True).target == 0
    edges("new_size_bytes", lambda size: move(new_size_bytes=size), 1, 1 << 47)
    edges("old_size_bytes", lambda size: move(old_size_bytes=size), 0, 1 << 47)
    for field, more in (
        ("new_address", {"new_address": 4096}), ("new_address", {"new_address": 1, "may_move": True}),
        ("new_address", {"new_address": 1 << 47, "may_move": True}), ("address", {"address": 1 << 47}),
        ("address", {"address": 1}), ("request_id", {"request_id": "x" * 128}),
    ):  # fmt: skip
        refused(field, lambda more=more: move(**more))


def test_advice_samples_and_residency_are_bounded() -> None:
    """Advice must be given; a sample of none is every fault; clearing needs a handle."""
    assert ranges.advice(int(Advice.POPULATE_WRITE)) is Advice.POPULATE_WRITE
    edges("advice", ranges.advice, int(Advice.NORMAL), int(Advice.POPULATE_WRITE))
    watch = pb.WatchFaultsRequest
    assert (ranges.sample(watch()), ranges.sample(watch(sample=7))) == (1, 7)
    edges("sample", lambda n: ranges.sample(watch(sample=n)), 0, 1_000_000)
    look = ranges_pb2.ReadResidencyRequest
    edges("size_bytes", lambda size: ranges.residency_range(look(size_bytes=size)), 1, 1 << 40)
    refused("clear_accessed", ranges.residency_range, look(size_bytes=1, clear_accessed=True))
    ranges.residency_range(look(size_bytes=1, clear_accessed=True, handle=handle_pb2.Handle(id=1)))


def test_settings_of_a_space_change_by_their_mask() -> None:
    """Only what the mask names changes, a limit that is absent is none, and a mask names what there is."""

    def change(paths: list[str], **fields: Any) -> Any:
        request = ranges_pb2.UpdateSpaceSettingsRequest(settings=ranges_pb2.SpaceSettings(**fields))
        request.update_mask.paths.extend(paths)
        return ranges.settings_change(request, "h1")

    none = change(["locked_max_bytes", "mapped_max_bytes", "locked_max_bytes"], label="x")
    assert none.fields == {"locked_max_bytes": None, "mapped_max_bytes": None}
    assert (none.label, none.group, none.named) == (None, None, ("locked_max_bytes", "mapped_max_bytes"))
    named = change(["label", "group"], label="x" * 127, group="hosts/h1/memoryGroups/a")
    assert (named.label, named.group, named.fields) == ("x" * 127, "a", {})
    refused("settings.label", lambda: change(["label"], label="x" * 128))
    for path, low, high in (("stack_guard_pages", 0, 65_536), ("oom_score_adjust", -1000, 1000)):
        assert [change([path], **{path: value}).fields[path] for value in (low, high)] == [low, high]
        refused(path, lambda path=path, high=high: change([path], **{path: high + 1}))
    refused("oom_score_adjust", lambda: change(["oom_score_adjust"], oom_score_adjust=-1001))
    for path, high in (("locked_max_bytes", 1 << 50), ("mapped_max_bytes", 1 << 47)):
        assert change([path], **{path: high}).fields == {path: high}
        refused(path, lambda path=path, high=high: change([path], **{path: high + 1}))
    assert [change(["fault_around_bytes"], fault_around_bytes=n).fields for n in (4096, 2 * MIB)] == [
        {"fault_around_bytes": 4096}, {"fault_around_bytes": 2 * MIB},
    ]  # fmt: skip
    for size in (0, 2048, 12288, 4 * MIB):
        refused("fault_around_bytes", lambda size=size: change(["fault_around_bytes"], fault_around_bytes=size))
    assert change(["huge_pages", "lock_future"], huge_pages=0, lock_future=3).fields == {
        "huge_pages": 1, "lock_future": 3,
    }  # fmt: skip
    refused("huge_pages", lambda: change(["huge_pages"], huge_pages=4))
    refused("update_mask", lambda: change([]))
    refused("update_mask", lambda: change(["name"]))


def test_swap_areas_and_their_settings_are_bounded() -> None:
    """Whole pages from 40 KiB to 8 TiB; readahead is a power of two up to 64; the mask says what changes."""

    def area(size: int = 40 << 10, priority: int = 0, name: str = "a", **fields: Any) -> tuple[str, int, int]:
        wanted = swap_pb2.SwapArea(size_bytes=size, priority=priority, disk=fields.pop("disk", ""))
        return swap.new_area(swap_pb2.CreateSwapAreaRequest(swap_area_id=name, swap_area=wanted, **fields))

    assert (area(), area(8 << 40, 32_767)) == (("a", 10, 0), ("a", 2 << 30, 32_767))
    for size in ((40 << 10) - 4096, (8 << 40) + 4096, 0):
        with pytest.raises(InvalidArgument) as error:
            area(size)
        assert error.value.reason == "SWAP_AREA_TOO_SMALL"
    for field, wrong in (
        ("size_bytes", {"size": 40961}), ("priority", {"priority": 32_768}), ("priority", {"priority": -1}),
        ("swap_area_id", {"name": "A b"}), ("disk", {"disk": "x" * 256}), ("request_id", {"request_id": "x" * 128}),
    ):  # fmt: skip
        refused(field, lambda wrong=wrong: area(**wrong))

    def change(paths: list[str], **fields: Any) -> dict[str, int | str]:
        request = swap_pb2.UpdateSwapSettingsRequest(settings=swap_pb2.SwapSettings(**fields))
        request.update_mask.paths.extend(paths)
        return swap.setting_changes(request)

    given: dict[str, Any] = {"policy": "p" * 31, "swappiness": 200, "readahead_pages": 64, "zeroed_frames": 1 << 40}
    assert change(list(given), **given) == given and change(["swappiness"], policy="x" * 99) == {"swappiness": 0}
    for field, value in (
        ("policy", "p" * 32), ("swappiness", 201), ("readahead_pages", 3), ("readahead_pages", 0),
        ("readahead_pages", 128), ("zeroed_frames", (1 << 40) + 1), ("low_watermark_frames", (1 << 40) + 1),
    ):  # fmt: skip
        refused(field, lambda field=field, value=value: change([field], **{field: value}))
    for paths in ([], ["name"]):
        refused("update_mask", change, paths)


def test_replays_are_bounded() -> None:
    """What a plan may ask for, at its edges, and what it is without being said."""

    def plan(**fields: Any) -> Any:
        policies = fields.pop("policies", [replay_pb.ReplayPolicy(policy="lru")])
        return replay.plan(replay_pb.ReplayOpen(**{"policies": policies, "frames": [1], "format": 1, **fields}))

    default = plan()
    assert (default.page_shift, default.progress, default.frames, default.warmup) == (12, 10_000_000, (1,), 0)
    assert default.tlb is None and default.curve is None and not default.partial
    edges("warmup_accesses", lambda n: plan(warmup_accesses=n), 0, 1 << 36)
    edges("explain_evictions", lambda n: plan(explain_evictions=n), 0, 10_000)
    edges("progress_accesses", lambda n: plan(progress_accesses=n), 10_000, 10**9)
    edges("frames", lambda n: plan(frames=[1] * n), 1, 64)
    edges("frames", lambda n: plan(frames=[n]), 1, 1 << 32)
    edges("policies", lambda n: plan(policies=[replay_pb.ReplayPolicy(policy="lru")] * n), 1, 16)
    assert (plan(page_size_bytes=1).page_shift, plan(page_size_bytes=1 << 30).page_shift) == (0, 30)
    for size in (3, 1 << 31):
        refused("page_size_bytes", lambda size=size: plan(page_size_bytes=size))
    refused("format", lambda: plan(format=0))
