"""Between the contract and the domain: swap areas, slots, checks (`swap.proto`)."""

from __future__ import annotations

from lamina.mmu.v1 import swap_pb2

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.convert.mmu import MAX_REQUEST_ID, name_part
from lamina_mmu.domain.names import SWAP_AREA, Names
from lamina_mmu.domain.views import SlotView, SwapAreaView, SwapSettingsView

LEAST_BYTES, MOST_BYTES = 40 << 10, 8 << 40
MOST_PRIORITY = 32_767
MOST_NAME = 255
COUNTS = ("low_watermark_frames", "high_watermark_frames", "zeroed_frames")
SETTINGS = ("policy", "swappiness", "readahead_pages", *COUNTS)
"""What a mask may name."""
MOST_POLICY, MOST_SWAPPINESS, MOST_FRAMES = 31, 200, 1 << 40
READAHEADS = (1, 2, 4, 8, 16, 32, 64)


def area_name(name: str, host: str) -> str:
    """Returns the last part of an area's name."""
    return name_part(name, host, SWAP_AREA)


def new_area(request: swap_pb2.CreateSwapAreaRequest) -> tuple[str, int, int]:
    """Returns (name, slots, priority) of an area to make."""
    area = request.swap_area
    with Checks() as check:
        check.identifier("swap_area_id", request.swap_area_id)
        check.range("swap_area.priority", area.priority, 0, MOST_PRIORITY)
        check.aligned("swap_area.size_bytes", area.size_bytes, PAGE_SIZE)
        check.max_bytes("swap_area.disk", area.disk, MOST_NAME)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID)
    if not LEAST_BYTES <= area.size_bytes <= MOST_BYTES:
        raise InvalidArgument(
            f"swap_area.size_bytes is {area.size_bytes}; a swap area has 40 KiB to 8 TiB.",
            reason="SWAP_AREA_TOO_SMALL",
            next_step="Give a size of whole pages in that range.",
        )
    return request.swap_area_id, area.size_bytes >> PAGE_SHIFT, area.priority


def area(view: SwapAreaView, names: Names) -> swap_pb2.SwapArea:
    """Returns an area as a message."""
    return swap_pb2.SwapArea(
        name=names.swap_area(view.name),
        size_bytes=view.slots << PAGE_SHIFT,
        priority=view.priority,
        disk=view.disk,
        slots=view.slots,
        used_slots=view.used,
        cached_slots=view.cached,
        state=view.state,  # type: ignore[arg-type]
        written_pages=view.written,
        read_pages=view.read,
        corrupt_slots=view.corrupt,
    )


def slot(view: SlotView, names: Names) -> swap_pb2.SwapSlot:
    """Returns a slot as a message."""
    return swap_pb2.SwapSlot(
        slot=view.slot,
        references=view.references,
        user=view.user,
        address=view.address,
        group=names.group(view.group),
        cached_frame=view.frame or None,
        checksum=view.checksum,
    )


def settings(view: SwapSettingsView) -> swap_pb2.SwapSettings:
    """Returns the settings in effect as a message."""
    return swap_pb2.SwapSettings(**{name: getattr(view, name) for name in SETTINGS})


def setting_changes(request: swap_pb2.UpdateSwapSettingsRequest) -> dict[str, int | str]:
    """Returns what an update changes, by name."""
    wanted, paths = request.settings, list(request.update_mask.paths)
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty; it names what is to change")
        for path in paths:
            check.one_of("update_mask", path, SETTINGS)
        if "policy" in paths:
            check.max_bytes("settings.policy", wanted.policy, MOST_POLICY)
        if "swappiness" in paths:
            check.range("settings.swappiness", wanted.swappiness, 0, MOST_SWAPPINESS)
        if "readahead_pages" in paths:
            check.one_of("settings.readahead_pages", wanted.readahead_pages, READAHEADS)
        for name in COUNTS:
            if name in paths:
                check.range(f"settings.{name}", getattr(wanted, name), 0, MOST_FRAMES)
    return {path: getattr(wanted, path) for path in paths}
