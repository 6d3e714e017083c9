"""Runs a snippet on a core, and says everything that an observer could see of it."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lamina.hardware.v1 import exit_controls_pb2 as controls_pb
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.snippets import places, recorder
from tests.contract.hardware.snippets.snippet import Snippet

from lamina_kit.bus.run_page import DIRTY_ALL, GPR_NAMES, SEGMENT_NAMES, ExitReason, ExitRecord

CODE: dict[str, tuple[str, str, dict[str, int]]] = json.loads(Path(__file__).with_name("machine_code.json").read_text())
"""The programs, written by `assemble.py`: name, (digest of the source, machine code, labels)."""

P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
EPT_A, EPT_D = 1 << 8, 1 << 9
LOG_ENTRIES = 27
RESERVED_FLAG, RESUME_FLAG = 1 << 1, 1 << 16
Ignored = tuple[str, ...]
_CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "star", "lstar", "sfmask", "kernel_gs_base")
_TABLES = ("gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit")
_DEBUG = ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")
_X87_POINTERS = slice(6, 24)
_MXCSR_MASK = slice(28, 32)


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a snippet. `facts` is everything that every core has to agree on, by name."""

    machine: Machine
    records: tuple[ExitRecord, ...]
    facts: dict[str, str]

    @property
    def faults(self) -> list[tuple[int, ...]]:
        """Returns what the recorder wrote: vector, code, RIP, CS, RFLAGS, RSP, SS, CR2 of each event."""
        read, count = self.machine.read, min(self.machine.load(places.LOG), LOG_ENTRIES)
        return [struct.unpack("<8Q", read(places.LOG + 64 + 64 * number, 64)) for number in range(count)]

    def missing(self) -> list[str]:
        """Returns what the snippet must leave and has not, a line each."""
        snippet, page, machine = self.machine.snippet, self.machine.page, self.machine
        found = []
        reasons = tuple(record.reason for record in self.records)
        if reasons != snippet.exits:
            found.append(f"exits: {[ExitReason(reason).name for reason in reasons]}")
        for name, value in snippet.registers.items():
            if (held := getattr(page, name)) != value:
                found.append(f"{name}: {held:#x}, not {value:#x}")
        if (held := page.rflags & (snippet.set | snippet.clear)) != snippet.set:
            found.append(f"flags: {held:#x}, not {snippet.set:#x}")
        for va, value in snippet.memory.items():
            if (held := machine.load(va)) != value:
                found.append(f"[{va:#x}]: {held:#x}, not {value:#x}")
        return found + self._missing_faults()

    def _missing_faults(self) -> list[str]:
        snippet = self.machine.snippet
        if not snippet.faults and snippet.check is None and self.faults and snippet.user == "":
            return [f"faults: {self.faults}"]
        if snippet.faults and len(snippet.faults) != len(self.faults):
            return [f"faults: {self.faults}"]
        found = []
        for event, (vector, code, label, cr2) in zip(self.faults, snippet.faults, strict=False):
            rip = self.machine.label(label) if label is not None else event[2]
            wanted = (vector, code, rip, event[7] if cr2 is None else cr2)
            if (event[0], event[1], event[2], event[7]) != wanted:
                found.append(f"fault: {[hex(word) for word in event]}, not {[hex(word) for word in wanted]}")
        if snippet.check is not None:
            snippet.check(self)
        return found


class Machine:
    """A guest with a kernel's tables, the recorder behind every vector, and a snippet's program and state."""

    def __init__(self, bench: Any, guest: Any, snippet: Snippet) -> None:
        self.bench = bench
        self.guest = guest
        self.page = guest.page
        self.snippet = snippet
        self.labels = CODE[snippet.name][2]
        self._before: dict[int, bytes] = {}

    def host(self, va: int) -> int:
        """Returns where an address of the kernel, or of ring 3's pages, lies in RAM."""
        for first, gpa, size in ((places.UTEXT, self.guest.text, 0x2000), (places.UDATA, self.guest.data, 0x20000)):
            if first <= va < first + size:
                return int(self.guest.host_of(gpa + va - first))
        return int(self.guest.host_of(self.guest.kernel[va & ~4095])) + (va & 4095)

    def read(self, va: int, size: int) -> bytes:
        """Returns bytes of one page."""
        return bytes(self.bench.bus.read(self.host(va), size))

    def load(self, va: int) -> int:
        """Returns eight bytes."""
        return int(self.bench.bus.load64(self.host(va)))

    def write(self, va: int, data: bytes) -> None:
        """Writes bytes of one page."""
        self.bench.bus.write(self.host(va), data)

    def store(self, va: int, *values: int) -> None:
        """Writes words of eight bytes."""
        self.write(va, struct.pack(f"<{len(values)}Q", *(value & (1 << 64) - 1 for value in values)))

    def map(self, va: int, bits: int = P | RW, level: int = 1, gpa: int | None = None, make: int = P | RW | US) -> int:
        """Maps one page of the guest, a fresh one unless told which; returns its guest physical address."""
        gpa = self.guest.gpa_frames() if gpa is None else gpa
        self.guest.tables.map(va, gpa, bits, level, make)
        self.guest.kernel.setdefault(va, gpa)
        return int(gpa)

    def window(self, va: int, level: int = 1) -> int:
        """Lets the guest see the entry that maps `va`; returns its virtual address."""
        host = int(self.guest.tables.entry(va, level))
        gpa = next(gpa for gpa in self.guest._backed if self.guest._backed[gpa] == host & ~4095)
        at = places.WINDOW + 4096 * level
        self.guest.tables.map(at, gpa, P | RW | NX)
        return at + (host & 4095)

    def entry(self, va: int, level: int = 1) -> int:
        """Returns the guest's entry for an address as it is in RAM."""
        return int(self.guest.entry(va, level))

    def label(self, name: str) -> int:
        """Returns the address of a label of the program."""
        return self.labels[name]

    async def prepare(self) -> None:
        """Puts program, handlers and registers in place."""
        name, page = self.snippet.name, self.page
        self.write(places.KERNEL, bytes.fromhex(CODE[name][1]))
        self.write(places.RECORDER, bytes.fromhex(CODE["recorder"][1]))
        self.write(places.STUBS, recorder.stubs())
        self.write(places.IDT, recorder.idt())
        page.set_segment("tr", replace(page.segment("tr"), selector=0x30, base=places.TSS, limit=0x67))
        # a TSS descriptor behind the segments, busy, so that the selector in TR means what it holds
        low = 0x67 | (places.TSS & 0xFFFFFF) << 16 | 0x8B << 40 | (places.TSS >> 24 & 0xFF) << 56
        self.store(places.GDT + 0x30, low, places.TSS >> 32)
        page.gdtr_limit = 0x3F
        self.write(places.TSS + 102, (0x68).to_bytes(2, "little"))  # no port bitmap
        if self.snippet.user:
            self.write(places.UTEXT, bytes.fromhex(CODE[f"{name}.user"][1]))
        if self.snippet.controls is not None:
            wanted = controls_pb.ExitControls(**self.snippet.controls)
            request = controls_pb.SetExitControlsRequest(handle=self.guest.context.handle, controls=wanted)
            await self.bench.cpu.SetExitControls(request)
        if self.snippet.prepare is not None and (waits := self.snippet.prepare(self)) is not None:
            await waits
        for register, value in self.snippet.start.items():
            setattr(page, register, value)
        page.rip = places.KERNEL
        page.dirty = DIRTY_ALL

    async def run(self, budget: int) -> Seen:
        """Runs the snippet to its last exit."""
        self._before = {gpa: bytes(self.bench.bus.read(host, 4096)) for gpa, host in self.guest._backed.items()}
        records: list[ExitRecord] = []
        for number in range(len(self.snippet.exits)):
            if number and self.snippet.answer is not None:
                waits = self.snippet.answer(self, number - 1, records[-1])
                if waits is not None:
                    await waits
            records.append(await self.guest.run(budget))
            if records[-1].reason == ExitReason.SHUTDOWN:
                break
        return Seen(self, tuple(records), self._facts(records))

    def _facts(self, records: list[ExitRecord]) -> dict[str, str]:
        facts: dict[str, str] = {}
        for number, record in enumerate(records):
            for name, value in asdict(record).items():
                if name != "instructions_retired":
                    facts[f"exit {number} {name}"] = hex(value)
        page = self.page
        for name in (*GPR_NAMES, "rip", "cpl", *_CONTROL, *_TABLES, *_DEBUG):
            facts[name] = hex(getattr(page, name))
        facts["rflags"] = hex((page.rflags | RESERVED_FLAG) & ~self.snippet.undefined)
        for name in SEGMENT_NAMES:
            segment = page.segment(name)
            if name in ("es", "ss", "ds", "fs", "gs") and segment.selector & ~3 == 0:
                # nothing shows what else a null segment holds in 64-bit mode, but the bases of FS and GS
                facts[name] = f"null {segment.base:#x}"
            else:
                facts[name] = str(segment)
        facts |= floating_facts(bytes(page.fxsave))
        facts |= self._events() | self._memory()
        facts |= self._second_stage()
        return facts

    def _events(self) -> dict[str, str]:
        """Returns what the recorder wrote, RF apart: which core sets it is a snippet of its own."""
        facts = {}
        for number in range(min(self.load(places.LOG), LOG_ENTRIES)):
            words = list(struct.unpack("<8Q", self.read(places.LOG + 64 + 64 * number, 64)))
            words[4] &= ~RESUME_FLAG
            facts[f"event {number}"] = " ".join(map(hex, words))
        return facts

    def _memory(self) -> dict[str, str]:
        """Returns each word of eight bytes that changed, or that came to be backed, by guest physical address.

        Words of the stack, and accessed bits of entries that lead to tables, have names of their own: what lies below
        RSP, and whether a walk that fails sets accessed on its way, is left to the processor.
        """
        facts = {}
        guest, tables = self.guest, self._tables()
        stack = [guest.kernel[places.KSTACK - 4096 * page] for page in (1, 2, 3, 4)]
        log = guest.kernel[places.KDATA] + (places.LOG & 4095)
        for gpa, host in sorted(guest._backed.items()):
            before, after = self._before.get(gpa, bytes(4096)), bytes(self.bench.bus.read(host, 4096))
            for place in range(0, 4096, 8) if before != after else ():
                old, new = (int.from_bytes(page[place : place + 8], "little") for page in (before, after))
                if old == new or log <= gpa + place < log + 0x800:
                    continue
                if gpa + place in tables:
                    facts[f"way {gpa + place:#x}"] = hex(new & A)
                    if old & ~A == new & ~A:
                        continue
                    new &= ~A
                facts[f"{'stack' if gpa in stack else 'memory'} {gpa + place:#x}"] = hex(new)
        return facts

    def _tables(self) -> set[int]:
        """Returns the guest physical addresses of all entries that lead to tables."""
        found: set[int] = set()
        level_tables = [self.guest.tables.root]
        for _ in (4, 3, 2):
            below = []
            for table in level_tables:
                words = struct.unpack("<512Q", self.bench.bus.read(self.guest.host_of(table), 4096))
                for number, word in enumerate(words):
                    if word & P and not word & PS:
                        found.add(table + 8 * number)
                        below.append(word & 0xF_FFFF_FFFF_F000)
            level_tables = below
        return found

    def _second_stage(self) -> dict[str, str]:
        """Returns accessed and dirty of each entry of the EPT."""
        facts = {}
        for gpa in sorted(self.guest._backed):
            for level in (1, 2, 3, 4):
                entry = self.bench.bus.load64(self.guest.ept.entry(gpa, level, 7))
                facts[f"ept {level} {gpa >> (3 + 9 * level) << (3 + 9 * level):#x}"] = (
                    f"{'A' if entry & EPT_A else '-'}{'D' if entry & EPT_D else '-'}"
                )
        return facts


def floating_facts(area: bytes) -> dict[str, str]:
    """Returns what the FXSAVE area says, without the addresses of the last x87 instruction, which cores may lose."""
    facts = {
        "x87 control": area[0:2][::-1].hex(), "x87 status": area[2:4][::-1].hex(), "x87 tags": area[4:5].hex(),
        "mxcsr": area[24:28][::-1].hex(),
    }  # fmt: skip
    for number in range(8):
        facts[f"st{number}"] = area[32 + 16 * number : 42 + 16 * number][::-1].hex()
    for number in range(16):
        facts[f"xmm{number}"] = area[160 + 16 * number : 176 + 16 * number][::-1].hex()
    return facts


def differences(one: dict[str, str], other: dict[str, str], ignored: Ignored = ()) -> list[str]:
    """Returns what two cores do not agree on; what `ignored` names the beginning or the end of is left out."""
    names = [*one, *(name for name in other if name not in one)]
    return [
        f"{name}: {one.get(name, 'unchanged')} and {other.get(name, 'unchanged')}"
        for name in names
        if one.get(name) != other.get(name)
        and not any(name.startswith(part) or name.endswith(part) for part in ignored)
    ]


async def run(bench: Any, snippet: Snippet, budget: int) -> Seen:
    """Runs a snippet in a guest of its own, whose frames are not given away again; returns what is seen of it."""
    guest = await bench.guest("hlt", intercepts=pb.Intercepts(exceptions=0, cpuid=False, syscall=False))
    try:
        machine = Machine(bench, guest, snippet)
        await machine.prepare()
        return await machine.run(budget)
    finally:
        await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=guest.context.handle))
