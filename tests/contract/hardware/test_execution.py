"""What the core computes, and every reason for which it gives a context back."""

from __future__ import annotations

from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_kit.bus.run_page import DIRTY_FPU, DIRTY_GPRS, CpuidEntry, ExitReason

TEXT, DATA = 0x400000, 0x600000


async def test_it_computes(bench: Any) -> None:
    """Integer, x87 and SSE instructions leave the results that the manual gives."""
    process = await bench.process("arithmetic")
    await process.run()
    page = process.page
    assert (page.rax, page.rbx, page.r9) == (42, 0xFFFF_FFFF, 42)
    assert page.rdx == 0x4018_0000_0000_0000
    assert page.rsi == 32
    assert bytes(page.fxsave[32:42]).hex() == "00000000000000800040"


async def test_syscall_leaves_what_the_instruction_does(bench: Any) -> None:
    """SYSCALL exits behind itself with RCX and R11 set and the count of what ran."""
    process = await bench.process("count")
    record = await process.run()
    assert record.reason == ExitReason.SYSCALL
    assert process.page.rax == 500_500
    assert process.page.rcx == process.page.rip == TEXT + 16
    assert process.page.r11 & 0x40 == 0x40
    assert record.instructions_retired == 2 + 3 * 1000 + 1


async def test_changed_registers_are_loaded_by_group(bench: Any) -> None:
    """A register that the holder changed counts only when its group is marked dirty."""
    process = await bench.process("store_load")
    process.page.rbx = 0x1234
    await process.run()
    assert process.page.rcx == process.page.rip
    assert bench.bus.load64(process.data + 0x10) == 0x1234
    process.page.rbx = 0x5678
    process.page.rip = TEXT
    process.page.dirty = 1 << 1
    await process.run()
    assert bench.bus.load64(process.data + 0x10) == 0x1234
    process.page.rbx = 0x5678
    process.page.rip = TEXT
    process.page.dirty = DIRTY_GPRS | 1 << 1
    await process.run()
    assert bench.bus.load64(process.data + 0x10) == 0x5678


async def test_the_fpu_state_goes_with_the_page(bench: Any) -> None:
    """XMM registers that the holder writes into the FXSAVE area are the context's, and come back in it."""
    process = await bench.process("return_7")
    process.page.fxsave[160 + 16 * 9 : 160 + 16 * 10] = bytes(range(16))
    process.page.dirty = DIRTY_FPU | process.page.dirty
    await process.run()
    other = await bench.process("arithmetic")
    await other.run()
    process.load("return_9")
    await process.run()
    assert bytes(process.page.fxsave[160 + 16 * 9 : 160 + 16 * 10]) == bytes(range(16))


async def test_fs_base_is_a_segment_base(bench: Any) -> None:
    """FS accesses go through the base in the run page."""
    process = await bench.process("fs_base")
    bench.bus.store64(process.data + 0x110, 0xFEED)
    process.page.fs_base = DATA + 0x100
    await process.run()
    assert process.page.rax == 0xFEED


async def test_hlt_exits_behind_itself_at_ring_0(bench: Any) -> None:
    """HLT at ring 0 exits with RIP behind it, and the next run goes on there."""
    guest = await bench.guest("hlt")
    record = await guest.run()
    assert (record.reason, record.rip, record.instructions_retired) == (ExitReason.HLT, 0xFFFF_8000_0000_0002, 2)


async def test_ring_3_may_not_halt_nor_touch_ports(bench: Any) -> None:
    """HLT, IN, OUT and CLI at ring 3 are general protection faults on the instruction, and are not counted."""
    process = await bench.process("hlt")
    record = await process.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 13, TEXT + 1)
    assert record.instructions_retired == 1
    process.load("out_in")
    record = await process.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 13, TEXT + 10)
    process.load("privileged")
    record = await process.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 13, TEXT)


async def test_ports_exit_one_by_one(bench: Any) -> None:
    """Each OUT and IN exits behind itself with port, size, direction and data; RAX takes the holder's answer."""
    process = await bench.process("out_in")
    process.page.rflags |= 3 << 12
    seen = []
    for _ in range(8):
        record = await process.run()
        assert record.reason == ExitReason.IO
        seen.append((record.port, record.io_size, record.io_direction, record.io_data, record.rip - TEXT))
        if not record.io_direction:
            process.page.rax = 0x1000 + len(seen)
            process.page.dirty = DIRTY_GPRS
    assert seen == [
        (0x3F8, 1, 1, 0x44, 11), (0x3F8, 2, 1, 0x3344, 13), (0x3F8, 4, 1, 0x11223344, 14), (0x80, 1, 1, 0x44, 16),
        (0x3F8, 1, 0, 0, 17), (0x3F8, 2, 0, 0, 19), (0x3F8, 4, 0, 0, 20), (0x60, 1, 0, 0, 22),
    ]  # fmt: skip
    record = await process.run()
    assert (record.reason, process.page.rax) == (ExitReason.SYSCALL, 0x1008)


async def test_string_output_exits_for_each_item(bench: Any) -> None:
    """REP OUTSB exits once a byte and goes on where it was."""
    process = await bench.process("outs")
    process.page.rflags |= 3 << 12
    bench.bus.write(process.data, b"abc")
    sent = bytes([(await process.run()).io_data for _ in range(3)])
    assert sent == b"abc"
    assert (process.page.rcx, process.page.rsi) == (0, DATA + 3)
    assert (await process.run()).reason == ExitReason.SYSCALL


async def test_string_input_takes_the_holders_data(bench: Any) -> None:
    """REP INSW exits on itself for each word, and stores what the holder put into the exit record."""
    process = await bench.process("ins")
    process.page.rflags |= 3 << 12
    for value in (0x4241, 0x4443):
        record = await process.run()
        assert (record.reason, record.io_direction, record.io_size) == (ExitReason.IO, 0, 2)
        process.page.words[(0x440 >> 3) + 12] = value
    assert (await process.run()).reason == ExitReason.SYSCALL
    assert bench.bus.read(process.data, 4) == b"ABCD"


async def test_cpuid_is_answered_from_the_page(bench: Any) -> None:
    """A leaf in the page's table costs no exit; one that is not there exits behind the instruction."""
    process = await bench.process("cpuid")
    process.page.set_cpuid((CpuidEntry(0, 0, 13, 0x756E_6547, 0x6C65_746E, 0x4965_6E69),))
    record = await process.run()
    assert (record.reason, process.page.rax, process.page.r8) == (ExitReason.CPUID, 0x4000_0000, 0x756E_6547)
    assert record.rip == TEXT + 16
    assert record.instructions_retired == 6


async def test_time_and_randomness_always_exit(bench: Any) -> None:
    """RDTSC, RDTSCP, RDRAND and RDSEED give nothing of the host: they exit behind themselves."""
    process = await bench.process("rdtsc")
    first, second = await process.run(), await process.run()
    assert (first.reason, first.rip - TEXT) == (ExitReason.TIMESTAMP, 3)
    assert (second.reason, second.rip - TEXT) == (ExitReason.TIMESTAMP, 6)
    process.load("random")
    first, second = await process.run(), await process.run()
    assert (first.reason, first.access_register, first.access_size) == (ExitReason.RANDOM, 1, 8)
    assert (second.reason, second.access_register, second.access_size) == (ExitReason.RANDOM, 9, 4)


async def test_the_page_can_hold_the_clock(bench: Any) -> None:
    """With an answer in the page RDTSC costs no exit and counts this run's instructions."""
    process = await bench.process("rdtsc")
    process.page.tsc, process.page.tsc_offset, process.page.tsc_answered = 1000, 500, 1
    process.page.tsc_aux = 3
    record = await process.run()
    assert record.reason == ExitReason.SYSCALL
    assert process.page.rax == 1502


async def test_hypercalls_exit_behind_themselves(bench: Any) -> None:
    """VMCALL and VMMCALL are hypercalls."""
    process = await bench.process("hypercall")
    first, second = await process.run(), await process.run()
    assert (first.reason, first.rip - TEXT) == (ExitReason.HYPERCALL, 3)
    assert (second.reason, second.rip - TEXT) == (ExitReason.HYPERCALL, 6)


async def test_unknown_msrs_exit(bench: Any) -> None:
    """RDMSR and WRMSR of a register that the page does not hold exit behind themselves, with the value written."""
    before = await bench.process("int80")
    await before.run()
    guest = await bench.guest("msr")
    record = await guest.run()
    assert (record.reason, record.io_direction, guest.page.rcx) == (ExitReason.MSR, 0, 0x10)
    assert record.rip == 0xFFFF_8000_0000_0007
    guest.page.rax, guest.page.rdx = 0xAAAA_BBBB, 0x1
    guest.page.dirty = DIRTY_GPRS
    record = await guest.run()
    assert (record.reason, record.io_direction, guest.page.rcx) == (ExitReason.MSR, 1, 0x11)
    assert record.io_data == 0x1_AAAA_BBBB
    assert (await guest.run()).reason == ExitReason.HLT


async def test_known_msrs_are_registers(bench: Any) -> None:
    """STAR and GS base are read and written without exits, and are in the page afterwards."""
    guest = await bench.guest("msr_kept")
    guest.bench.bus.store64(guest.host_of(guest.data) + 0x10, 0xBEEF)
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.rbx == guest.page.star == 0x5678_0000_1234
    assert (guest.page.gs_base, guest.page.rsi) == (DATA, 0xBEEF)


async def test_exceptions_say_what_and_where(bench: Any) -> None:
    """Faults stay on their instruction, traps are behind it; vector and error code are the manual's."""
    process = await bench.process("undefined")
    expected = {
        "undefined": (6, 0, 2, 2),
        "divide": (0, 0, 3, 2),
        "breakpoint": (3, 0, 1, 1),
        "int80": (0x80, 0, 2, 1),
        "int14": (13, 14 << 3 | 2, 1, 1),
        "noncanonical": (13, 0, 10, 1),
    }
    for program, (vector, code, offset, count) in expected.items():
        process.load(program)
        record = await process.run()
        assert record.reason == ExitReason.EXCEPTION, program
        found = (record.vector, record.error_code, record.rip - TEXT, record.instructions_retired)
        assert found == (vector, code, offset, count), program


async def test_a_wrong_selector_names_itself(bench: Any) -> None:
    """Loading a selector outside any table is a #GP with that selector as its error code."""
    process = await bench.process("segment")
    record = await process.run()
    assert (record.reason, record.vector, record.rip - TEXT) == (ExitReason.EXCEPTION, 13, 5)
    host = await bench.hosts.GetHost(pb.GetHostRequest())
    if host.core_path == "walker":
        assert record.error_code == 0x1234


async def test_second_exceptions_are_not_double_faults(bench: Any) -> None:
    """A #GP that is handled outside leaves nothing behind: the next one is a #GP again."""
    process = await bench.process("privileged")
    for _ in range(3):
        process.load("privileged")
        record = await process.run()
        assert (record.reason, record.vector) == (ExitReason.EXCEPTION, 13)
