"""Checks everything undocumented that the walker core relies on; run in a process of its own.

    python -m lamina_hardware.io.emulator.selftest       prints `ok`, or one line that says what differs

A wrong guess about the emulator could crash the process that makes it, so this one may crash. `cores/path.py` starts it
once for each build of the emulator and remembers the verdict.

First each register offset is compared with what the public API says; then small programs must do what the manual says
about counts, faults, ports, changed code, intercepts and delivery.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from unicorn import x86_const

from lamina_hardware.domain.contexts.exit_controls import ControlRegisters, ExitControls, Instruction
from lamina_hardware.domain.paging.tlb import TlbSlot
from lamina_hardware.engines.interface import CoreRun
from lamina_hardware.io.emulator.api import Emulator
from lamina_hardware.io.emulator.state import unicorn_layout as layout
from lamina_hardware.io.emulator.state.exit_table import ControlTable
from lamina_hardware.io.emulator.walker_core import UnicornCore, find_state
from lamina_hardware.io.reset import reset_registers
from lamina_kit.bus import run_page
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import ExitReason, RunPage, Segment

_TEXT, _DATA = 0x400000, 0x600000
_ROOT, _TEXT_FRAME, _DATA_FRAME, _EPT = 0x1000, 0x10000, 0x11000, 0x8000


class Difference(Exception):
    """Something is not as the walker core believes."""


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise Difference(f"{what} is {found!r}, not {wanted!r}")


def _register_checks() -> Iterator[tuple[int, int, int, str]]:
    """Yields (register, value to write, offset of its copy, name) for registers of up to 64 bits."""
    for name, offset in (
        ("CR2", layout.CR2),
        ("CR3", layout.CR3),
        ("FPCW", layout.FPU_CONTROL),
        ("FS_BASE", layout.SEGMENTS + 4 * layout.SEGMENT_STRIDE + 8),
        ("GS_BASE", layout.SEGMENTS + 5 * layout.SEGMENT_STRIDE + 8),
    ):
        yield getattr(x86_const, f"UC_X86_REG_{name}"), 0x27F if name == "FPCW" else 0x1234_5000, int(offset), name


def check_offsets() -> None:
    """Compares offsets of the register file with the public API."""
    engine = Emulator()
    engine.use_own_tlb()
    engine.write_msr(0xC000_0080, 0xD01)
    _, env = find_state(engine)
    for register, value, offset, name in _register_checks():
        engine.write(register, value)
        size = 2 if name == "FPCW" else 8
        _expect(ctypes.string_at(env + offset, size), value.to_bytes(size, "little"), f"the copy of {name}")
    for number, msr, offset in (
        (1, 0xC000_0081, layout.STAR),
        (2, 0xC000_0082, layout.LSTAR),
        (3, 0xC000_0083, layout.CSTAR),
        (4, 0xC000_0084, layout.SFMASK),
        (5, 0xC000_0102, layout.KERNEL_GS_BASE),
        (6, 0x277, layout.PAT),
        (7, 0x175, layout.SYSENTER_ESP),
        (8, 0x176, layout.SYSENTER_EIP),
        (9, 0xC000_0103, layout.TSC_AUX),
    ):
        engine.write_msr(msr, 0x1_0000_0000 * number + number)
        found = struct.unpack("<Q", ctypes.string_at(env + int(offset), 8))[0]
        _expect(found, 0x1_0000_0000 * number + number, f"the copy of MSR {msr:#x}")
    _expect(struct.unpack("<Q", ctypes.string_at(env + int(layout.EFER), 8))[0], 0xD01, "the copy of EFER")
    for register, offset in ((x86_const.UC_X86_REG_GDTR, layout.GDTR), (x86_const.UC_X86_REG_IDTR, layout.IDTR)):
        engine.write_table(register, 0x1111_2222_3333, 0x77)
        base, limit = struct.unpack("<QI", ctypes.string_at(env + int(offset) + 8, 12))
        _expect((base, limit), (0x1111_2222_3333, 0x77), "the copy of a table register")
    engine.close()


class Bench:
    """One core with a page of text, a page of data, and one context."""

    def __init__(self, folder: Path) -> None:
        self.bus = MemoryBus.create(folder / "ram", 4 << 20, run_pages=2)
        self.core = UnicornCore(self.bus)
        for va, frame, first in ((_TEXT, _TEXT_FRAME, 0x2000), (_DATA, _DATA_FRAME, 0x2000)):
            self.bus.store64(_ROOT, first | 7)
            self.bus.store64(first, 0x3007)
            self.bus.store64(0x3000 + (va >> 21) * 8, 0x4000 + (va >> 21) * 0x1000 & 0x7000 | 7)
            table = self.bus.load64(0x3000 + (va >> 21) * 8) & ~0xFFF
            self.bus.store64(table + (va >> 12 & 511) * 8, frame | 7)
        self.page = RunPage(self.bus.run_page(0))
        self.page_cs: Segment | None = None

    def run(
        self,
        code: str,
        *,
        ring: int = 3,
        eptp: int = 0,
        budget: int = 0,
        controls: ControlTable | None = None,
        **registers: int,
    ) -> run_page.ExitRecord:
        """Runs machine code from its begin, with these exit controls; returns the exit record."""
        self.core.drop_code(None)
        self.bus.write(_TEXT_FRAME, bytes.fromhex(code).ljust(64, b"\x90"))
        self.bus.drain_code_writes()
        reset_registers(self.page.view, ring)
        self.page.cr3, self.page.rip = _ROOT, _TEXT
        if self.page_cs is not None:
            self.page.set_segment("cs", self.page_cs)
        for name, value in registers.items():
            setattr(self.page, name, value)
        work = CoreRun(1, 0, eptp=eptp, budget=budget, controls=controls.address if controls else 0)
        self.core.run(work)
        return self.page.load_exit()

    def identity_ept(self) -> int:
        """Builds an EPT that maps the first gigabyte to itself."""
        self.bus.store64(_EPT, 0x9007)
        self.bus.store64(0x9000, 0x87)
        return _EPT


def _counts(bench: Bench) -> None:
    record = bench.run("b9e8030000ffc975fc0f05")
    _expect((record.reason, record.instructions_retired), (ExitReason.SYSCALL, 2002), "a counted loop")
    record = bench.run("b9e8030000ffc975fc0f05", budget=1000)
    _expect((record.reason, record.instructions_retired), (ExitReason.BUDGET, 999), "a budget")


def _faults(bench: Bench) -> None:
    record = bench.run("9048a10301700000000000")
    found = (record.reason, record.address, record.error_code, record.rip, record.instructions_retired)
    _expect(found, (ExitReason.PAGE_FAULT, 0x700103, 4, _TEXT + 1, 1), "a page fault")
    record = bench.run("b8341200008ed8")
    protection = (record.reason, record.vector, record.error_code, record.rip)
    _expect(protection, (ExitReason.EXCEPTION, 13, 0x1234, _TEXT + 5), "a general protection fault")
    record = bench.run("fa")
    _expect((record.reason, record.vector), (ExitReason.EXCEPTION, 13), "a second fault")
    record = bench.run("cd80")
    _expect((record.reason, record.vector, record.rip), (ExitReason.EXCEPTION, 0x80, _TEXT + 2), "INT n")


def _ports(bench: Bench) -> None:
    record = bench.run("e680bb770000000f05", rflags=0x3002, rax=0x41, rbx=1)
    found = (record.reason, record.port, record.io_data, record.rip, bench.page.rbx)
    _expect(found, (ExitReason.IO, 0x80, 0x41, _TEXT + 2, 1), "a port write")
    record = bench.run("ec0f05", rdx=0x60)
    _expect((record.reason, record.vector, record.rip), (ExitReason.EXCEPTION, 13, _TEXT), "a port read at ring 3")


def _changed_code(bench: Bench) -> None:
    code = "bf0000600031dbb9e8030000c607b8894f01c64705c3ffd74801c3ffc975ed0f05"
    record = bench.run(code, rsp=_DATA + 0x1000)
    found = (record.reason, bench.page.rbx, record.instructions_retired)
    _expect(found, (ExitReason.SYSCALL, 500_500, 3 + 9 * 1000 + 1), "code that is written again and again")
    record = bench.run("488d3d07000000c70722220000b8111100000f05")
    found = (record.reason, bench.page.rax, record.instructions_retired)
    _expect(found, (ExitReason.SYSCALL, 0x2222, 4), "code that changes its next instruction")


def _intercepts(bench: Bench) -> None:
    eptp = bench.identity_ept()
    record = bench.run("b9100000000f32f4", ring=0, eptp=eptp)
    _expect((record.reason, record.io_direction, record.rip), (ExitReason.MSR, 0, _TEXT + 7), "RDMSR")
    record = bench.run("b9810000c00f32f4", ring=0, eptp=eptp, star=0x55)
    _expect((record.reason, bench.page.rax), (ExitReason.HLT, 0x55), "RDMSR of STAR")
    record = bench.run("0fa2f4", ring=0, eptp=eptp)
    _expect((record.reason, record.rip), (ExitReason.CPUID, _TEXT + 2), "CPUID")
    record = bench.run("0f31f4")
    _expect((record.reason, record.rip), (ExitReason.TIMESTAMP, _TEXT + 2), "RDTSC")
    record = bench.run("480fc7f10f05")
    _expect((record.reason, record.access_register), (ExitReason.RANDOM, 1), "RDRAND")


def _chosen_intercepts(bench: Bench) -> None:
    """A read of CR4 and an access to a debug register arrive by the offsets of the intercept fields, when wanted."""
    eptp, hlt = bench.identity_ept(), (Instruction.HLT,)
    table = ControlTable(ExitControls(instructions=hlt, registers=ControlRegisters(cr4_mask=1 << 9, cr4_shadow=0)))
    record = bench.run("0f20e0f4", ring=0, eptp=eptp, controls=table, cr4=0x620)
    _expect((record.reason, bench.page.rax), (ExitReason.HLT, 0x420), "CR4 read through mask and shadow")
    record = bench.run("0f20e0f4", ring=0, eptp=eptp, cr4=0x620)
    _expect((record.reason, bench.page.rax), (ExitReason.HLT, 0x620), "CR4 read")
    table = ControlTable(ExitControls(instructions=hlt, debug_registers=True))
    for code, writes in (("0f23c3f4", 1), ("0f21c3f4", 0)):
        record = bench.run(code, ring=0, eptp=eptp, controls=table, rbx=0x1234)
        _expect((record.reason, record.io_direction), (ExitReason.DR_ACCESS, writes), "an access to DR0")
    record = bench.run("0f23c30f21c0f4", ring=0, eptp=eptp, rbx=0x1234)
    _expect((record.reason, bench.page.rax), (ExitReason.HLT, 0x1234), "DR0 written and read")


def _supervisor_prevention(bench: Bench) -> None:
    engine = Emulator()
    _, env = find_state(engine)
    features = struct.unpack("<III", ctypes.string_at(env + int(layout.FEATURES_7) - 8, 12))
    _expect((features[0] >> 23 & 1, features[2]), (1, 0), "what the processor model has")
    engine.close()
    load, eptp, cr4 = "a10000600000000000", bench.identity_ept(), 1 << 21 | 0x620
    record = bench.run("0f01cb" + load + "f4", ring=0, eptp=eptp, cr4=cr4)
    _expect((record.reason, bench.page.cr4), (ExitReason.HLT, cr4), "STAC under CR4.SMAP")
    record = bench.run("0f01cb0f01ca" + load + "f4", ring=0, eptp=eptp, cr4=cr4)
    _expect((record.vector, record.rip), (14, _TEXT + 6), "CLAC under CR4.SMAP")


def _tlb_windows(env: int) -> list[int]:
    return [int.from_bytes(ctypes.string_at(env - int(before), 8), "little") for before in layout.TLB_WINDOWS]


def _tlb(bench: Bench) -> None:
    first, second = Emulator(), Emulator()
    began, later = (_tlb_windows(find_state(engine)[1]) for engine in (first, second))
    _expect(len(set(began)), 1, "how many times an emulator's TLB windows begin at")
    since = later[0] - began[0]  # both were made just now: their windows begin at the host's time then
    _expect(0 < since < 600 * 10**9 and began[0] > 10**18, True, "the time in the TLB's windows")
    first.close()
    second.close()
    bench.run("488b0425080060004889042508006000f4", ring=0, eptp=bench.identity_ept())
    found = [slot for slot in bench.core.tlb().slots if slot.address == _DATA]
    _expect(found, [TlbSlot(_DATA, False, _DATA_FRAME, True, False)], "what the TLB holds")
    bench.run("488b0425080060000f05")
    _expect(
        set(_tlb_windows(bench.core.environment)), {int(layout.TLB_WINDOW_NEVER)}, "what the TLB measures time from"
    )
    found = [slot for slot in bench.core.tlb().slots if slot.address == _DATA]
    _expect([slot.user for slot in found], [True], "what the TLB holds of ring 3")


def _state(bench: Bench) -> None:
    code = "66480f6ec066440f6fc8d9e8d9eb480fbae0000f05"
    record = bench.run(code, rax=0x1122_3344_5566_7789)
    fx = bytes(bench.page.fxsave)
    _expect(record.reason, ExitReason.SYSCALL, "the end of a program with SSE and x87")
    _expect(fx[160 + 16 * 9 : 168 + 16 * 9].hex(), "8977665544332211", "XMM9")
    _expect(fx[32:42].hex() + fx[48:58].hex(), "35c26821a2da0fc9004000000000000000" + "80ff3f", "ST0 and ST1")
    _expect((fx[4], bench.page.rflags & 1, bench.page.r11 & 1), (0xC0, 1, 1), "tags and flags")
    _expect(bench.page.segment("cs").attributes & 0x60, 0x60, "the level of CS")


def _interrupts(bench: Bench) -> None:
    table = struct.pack("<3Q", 0, 0x00AF9B00_0000FFFF, 0x00CF9300_0000FFFF)
    bench.bus.write(_DATA_FRAME + 0x800, table)
    registers: dict[str, Any] = {"gdtr_base": _DATA + 0x800, "gdtr_limit": 23, "rsp": _DATA + 0x700}
    blocked: dict[str, Any] = {"interruptibility": run_page.BLOCKED_BY_NMI}
    record = bench.run("90f4", ring=0, **registers, **blocked)
    _expect((record.reason, bench.page.interruptibility), (ExitReason.HLT, run_page.BLOCKED_BY_NMI), "an NMI's handler")
    record = bench.run("4889e16a10516a026a08488d05030000005048cff4", ring=0, **registers, **blocked)
    _expect((record.reason, bench.page.interruptibility), (ExitReason.HLT, 0), "the end of an NMI's handler by IRETQ")


def _modes(bench: Bench) -> None:
    """Code of 32 and 16 bits, segments with bases, and a far jump to 64-bit code by the emulator itself."""
    table = struct.pack("<4Q", 0, 0x00CF9B00_0000FFFF, 0x00AF9B00_0000FFFF, 0x00CF9360_0000FFFF)
    bench.bus.write(_DATA_FRAME + 0x800, table)
    bench.bus.write(_DATA_FRAME + 0x10, b"\x78\x56\x34\x12")
    code = "b8180000008ed8a110000000405053ea" + (_TEXT + 0x16).to_bytes(4, "little").hex() + "100049c7c055000000f4"
    registers: dict[str, Any] = {"gdtr_base": _DATA + 0x800, "gdtr_limit": 31, "rsp": _DATA + 0x700, "rbx": 7}
    bench.page_cs = Segment(8, 0, 0xFFFF_FFFF, 0xC09B)
    record = bench.run(code, ring=0, **registers)
    bench.page_cs = None
    found = (record.reason, bench.page.rax, bench.page.r8, bench.page.rsp, record.instructions_retired)
    wanted = (ExitReason.HLT, 0x12345679, 0x55, _DATA + 0x6F8, 9)
    _expect(found, wanted, "compatibility code that goes to 64-bit code")
    _expect(bench.page.segment("ds").base, _DATA, "the base of a segment that the emulator loaded")


CHECKS: tuple[Callable[[Bench], None], ...] = (
    _counts,
    _faults,
    _ports,
    _changed_code,
    _intercepts,
    _chosen_intercepts,
    _supervisor_prevention,
    _tlb,
    _state,
    _interrupts,
    _modes,
)


def main() -> int:
    """Runs all checks; prints the verdict."""
    version = metadata.version("unicorn")
    try:
        _expect(version, layout.UNICORN_VERSION, "the version of unicorn")
        check_offsets()
        with tempfile.TemporaryDirectory(prefix="lamina-selftest-") as folder:
            bench = Bench(Path(folder))
            for check in CHECKS:
                check(bench)
            bench.core.close()
    except Difference as difference:
        print(difference)
        return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
