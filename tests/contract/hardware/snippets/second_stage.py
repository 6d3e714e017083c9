"""The second stage: what its entries refuse, with qualification, and the accessed and dirty bits that it keeps."""

from __future__ import annotations

from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.cores import ROOM
from tests.contract.hardware.snippets.places import KDATA, PAGE
from tests.contract.hardware.snippets.snippet import Snippet

from lamina_kit.bus.run_page import ExitReason, ExitRecord

P, RW = 1, 2
VIOLATION, HLT, MISCONFIGURATION = ExitReason.EPT_VIOLATION, ExitReason.HLT, ExitReason.EPT_MISCONFIGURATION
LINEAR, FINAL = 1 << 7, 1 << 8
READ_RIGHT, WRITE_RIGHT, EXECUTE_RIGHT = 1 << 3, 1 << 4, 1 << 5
EPT_A, EPT_D, EPT_LARGE = 1 << 8, 1 << 9, 1 << 7


def rights(bits: int) -> Any:
    """Returns what maps PAGE to a frame whose EPT entry has these rights."""

    def prepare(machine: Any) -> None:
        machine.guest.back(machine.map(PAGE), bits)

    return prepare


def table_rights(level: int, bits: int) -> Any:
    """Returns what gives the guest's table in which the entry of PAGE lies these rights in the EPT."""

    def prepare(machine: Any) -> None:
        machine.map(PAGE)
        machine.guest.back(_table(machine, level), bits)

    return prepare


def give(bits: int = 7) -> Any:
    """Returns a holder that gives the refused frame these rights, as a hypervisor does, and lets the guest go on."""

    async def answer(machine: Any, number: int, record: ExitRecord) -> None:
        place = machine.guest.ept.entry(record.gpa & ~4095, 1, 7)
        machine.bench.bus.store64(place, machine.bench.bus.load64(place) & ~7 | bits)
        await machine.bench.cpu.Shootdown(pb.ShootdownRequest(eptp=machine.guest.context.eptp))

    return answer


def qualified(kind: int, bits: int, final: bool = True) -> Any:
    """Returns the check of the first exit's qualification: which access (1 read, 2 write, 4 fetch) and the rights."""

    def check(seen: Any) -> None:
        found = seen.records[0].qualification
        linear = found & LINEAR  # whether the virtual address is known; without it nothing says what was final
        assert found == kind | bits | (linear | (FINAL if final else 0) if linear else 0), hex(found)

    return check


def ept_bits(wanted: int) -> Any:
    """Returns the check of accessed and dirty in the EPT entry of PAGE."""

    def check(seen: Any) -> None:
        gpa = seen.machine.guest.kernel[PAGE]
        assert seen.machine.guest.ept_entry(gpa) & (EPT_A | EPT_D) == wanted

    return check


def taken_away(machine: Any, number: int, record: ExitRecord) -> Any:
    """Takes the frame of PAGE away, with a shootdown."""
    place = machine.guest.ept.entry(machine.guest.kernel[PAGE], 1, 7)
    machine.bench.bus.store64(place, 0)
    return machine.bench.cpu.Shootdown(pb.ShootdownRequest(eptp=machine.guest.context.eptp))


def moved(machine: Any, number: int, record: ExitRecord) -> Any:
    """Moves the frame of PAGE: its bytes are copied, its entry names the new place."""
    gpa = machine.guest.kernel[PAGE]
    place, fresh = machine.guest.ept.entry(gpa, 1, 7), machine.bench.frames()
    machine.bench.bus.write(fresh, (0x5EED).to_bytes(8, "little"))
    machine.bench.bus.store64(place, fresh | 7)
    machine.guest._backed[gpa] = fresh
    return machine.bench.cpu.Shootdown(pb.ShootdownRequest(eptp=machine.guest.context.eptp))


def large_frame(machine: Any) -> None:
    """PAGE lies in a page of 2 MiB of the EPT, which is a whole aligned piece of RAM."""
    gpa, host = 256 << 21, ROOM
    machine.guest.ept.map(gpa, host, 7 | EPT_LARGE, 2, 7)
    machine.guest.tables.map(PAGE, gpa + 0x3000, P | RW)
    machine.store(KDATA, host + 0x3000)


def _table(machine: Any, level: int) -> int:
    """Returns the guest physical address of the table in which the entry of PAGE at `level` lies."""
    table = machine.guest.tables.root
    for above in range(4, level, -1):
        table = machine.entry(PAGE, above) & 0xF_FFFF_FFFF_F000
    return int(table)


def _snippet(name: str, fact: str, source: str, **more: Any) -> Snippet:
    more.setdefault("exits", (VIOLATION, HLT))
    return Snippet(name, fact, f"mov rdi, PAGE\n{source}\nhlt", **more)


SNIPPETS = (
    _snippet(
        "ept_read",
        "A read of a frame that is not there exits with its address, and is repeated once it is there.",
        "fault: mov rax, [rdi+0x28]",
        prepare=rights(0),
        answer=give(),
        registers={"rax": 0},
        check=qualified(1, 0),
    ),
    _snippet(
        "ept_write",
        "A write to a frame that is not there exits as a write.",
        "mov qword ptr [rdi+0x28], 0x66",
        prepare=rights(0),
        answer=give(),
        memory={PAGE + 0x28: 0x66},
        check=qualified(2, 0),
    ),
    _snippet(
        "ept_fetch",
        "A fetch from a frame without the right to execute exits as a fetch, and runs once it has the right.",
        "mov byte ptr [rdi], 0xc3\ncall rdi",
        prepare=rights(3),
        answer=give(),
        check=qualified(4, READ_RIGHT | WRITE_RIGHT),
    ),
    _snippet(
        "ept_read_only",
        "A frame that may only be read is read; the first write exits with the rights that it has.",
        "mov rax, [rdi]\nmov qword ptr [rdi], 5\nmov rbx, [rdi]",
        prepare=rights(5),
        answer=give(),
        registers={"rax": 0, "rbx": 5},
        check=qualified(2, READ_RIGHT | EXECUTE_RIGHT),
    ),
    _snippet(
        "ept_execute_only",
        "A frame that may only be executed runs; reading it exits.",
        "call rdi\nmov al, [rdi]",
        prepare=lambda machine: _code_in(machine, 4),
        answer=give(),
        registers={"rbx": 9, "rax": 0xBB},
        start={"rax": 0},
        check=qualified(1, EXECUTE_RIGHT),
    ),
    _snippet(
        "ept_table_absent",
        "A guest's table that is not there exits before the page itself is looked at.",
        "mov rax, [rdi]",
        prepare=table_rights(1, 0),
        answer=give(),
        check=qualified(3, 0, final=False),
    ),
    _snippet(
        "ept_table_read_only",
        "A guest's table counts as written: without the right to write, the walk exits.",
        "mov rax, [rdi]",
        prepare=table_rights(2, 5),
        answer=give(),
        check=qualified(3, READ_RIGHT | EXECUTE_RIGHT, final=False),
    ),
    _snippet(
        "ept_misconfigured",
        "An entry that may be written but not read is a misconfiguration, whoever asks.",
        "mov rax, [rdi]",
        prepare=rights(2),
        exits=(MISCONFIGURATION,),
        check=lambda seen: equal(seen.records[0].gpa & ~4095, seen.machine.guest.kernel[PAGE]),
    ),
    _snippet(
        "ept_accessed",
        "A read sets A, not D, in the entry of the second stage.",
        "mov rax, [rdi]",
        prepare=rights(7),
        exits=(HLT,),
        check=ept_bits(EPT_A),
    ),
    _snippet(
        "ept_dirty",
        "A write sets A and D in the entry of the second stage.",
        "mov rax, [rdi]\nmov [rdi], rax",
        prepare=rights(7),
        exits=(HLT,),
        check=ept_bits(EPT_A | EPT_D),
    ),
    _snippet(
        "ept_taken_away",
        "A frame that was taken away with a shootdown is not reached any more.",
        "mov rax, [rdi]\nout 0x80, al\nmov rax, [rdi]",
        prepare=rights(7),
        answer=taken_away,
        exits=(ExitReason.IO, VIOLATION),
        check=lambda seen: equal(seen.records[1].gpa & ~4095, seen.machine.guest.kernel[PAGE]),
    ),
    _snippet(
        "ept_moved",
        "A frame that was moved with a shootdown is read at its new place.",
        "mov rax, [rdi]\nout 0x80, al\nmov rax, [rdi]",
        prepare=rights(7),
        answer=moved,
        exits=(ExitReason.IO, HLT),
        registers={"rax": 0x5EED},
    ),
    _snippet(
        "ept_large",
        "A page of 2 MiB of the second stage backs a guest's small page.",
        "mov qword ptr [rdi], 0x77\nmov rax, [rdi]",
        prepare=large_frame,
        exits=(HLT,),
        registers={"rax": 0x77},
        check=lambda seen: equal(seen.machine.bench.bus.load64(seen.machine.load(KDATA)), 0x77),
    ),
    _snippet(
        "ept_across_two_frames",
        "A store across two pages of which the second is not backed stores nothing until it is.",
        "mov rax, -1\nmov [rdi+0xffc], rax\nmov rbx, [rdi+0xffc]",
        prepare=lambda machine: _second_absent(machine),
        answer=give(),
        registers={"rbx": (1 << 64) - 1},
        check=qualified(2, 0),
    ),
    _snippet(
        "ept_on_the_stack",
        "A push onto a frame that is not there exits with RSP as it was.",
        "lea rsp, [rdi+0x800]\npush 0x31\npop rax",
        prepare=rights(0),
        answer=give(),
        registers={"rax": 0x31, "rsp": PAGE + 0x800},
        check=qualified(2, 0),
    ),
)


def _code_in(machine: Any, bits: int) -> None:
    """PAGE holds MOV EBX, 9; RET, with these rights."""
    gpa = machine.map(PAGE)
    machine.bench.bus.write(machine.guest.back(gpa, bits), bytes.fromhex("bb09000000c3"))


def _second_absent(machine: Any) -> None:
    machine.map(PAGE)
    machine.guest.back(machine.map(PAGE + 0x1000), 0)
