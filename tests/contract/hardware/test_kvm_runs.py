"""Contexts on cores of the host (/dev/kvm): the same runs, records and refusals as on the modelled ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import dirty_log_pb2, exit_controls_pb2, registers_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.conftest import EPT_A, EPT_ALL, EPT_D, KERNEL_DATA, RW, P
from tests.contract.hardware.kvm_bench import KERNEL_AT, NOTHING, bench, guest_of, variant

from lamina_hardware.domain.contexts.exit_controls import KEPT_MSRS
from lamina_kit.bus.run_page import ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, DIRTY_GPRS, DIRTY_RIP, ExitReason
from lamina_kit.paging import EPT_PS, PAGE_SIZE
from lamina_kit.rpc import status

pytestmark = pytest.mark.real_time("the cores are processors of the host")
__all__ = ["bench", "variant"]

TRAP_HLT = exit_controls_pb2.TRAPPED_INSTRUCTION_HLT
SPIN = b"\xeb\xfe"
ABSENT = 0x50_0000
RAM = dirty_log_pb2.StartDirtyLogRequest.PhysicalRange(address=0, size_bytes=64 << 20)


async def controls(bench: Any, guest: Any, **fields: Any) -> None:
    """Gives a guest exit controls; HLT exits, and nothing else that is not named."""
    fields.setdefault("instructions", [TRAP_HLT])
    wanted = exit_controls_pb2.ExitControls(**fields)
    request = exit_controls_pb2.SetExitControlsRequest(handle=guest.context.handle, controls=wanted)
    await bench.cpu.SetExitControls(request)


async def reason(call: Any) -> tuple[str, str]:
    """Returns code and reason with which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    error = status.rpc_error(refused.value)
    return error.code, error.reason


async def test_out_in_and_hlt(bench: Any) -> None:
    """OUT and IN exit behind the instruction, the holder's RAX is what IN leaves, and HLT exits behind itself."""
    guest = await guest_of(bench, bytes.fromhex("b84142434466baf803 ee 66e780 ec f4".replace(" ", "")))
    record = await guest.run()
    assert (record.reason, record.port, record.io_size, record.io_direction, record.io_data) == (4, 0x3F8, 1, 1, 0x41)
    assert record.rip == KERNEL_AT + 10
    record = await guest.run()
    assert (record.port, record.io_size, record.io_data, record.rip) == (0x80, 2, 0x4241, KERNEL_AT + 13)
    record = await guest.run()
    assert (record.port, record.io_direction, record.rip) == (0x3F8, 0, KERNEL_AT + 14)
    assert guest.page.rax == 0x4443_4241, "IN fills nothing by itself"
    guest.page.rax = 0x99
    guest.page.dirty |= DIRTY_GPRS
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax) == (ExitReason.HLT, KERNEL_AT + 15, 0x99)


async def test_rounds_with_ports(bench: Any) -> None:
    """The same context again and again: each round takes the holder's registers, answers and RIP, and tells its own."""
    guest = await guest_of(bench, bytes.fromhex("48ffc3 88d8 e680 e481 88c2 ebf3".replace(" ", "")))
    guest.page.rbx = 0
    guest.page.dirty |= DIRTY_GPRS
    for n in range(1, 9):
        record = await guest.run()
        assert (record.reason, record.port, record.io_direction, record.io_data) == (ExitReason.IO, 0x80, 1, n)
        assert (record.rip, guest.page.rip, guest.page.rbx) == (KERNEL_AT + 7, KERNEL_AT + 7, n)
        assert n == 1 or guest.page.rdx & 0xFF == 0x40 + n - 1, "the answer of the round before"
        record = await guest.run()
        assert (record.port, record.io_direction, record.io_size, record.io_count) == (0x81, 0, 1, 1)
        assert (record.rip, guest.page.rax & 0xFF) == (KERNEL_AT + 9, n)
        guest.page.rax = 0x40 + n
        guest.page.dirty |= DIRTY_GPRS
    guest.page.rbx, guest.page.rip = 0x70, KERNEL_AT
    guest.page.dirty |= DIRTY_GPRS | DIRTY_RIP
    assert (await guest.run()).io_data == 0x71
    guest.page.rip = KERNEL_AT + 3
    guest.page.dirty |= DIRTY_RIP
    assert (await guest.run()).io_data == 0x71


async def test_string_ports(bench: Any) -> None:
    """INS exits once for each item and takes the holder's answer; OUTS exits once for each item."""
    code = "48bf" + KERNEL_DATA.to_bytes(8, "little").hex() + "b903000000 66baf001 f3 66 6d".replace(" ", "")
    code += "48be" + KERNEL_DATA.to_bytes(8, "little").hex() + "b902000000 f3 66 6f f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))
    for item in (0x1111, 0x2222, 0x3333):
        record = await guest.run()
        assert (record.reason, record.port, record.io_size, record.io_direction) == (ExitReason.IO, 0x1F0, 2, 0)
        guest.page.store_exit(replace(record, io_data=item))
    sent = []
    for _ in range(2):
        record = await guest.run()
        assert (record.reason, record.io_direction, record.io_size) == (ExitReason.IO, 1, 2)
        sent.append(record.io_data)
    assert guest.get(KERNEL_DATA) == 0x3333_2222_1111
    assert sent == [0x1111, 0x2222]
    assert (await guest.run()).reason == ExitReason.HLT


async def test_ports_of_nobody(bench: Any) -> None:
    """A port that no control names reads all ones and takes writes without an exit; a doorbell is counted."""
    guest = await guest_of(bench, bytes.fromhex("66ba0001ec ee 66ba0003 b007 ee ee f4".replace(" ", "")))
    bell = exit_controls_pb2.PostedWrite(slot=3, port=0x300, size_bytes=1, value=7)
    await controls(bench, guest, posted_writes=[bell])
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.posted(3) == (2, 7)


@pytest.mark.parametrize("write", [False, True])
async def test_absent_memory(bench: Any, write: bool) -> None:
    """An access that the EPT has nothing for exits with its address; with the entry there, it is made, once."""
    code = "48b9" + ABSENT.to_bytes(8, "little").hex() + ("48ff01" if write else "488b01") + "f4"
    guest = await guest_of(bench, bytes.fromhex(code))
    guest.tables.map(ABSENT, 0x3000_0000, P | RW)
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, 0x3000_0000, ACCESS_READ)
    assert record.rip == KERNEL_AT + 10
    again = await guest.run()
    assert again == record, "nothing changed: the same exit"
    host = bench.frames()
    bench.bus.store64(host, 0x41)
    guest.ept.map(0x3000_0000, host, EPT_ALL, make=EPT_ALL)
    assert (await guest.run()).reason == ExitReason.HLT
    assert (bench.bus.load64(host), guest.page.rax) == ((0x42, 0) if write else (0x41, 0x41))


async def test_read_only_memory(bench: Any) -> None:
    """A store to a page that the EPT lets be read exits; made writable, the store is made once, and D is set."""
    code = "48b9" + ABSENT.to_bytes(8, "little").hex() + "488b11 ff01 f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))
    guest.tables.map(ABSENT, 0x3000_0000, P | RW)
    host = bench.frames()
    bench.bus.store64(host, 7)
    guest.ept.map(0x3000_0000, host, 1, make=EPT_ALL)
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, 0x3000_0000, ACCESS_WRITE)
    assert record.qualification & 0x3F == 2 | 1 << 3, "a write; the entry allows reads"
    assert (guest.page.rdx, bench.bus.load64(host)) == (7, 7)
    assert guest.ept_entry(0x3000_0000) & (EPT_A | EPT_D) == EPT_A
    guest.ept.map(0x3000_0000, host, EPT_ALL, make=EPT_ALL)
    assert (await guest.run()).reason == ExitReason.HLT
    assert bench.bus.load64(host) == 8
    assert guest.ept_entry(0x3000_0000) & (EPT_A | EPT_D) == EPT_A | EPT_D


async def test_absent_code(bench: Any) -> None:
    """A jump to where the EPT has nothing exits as a fetch, with both addresses, on the instruction."""
    guest = await guest_of(bench, bytes.fromhex("48b9" + ABSENT.to_bytes(8, "little").hex() + "ffe1"))
    guest.tables.map(ABSENT, 0x3000_0000, P | RW)
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.EPT_VIOLATION, 0x3000_0000, ACCESS_EXECUTE)
    assert (record.address, record.rip) == (ABSENT, ABSENT)
    host = bench.frames()
    bench.bus.write(host, b"\xf4")
    guest.ept.map(0x3000_0000, host, EPT_ALL, make=EPT_ALL)
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, ABSENT + 1)


async def test_misconfiguration(bench: Any) -> None:
    """An entry that may be written and not read exits as a misconfiguration."""
    guest = await guest_of(bench, bytes.fromhex("48b9" + ABSENT.to_bytes(8, "little").hex() + "488b01f4"))
    guest.tables.map(ABSENT, 0x3000_0000, P | RW)
    guest.ept.map(0x3000_0000, bench.frames(), 2, make=EPT_ALL)
    record = await guest.run()
    assert (record.reason, record.gpa) == (ExitReason.EPT_MISCONFIGURATION, 0x3000_0000)


@pytest.mark.parametrize("level", [2, 3])
async def test_large_pages_of_the_second_stage(bench: Any, level: int) -> None:
    """A page of 2 MiB or 1 GiB of the EPT is read and written wherever it lies, RAM behind it or only at its start."""
    guest = await guest_of(
        bench, bytes.fromhex("48b9" + ABSENT.to_bytes(8, "little").hex() + "488b01 48ffc0 488901 f4".replace(" ", ""))
    )
    host, size, gpa = bench.frames(), PAGE_SIZE << 9 * (level - 1), 8 << 30
    bench.bus.store64(host, 41)
    guest.tables.map(ABSENT, gpa + host % size, P | RW)
    guest.ept.map(gpa, host - host % size, EPT_ALL | EPT_PS, level=level, make=EPT_ALL)
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.page.rax, bench.bus.load64(host)) == (42, 42)


async def test_shootdown_takes_memory_away(bench: Any) -> None:
    """After an entry is taken out of the EPT and shot down, the guest reaches the frame no more."""
    code = "48b9" + ABSENT.to_bytes(8, "little").hex() + "488b01 f4 488b01 f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))
    guest.tables.map(ABSENT, 0x3000_0000, P | RW)
    place = guest.ept.map(0x3000_0000, bench.frames(), EPT_ALL, make=EPT_ALL)
    assert (await guest.run()).reason == ExitReason.HLT
    bench.bus.store64(place, 0)
    done = await bench.cpu.Shootdown(pb.ShootdownRequest(eptp=guest.context.eptp))
    assert done is not None
    assert (await guest.run()).reason == ExitReason.EPT_VIOLATION


async def test_devices(bench: Any) -> None:
    """Accesses to a device's range exit decoded: what is stored, or the register that a load fills."""
    code = "48b9" + ABSENT.to_bytes(8, "little").hex() + "c60142 8b19 488b11 3901 f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))
    guest.tables.map(ABSENT, 0xFE00_0000, P | RW)
    await controls(bench, guest, device_ranges=[exit_controls_pb2.DeviceRange(gpa=0xFE00_0000, size_bytes=4096)])
    record = await guest.run()
    assert (record.reason, record.gpa, record.access) == (ExitReason.MMIO, 0xFE00_0000, ACCESS_WRITE)
    assert (record.access_size, record.access_value, record.rip) == (1, 0x42, KERNEL_AT + 13)
    record = await guest.run()
    assert (record.access, record.access_size, record.access_register) == (ACCESS_READ, 4, 3)
    assert (guest.page.rbx, record.rip) == (0, KERNEL_AT + 15)
    guest.page.rbx = 0x1234
    guest.page.dirty |= DIRTY_GPRS
    record = await guest.run()
    assert (record.access_size, record.access_register, guest.page.rbx) == (8, 2, 0x1234)
    guest.page.rdx = 0x77
    guest.page.dirty |= DIRTY_GPRS
    record = await guest.run()
    assert (record.reason, record.access_size, record.rip) == (ExitReason.MMIO, 0, KERNEL_AT + 18), "CMP is no move"
    assert guest.page.rdx == 0x77


async def test_model_specific_registers(bench: Any) -> None:
    """A register in a list exits behind the instruction, a shadow register is kept, another raises #GP."""
    code = "b911000000 0f32 0f30 b912000000 0f32 0f30 b913000000 0f32 f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))
    guest.gate(13, "handler_hlt", 0x800)
    one = exit_controls_pb2.MsrRange(first=0x11, count=1)
    await controls(
        bench, guest,
        msrs=exit_controls_pb2.MsrControls(
            reads=[one], writes=[one], shadows=[registers_pb2.Msr(number=0x12, value=0x1_0000_0002)]
        ),
    )  # fmt: skip
    record = await guest.run()
    assert (record.reason, record.io_direction, guest.page.rcx, record.rip) == (10, 0, 0x11, KERNEL_AT + 7)
    guest.page.rax, guest.page.rdx = 5, 6
    guest.page.dirty |= DIRTY_GPRS
    record = await guest.run()
    assert (record.reason, record.io_direction, record.io_data) == (ExitReason.MSR, 1, 0x6_0000_0005)
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL_AT + 0x801), "#GP through the guest's IDT"
    assert (guest.page.rax, guest.page.rdx) == (2, 1)
    assert 0x11 not in KEPT_MSRS


async def test_exceptions_and_interrupts(bench: Any) -> None:
    """Exceptions and interrupts go through the guest's IDT; an interrupt waits until the guest lets it in."""
    guest = await guest_of(bench, bytes.fromhex("0f0b 90 fb 90 f4".replace(" ", "")))
    guest.gate(6, "handler_hlt", 0x800)
    guest.gate(0x40, "handler_hlt", 0x900)
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL_AT + 0x801)
    guest.page.rip = KERNEL_AT + 2
    guest.page.dirty |= DIRTY_RIP
    assert await bench.signal(guest.context, 0x40) == 1
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL_AT + 0x901)


async def test_sleep_until_an_interrupt(bench: Any) -> None:
    """HLT that does not exit leaves the run open and takes no core; an interrupt goes on with it."""
    guest = await guest_of(bench, bytes.fromhex("fb f4 fa b099 e680 f4".replace(" ", "")))
    guest.gate(0x40, "handler_tick", 0x900)
    await controls(bench, guest, instructions=[], ports=exit_controls_pb2.PortControls(all=True))
    run = asyncio.create_task(guest.run())
    while (
        await bench.cpu.GetContext(pb.GetContextRequest(handle=guest.context.handle))
    ).state != pb.Context.STATE_HALTED:
        assert not run.done()
        await asyncio.sleep(0)
    await bench.signal(guest.context, 0x40)
    record = await asyncio.wait_for(run, 10)
    assert (record.reason, record.port, record.io_data) == (ExitReason.IO, 0x80, 0x99)


async def test_triple_fault(bench: Any) -> None:
    """A fault with no IDT ends in SHUTDOWN."""
    guest = await guest_of(bench, b"\x0f\x0b")
    guest.page.idtr_limit = 0
    assert (await guest.run()).reason == ExitReason.SHUTDOWN


async def test_kick_and_preemption_timer(bench: Any) -> None:
    """A loop ends when it is kicked, and when its preemption timer says so; another context runs meanwhile."""
    guest, other = await guest_of(bench, SPIN), await guest_of(bench, b"\xf4")
    await bench.begin(guest.context, sequence=900)
    assert (await bench.cpu.KickContext(pb.KickContextRequest(handle=guest.context.handle))).was_active
    assert (await asyncio.wait_for(bench.stream.read(), 10)).reason == pb.EXIT_REASON_CANCELED
    await controls(bench, guest, preemption_timer_ns=20_000_000)
    record = await guest.run()
    assert (record.reason, guest.page.rip) == (ExitReason.PREEMPTION_TIMER, KERNEL_AT)
    assert guest.response.run_time_ns >= 20_000_000
    assert (await other.run()).reason == ExitReason.HLT


async def test_registers_survive(bench: Any) -> None:
    """What the holder sets of FPU, MSRs, segments and debug registers the guest has, and gives back."""
    code = "48b9" + KERNEL_DATA.to_bytes(8, "little").hex() + "0f01f8 0f1109 0f10 5110 ee f4".replace(" ", "")
    guest = await guest_of(bench, bytes.fromhex(code))  # SWAPGS; MOVUPS [rcx], xmm1; MOVUPS xmm2, [rcx + 16]
    guest.put(KERNEL_DATA + 16, b"sixteen bytes ..")
    page = guest.page
    page.fxsave[176:192] = b"0123456789abcdef"
    page.kernel_gs_base, page.dr0, page.dr7 = 0x1234_5000, 0x7000, 0x400
    page.set_segment("gs", replace(page.segment("gs"), base=0x5678_0000))
    page.dirty = (1 << 7) - 1
    assert (await guest.run()).reason == ExitReason.IO
    found = await bench.cpu.ReadRegisters(registers_pb2.ReadRegistersRequest(handle=guest.context.handle))
    assert found is not None
    assert (page.kernel_gs_base, page.gs_base) == (0x5678_0000, 0x1234_5000), "SWAPGS"
    assert page.dr0 == 0x7000
    assert guest.get(KERNEL_DATA) == int.from_bytes(b"01234567", "little")
    assert bytes(page.fxsave[192:208]) == b"sixteen bytes .."
    saved = await bench.cpu.SaveContext(registers_pb2.SaveContextRequest(handle=guest.context.handle))
    assert (await guest.run()).reason == ExitReason.HLT
    await bench.cpu.RestoreContext(registers_pb2.RestoreContextRequest(handle=guest.context.handle, state=saved))
    assert (await guest.run()).reason == ExitReason.HLT
    assert (bytes(page.fxsave[192:208]), page.gs_base) == (b"sixteen bytes ..", 0x1234_5000)


async def frames(bench: Any, log: Any) -> set[int]:
    """Returns the frames of a log, and clears it."""
    found: set[int] = set()
    async for piece in bench.memory.ReadDirtyLog(dirty_log_pb2.ReadDirtyLogRequest(handle=log.handle, clear=True)):
        bits = int.from_bytes(piece.bitmap, "little")
        found |= {piece.first_frame + n for n in range(8 * len(piece.bitmap)) if bits >> n & 1}
    return found


async def test_dirty_log(bench: Any) -> None:
    """A dirty log has the frames that the guest wrote since it began, and only those."""
    guest = await guest_of(bench, bytes.fromhex("48b9" + KERNEL_DATA.to_bytes(8, "little").hex() + "ff01f4ff01f4"))
    assert (await guest.run()).reason == ExitReason.HLT
    frame = guest.host_of(guest.kernel[KERNEL_DATA]) >> 12
    log = await bench.memory.StartDirtyLog(dirty_log_pb2.StartDirtyLogRequest(ranges=[RAM]))
    assert await frames(bench, log) == set()
    assert (await guest.run()).reason == ExitReason.HLT
    assert await frames(bench, log) == {frame}
    assert await frames(bench, log) == set()


async def test_refusals(bench: Any) -> None:
    """What a processor of the host cannot do is refused when it is asked for, by name."""
    create = bench.cpu.CreateContext
    assert await reason(create(pb.CreateContextRequest(context=pb.Context(intercepts=NOTHING)))) == (
        "UNIMPLEMENTED", "ONE_STAGE_NOT_SUPPORTED",
    )  # fmt: skip
    guest = await guest_of(bench, b"\xf4")
    for intercepts in (
        pb.Intercepts(exceptions=1 << 14), pb.Intercepts(cpuid=True), pb.Intercepts(syscall=True), None,
    ):  # fmt: skip
        context = pb.Context(eptp=guest.context.eptp, intercepts=intercepts)
        assert await reason(create(pb.CreateContextRequest(context=context))) == (
            "UNIMPLEMENTED",
            "CONTROL_NOT_SUPPORTED",
        )
    for fields in (
        {"exceptions": 1 << 6},
        {"instructions": [TRAP_HLT, exit_controls_pb2.TRAPPED_INSTRUCTION_RDTSC]},
        {"control_registers": exit_controls_pb2.ControlRegisterControls(cr3_writes=True)},
        {"debug_registers": True},
        {"nmis": True},
        {"external_interrupts": True},
    ):
        assert await reason(controls(bench, guest, **fields)) == ("UNIMPLEMENTED", "CONTROL_NOT_SUPPORTED")
    assert await reason(bench.apic(guest.context, 1)) == ("UNIMPLEMENTED", "APIC_NOT_SUPPORTED")
    answer = await bench.run(guest.context, budget=1000)
    assert (answer.reason, answer.detail) == (pb.EXIT_REASON_REFUSED, "BUDGET_NOT_SUPPORTED")


async def test_an_interrupt_stops_a_loop(bench: Any) -> None:
    """An interrupt that is raised while a context spins with IF set goes through its IDT."""
    guest = await guest_of(bench, bytes.fromhex("fb ebfe".replace(" ", "")))
    guest.gate(0x40, "handler_hlt", 0x900)
    await bench.begin(guest.context, sequence=77)
    await bench.signal(guest.context, 0x40)
    response = await asyncio.wait_for(bench.stream.read(), 10)
    assert (response.sequence, response.reason, guest.page.rip) == (77, pb.EXIT_REASON_HLT, KERNEL_AT + 0x901)


async def test_ring_3_and_system_calls(bench: Any) -> None:
    """A kernel goes to ring 3 by IRETQ; a fault there comes back through the TSS's stack, with CR2."""
    guest = await guest_of(bench, "kernel_enter_user")
    guest.user("user_fault")
    guest.gate(14, "handler_hlt", 0x800)
    guest.page.rdi, guest.page.rcx = 0x66_6000, 5
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.cpl) == (ExitReason.HLT, KERNEL_AT + 0x801, 0)
    assert guest.page.cr2 == 0x66_6000
