"""Chapter 8: memory is made short; pages go to the swap area and come back with their bytes."""

from __future__ import annotations

import hashlib
from typing import Any

from lamina_cli.client.client import Client
from lamina_cli.demo.story import Story
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

PAGE = 4096
PAGES = 64
LIMIT_PAGES = 16
BASE = 0x10000000


def content(number: int) -> bytes:
    """Returns the bytes of a page: no two pages have the same."""
    return b"".join(hashlib.sha256(f"page {number} part {part}".encode()).digest() for part in range(PAGE // 32))


async def swap(story: Story, client: Client) -> None:
    """Writes more than fits, and reads all of it back."""
    from lamina.mmu.v1 import mmu_pb2 as pb
    from lamina.mmu.v1 import mmu_pb2_grpc as services

    story.chapter("Memory is short: pages go to the swap area and come back")
    spaces = client.stub("mmu", services.SpacesStub)
    groups = client.stub("mmu", services.GroupsStub)
    group = await groups.CreateGroup(
        pb.CreateGroupRequest(group_id="demo-short", group=pb.Group(max_bytes=LIMIT_PAGES * PAGE))
    )
    space = await spaces.CreateSpace(
        pb.CreateSpaceRequest(space=pb.Space(kind=pb.Space.KIND_PROCESS, group=group.name, label="demo swap"))
    )
    await spaces.MapRange(
        pb.MapRangeRequest(
            handle=space.handle,
            address=BASE,
            size_bytes=PAGES * PAGE,
            protection=pb.Protection(read=True, write=True),
            fixed=True,
        )
    )
    for number in range(PAGES):
        await spaces.WriteSpace(
            pb.WriteSpaceRequest(handle=space.handle, address=BASE + number * PAGE, data=content(number))
        )
    await story_of_first_page(story, spaces, space.handle)
    await verdict(story, client, space, group)
    await spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    await groups.DeleteGroup(pb.DeleteGroupRequest(name=group.name))


async def story_of_first_page(story: Story, spaces: Any, handle: Any) -> None:
    """Follows the first page out of RAM and back in."""
    from lamina.common.v1 import access_pb2
    from lamina.mmu.v1 import mmu_pb2 as pb

    where = await spaces.Translate(pb.TranslateRequest(handle=handle, address=BASE))
    story.check(
        f"after writing {PAGES} pages under a limit of {LIMIT_PAGES}, the first one is in swap slot {where.swap_slot}",
        where.residency == pb.TranslateResponse.RESIDENCY_SWAP,
        word(pb.TranslateResponse.Residency, where.residency),
    )
    fault = await spaces.Fault(pb.FaultRequest(handle=handle, address=BASE, access=access_pb2.ACCESS_READ))
    start = fault.steps[0].time_ns if fault.steps else 0
    story.table(
        ("STEP", "AFTER", "DETAIL"),
        ((step.step, printing.duration(step.time_ns - start), step.detail) for step in fault.steps),
    )
    story.check(
        "touching it is a major fault: it is read back from the swap area",
        fault.outcome == pb.FaultResponse.OUTCOME_SWAPPED_IN,
        word(pb.FaultResponse.Outcome, fault.outcome),
    )


async def verdict(story: Story, client: Client, space: Any, group: Any) -> None:
    """Reads every page back and compares."""
    from lamina.mmu.v1 import mmu_pb2 as pb
    from lamina.mmu.v1 import mmu_pb2_grpc as services

    spaces = client.stub("mmu", services.SpacesStub)
    intact = 0
    for number in range(PAGES):
        read = await spaces.ReadSpace(
            pb.ReadSpaceRequest(handle=space.handle, address=BASE + number * PAGE, size_bytes=PAGE)
        )
        intact += read.data == content(number)
    story.equal(f"all {PAGES} pages come back with every byte intact", intact, PAGES)
    usage = await client.stub("mmu", services.GroupsStub).GetGroup(pb.GetGroupRequest(name=group.name))
    story.check(
        f"the group {last(group.name)} never held more than its limit of {printing.size(LIMIT_PAGES * PAGE)}",
        0 < usage.peak_bytes <= LIMIT_PAGES * PAGE,
        printing.size(usage.peak_bytes),
    )
    memory = await client.stub("mmu", services.FramesStub).GetMemory(pb.GetMemoryRequest())
    story.show(
        f"the host since its start: {memory.swapped_out_pages} pages written to swap, {memory.swapped_in_pages} read "
        f"back, {memory.dropped_pages} dropped clean; policy {memory.policy}"
    )
