"""Breakpoints in the debug registers, beyond what the snippets show: exits, slices, neighbours, a naive oracle."""

from __future__ import annotations

import random
from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import performance_pb2 as perf
from lamina.hardware.v1 import performance_pb2_grpc
from tests.contract.hardware.conftest import DATA, KERNEL, TEXT, P

from lamina_kit.bus.run_page import ExitReason

RF = 1 << 16
HLT = "f4"
DEBUG_EXITS = pb.Intercepts(exceptions=1 << 1 | 1 << 14, cpuid=True, syscall=False)
STORES = {1: "8887", 2: "668987", 4: "8987", 8: "488987"}  # mov [rdi+disp32], rax and its parts
LOADS = {1: "8a87", 2: "668b87", 4: "8b87", 8: "488b87"}


async def a_guest(bench: Any, code: str) -> Any:
    """Returns a guest at ring 0 whose #DB and #PF exit, with this code, RDI at DATA."""
    guest = await bench.guest("hlt", intercepts=DEBUG_EXITS)
    guest.put(KERNEL, bytes.fromhex(code))
    guest.page.rdi = DATA
    guest.at(KERNEL)
    return guest


def arm(page: Any, *breakpoints: tuple[int, int, int]) -> None:
    """Arms breakpoints from DR0 on: address, R/W, bytes."""
    page.dr7 = 0x400
    for number, (address, kind, size) in enumerate(breakpoints):
        setattr(page, f"dr{number}", address)
        length = {1: 0, 2: 1, 4: 3, 8: 2}[size]
        page.dr7 |= 1 << 2 * number | (kind | length << 2) << (16 + 4 * number)


async def test_an_armed_instruction_exits_and_goes_on(bench: Any) -> None:
    """A context whose #DB exits stops in front of the instruction, with RF set: running it again runs it."""
    guest = await a_guest(bench, "ffc0ffc3" + HLT)  # inc eax; inc ebx
    arm(guest.page, (KERNEL + 2, 0, 1))
    record = await guest.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 1, KERNEL + 2)
    assert (record.instructions_retired, guest.page.rax, guest.page.rbx) == (1, 1, 0)
    assert (guest.page.dr6 & 15, guest.page.rflags & RF) == (1, RF)
    record = await guest.run()
    assert (record.reason, record.instructions_retired, guest.page.rbx) == (ExitReason.HLT, 2, 1)
    assert guest.page.rflags & RF == 0


async def test_a_process_has_breakpoints_too(bench: Any) -> None:
    """Who holds a context of ring 3 arms them through its run page, and moves and disarms them there."""
    process = await bench.process("spin", intercepts=DEBUG_EXITS)  # five instructions in a loop
    starts = [TEXT]
    for _ in range(3):
        arm(process.page, (starts[-1], 0, 1))
        record = await process.run()
        assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 1, starts[-1])
        process.page.dr7 = 0x400
        process.page.rflags |= 1 << 8
        process.at(record.rip)
        starts.append((await process.run()).rip)  # behind one step
        process.page.rflags &= ~(1 << 8)
        process.at(starts[-1])
    assert (await process.run(100)).reason == ExitReason.BUDGET
    assert len(set(starts)) > 1


async def test_a_store_that_faults_hits_when_it_is_made(bench: Any) -> None:
    """An access whose page is missing hits nothing yet; begun anew it hits once, and RF holds it back again."""
    guest = await a_guest(bench, "4889870010000090" + HLT)  # mov [rdi+0x1000], rax; nop
    arm(guest.page, (KERNEL, 0, 1), (DATA + 0x1000, 1, 8))
    present = bench.bus.load64(guest.tables.entry(DATA + 0x1000))
    bench.bus.store64(guest.tables.entry(DATA + 0x1000), present & ~P)
    assert ((await guest.run()).vector, guest.page.dr6 & 15) == (1, 1)
    record = await guest.run()
    assert (record.reason, record.rip, record.address) == (ExitReason.PAGE_FAULT, KERNEL, DATA + 0x1000)
    bench.bus.store64(guest.tables.entry(DATA + 0x1000), present)
    record = await guest.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 1, KERNEL + 7)
    assert (record.instructions_retired, guest.page.dr6 & 15) == (1, 2)
    assert (await guest.run()).reason == ExitReason.HLT


@pytest.mark.parametrize("seed", range(3))
async def test_hits_are_those_of_an_oracle(bench: Any, seed: int) -> None:
    """Random accesses hit what a comparison of byte ranges says, in slices of any length, and retire the same."""
    rng = random.Random(seed)
    armed = []
    for _ in range(4):
        size = rng.choice((1, 2, 4, 8))
        armed.append((DATA + rng.choice((0xFC0, 0x1000)) + rng.randrange(0, 0x40, size), rng.choice((1, 3)), size))
    code, wanted = "", []
    count = 60
    for _ in range(count):
        size, place, stores = rng.choice((1, 2, 4, 8)), rng.randrange(0xFB8, 0x1048), rng.random() < 0.5
        code += (STORES if stores else LOADS)[size] + place.to_bytes(4, "little").hex()
        hits = sum(
            1 << number
            for number, (first, kind, length) in enumerate(armed)
            if (stores or kind == 3) and DATA + place < first + length and first < DATA + place + size
        )
        if hits:
            wanted.append((KERNEL + len(code) // 2, hits))
    assert wanted
    for budget in (0, 1, 7):
        guest = await a_guest(bench, code + HLT)
        arm(guest.page, *armed)
        found, retired = [], 0
        while True:
            record = await guest.run(budget)
            retired += record.instructions_retired
            if record.reason == ExitReason.HLT:
                break
            if record.reason == ExitReason.EXCEPTION:
                found.append((record.rip, guest.page.dr6 & 15))
        assert found == wanted
        assert retired == count + 1


async def test_neighbours_pay_nothing(bench: Any) -> None:
    """A context without breakpoints counts the same beside one that has some as beside one that has none."""
    counters = performance_pb2_grpc.PerformanceStub(bench.channel)
    counted = []
    for armed in ((), ((DATA, 1, 8),)):
        plain, neighbour = [
            await a_guest(bench, "ffc0488907ebf9") for _ in range(2)
        ]  # inc eax; mov [rdi], rax; jmp back
        arm(neighbour.page, *armed)
        retired = []
        for _ in range(4):
            retired.append((await neighbour.run(30)).instructions_retired)
            assert (await plain.run(30)).instructions_retired == 30
        assert retired == ([2, 3, 3, 3] if armed else [30] * 4)
        found = await counters.GetPerformance(perf.GetPerformanceRequest(handle=plain.context.handle))
        counted.append((found.instructions, found.tlb_misses, list(found.fills_by_size)))
    assert counted[0] == counted[1]
