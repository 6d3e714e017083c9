"""What breaks under swap, physically: no slot is free, the disk fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack

from lamina_kit.rpc import status

AT = 0x40_0000


@pytest.fixture
async def inject(stack: Stack) -> AsyncIterator[Any]:
    """Returns a function that breaks the swap area and returns one that mends it; all is mended after the test."""
    stub = faults_pb2_grpc.FaultsStub(stack.channel)
    made: list[str] = []

    async def call(kind: str, **parameters: str) -> Any:
        given = [layer_pb2.Attribute(key=key, value=value) for key, value in parameters.items()]
        wanted = faults_pb2.Fault(kind=kind, object="hosts/h1/swap", parameters=given)
        fault = await stub.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))
        made.append(fault.name)

        async def mend() -> None:
            await stub.ClearFault(faults_pb2.ClearFaultRequest(name=fault.name))

        return mend

    yield call
    for name in made:
        await stub.ClearFault(faults_pb2.ClearFaultRequest(name=name))


def page(number: int) -> bytes:
    """Returns the bytes of a page."""
    return bytes([number + 1]) * PAGE


async def reason_of(call: Any) -> str:
    """Returns the reason that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.rpc_error(caught.value).reason


async def small_space(stack: Stack, name: str, pages: int, limit: int) -> pb.Space:
    """Makes a space of `pages` pages in a group with a limit of `limit` pages."""
    group = pb.Group(max_bytes=limit * PAGE)
    made = await stack.groups.CreateGroup(pb.CreateGroupRequest(group_id=name, group=group))
    space = await stack.space(made.name)
    await stack.map(space, AT, pages)
    return space


async def test_a_full_swap_area_is_out_of_memory(stack: Stack, inject: Any) -> None:
    """Dirty pages stay in RAM and a fault of the group has no frame to take; once there is room, nothing is lost."""
    space = await small_space(stack, "full", 32, 16)
    filled = 0
    mend = await inject("swap-full")
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_swap_slots == 0
    while (await stack.fault(space, AT + filled * PAGE, WRITE)).outcome != Outcome.OUTCOME_OUT_OF_MEMORY:
        await stack.write(space, AT + filled * PAGE, page(filled))
        filled += 1
        assert filled < 32
    assert 0 < filled <= 16
    await mend()
    for number in range(filled, 32):
        await stack.write(space, AT + number * PAGE, page(number))
    for number in range(32):
        assert await stack.read(space, AT + number * PAGE, PAGE) == page(number)


async def test_a_page_on_a_failing_disk_is_there_when_it_works_again(stack: Stack, inject: Any) -> None:
    """Its fault answers SWAP_IO_FAILED and changes nothing; after the fault is cleared the bytes come back."""
    space = await stack.space()
    await stack.map(space, AT, 4)
    for number in range(4):
        await stack.write(space, AT + number * PAGE, page(number))
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=4))
    mend = await inject("swap-io-error")
    assert await reason_of(stack.fault(space, AT, READ)) == "SWAP_IO_FAILED"
    assert await reason_of(stack.read(space, AT + PAGE, 8)) == "SWAP_IO_FAILED"
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    assert await reason_of(stack.fault(space, AT, READ)) == "SWAP_IO_FAILED"
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames == free
    await mend()
    for number in range(4):
        assert await stack.read(space, AT + number * PAGE, PAGE) == page(number)


async def test_a_page_that_cannot_be_written_out_stays(stack: Stack, inject: Any) -> None:
    """Reclaim fails or takes nothing, and every page is still in RAM with its bytes."""
    space = await stack.space()
    await stack.map(space, AT, 4)
    for number in range(4):
        await stack.write(space, AT + number * PAGE, page(number))
    mend = await inject("swap-io-error", operation="write")
    assert await reason_of(stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=4))) == "SWAP_IO_FAILED"
    for number in range(4):
        assert await stack.read(space, AT + number * PAGE, PAGE) == page(number)
    await mend()
    done = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=4))
    assert done.written_pages == 4
    for number in range(4):
        assert await stack.read(space, AT + number * PAGE, PAGE) == page(number)


async def test_another_host_s_swap_is_unknown(stack: Stack) -> None:
    """A fault on the swap area of another host is refused."""
    wanted = faults_pb2.Fault(kind="swap-full", object="hosts/elsewhere/swap")
    call = faults_pb2_grpc.FaultsStub(stack.channel).InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))
    assert await reason_of(call) == "HOST_UNKNOWN"
