"""From ring to ring: SYSCALL and SYSRET, IRETQ, interrupts with the TSS's stacks, and what ring 3 may not do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import IDT, KDATA, KSTACK, PAGE, STUBS, TSS, UDATA, USTACK, UTEXT
from tests.contract.hardware.snippets.recorder import gate
from tests.contract.hardware.snippets.snippet import AF, CF, OF, Snippet

from lamina_kit.bus.run_page import ExitReason

STAR = 0x001B_0008_0000_0000  # SYSCALL: 0x08 and 0x10; SYSRET: 0x2b and 0x23
ENTER_USER = """
        push 0x23
        push USTACK
        push 0x202
        push 0x2b
        push UTEXT
        iretq
"""
"""Goes to ring 3 with its stack, interrupts open."""


def _faults_at_ring_3(name: str, fact: str, instruction: str, **more: Any) -> Snippet:
    more.setdefault("faults", ((13, 0, None, None),))
    return Snippet(
        name,
        fact,
        ENTER_USER,
        user=f"nop\n{instruction}\nint 0x80",
        check=_came_from_ring_3,
        **more,
    )


def _came_from_ring_3(seen: Any) -> None:
    rip, cs, stack, ss = (seen.faults[0][number] for number in (2, 3, 5, 6))
    assert (rip, cs, stack, ss) == (UTEXT + 1, 0x2B, USTACK, 0x23)


def _stack_table(machine: Any) -> None:
    machine.write(IDT + 16 * 0x80, gate(STUBS + 16 * 0x80, 3, ist=7))
    machine.write(TSS + 36 + 6 * 8, (KSTACK - 0x2000 + 13).to_bytes(8, "little"))


def _port_bitmap(machine: Any) -> None:
    """Lets ring 3 use port 0x60 and no other."""
    machine.write(TSS + 102, (104).to_bytes(2, "little"))
    machine.write(TSS + 104, b"\xff" * 12 + b"\xfe" + b"\xff" * 20)
    machine.page.set_segment("tr", replace(machine.page.segment("tr"), limit=104 + 32))


SNIPPETS = (
    Snippet(
        "to_ring_3_and_back",
        "IRETQ goes to ring 3; INT 0x80 comes back on the stack of the TSS with the outer stack pushed.",
        ENTER_USER,
        user="""
        mov eax, 5
        int 0x80
        """,
        registers={"rax": 5, "cpl": 0, "rsp": KSTACK - 56},
        check=lambda seen: equal(seen.faults[0][:7], (0x80, 0, UTEXT + 7, 0x2B, 0x202, USTACK, 0x23)),
    ),
    Snippet(
        "interrupt_stack_table",
        "A gate with an IST entry takes that stack, aligned down to 16 bytes.",
        ENTER_USER,
        user="int 0x80",
        prepare=_stack_table,
        registers={"rsp": KSTACK - 0x2000 - 56},
    ),
    Snippet(
        "system_call",
        "SYSCALL enters LSTAR with RCX and R11 set and SFMASK's flags clear; SYSRET returns and restores the flags.",
        "lea rax, [rip+entry]\nmov rcx, rax\nmov rdx, rax\nshr rdx, 32\nmov ecx, 0xc0000082\nwrmsr\n"
        + ENTER_USER
        + """
    entry:
        pushfq
        pop r8
        mov r9, rcx
        mov r10, r11
        sysretq
        """,
        user="""
        stc
        syscall
        mov ebx, cs
        mov esi, ss
        int 0x80
        """,
        start={"star": STAR, "sfmask": 0x200 | CF},
        registers={"r8": 2, "r9": UTEXT + 3, "r10": 0x203, "rbx": 0x2B, "rsi": 0x23},
        check=lambda seen: equal(seen.faults[0][4], 0x203),
    ),
    Snippet(
        "no_system_call_without_sce",
        "SYSCALL without EFER.SCE is #UD.",
        """
    fault:
        syscall
        hlt
        """,
        start={"efer": 0xD00},
        faults=((6, 0, "fault", None),),
    ),
    Snippet(
        "swap_gs",
        "SWAPGS exchanges the base of GS with IA32_KERNEL_GS_BASE.",
        """
        mov ecx, 0xc0000102
        mov rax, KDATA
        mov rdx, rax
        shr rdx, 32
        wrmsr
        swapgs
        hlt
        """,
        start={"gs_base": 0x1000},
        registers={"gs_base": KDATA, "kernel_gs_base": 0x1000},
        undefined=OF | AF,
    ),
    Snippet(
        "segment_bases",
        "FS and GS have bases in 64-bit mode; those of DS, ES and SS count as 0.",
        """
        mov rax, KDATA
        mov qword ptr [rax+0x10], 0x77
        mov ecx, 0xc0000100
        mov rdx, rax
        shr rdx, 32
        wrmsr
        mov rbx, fs:[0x10]
        mov rsi, KDATA
        mov rdi, ds:[rsi+0x10]
        hlt
        """,
        registers={"rbx": 0x77, "rdi": 0x77, "fs_base": KDATA},
        undefined=OF | AF,
    ),
    _faults_at_ring_3("user_halts", "HLT at ring 3 is #GP(0).", "hlt"),
    _faults_at_ring_3("user_closes_interrupts", "CLI at ring 3 with IOPL 0 is #GP(0).", "cli"),
    _faults_at_ring_3("user_reads_cr0", "MOV from CR0 at ring 3 is #GP(0).", "mov rax, cr0"),
    _faults_at_ring_3("user_reads_msr", "RDMSR at ring 3 is #GP(0).", "rdmsr"),
    _faults_at_ring_3("user_port", "OUT at ring 3 without IOPL or bitmap is #GP(0).", "out 0x80, al"),
    _faults_at_ring_3(
        "user_gate",
        "INT n through a gate of DPL 0 is #GP with the vector's error code.",
        "int 0x40",
        faults=((13, 0x40 * 8 + 2, None, None),),
        needs=("error-codes",),
    ),
    _faults_at_ring_3(
        "user_reads_kernel",
        "Ring 3 reading the kernel's page is #PF(P|U).",
        "mov rax, qword ptr [rbx]",
        start={"rbx": KDATA},
        faults=((14, 5, None, KDATA),),
    ),
    _faults_at_ring_3(
        "user_writes_code",
        "Ring 3 writing its read-only page is #PF(P|W|U).",
        "mov qword ptr [rbx], rax",
        start={"rbx": UTEXT + 0x800},
        faults=((14, 7, None, UTEXT + 0x800),),
    ),
    _faults_at_ring_3(
        "user_fetches_nothing",
        "Ring 3 reading where nothing is mapped is #PF(U).",
        "mov al, byte ptr [rbx]",
        start={"rbx": PAGE + 0x3000},
        faults=((14, 4, None, PAGE + 0x3000),),
    ),
    Snippet(
        "user_misaligned",
        "With CR0.AM and RFLAGS.AC a misaligned access at ring 3 is #AC(0).",
        ENTER_USER.replace("0x202", "0x40202"),
        user="mov rax, qword ptr [rbx]\nint 0x80",
        start={"rbx": UDATA + 1, "cr0": 0x8005_0033},
        faults=((17, 0, None, None),),
    ),
    Snippet(
        "user_with_a_port",
        "The port bitmap of the TSS lets ring 3 use one port; the next one is #GP(0).",
        ENTER_USER,
        user="""
        mov al, 0x42
        out 0x60, al
        out 0x61, al
        int 0x80
        """,
        prepare=_port_bitmap,
        exits=(ExitReason.IO, ExitReason.HLT),
        faults=((13, 0, None, None),),
    ),
    Snippet(
        "user_with_iopl",
        "With IOPL 3 ring 3 opens and closes interrupts and uses ports.",
        ENTER_USER.replace("0x202", "0x3202"),
        user="""
        cli
        mov al, 1
        out 0x70, al
        pushfq
        pop rbx
        sti
        int 0x80
        """,
        exits=(ExitReason.IO, ExitReason.HLT),
        registers={"rbx": 0x3002},
    ),
    Snippet(
        "user_cannot_raise_iopl",
        "POPFQ at ring 3 changes neither IOPL nor IF, without a fault.",
        ENTER_USER,
        user="""
        push 0x3003
        popfq
        pushfq
        pop rbx
        int 0x80
        """,
        registers={"rbx": 0x203},
    ),
    Snippet(
        "outer_stack_segment",
        "IRETQ to ring 3 with a kernel's stack segment is #GP with its selector, at ring 0.",
        """
        push 0x10
        push USTACK
        push 2
        push 0x2b
        push UTEXT
    fault:
        iretq
        hlt
        """,
        faults=((13, 0x10, "fault", None),),
        needs=("error-codes",),
    ),
)
