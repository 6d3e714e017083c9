"""Registers, whole states and changes of contexts and run groups, by calls alone."""

from __future__ import annotations

import os
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.hardware.v1 import hardware_pb2, registers_pb2
from lamina.hardware.v1 import registers_pb2 as pb

from lamina_kit.bus.run_page import ExitReason

KERNEL = 0xFFFF_8000_0000_0000
ALL = list(range(1, 10))


async def read(bench: Any, context: Any) -> pb.ReadRegistersResponse:
    """Returns all registers of a context."""
    found = await bench.cpu.ReadRegisters(pb.ReadRegistersRequest(handle=context.handle))
    assert isinstance(found, pb.ReadRegistersResponse)
    return found


async def write(bench: Any, context: Any, registers: pb.Registers, *groups: int) -> None:
    """Writes groups of registers."""
    await bench.cpu.WriteRegisters(
        pb.WriteRegistersRequest(handle=context.handle, registers=registers, groups=groups)  # type: ignore[arg-type]
    )


async def test_registers_written_are_read_back(bench: Any) -> None:
    """What `ReadRegisters` returns of one context can be written to another, which then has the same."""
    guest, other = await bench.guest("kernel_enter_user"), await bench.guest("hlt")
    await guest.run(3)
    found = await read(bench, guest.context)
    assert found.registers.flow.rip == guest.page.rip and found.registers.general[4] == guest.page.rsp
    await write(bench, other.context, found.registers, *ALL)
    assert (await read(bench, other.context)).registers == found.registers


async def test_a_program_runs_by_calls_alone(bench: Any) -> None:
    """A caller without the bus sets RAX, runs CPUID, and reads the exit."""
    guest = await bench.guest("hlt")
    guest.put(KERNEL, bytes.fromhex("0fa2f4"))
    general = [0x4000_0001, *([0] * 15)]
    await write(bench, guest.context, pb.Registers(general=general), pb.REGISTER_GROUP_GENERAL)
    assert (await guest.run()).reason == ExitReason.CPUID
    found = await read(bench, guest.context)
    assert found.registers.general[0] == 0x4000_0001 and found.HasField("exit")
    assert found.registers.flow.rip == KERNEL + 2


@pytest.mark.parametrize(
    ("registers", "group"),
    [
        (pb.Registers(general=[1] * 15), pb.REGISTER_GROUP_GENERAL),
        (pb.Registers(flow=pb.FlowState(rip=1 << 60)), pb.REGISTER_GROUP_FLOW),
        (pb.Registers(flow=pb.FlowState(rflags=1 << 17)), pb.REGISTER_GROUP_FLOW),
        (pb.Registers(flow=pb.FlowState(cpl=1)), pb.REGISTER_GROUP_FLOW),
        (pb.Registers(control=pb.ControlRegisters(cr0=1 << 31, xcr0=1)), pb.REGISTER_GROUP_CONTROL),
        (pb.Registers(msrs=[pb.Msr(number=0xC000_0082, value=1 << 60)]), pb.REGISTER_GROUP_MSRS),
        (pb.Registers(segments=[pb.Segment()] * 7), pb.REGISTER_GROUP_SEGMENTS),
        (pb.Registers(floating=b"short"), pb.REGISTER_GROUP_FLOATING),
        (pb.Registers(debug=pb.DebugRegisters(addresses=[0] * 4, dr7=1 << 32)), pb.REGISTER_GROUP_DEBUG),
        (pb.Registers(event=pb.PendingEvent(vector=256, kind=1)), pb.REGISTER_GROUP_EVENT),  # type: ignore[arg-type]
    ],
)
async def test_malformed_registers_change_nothing(bench: Any, registers: pb.Registers, group: int) -> None:
    """A value that the architecture refuses is `REGISTERS_MALFORMED`, and no register changed."""
    guest = await bench.guest("hlt")
    before = await read(bench, guest.context)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await write(bench, guest.context, registers, group)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert await read(bench, guest.context) == before


async def test_an_unknown_msr_is_named(bench: Any) -> None:
    """A number that the context does not have is an error for reading as for writing."""
    guest = await bench.guest("hlt")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bench.cpu.ReadRegisters(pb.ReadRegistersRequest(handle=guest.context.handle, msrs=[0x999]))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_saved_context_continues_elsewhere(bench: Any) -> None:
    """Save in the middle, restore on another context of the same memory: the same registers at the same end."""
    process = await bench.process("mixed_loop")
    await process.run(1500)
    state = await bench.cpu.SaveContext(pb.SaveContextRequest(handle=process.context.handle))
    assert state == await bench.cpu.SaveContext(pb.SaveContextRequest(handle=process.context.handle))
    memory = bench.bus.read(process.data, 32 * 4096)
    record = await process.run()
    wanted = (record.reason, list(process.page.gpr), process.page.rflags, bench.bus.read(process.data, 32 * 4096))
    bench.bus.write(process.data, memory)
    other = await bench.process("syscall_loop")
    await bench.cpu.RestoreContext(pb.RestoreContextRequest(handle=other.context.handle, state=state))
    record = await other.run()
    found = (record.reason, list(other.page.gpr), other.page.rflags, bench.bus.read(process.data, 32 * 4096))
    assert found == wanted


async def test_damaged_states_are_refused(bench: Any) -> None:
    """A state that is cut, longer, changed where registers are checked, or of another version changes nothing."""
    guest = await bench.guest("hlt")
    request = pb.SaveContextRequest(handle=guest.context.handle)
    state = await bench.cpu.SaveContext(request)
    data = state.data
    damaged = [data[:n] for n in (0, 3, 8, 20, len(data) - 1)] + [data + b"x", b"\xff" * len(data), b"x" * 70_000]
    for wrong in damaged:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bench.cpu.RestoreContext(
                pb.RestoreContextRequest(handle=guest.context.handle, state=pb.ContextState(version=1, data=wrong))
            )
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bench.cpu.RestoreContext(
            pb.RestoreContextRequest(handle=guest.context.handle, state=pb.ContextState(version=2, data=data))
        )
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert await bench.cpu.SaveContext(request) == state


@pytest.mark.inside  # opens the file by the path that the machine's own process has
async def test_run_pages_are_mapped(bench: Any) -> None:
    """Page n of the extent is the run page n of the bus."""
    process = await bench.process("return_7")
    await process.run()
    extent = await bench.cpu.MapRunPages(hardware_pb2.MapRunPagesRequest())
    file = os.open(extent.path, os.O_RDONLY)
    page = os.pread(file, 4096, extent.offset + 4096 * process.context.run_page)
    os.close(file)
    assert page[:0x10] == bytes(process.page.view[:0x10]) and page[0x40] == 7


async def test_contexts_and_groups_change(bench: Any) -> None:
    """A context moves to another group; the group's weight changes; its use counts the instructions; the root stays."""
    group = await bench.cpu.CreateRunGroup(hardware_pb2.CreateRunGroupRequest(run_group_id="moved"))
    process = await bench.process("return_7")
    changed = hardware_pb2.Context(handle=process.context.handle, run_group=group.name, label="there")
    mask = FieldMask(paths=["run_group", "label"])
    found = await bench.cpu.UpdateContext(hardware_pb2.UpdateContextRequest(context=changed, update_mask=mask))
    assert (found.run_group, found.label) == (group.name, "there")
    await process.run()
    usage = await bench.cpu.GetRunGroupUsage(hardware_pb2.GetRunGroupUsageRequest(name=group.name))
    assert (usage.instructions, usage.active_contexts) == (2, 0)
    new = hardware_pb2.RunGroup(name=group.name, weight=300)
    answer = await bench.cpu.UpdateRunGroup(
        hardware_pb2.UpdateRunGroupRequest(run_group=new, update_mask=FieldMask(paths=["weight"]))
    )
    assert answer.weight == 300
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bench.cpu.UpdateRunGroup(hardware_pb2.UpdateRunGroupRequest(run_group=hardware_pb2.RunGroup()))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    back = hardware_pb2.Context(handle=process.context.handle)
    await bench.cpu.UpdateContext(
        hardware_pb2.UpdateContextRequest(context=back, update_mask=FieldMask(paths=["run_group"]))
    )
    assert ALL[-1] == registers_pb2.REGISTER_GROUP_TIME
