"""Exceptions of each kind through the guest's own IDT, with their error codes and return addresses."""

from __future__ import annotations

from typing import Any

from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import KDATA, LARGE, PAGE
from tests.contract.hardware.snippets.preparations import absent, mapped
from tests.contract.hardware.snippets.snippet import Snippet

P, RW, US, PS, NX = 1, 2, 4, 1 << 7, 1 << 63


def reserved_bit(machine: Any) -> None:
    """Maps LARGE by a page of 2 MiB whose address is not a multiple of 2 MiB."""
    machine.guest.tables.map(LARGE, (64 << 21) + (1 << 13), P | RW | PS, 2)


SNIPPETS = (
    Snippet(
        "resume_flag",
        "A fault pushes RFLAGS with RF set, a trap and the handler's own flags have it clear.",
        """
        lea r15, [rip+second]
    fault:
        ud2
    second:
        pushfq
        pop rbx
        hlt
        """,
        registers={"rbx": 2},
        faults=((6, 0, "fault", None),),
        check=lambda seen: equal(seen.faults[0][4], 0x1_0002),
    ),
    Snippet(
        "divide_error",
        "DIV by zero is vector 0 without error code, on the instruction, with RAX and RDX as they were.",
        """
        mov eax, 5
        mov edx, 0
        xor ecx, ecx
    fault:
        div rcx
        hlt
        """,
        registers={"rax": 5, "rdx": 0},
        faults=((0, 0, "fault", None),),
    ),
    Snippet(
        "quotient_too_large",
        "IDIV of the smallest number by -1 overflows: vector 0.",
        """
        mov rax, 0x8000000000000000
        cqo
        mov rcx, -1
    fault:
        idiv rcx
        hlt
        """,
        faults=((0, 0, "fault", None),),
    ),
    Snippet(
        "undefined_opcode",
        "UD2 is vector 6 on the instruction.",
        """
        nop
    fault:
        ud2
        hlt
        """,
        faults=((6, 0, "fault", None),),
    ),
    Snippet(
        "lock_without_memory",
        "LOCK in front of an instruction that stores nothing is #UD.",
        """
    fault:
        .byte 0xf0, 0x48, 0x01, 0xc8
        hlt
        """,
        faults=((6, 0, "fault", None),),
    ),
    Snippet(
        "not_canonical",
        "An address that is not canonical is #GP(0), with CR2 untouched.",
        """
        mov rax, 0x8000000000000000
    fault:
        mov rbx, [rax]
        hlt
        """,
        start={"cr2": 0x1234},
        faults=((13, 0, "fault", 0x1234),),
    ),
    Snippet(
        "stack_not_canonical",
        "A stack access through an address that is not canonical is #SS(0).",
        """
        lea r15, [rip+handled]
        mov rbp, 0x8000000000000000
    fault:
        mov rax, [rbp]
        hlt
    handled:
        mov ebx, 1
        hlt
        """,
        registers={"rbx": 1},
        faults=((12, 0, "fault", None),),
    ),
    Snippet(
        "jump_not_canonical",
        "A jump to an address that is not canonical is #GP(0) on the jump.",
        """
        mov rax, 0x8000000000000000
    fault:
        jmp rax
        hlt
        """,
        faults=((13, 0, "fault", None),),
    ),
    Snippet(
        "page_not_present",
        "A read of a page that is not there is #PF(0) with its address in CR2, and the access can be repeated.",
        """
        mov rdi, PAGE+0x18
        mov qword ptr [rdi-0x18+0x1000], 0x42
        mov r14, r12
        mov r15d, 2
    fault:
        mov rax, [rdi]
        hlt
        """,
        prepare=absent,
        registers={"rax": 0x99},
        faults=((14, 0, "fault", PAGE + 0x18),),
    ),
    Snippet(
        "write_to_a_page_not_present",
        "A write of a page that is not there is #PF with W set.",
        """
        mov rdi, PAGE+0x2010
    fault:
        mov qword ptr [rdi], 1
        hlt
        """,
        faults=((14, 2, "fault", PAGE + 0x2010),),
    ),
    Snippet(
        "write_to_a_read_only_page",
        "With CR0.WP the kernel's own write to a read-only page is #PF(P|W).",
        """
        mov rdi, PAGE
        mov rax, [rdi]
    fault:
        mov byte ptr [rdi+5], 1
        hlt
        """,
        prepare=mapped(P),
        faults=((14, 3, "fault", PAGE + 5),),
    ),
    Snippet(
        "write_without_wp",
        "Without CR0.WP the kernel writes to a read-only page, and D is set.",
        """
        mov rdi, PAGE
        mov byte ptr [rdi+5], 1
        hlt
        """,
        start={"cr0": 0x8000_0033},
        prepare=mapped(P),
        check=lambda seen: _bits(seen, PAGE, 0x60),
    ),
    Snippet(
        "fetch_from_a_page_without_execution",
        "A fetch from a page with NX is #PF(P|I) with RIP and CR2 at its address.",
        """
        lea r15, [rip+handled]
        mov rax, PAGE
        jmp rax
    handled:
        hlt
        """,
        prepare=mapped(P | RW | NX),
        faults=((14, 0x11, None, PAGE),),
    ),
    Snippet(
        "reserved_bit",
        "A large page whose entry has an address bit below its size is #PF(P|RSVD).",
        """
        mov rdi, LARGE
    fault:
        mov rax, [rdi]
        hlt
        """,
        prepare=reserved_bit,
        faults=((14, 9, "fault", LARGE),),
    ),
    Snippet(
        "access_across_two_pages",
        "A store that reaches into a page that is not there faults at that page and stores nothing.",
        """
        mov rdi, PAGE+0xffc
        mov rax, -1
    fault:
        mov [rdi], rax
        hlt
        """,
        prepare=mapped(P | RW),
        faults=((14, 2, "fault", PAGE + 0x1000),),
        check=lambda seen: equal(seen.machine.read(PAGE + 0xFF8, 8), bytes(8)),
    ),
    Snippet(
        "string_stops_at_a_fault",
        "REP MOVSB that reaches a page that is not there has moved what came before, and says so in its registers.",
        """
        mov rsi, KDATA
        mov rdi, PAGE+0xffd
        mov ecx, 8
    fault:
        rep movsb
        hlt
        """,
        prepare=mapped(P | RW),
        registers={"rcx": 5, "rsi": KDATA + 3, "rdi": PAGE + 0x1000},
        faults=((14, 2, "fault", PAGE + 0x1000),),
    ),
    Snippet(
        "bad_control_register",
        "MOV CR0 that would have paging without protection is #GP(0).",
        """
        mov rax, cr0
        and rax, -2
    fault:
        mov cr0, rax
        hlt
        """,
        faults=((13, 0, "fault", None),),
    ),
    Snippet(
        "paging_cannot_leave_long_mode",
        "Clearing CR4.PAE in long mode is #GP(0), and reserved bits of CR4 are.",
        """
        lea r15, [rip+second]
        mov rax, cr4
        mov rbx, rax
        and rax, ~0x20
    first:
        mov cr4, rax
        hlt
    second:
        bts rbx, 63
        mov cr4, rbx
        hlt
        """,
        faults=((13, 0, "first", None), (13, 0, None, None)),
    ),
    Snippet(
        "bad_model_register",
        "WRMSR of an address that is not canonical to LSTAR is #GP(0).",
        """
        mov ecx, 0xc0000082
        mov edx, 0x80000000
        xor eax, eax
    fault:
        wrmsr
        hlt
        """,
        faults=((13, 0, "fault", None),),
        registers={"lstar": 0},
    ),
    Snippet(
        "too_long",
        "An instruction of more than 15 bytes is #GP(0).",
        """
    fault:
        .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90
        hlt
        """,
        faults=((13, 0, "fault", None),),
    ),
)


def _bits(seen: Any, va: int, wanted: int) -> None:
    assert seen.machine.entry(va) & 0x60 == wanted
