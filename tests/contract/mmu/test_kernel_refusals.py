"""What the engine on the kernel cannot do by its nature is refused by name; what other engines cannot, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from lamina.mmu.v1 import frames_pb2, supply_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.kernel import attach, kernel
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack

from lamina_kit.errors import FailedPrecondition
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

__all__ = ["kernel"]
real_time = pytest.mark.real_time("processes of the kernel")
BASE = 0x40_0000


async def _first(stream: Any) -> None:
    async for _ in stream:
        pass


async def _once(message: Any) -> AsyncIterator[Any]:
    yield message


def _setting(space: pb.Space, **fields: Any) -> ranges.UpdateSpaceSettingsRequest:
    settings = ranges.SpaceSettings(**fields)
    request = ranges.UpdateSpaceSettingsRequest(handle=space.handle, settings=settings)
    request.update_mask.paths.extend(fields)
    return request


Call = Callable[[Stack, pb.Space], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "a VM's RAM": lambda stack, space: stack.space(kind=pb.Space.KIND_GUEST_RAM),
    "frames": lambda stack, space: stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=1, owner="x")),
    "frames back": lambda stack, space: stack.frames.FreeFrames(pb.FreeFramesRequest(frames=[1], owner="x")),
    "extents": lambda stack, space: stack.frames.AllocateExtents(
        frames_pb2.AllocateExtentsRequest(count=1, extent_bytes=2 << 20, owner="x")
    ),
    "extents back": lambda stack, space: stack.frames.FreeExtents(
        frames_pb2.FreeExtentsRequest(first_frames=[512], owner="x")
    ),
    "offlining": lambda stack, space: stack.frames.OfflineFrames(frames_pb2.OfflineFramesRequest(frames=[1])),
    "frames of a group": lambda stack, space: stack.frames.ListFrames(
        pb.ListFramesRequest(group="hosts/h1/memoryGroups/root")
    ),
    "pins": lambda stack, space: stack.spaces.PinRange(
        ranges.PinRangeRequest(handle=space.handle, address=BASE, size_bytes=PAGE)
    ),
    "pins back": lambda stack, space: stack.spaces.UnpinRanges(ranges.UnpinRangesRequest(pins=[space.handle])),
    "splitting": lambda stack, space: stack.spaces.SplitHugePages(
        ranges.SplitHugePagesRequest(handle=space.handle, address=BASE, size_bytes=PAGE)
    ),
    "accessed bits": lambda stack, space: _first(
        stack.spaces.ReadResidency(
            ranges.ReadResidencyRequest(handle=space.handle, address=BASE, size_bytes=PAGE, clear_accessed=True)
        )
    ),
    "fault-around": lambda stack, space: stack.spaces.UpdateSpaceSettings(_setting(space, fault_around_bytes=4096)),
    "stack guard": lambda stack, space: stack.spaces.UpdateSpaceSettings(_setting(space, stack_guard_pages=1)),
    "suppliers": lambda stack, space: _first(
        stack.objects.Supply(_once(supply_pb2.SupplyRequest(open=supply_pb2.SupplyOpen(objects=[space.handle]))))
    ),
    "holders": lambda stack, space: _first(
        stack.spaces.Hold(_once(pb.HoldRequest(open=pb.HoldOpen(handle=space.handle))))
    ),
}


@real_time
@pytest.mark.parametrize("call", list(CALLS.values()), ids=[name.replace(" ", "-") for name in CALLS])
async def test_what_the_kernel_offers_to_nobody_is_refused(kernel: Stack, call: Call) -> None:
    """UNIMPLEMENTED with the reason CAPABILITY_MISSING, and the space is as it was."""
    space = await kernel.space()
    await expect_refused(call(kernel, space), "UNIMPLEMENTED", "CAPABILITY_MISSING")
    assert await kernel.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle)) == space


async def test_the_model_has_no_processes(tmp_path: Path) -> None:
    """AttachProcess is refused by an engine whose spaces are its own."""
    async with Stack(tmp_path, engine="model") as stack:
        await expect_refused(attach(stack, 1), "UNIMPLEMENTED", "PROCESS_NOT_SUPPORTED")


@real_time
def test_the_kernel_keeps_no_virtual_clock(tmp_path: Path) -> None:
    """A stack in virtual time is refused before anything is started."""

    async def start() -> None:
        stack = Stack(tmp_path, VirtualClock(loop), engine="linux")
        with pytest.raises(FailedPrecondition) as refused:
            await stack.service.start()
        assert refused.value.reason == "ENGINE_NEEDS_REAL_TIME"
        await stack.service.stop()
        stack.bus.close()

    loop = VirtualLoop(1)
    try:
        loop.run_until_complete(start())
    finally:
        loop.close()
