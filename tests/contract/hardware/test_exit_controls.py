"""What a context exits for by its own choice: every control, trapped and not trapped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import exit_controls_pb2 as pb
from lamina.hardware.v1 import registers_pb2

from lamina_kit.bus.run_page import CpuidEntry, ExitReason, ExitRecord

KERNEL, DATA = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0001_0000
TEXT = 0x400000
HLT = pb.TRAPPED_INSTRUCTION_HLT
ALL = (1 << 32) - 1


def wanted(*instructions: int, **fields: Any) -> pb.ExitControls:
    """Returns controls that trap HLT and these instructions, and all exceptions unless said otherwise."""
    fields.setdefault("exceptions", ALL)
    return pb.ExitControls(instructions=[HLT, *instructions], **fields)  # type: ignore[list-item]


async def choose(bench: Any, context: Any, controls: pb.ExitControls) -> pb.ExitControls:
    """Gives a context its controls; returns what the core has then."""
    found = await bench.cpu.SetExitControls(pb.SetExitControlsRequest(handle=context.handle, controls=controls))
    assert isinstance(found, pb.ExitControls)
    return found


async def prepare(bench: Any, code: str, controls: pb.ExitControls, **registers: int) -> Any:
    """Returns a guest at ring 0 with machine code at KERNEL, controls and registers."""
    guest = await bench.guest("hlt")
    await choose(bench, guest.context, controls)
    guest.put(KERNEL, bytes.fromhex(code))
    for name, value in registers.items():
        setattr(guest.page, name, value)
    guest.at(KERNEL)
    return guest


async def exit_of(bench: Any, code: str, controls: pb.ExitControls, **registers: int) -> tuple[Any, ExitRecord]:
    """Returns the guest and its first exit."""
    guest = await prepare(bench, code, controls, **registers)
    return guest, await guest.run()


# (machine code, control, reason when trapped, length, what happens when it is not trapped)
SIMPLE: list[tuple[str, int, ExitReason, int, ExitReason | int]] = [
    ("0fa2f4", pb.TRAPPED_INSTRUCTION_CPUID, ExitReason.CPUID, 2, ExitReason.CPUID),
    ("0f013bf4", pb.TRAPPED_INSTRUCTION_INVLPG, ExitReason.INVLPG, 3, ExitReason.HLT),
    ("f390f4", pb.TRAPPED_INSTRUCTION_PAUSE, ExitReason.PAUSE, 2, ExitReason.HLT),
    ("0f31f4", pb.TRAPPED_INSTRUCTION_RDTSC, ExitReason.TIMESTAMP, 2, ExitReason.HLT),
    ("0f01f9f4", pb.TRAPPED_INSTRUCTION_RDTSC, ExitReason.TIMESTAMP, 3, ExitReason.HLT),
    ("0f33f4", pb.TRAPPED_INSTRUCTION_RDPMC, ExitReason.RDPMC, 2, 13),
    ("0f09f4", pb.TRAPPED_INSTRUCTION_WBINVD, ExitReason.WBINVD, 2, ExitReason.HLT),
    ("0f08f4", pb.TRAPPED_INSTRUCTION_WBINVD, ExitReason.WBINVD, 2, ExitReason.HLT),
    ("0f01c8f4", pb.TRAPPED_INSTRUCTION_MWAIT, ExitReason.MWAIT, 3, 6),
    ("0f01c9f4", pb.TRAPPED_INSTRUCTION_MWAIT, ExitReason.MWAIT, 3, 6),
    ("0f01c1f4", pb.TRAPPED_INSTRUCTION_HYPERCALL, ExitReason.HYPERCALL, 3, 6),
    ("480fc7f1f4", pb.TRAPPED_INSTRUCTION_RDRAND, ExitReason.RANDOM, 4, ExitReason.HLT),
    ("0f34f4", pb.TRAPPED_INSTRUCTION_SYSENTER, ExitReason.SYSENTER, 2, 13),
    ("0f05f4", pb.TRAPPED_INSTRUCTION_SYSCALL, ExitReason.SYSCALL, 2, ExitReason.HLT),
]


@pytest.mark.parametrize(("code", "control", "reason", "length", "otherwise"), SIMPLE)
async def test_an_instruction_exits_when_the_context_wants_it(
    bench: Any, code: str, control: int, reason: ExitReason, length: int, otherwise: ExitReason | int
) -> None:
    """A trapped instruction exits behind itself and is counted; left out, it does what the contract says instead."""
    guest, record = await exit_of(bench, code, wanted(control), rbx=DATA)
    assert (record.reason, record.rip - KERNEL, record.instructions_retired) == (reason, length, 1)
    assert (await guest.run()).reason == ExitReason.HLT
    guest, record = await exit_of(bench, code, wanted(), rbx=DATA, lstar=KERNEL + length)
    if isinstance(otherwise, ExitReason):
        assert record.reason == otherwise
        assert record.instructions_retired == (1 if otherwise == ExitReason.CPUID else 2)
    else:
        assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, otherwise, KERNEL)
        assert record.instructions_retired == 0


async def test_cpuid_that_is_not_trapped_is_answered(bench: Any) -> None:
    """Without the control a leaf of the page's table costs no exit, with it it does."""
    leaf = (CpuidEntry(0, 0, 13, 1, 2, 3),)
    guest = await prepare(bench, "31c00fa2f4", wanted())
    guest.page.set_cpuid(leaf)
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.rax == 13
    guest = await prepare(bench, "31c00fa2f4", wanted(pb.TRAPPED_INSTRUCTION_CPUID))
    guest.page.set_cpuid(leaf)
    assert (await guest.run()).reason == ExitReason.CPUID


async def test_random_numbers_are_the_machines(bench: Any) -> None:
    """RDRAND that is not trapped gives numbers that differ, sets the carry, and fills the operand's size."""
    guest, record = await exit_of(
        bench, "480fc7f00fc7f1660fc7f2f4", wanted(), rcx=2**64 - 1, rdx=2**64 - 1, rflags=0x8D6
    )
    assert (record.reason, guest.page.rflags & 0x8D5) == (ExitReason.HLT, 1)
    first, second, third = guest.page.rax, guest.page.rcx, guest.page.rdx
    assert first >> 32 and second >> 32 == 0 and third >> 16 == 2**48 - 1
    assert len({first & 0xFFFF_FFFF, second, third & 0xFFFF}) == 3


async def test_time_that_is_not_trapped_comes_from_the_page(bench: Any) -> None:
    """RDTSC answers the page's counter even when the page does not say that it may."""
    guest, record = await exit_of(bench, "0f31f4", wanted(), tsc=1000, tsc_offset=500)
    assert (record.reason, guest.page.rax) == (ExitReason.HLT, 1500)


async def test_page_faults_exit_by_their_error_code(bench: Any) -> None:
    """Of page faults those exit whose masked error code matches; turned round when the bit of vector 14 is clear."""
    reads, writes = "488b0c2500007000f4", "48890c2500007000f4"
    only_writes = wanted(page_fault_mask=2, page_fault_match=2)
    _, record = await exit_of(bench, writes, only_writes)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 2)
    others = wanted(page_fault_mask=2, page_fault_match=2, exceptions=ALL & ~(1 << 14))
    _, record = await exit_of(bench, reads, others)
    assert (record.reason, record.error_code) == (ExitReason.PAGE_FAULT, 0)
    for code, controls in ((reads, only_writes), (writes, others)):
        guest = await prepare(bench, code, controls)
        guest.gate(14, "handler_hlt", 0x400)
        assert (await guest.run()).rip == KERNEL + 0x401


async def test_ports_exit_by_range(bench: Any) -> None:
    """A port of the ranges exits; others read all ones and take writes without effect. A wide access counts whole."""
    ports = pb.PortControls(ranges=[pb.PortRange(first=0x60, count=4), pb.PortRange(first=0x3F8, count=8)])
    code = "66ba7000ec66ededee66ba5f0066edf4"
    guest, record = await exit_of(bench, code, wanted(ports=ports), rax=0, rdx=0)
    assert (record.reason, record.port, record.io_size, guest.page.rax) == (ExitReason.IO, 0x5F, 2, 0xFFFF_FFFF)
    assert record.instructions_retired == 7
    _, record = await exit_of(bench, "66ba7000ecf4", wanted(ports=pb.PortControls(all=True)), rdx=0)
    assert (record.reason, record.port) == (ExitReason.IO, 0x70)


async def test_string_ports_of_nobody(bench: Any) -> None:
    """REP INSB and OUTSB of a port that does not exit run to their end; the bytes read are all ones."""
    guest, record = await exit_of(
        bench, "fc66bae900f36cb903000000f36ef4", wanted(), rdx=0, rcx=3, rdi=DATA + 8, rsi=DATA + 8
    )
    assert (record.reason, guest.page.rcx, guest.page.rdi) == (ExitReason.HLT, 0, DATA + 11)
    assert guest.get(DATA + 8) == 0xFF_FFFF


async def test_msrs_exit_by_range_or_live_in_the_core(bench: Any) -> None:
    """Listed registers exit for the access listed, shadows are read and written, and anything else is a #GP."""
    msrs = pb.MsrControls(
        reads=[pb.MsrRange(first=0x10, count=2)],
        writes=[pb.MsrRange(first=0xC000_0081, count=1)],
        shadows=[registers_pb2.Msr(number=0x1A0, value=0x1_0000_0850)],
    )
    guest, record = await exit_of(bench, "b9100000000f32f4", wanted(msrs=msrs))
    assert (record.reason, record.io_direction, record.rip - KERNEL) == (ExitReason.MSR, 0, 7)
    _, record = await exit_of(bench, "b9100000000f30f4", wanted(msrs=msrs))
    assert (record.reason, record.vector, record.rip - KERNEL) == (ExitReason.EXCEPTION, 13, 5)
    guest, record = await exit_of(bench, "b9810000c00f320f30f4", wanted(msrs=msrs), star=0x77, rax=1, rdx=0)
    assert (record.reason, record.io_direction, record.io_data, guest.page.star) == (ExitReason.MSR, 1, 0x77, 0x77)
    guest, record = await exit_of(bench, "b9a00100000f3289c389d60c010f30f4", wanted(msrs=msrs))
    assert (record.reason, guest.page.rbx, guest.page.rsi) == (ExitReason.HLT, 0x850, 1)
    found = await bench.cpu.GetExitControls(pb.GetExitControlsRequest(handle=guest.context.handle))
    assert [(entry.number, entry.value) for entry in found.msrs.shadows] == [(0x1A0, 0x1_0000_0851)]
    _, record = await exit_of(bench, "b9810000c00f32f4", wanted(msrs=pb.MsrControls(all=True)))
    assert record.reason == ExitReason.MSR


async def test_the_next_context_has_its_own_msrs(bench: Any) -> None:
    """A register that exits of one context does not of another that runs on the same core afterwards."""
    listed = pb.MsrControls(reads=[pb.MsrRange(first=0xC000_0081, count=1)])
    code = "b9810000c00f32f4"
    for _ in range(2):
        _, record = await exit_of(bench, code, wanted(msrs=listed))
        assert record.reason == ExitReason.MSR
        _, record = await exit_of(bench, code, wanted())
        assert record.reason == ExitReason.HLT


async def test_invpcid_exits_as_invlpg(bench: Any) -> None:
    """INVPCID reads its descriptor and exits with the address in it; not trapped it goes on."""
    code = "660f388203f4"
    for controls, reason in ((wanted(pb.TRAPPED_INSTRUCTION_INVLPG), ExitReason.INVLPG), (wanted(), ExitReason.HLT)):
        guest = await prepare(bench, code, controls, rbx=DATA + 32, rax=0)
        guest.put(DATA + 32, (7).to_bytes(8, "little") + (0x1234_5000).to_bytes(8, "little"))
        record = await guest.run()
        assert record.reason == reason
        if reason == ExitReason.INVLPG:
            assert (record.address, record.rip - KERNEL) == (0x1234_5000, 5)


async def test_pause_loops_are_found(bench: Any) -> None:
    """PAUSE exits once it looped for longer than the window; a PAUSE now and then does not."""
    loop = "f390ebfc"
    controls = wanted(pb.TRAPPED_INSTRUCTION_PAUSE, pause_gap_ns=10, pause_window_ns=100)
    _, record = await exit_of(bench, loop, controls)
    assert record.reason == ExitReason.PAUSE
    assert 100 < record.instructions_retired < 120
    rare = "b90a000000f390ba64000000ffca75fcffc975f1f4"
    _, record = await exit_of(bench, rare, controls)
    assert record.reason == ExitReason.HLT


async def test_sysenter_goes_to_the_kernel(bench: Any) -> None:
    """SYSENTER that is not trapped goes to IA32_SYSENTER_EIP at ring 0 with its stack and IF clear."""
    guest = await bench.guest("kernel_enter_user")
    await choose(bench, guest.context, wanted())
    names = registers_pb2.REGISTER_GROUP_MSRS
    values = ((0x174, 8), (0x175, DATA + 0x800), (0x176, KERNEL + 0x600))
    await bench.cpu.WriteRegisters(
        registers_pb2.WriteRegistersRequest(
            handle=guest.context.handle,
            registers=registers_pb2.Registers(msrs=[registers_pb2.Msr(number=n, value=v) for n, v in values]),
            groups=[names],
        )
    )
    guest.put(KERNEL + 0x600, bytes.fromhex("f4"))
    bench.bus.write(guest.host_of(guest.text), bytes.fromhex("0f34"))
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.cpl) == (ExitReason.HLT, KERNEL + 0x601, 0)
    assert (guest.page.rsp, guest.page.rflags & 0x200) == (DATA + 0x800, 0)
    assert guest.page.segment("ss").selector == 0x10


async def test_the_interrupt_window_opens(bench: Any) -> None:
    """The run ends as soon as IF is set and no shadow is left, at each run again while the control is set."""
    guest = await bench.guest("kernel_sti")
    await choose(bench, guest.context, wanted(interrupt_window=True))
    record = await guest.run()
    assert (record.reason, record.instructions_retired) == (ExitReason.INTERRUPT_WINDOW, 2 + 200 + 2)
    assert guest.page.rflags & 0x200
    assert (await guest.run()).reason == ExitReason.INTERRUPT_WINDOW
    await choose(bench, guest.context, wanted())
    assert (await guest.run()).reason == ExitReason.HLT


async def test_controls_replace_one_another(bench: Any) -> None:
    """What was set is what is told; a second call leaves nothing of the first; a fresh context has what was implied."""
    guest = await bench.guest("hlt")
    request = pb.GetExitControlsRequest(handle=guest.context.handle)
    implied = await bench.cpu.GetExitControls(request)
    assert implied.exceptions == 0 and implied.ports.all
    assert pb.TRAPPED_INSTRUCTION_CPUID in implied.instructions
    assert pb.TRAPPED_INSTRUCTION_SYSCALL not in implied.instructions
    first = wanted(pb.TRAPPED_INSTRUCTION_PAUSE, debug_registers=True, preemption_timer_ns=5000)
    assert await choose(bench, guest.context, first) == first
    assert await choose(bench, guest.context, wanted()) == wanted()
    assert await bench.cpu.GetExitControls(request) == wanted()
    assert await choose(bench, guest.context, implied) == implied


WRONG: list[pb.ExitControls] = [
    wanted(exceptions=1 << 32),
    pb.ExitControls(instructions=[HLT, HLT]),
    pb.ExitControls(instructions=[HLT, 99]),  # type: ignore[list-item]
    wanted(ports=pb.PortControls(all=True, ranges=[pb.PortRange(first=1, count=1)])),
    wanted(ports=pb.PortControls(ranges=[pb.PortRange(first=1, count=2), pb.PortRange(first=2, count=1)])),
    wanted(ports=pb.PortControls(ranges=[pb.PortRange(first=0xFFFF, count=2)])),
    wanted(ports=pb.PortControls(ranges=[pb.PortRange(first=n, count=1) for n in range(257)])),
    wanted(msrs=pb.MsrControls(reads=[pb.MsrRange(first=1, count=0)])),
    wanted(msrs=pb.MsrControls(writes=[pb.MsrRange(first=2**32 - 1, count=2)])),
    wanted(msrs=pb.MsrControls(shadows=[registers_pb2.Msr(number=1), registers_pb2.Msr(number=1)])),
    wanted(control_registers=pb.ControlRegisterControls(cr3_targets=[1, 2, 3, 4, 5])),
    wanted(preemption_timer_ns=999),
    wanted(pause_gap_ns=-1),
    wanted(device_ranges=[pb.DeviceRange(gpa=0x1000, size_bytes=100)]),
    wanted(device_ranges=[pb.DeviceRange(gpa=0x1000, size_bytes=0x2000), pb.DeviceRange(gpa=0x2000, size_bytes=4096)]),
    wanted(posted_writes=[pb.PostedWrite(slot=16, port=1)]),
    wanted(posted_writes=[pb.PostedWrite(slot=1, port=1), pb.PostedWrite(slot=1, port=2)]),
    wanted(posted_writes=[pb.PostedWrite(slot=1)]),
    wanted(posted_writes=[pb.PostedWrite(slot=1, gpa=0x5000)]),
    wanted(posted_writes=[pb.PostedWrite(slot=1, port=1, size_bytes=3)]),
]


@pytest.mark.parametrize("controls", WRONG, ids=range(len(WRONG)))
async def test_wrong_controls_are_refused(bench: Any, controls: pb.ExitControls) -> None:
    """Ranges that overlap, lists that are too long and numbers that are out of range change nothing."""
    guest = await bench.guest("hlt")
    request = pb.GetExitControlsRequest(handle=guest.context.handle)
    before = await bench.cpu.GetExitControls(request)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await choose(bench, guest.context, controls)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert await bench.cpu.GetExitControls(request) == before


@pytest.mark.inside  # asks the layer itself what its cores can
async def test_controls_that_the_cores_lack_are_refused(bench: Any) -> None:
    """A control without its capability is refused by name, never ignored."""
    guest = await bench.guest("hlt")
    capabilities: Iterable[str] = bench.environment.layer.capabilities
    for controls, capability in (
        (pb.ExitControls(exceptions=ALL), "halt-waits"),
        (wanted(external_interrupts=True), "apic"),
        (wanted(nmis=True), "nmi"),
        (wanted(nmi_window=True), "nmi"),
    ):
        if capability in capabilities:
            assert (await choose(bench, guest.context, controls)) == controls
            continue
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await choose(bench, guest.context, controls)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert capability in str(refused.value.details())


async def test_a_process_has_controls_too(bench: Any) -> None:
    """A ring-3 context of one stage chooses its exits: RDTSC is answered where it exited before."""
    process = await bench.process("rdtsc")
    await choose(bench, process.context, wanted(pb.TRAPPED_INSTRUCTION_SYSCALL))
    assert (await process.run()).reason == ExitReason.SYSCALL
