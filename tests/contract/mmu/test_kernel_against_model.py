"""The same random calls on the model and on the kernel: same answers, same mappings, same bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.kernel import kernel
from tests.contract.mmu.stack import PAGE, READ, WRITE, Stack

from lamina_kit.rng import Rng
from lamina_kit.rpc.status import rpc_error

__all__ = ["kernel"]
pytestmark = pytest.mark.real_time("processes of the kernel")
BASE, PAGES = 0x40_0000, 24
RIGHTS = (
    pb.Protection(read=True, write=True),
    pb.Protection(read=True),
    pb.Protection(read=True, execute=True),
    pb.Protection(),
)


@pytest.fixture
async def model(tmp_path: Path) -> AsyncIterator[Stack]:
    """Returns an MMU on the model."""
    (tmp_path / "model").mkdir()
    async with Stack(tmp_path / "model", engine="model") as made:
        yield made


async def outcome(call: Any) -> Any:
    """Returns what a call answers, or the code and reason of its refusal."""
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        error = rpc_error(failure)
        return error.code, error.reason


async def act(stack: Stack, space: pb.Space, draw: Rng) -> Any:
    """Makes one call that the draw chooses; returns its answer where both engines promise the same."""
    start, count = draw.randint(0, PAGES - 1), draw.randint(1, 6)
    address, rights = BASE + start * PAGE, RIGHTS[draw.randint(0, 3)]
    kind, offset = draw.randint(0, 6), draw.randint(0, PAGE - 1)
    size = draw.randint(1, 2 * PAGE)
    if kind == 0:
        return await outcome(stack.map(space, address, count, rights, replace=bool(offset % 2)))
    if kind == 1:
        request = pb.UnmapRangeRequest(handle=space.handle, address=address, size_bytes=count * PAGE)
        await stack.spaces.UnmapRange(request)
        return None
    if kind == 2:
        change = pb.ProtectRangeRequest(
            handle=space.handle, address=address, size_bytes=count * PAGE, protection=rights
        )
        return await outcome(stack.spaces.ProtectRange(change))
    if kind == 3:
        return await outcome(stack.write(space, address + offset, bytes([offset % 251]) * size, force=size % 5 == 0))
    if kind == 4:
        return await outcome(stack.read(space, address + offset, size))
    if kind == 5:
        given = ranges.ADVICE_DONT_NEED
        advise = ranges.AdviseRangeRequest(handle=space.handle, address=address, size_bytes=count * PAGE, advice=given)
        found = await outcome(stack.spaces.AdviseRange(advise))
        return found if isinstance(found, tuple) else None
    answer = await stack.fault(space, address + offset, WRITE if size % 2 else READ)
    return answer.outcome == pb.FaultResponse.OUTCOME_SEGMENTATION_FAULT


async def picture(stack: Stack, space: pb.Space) -> list[Any]:
    """Returns the mappings of a space with their bytes, as far as they may be read."""
    found = (await stack.spaces.ListMappings(pb.ListMappingsRequest(handle=space.handle))).mappings
    shown: list[Any] = []
    for one in found:
        data = await stack.read(space, one.start, one.end - one.start) if one.protection.read else b""
        shown.append((one.start, one.end, one.protection.SerializeToString(), data))
    return shown


@pytest.mark.parametrize("seed", range(2))
async def test_random_calls_end_alike(kernel: Stack, model: Stack, seed: int) -> None:
    """150 calls on up to three spaces, forks of each other, leave both engines with the same spaces."""
    draw = Rng(seed)
    spaces = [(await kernel.space(), await model.space())]
    for number in range(150):
        real, modelled = spaces[draw.randint(0, len(spaces) - 1)]
        name = f"call {number} of seed {seed}"
        if number in (50, 100):
            spaces.append((await kernel.fork(real), await model.fork(modelled)))
            continue
        told = draw.child(str(number))
        again = draw.child(str(number))
        assert await act(kernel, real, told) == await act(model, modelled, again), name
        assert await picture(kernel, real) == await picture(model, modelled), name
    for real, modelled in spaces:
        assert await picture(kernel, real) == await picture(model, modelled)
