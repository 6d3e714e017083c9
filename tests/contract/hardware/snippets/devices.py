"""Ports and device memory: what an exit says, and what the holder's answer does."""

from __future__ import annotations

from typing import Any

from lamina.hardware.v1 import exit_controls_pb2 as pb
from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import KDATA, KERNEL, PAGE
from tests.contract.hardware.snippets.snippet import DF, Snippet

from lamina_kit.bus.run_page import DIRTY_GPRS, DIRTY_RIP, EXIT_OFFSET, ExitReason, ExitRecord

DEVICE = 0xFE00_0000
P, RW = 1, 2
IO, MMIO, HLT = ExitReason.IO, ExitReason.MMIO, ExitReason.HLT
ALL = (1 << 64) - 1


def answers(*values: int) -> Any:
    """Returns a holder that answers reads with these values, one after the other."""
    left = list(values)

    def answer(machine: Any, number: int, record: ExitRecord) -> None:
        value = left[number]
        if record.reason == IO and not record.io_direction:
            machine.page.rax = value
        elif record.reason == MMIO and record.access == 1:
            machine.page.gpr[record.access_register] = value
        machine.page.dirty = DIRTY_GPRS

    return answer


def seen_ports(*wanted: tuple[int, int, int, int]) -> Any:
    """Returns the check of (port, size, direction, data) of each port access."""

    def check(seen: Any) -> None:
        found = [(r.port, r.io_size, r.io_direction, r.io_data if r.io_direction else 0) for r in seen.records[:-1]]
        assert found == list(wanted), found

    return check


def seen_accesses(*wanted: tuple[int, int, int]) -> Any:
    """Returns the check of (offset in the device, size, written value or -1) of each device access."""

    def check(seen: Any) -> None:
        found = [(r.gpa - DEVICE, r.access_size, r.access_value if r.access == 2 else -1) for r in seen.records[:-1]]
        assert found == list(wanted), found

    return check


def device(machine: Any) -> None:
    """PAGE is a page of the device."""
    machine.guest.tables.map(PAGE, DEVICE, P | RW)


CONTROLS = {
    "instructions": [pb.TRAPPED_INSTRUCTION_HLT],
    "device_ranges": [pb.DeviceRange(gpa=DEVICE, size_bytes=0x1000)],
    "ports": pb.PortControls(all=True),
}


def _device(name: str, fact: str, source: str, exits: int, **more: Any) -> Snippet:
    return Snippet(
        name, fact, f"mov rdi, PAGE\n{source}\nhlt", exits=(MMIO,) * exits + (HLT,), prepare=device,
        controls=CONTROLS, **more,
    )  # fmt: skip


SNIPPETS = (
    Snippet(
        "ports_out",
        "OUT of 8, 16 and 32 bits exits behind itself with that much of RAX.",
        """
        mov eax, 0x11223344
        mov edx, 0x3f8
        out dx, al
        out dx, ax
        out dx, eax
        out 0x80, al
        hlt
        """,
        exits=(IO, IO, IO, IO, HLT),
        check=seen_ports((0x3F8, 1, 1, 0x44), (0x3F8, 2, 1, 0x3344), (0x3F8, 4, 1, 0x1122_3344), (0x80, 1, 1, 0x44)),
    ),
    Snippet(
        "ports_in",
        "IN fills AL, AX or EAX from the holder's answer; 32 bits clear the upper half.",
        """
        mov rax, -1
        in al, 0x60
        mov rbx, rax
        mov rax, -1
        mov edx, 0x1f0
        in ax, dx
        mov rcx, rax
        mov rax, -1
        in eax, dx
        hlt
        """,
        exits=(IO, IO, IO, HLT),
        answer=answers(0x12, 0x3456, 0x789A_BCDE),
        registers={"rax": 0x789A_BCDE},
        check=seen_ports((0x60, 1, 0, 0), (0x1F0, 2, 0, 0), (0x1F0, 4, 0, 0)),
    ),
    Snippet(
        "string_out",
        "REP OUTSB sends byte after byte from memory.",
        """
        mov rsi, KDATA
        mov dword ptr [rsi], 0x00636261
        mov ecx, 3
        mov edx, 0xe9
        rep outsb
        hlt
        """,
        exits=(IO, IO, IO, HLT),
        registers={"rcx": 0, "rsi": KDATA + 3},
        check=seen_ports((0xE9, 1, 1, 0x61), (0xE9, 1, 1, 0x62), (0xE9, 1, 1, 0x63)),
    ),
    Snippet(
        "string_in",
        "REP INSW stores what the holder answers, word after word.",
        """
        mov rdi, KDATA
        mov ecx, 2
        mov edx, 0x1f0
        rep insw
        mov rax, [rdi-4]
        hlt
        """,
        exits=(IO, IO, HLT),
        answer=lambda machine, number, record: _put_data(machine, (0x1122, 0x3344)[number]),
        registers={"rcx": 0, "rdi": KDATA + 4, "rax": 0x3344_1122},
    ),
    Snippet(
        "string_out_downward",
        "OUTSW with DF set goes down.",
        """
        mov rsi, KDATA+2
        mov dword ptr [rsi-2], 0x22221111
        mov ecx, 2
        mov edx, 0x80
        std
        rep outsw
        cld
        hlt
        """,
        exits=(IO, IO, HLT),
        registers={"rsi": KDATA - 2},
        clear=DF,
        check=seen_ports((0x80, 2, 1, 0x2222), (0x80, 2, 1, 0x1111)),
    ),
    _device(
        "device_stores",
        "Stores of each size to a device exit behind themselves, decoded.",
        "mov rax, 0x1122334455667788\nmov [rdi], al\nmov [rdi+2], ax\nmov [rdi+4], eax\nmov [rdi+8], rax\n"
        "mov byte ptr [rdi+16], 0x42\nmov qword ptr [rdi+24], -1",
        6,
        check=seen_accesses(
            (0, 1, 0x88),
            (2, 2, 0x7788),
            (4, 4, 0x5566_7788),
            (8, 8, 0x1122_3344_5566_7788),
            (16, 1, 0x42),
            (24, 8, ALL),
        ),
    ),
    _device(
        "device_loads",
        "Loads of each size fill their register as the instruction says.",
        "mov rax, -1\nmov rbx, -1\nmov al, [rdi]\nmov bx, [rdi+2]\nmov ecx, [rdi+4]\nmov rdx, [rdi+8]",
        4,
        answer=answers(0x81, 0x8182, 0x8182_8384, 0x8182_8384_8586_8788),
        registers={
            "rax": ALL - 0x7E,
            "rbx": ALL - 0xFFFF + 0x8182,
            "rcx": 0x8182_8384,
            "rdx": 0x8182_8384_8586_8788,
        },
        check=seen_accesses((0, 1, -1), (2, 2, -1), (4, 4, -1), (8, 8, -1)),
    ),
    _device(
        "device_loads_extended",
        "MOVZX, MOVSX and MOVSXD extend what the device answers.",
        "movzx eax, byte ptr [rdi]\nmovsx rbx, byte ptr [rdi]\n"
        "movzx ecx, word ptr [rdi+2]\nmovsxd rdx, dword ptr [rdi+4]",
        4,
        answer=answers(0x81, 0x81, 0x8182, 0x8182_8384),
        registers={"rax": 0x81, "rbx": ALL - 0x7E, "rcx": 0x8182, "rdx": ALL - 0xFFFF_FFFF + 0x8182_8384},
        check=seen_accesses((0, 1, -1), (0, 1, -1), (2, 2, -1), (4, 4, -1)),
    ),
    _device(
        "device_accessed",
        "An access to a device sets A, and a store D, in the guest's entry.",
        "mov eax, [rdi]\nmov [rdi], eax",
        2,
        answer=answers(5, 0),
        registers={"rax": 5},
        check=lambda seen: equal(seen.machine.entry(PAGE) & 0x60, 0x60),
    ),
    Snippet(
        "port_then_memory",
        "What the holder writes into memory at an exit is what the guest reads next.",
        """
        mov rsi, KDATA
        mov rax, [rsi]
        out 0x80, al
        mov rbx, [rsi]
        hlt
        """,
        exits=(IO, HLT),
        answer=lambda machine, number, record: machine.store(KDATA, 0xFEED),
        registers={"rax": 0, "rbx": 0xFEED},
    ),
    Snippet(
        "registers_changed_at_an_exit",
        "What the holder changes of the registers at an exit is what the guest goes on with.",
        """
        out 0x80, al
    again:
        out 0x81, al
        hlt
        """,
        exits=(IO, IO, IO, HLT),
        answer=lambda machine, number, record: _change(machine, number),
        registers={"rbx": 0x55, "rip": KERNEL + 5},
        check=seen_ports((0x80, 1, 1, 0), (0x81, 1, 1, 0), (0x81, 1, 1, 0x77)),
        start={"rax": 0},
    ),
)


def _put_data(machine: Any, value: int) -> None:
    """Puts what INS stores into the exit record's `io_data`."""
    machine.page.words[(EXIT_OFFSET >> 3) + 12] = value


def _change(machine: Any, number: int) -> None:
    if number == 1:
        machine.page.rbx, machine.page.rax, machine.page.rip = 0x55, 0x77, machine.label("again")
        machine.page.dirty = DIRTY_GPRS | DIRTY_RIP
