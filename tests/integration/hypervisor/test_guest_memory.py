"""Guest memory under pressure: grants, revocations, swap, and what is given back."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import hardware_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.mmu.v1 import mmu_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20


def sum_of(answer: str) -> tuple[str, str]:
    """Returns (sum, wrong words) that the guest's `sum` prints."""
    found = re.search(r"sum: (0x[0-9a-f]+), wrong words: (\d+)", answer)
    assert found is not None, answer
    return found[1], found[2]


async def test_a_small_memory_group_swaps_and_the_checksum_stays(lab: Any) -> None:
    """With a limit far below what the guest touches its pages go to swap and come back, and every word is right."""
    name, _ = await lab.boot()
    free = sum_of(await lab.command(name, "sum 8"))
    await lab.stop_vm(name)
    group = await lab.mmu("Groups").CreateGroup(
        mmu_pb2.CreateGroupRequest(group_id="tight", group=mmu_pb2.Group(max_bytes=3 * MIB))
    )
    name, _ = await lab.boot(memory_group=group.name)
    assert sum_of(await lab.command(name, "sum 8")) == free
    assert free[1] == "0"
    used = await lab.mmu("Groups").GetGroup(mmu_pb2.GetGroupRequest(name=group.name))
    assert used.max_events > 0 and used.reclaimed_pages > 1000
    assert used.usage_bytes <= 3 * MIB
    vm = await lab.get(name)
    assert (vm.mapped_pages + vm.table_frames) * 4096 <= 3 * MIB
    assert (await lab.mmu("Frames").GetMemory(mmu_pb2.GetMemoryRequest())).swapped_in_pages > 0
    await lab.stop_vm(name)


async def test_reclaiming_the_whole_guest_takes_its_pages_and_it_goes_on(lab: Any) -> None:
    """A revoked page is an EPT violation at the guest's next access, and nothing else."""
    name, _ = await lab.boot()
    before = (await lab.get(name)).mapped_pages
    space = await lab.mmu("Spaces").GetSpace(mmu_pb2.GetSpaceRequest(name=(await lab.get(name)).space))
    done = await lab.mmu("Spaces").Reclaim(mmu_pb2.ReclaimRequest(handle=space.handle, pages=before))
    assert done.reclaimed_pages > 0
    assert (await lab.get(name)).mapped_pages < before // 2  # a few come back at once: the guest was on its way to HLT
    found = await lab.vms.TranslateAddress(pb.TranslateAddressRequest(name=name, address=0x1000))
    assert found.outcome == pb.TranslateAddressResponse.OUTCOME_EPT_VIOLATION
    assert "still here" in await lab.command(name, "echo still here")
    await lab.stop_vm(name)


async def test_shrinking_the_group_of_a_running_guest_revokes_pages(lab: Any) -> None:
    """A lower limit is met before the call returns, while the guest computes; its sum stays right."""
    group = await lab.mmu("Groups").CreateGroup(
        mmu_pb2.CreateGroupRequest(group_id="shrinking", group=mmu_pb2.Group(max_bytes=16 * MIB))
    )
    name, _ = await lab.boot(memory_group=group.name)
    await lab.command(name, "sum 6")
    assert (await lab.get(name)).mapped_pages * 4096 > 6 * MIB
    request = mmu_pb2.UpdateGroupRequest(name=group.name, max_bytes=2 * MIB)
    shrunk = await lab.mmu("Groups").UpdateGroup(request)
    assert shrunk.usage_bytes <= 2 * MIB
    assert (await lab.get(name)).mapped_pages * 4096 <= 2 * MIB
    assert sum_of(await lab.command(name, "sum 4"))[1] == "0"
    await lab.stop_vm(name)


async def test_everything_is_given_back(lab: Any) -> None:
    """After a VM's life the host has the frames, contexts, run groups and spaces that it had before."""

    async def inventory() -> tuple[Any, ...]:
        memory = await lab.mmu("Frames").GetMemory(mmu_pb2.GetMemoryRequest())
        spaces = await lab.mmu("Spaces").ListSpaces(mmu_pb2.ListSpacesRequest())
        contexts = await lab.cpu.ListContexts(hardware_pb2.ListContextsRequest())
        groups = await lab.cpu.ListRunGroups(hardware_pb2.ListRunGroupsRequest())
        return (
            memory.free_frames,
            memory.free_swap_slots,
            len(spaces.spaces),
            len(contexts.contexts),
            len(groups.run_groups),
        )

    before = await inventory()
    name, _ = await lab.boot(vcpu_count=3)
    assert await inventory() != before
    await lab.command(name, "sum 4")
    await lab.stop_vm(name)
    assert await inventory() == before


async def test_a_vm_that_does_not_fit_leaves_nothing(lab: Any) -> None:
    """A group too small for even the boot tables refuses the start; the VM is stopped and can be deleted."""
    group = await lab.mmu("Groups").CreateGroup(
        mmu_pb2.CreateGroupRequest(group_id="tiny", group=mmu_pb2.Group(max_bytes=4096, swap_max_bytes=0))
    )
    before = await lab.mmu("Frames").GetMemory(mmu_pb2.GetMemoryRequest())
    name = await lab.create(memory_group=group.name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await lab.start_vm(name)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    vm = await lab.get(name)
    assert (vm.state, vm.stop_reason) == (pb.VirtualMachine.STATE_STOPPED, "START_FAILED")
    after = await lab.mmu("Frames").GetMemory(mmu_pb2.GetMemoryRequest())
    assert after.free_frames == before.free_frames
    await lab.vms.DeleteVirtualMachine(pb.DeleteVirtualMachineRequest(name=name))


async def test_a_guest_whose_group_has_no_room_left_is_out_of_memory(lab: Any) -> None:
    """Without swap the guest dies of its group's limit, with that reason, and the host lives on."""
    group = await lab.mmu("Groups").CreateGroup(
        mmu_pb2.CreateGroupRequest(group_id="no-swap", group=mmu_pb2.Group(max_bytes=2 * MIB, swap_max_bytes=0))
    )
    name, _ = await lab.boot(memory_group=group.name)
    await lab.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=b"sum 8\n"))
    vm = await lab.ended(name)
    assert (vm.state, vm.stop_reason) == (pb.VirtualMachine.STATE_CRASHED, "OUT_OF_MEMORY")
    other, _ = await lab.boot()
    await lab.stop_vm(other)
