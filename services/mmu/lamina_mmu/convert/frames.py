"""Between the contract and the domain: frames in bulk, extents, fragmentation (`frames.proto`)."""

from __future__ import annotations

from lamina.mmu.v1 import frames_pb2
from lamina.mmu.v1 import mmu_pb2 as pb

from lamina_kit.checks import Checks
from lamina_mmu.convert.mmu import MAX_REQUEST_ID
from lamina_mmu.domain.frames.buddy import HUGE_ORDER, MAX_ORDER
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.views import FragmentationView

MAX_BLOCKS = 1 << 20
MAX_EXTENTS = 4096
_ORDERS = {4096 << HUGE_ORDER: HUGE_ORDER, 4096 << MAX_ORDER: MAX_ORDER}


def use(value: int) -> Use | None:
    """Returns the use that a list is limited to; None for all but free frames."""
    with Checks() as check:
        check.range("use", value, 0, len(Use))
    return Use(value - 1) if value else None


def blocks(request: frames_pb2.CompactFramesRequest) -> int:
    """Returns how many huge blocks are wanted."""
    with Checks() as check:
        check.range("huge_blocks", request.huge_blocks, 1, MAX_BLOCKS)
    return request.huge_blocks


def extents(request: frames_pb2.AllocateExtentsRequest) -> int:
    """Bounds a request for extents; returns the order of each."""
    with Checks() as check:
        check.range("count", request.count, 1, MAX_EXTENTS)
        check.that(request.extent_bytes in _ORDERS, "extent_bytes", "is neither 2 MiB (2097152) nor 1 GiB (1073741824)")
        check.that(0 < len(request.owner) <= 127, "owner", "is not 1 to 127 characters")
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID)
    return _ORDERS[request.extent_bytes]


def first_frames(request: frames_pb2.FreeExtentsRequest) -> list[int]:
    """Returns the first frames of extents to free."""
    with Checks() as check:
        check.range("first_frames", len(request.first_frames), 1, MAX_EXTENTS)
    return list(request.first_frames)


def failing(request: frames_pb2.OfflineFramesRequest) -> list[int]:
    """Returns the frames to take out of use."""
    with Checks() as check:
        check.range("frames", len(request.frames), 1, MAX_EXTENTS)
    return list(request.frames)


def fragmentation(view: FragmentationView) -> frames_pb2.Fragmentation:
    """Returns how free memory is cut up as a message."""
    return frames_pb2.Fragmentation(
        free_blocks=view.free_blocks,
        free_frames=view.free,
        movable_huge_blocks=view.movable_huge_blocks,
        huge_blocks=view.huge_blocks,
        unmovable_frames=view.unmovable,
        zeroed_frames=view.zeroed,
        offline_frames=view.offline,
        moved_frames=view.moved,
    )


def frame_token(frames: list[pb.Frame], size: int) -> str:
    """Returns the token behind the first `size` frames; empty when there are no more."""
    return str(frames[size - 1].frame) if len(frames) > size else ""
