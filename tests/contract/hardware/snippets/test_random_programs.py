"""Random programs leave the same registers, flags and memory on every core. `LAMINA_SNIPPETS=N` runs N of them."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.snippets import generator, machine
from tests.contract.hardware.snippets.cores import CORES, REFERENCE, Core, Machines
from tests.contract.hardware.snippets.encoding import Instruction
from tests.contract.hardware.snippets.generator import Program
from tests.contract.hardware.snippets.machine import RW, US, P
from tests.contract.hardware.snippets.places import KSTACK, LOG, USTACK
from tests.contract.hardware.snippets.snippet import STATUS, Snippet

from lamina_kit.bus.run_page import DIRTY_ALL, GPR_NAMES, ExitReason, ExitRecord

pytestmark = [
    pytest.mark.inside,
    pytest.mark.real_time("real processors have no virtual time; what a program computes depends on no clock"),
]
PROGRAMS = int(os.environ.get("LAMINA_SNIPPETS", "200"))
AT_ONCE = 25
LENGTH = 40
DATA = 0x1000_0000
"""A page of data for ring 3; RDI is its middle. Code lies two pages behind it, and on."""
ENTRY, END = 0x40, b"\x0f\x0b"
"""A program begins behind the code that goes to ring 3, and ends with UD2."""
SHRINKING = 400
"""Runs that making a failing program smaller may take."""
_EMPTY = Snippet("add_with_carry", "", "")
_MXCSR_FLAGS = 0x3F
Facts = dict[str, str]


class Runner:
    """One guest of a core, which runs programs at ring 3 one after the other, each from a page of its own."""

    def __init__(self, bench: Any, guest: Any, core: Core) -> None:
        self._core = core
        self._guest = guest
        self._page = guest.page
        self._machine = machine.Machine(bench, guest, _EMPTY)
        self._next = DATA + 0x2000
        self._reset = b""

    async def prepare(self) -> None:
        """Makes the guest ready: handlers, a page of data, the registers that every program begins with."""
        await self._machine.prepare()
        self._machine.map(DATA, P | RW | US)
        self._reset = self._page.save()

    async def run(self, program: Program, seed: int) -> Facts:
        """Runs a program with registers and memory that the seed gives; returns what it leaves."""
        self._load(program, random.Random(seed))
        record = await self._guest.run(self._core.budget)
        return self._facts(program, record)

    def _load(self, program: Program, rng: random.Random) -> None:
        page, at = self._page, self._next
        self._next += 0x1000
        flags = 0x202 | rng.getrandbits(12) & STATUS
        # push SS, RSP, RFLAGS, CS, RIP; iretq
        entry = b"\x6a\x23" + b"".join(b"\x68" + struct.pack("<I", word) for word in (USTACK, flags, 0x2B, at + ENTRY))
        code = entry + b"\x48\xcf"
        self._machine.map(at, P | RW | US)
        self._machine.write(at, code.ljust(ENTRY, b"\xcc") + generator.assemble(program) + END)
        self._machine.write(DATA, rng.randbytes(4096))
        self._machine.store(LOG, 0)
        page.restore(self._reset)
        for number in range(16):
            page.gpr[number] = rng.choice((rng.getrandbits(64), rng.getrandbits(8), (1 << 64) - 1 - rng.getrandbits(4)))
        for number in range(8):
            page.fxsave[160 + 16 * number : 176 + 16 * number] = rng.randbytes(16)
        page.rsp, page.rdi, page.r14, page.r15, page.rip = KSTACK, DATA + 0x800, 0, 0, at
        page.dirty = DIRTY_ALL

    def _facts(self, program: Program, record: ExitRecord) -> Facts:
        """Returns what ended the program, as the handler saw it, and what it left."""
        page = self._page
        vector, code, rip, cs, flags, rsp, _, _ = struct.unpack("<8Q", self._machine.read(LOG + 64, 64))
        facts = {"exit": ExitReason(record.reason).name, "events": str(self._machine.load(LOG)), "vector": hex(vector)}
        facts |= {"code": hex(code), "rip": hex(rip & 0xFFF), "cs": hex(cs), "user stack": hex(rsp)}
        facts["flags"] = hex(flags & ~machine.RESUME_FLAG & ~(generator.undefined_behind(program) or 0))
        facts |= {name: hex(page.gpr[number]) for number, name in enumerate(GPR_NAMES)}
        facts |= machine.floating_facts(bytes(page.fxsave))
        facts["mxcsr"] = hex(int(facts["mxcsr"], 16) & ~_MXCSR_FLAGS)  # docs/divergences.md
        words = struct.unpack("<512Q", self._machine.read(DATA, 4096))
        return facts | {f"data {8 * number - 0x800:+#x}": hex(word) for number, word in enumerate(words)}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def runners(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[Core, Runner]]:
    """Returns what runs programs on each core that can run here."""
    machines = Machines(tmp_path_factory.mktemp("programs"))
    found = {}
    for core in CORES:
        if not core.missing():
            bench = await machines.bench(core)
            guest = await bench.guest("hlt", intercepts=pb.Intercepts(exceptions=0, cpuid=False, syscall=False))
            found[core] = Runner(bench, guest, core)
            await found[core].prepare()
    yield found
    await machines.stop()


async def shrunk(program: Program, differs: Callable[[Program], Awaitable[list[str]]]) -> tuple[Program, list[str]]:
    """Returns the smallest program found that still differs, with how it does."""
    found, left, again = await differs(program), SHRINKING, True
    while again and left:
        again = False
        for candidate in generator.smaller(program):
            if not left or generator.undefined_behind(candidate) is None:
                continue
            left -= 1
            if difference := await differs(candidate):
                program, found, again = candidate, difference, True
                break
    return program, found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("core", [core for core in CORES if core != REFERENCE], ids=str)
@pytest.mark.parametrize("first", range(0, PROGRAMS, AT_ONCE))
async def test_random_programs_leave_the_same_everywhere(first: int, core: Core, runners: dict[Core, Runner]) -> None:
    """Programs from a seed leave on each core what they leave on the reference core."""
    core.require()
    for seed in range(first, min(first + AT_ONCE, PROGRAMS)):
        program = generator.generate(random.Random(seed), LENGTH)

        async def differs(candidate: Program, seed: int = seed) -> list[str]:
            here = await runners[core].run(candidate, seed)
            return machine.differences(await runners[REFERENCE].run(candidate, seed), here)

        left = await runners[REFERENCE].run(program, seed)
        assert (left["exit"], left["events"], left["vector"]) == ("HLT", "1", "0x6"), seed
        if await differs(program):
            program, difference = await shrunk(program, differs)
            lines = "\n".join(difference[:5])
            pytest.fail(f"seed {seed}, {REFERENCE} and {core}:\n{generator.listing(program)}\n{lines}")


def test_no_program_reads_an_undefined_flag() -> None:
    """Every generated program, and every smaller one that is tried, is defined by the manual, and fits into a page."""
    for seed in range(PROGRAMS):
        program = generator.generate(random.Random(seed), LENGTH)
        assert generator.undefined_behind(program) is not None, seed
        assert len(generator.assemble(program)) < 4096


@pytest.mark.asyncio(loop_scope="module")
async def test_a_difference_is_found_and_made_small(runners: dict[Core, Runner]) -> None:
    """A program of which one instruction is replaced differs, and shrinks to little more than that instruction."""
    program = generator.generate(random.Random(1), LENGTH)
    wrong = Instruction(b"\x48\xff\xc3", "inc rbx, which the other core does not do")

    async def differs(candidate: Program) -> list[str]:
        clean = tuple(node for node in candidate if node is not wrong)
        run = runners[REFERENCE].run
        return machine.differences(await run(candidate, 1), await run(clean, 1))

    small, found = await shrunk((*program[:20], wrong, *program[20:]), differs)
    assert wrong in small
    assert len(small) <= 3
    assert any(line.startswith("rbx") for line in found)
