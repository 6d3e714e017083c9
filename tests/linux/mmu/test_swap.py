"""Swap of the `linux` engine on this machine's kernel: areas made and drained, pages that go there, settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.mmu.v1 import mmu_pb2
from lamina.mmu.v1 import swap_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack
from tests.linux.mmu.program import Program

from lamina_kit.engines import engines_of
from lamina_kit.rpc.status import rpc_error
from lamina_mmu.domain.kernel.cgroups import flat
from lamina_mmu.io.linux.swap import SwapFolder

MIB = 1 << 20
AREA = "hosts/h1/swapAreas/more"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Returns an MMU with the engine `linux` that may take swap areas into use."""
    reasons = engines_of("mmu")["linux"].missing()
    if reasons:
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    async with Stack(tmp_path, engine="linux") as made:
        if not made.service.host.engine.state.kernel.swap.allowed():
            pytest.skip("taking a swap area into use needs CAP_SYS_ADMIN")
        yield made


async def create(stack: Stack, size: int = 32 * MIB, request_id: str = "", priority: int = 0) -> pb.SwapArea:
    """Makes an area; skips where the file system under the scratch folder cannot hold one."""
    area = pb.SwapArea(size_bytes=size, priority=priority)
    try:
        made: pb.SwapArea = await stack.swap.CreateSwapArea(
            pb.CreateSwapAreaRequest(swap_area_id="more", swap_area=area, request_id=request_id)
        )
    except grpc.aio.AioRpcError as error:
        if rpc_error(error).reason == "SWAP_MEDIUM_MISSING":
            pytest.skip(f"the scratch folder holds no swap: {error.details()}")
        raise
    return made


async def drained(stack: Stack) -> list[pb.DeleteSwapAreaProgress]:
    """Takes the area out of use; returns what was said of it."""
    said: Any = stack.swap.DeleteSwapArea(pb.DeleteSwapAreaRequest(name=AREA))
    return [progress async for progress in said]


def swaps() -> str:
    """Returns what the kernel says of its areas."""
    return Path("/proc/swaps").read_text()


def is_there(file: str) -> bool:
    """Returns whether there is a file."""
    return Path(file).exists()


def left_behind(file: str) -> None:
    """Leaves a file as a service that was killed does."""
    Path(file).write_bytes(b"left")


def sysctl(name: str) -> int:
    """Returns a setting of /proc/sys/vm."""
    return int(Path("/proc/sys/vm", name).read_text())


def counted(name: str) -> int:
    """Returns a counter of the kernel."""
    return flat(Path("/proc/vmstat").read_text())[name]


async def test_an_area_is_made_listed_and_drained(stack: Stack) -> None:
    """The kernel uses its file with the size and priority that were asked for; once drained nothing of it is left."""
    area = await create(stack, priority=7, request_id="r")
    assert (area.name, area.size_bytes, area.slots, area.priority) == (AREA, 32 * MIB, 32 * MIB // PAGE, 7)
    assert area.state == pb.SwapArea.STATE_ACTIVE
    file = stack.service.host.engine.state.kernel.swap.path("more")
    assert file in swaps()
    assert await create(stack, priority=7, request_id="r") == area
    await expect_refused(create(stack), "ALREADY_EXISTS", "SWAP_AREA_EXISTS")
    assert area in (await stack.swap.ListSwapAreas(pb.ListSwapAreasRequest())).swap_areas
    said = await drained(stack)
    assert [progress.done for progress in said][-1] and not said[-1].remaining_slots
    assert file not in swaps() and not is_there(file)
    await expect_refused(stack.swap.GetSwapArea(pb.GetSwapAreaRequest(name=AREA)), "NOT_FOUND", "SWAP_AREA_UNKNOWN")


async def test_pages_of_a_group_go_there_and_come_back_intact(stack: Stack, tmp_path: Path) -> None:
    """Reclaim writes anonymous pages to the area, the group's use of swap and the kernel's counters say so."""
    group = await stack.group("web")
    await create(stack)
    program = Program(tmp_path / "file")
    try:
        stack.service.host.engine.enter_group(program.process.pid, "web")
        assert program.tell("touch", 16 * MIB)
        before = counted("pswpout")
        engine = stack.service.host.engine
        taken, written = await stack.service.host.drive(engine.reclaim_group("web", 2048))
        assert taken >= 1024 and written >= 1024
        assert counted("pswpout") - before >= 1024
        view = await stack.groups.GetGroup(mmu_pb2.GetGroupRequest(name=group))
        assert view.swap_usage_bytes >= 1024 * PAGE
        area = await stack.swap.GetSwapArea(pb.GetSwapAreaRequest(name=AREA))
        assert area.used_slots >= 1024
        said = await drained(stack)
        assert said[-1].done and said[-1].returned_pages >= 1024
        assert program.tell("check", 0)
        assert (await stack.groups.GetGroup(mmu_pb2.GetGroupRequest(name=group))).swap_usage_bytes == 0
    finally:
        program.end()


async def test_areas_go_with_the_service(stack: Stack) -> None:
    """A stop takes them out of use; a file that no area is made of any more is removed at the next start."""
    await create(stack)
    file = stack.service.host.engine.state.kernel.swap.path("more")
    await stack.service.stop()
    assert file not in swaps()
    left_behind(file)
    SwapFolder(Path(file).parent, lambda key, told: None)
    assert not is_there(file)


async def test_what_the_kernel_does_not_tell_is_refused(stack: Stack) -> None:
    """Slots and their checksums are not to be had; bad sizes and unknown areas are refused as with any engine."""
    await create(stack)
    for call in (
        stack.swap.ListSwapSlots(pb.ListSwapSlotsRequest(name=AREA)),
        stack.swap.CheckSwapArea(pb.CheckSwapAreaRequest(name=AREA)).read(),
    ):
        await expect_refused(call, "UNIMPLEMENTED", "CAPABILITY_MISSING")
    small = pb.CreateSwapAreaRequest(swap_area_id="small", swap_area=pb.SwapArea(size_bytes=PAGE))
    await expect_refused(stack.swap.CreateSwapArea(small), "INVALID_ARGUMENT", "SWAP_AREA_TOO_SMALL")
    gone = pb.DeleteSwapAreaRequest(name="hosts/h1/swapAreas/none")
    await expect_refused(stack.swap.DeleteSwapArea(gone).read(), "NOT_FOUND", "SWAP_AREA_UNKNOWN")


async def test_settings_are_the_hosts(stack: Stack) -> None:
    """Swappiness and readahead are read from the kernel and written there; what it chooses itself is refused."""
    settings = await stack.swap.GetSwapSettings(pb.GetSwapSettingsRequest())
    assert settings.swappiness == sysctl("swappiness")
    assert settings.readahead_pages == 1 << sysctl("page-cluster")
    assert 0 < settings.low_watermark_frames < settings.high_watermark_frames
    same = pb.UpdateSwapSettingsRequest(settings=settings)
    same.update_mask.paths.extend(["swappiness", "readahead_pages"])
    assert await stack.swap.UpdateSwapSettings(same) == settings
    for field in ("policy", "low_watermark_frames", "zeroed_frames"):
        request = pb.UpdateSwapSettingsRequest(settings=settings)
        request.update_mask.paths.append(field)
        call = stack.swap.UpdateSwapSettings(request)
        assert field in await expect_refused(call, "UNIMPLEMENTED", "CAPABILITY_MISSING")
