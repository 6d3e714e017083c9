"""String instructions, and the stack and branches that go with programs."""

from __future__ import annotations

from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import KDATA, KERNEL, KSTACK
from tests.contract.hardware.snippets.snippet import AF, CF, DF, IF, OF, PF, SF, ZF, Snippet

TEXT = b"abcdefgh" * 4


def text(machine: object) -> None:
    """Puts letters at KDATA."""
    machine.write(KDATA, TEXT)  # type: ignore[attr-defined]


# whether a branch is taken after 1 was compared with 1, and -1 with 1
TAKEN = {
    "z": (1, 0), "nz": (0, 1), "b": (0, 0), "ae": (1, 1), "be": (1, 0), "a": (0, 1), "l": (0, 1), "ge": (1, 0),
    "le": (1, 1), "g": (0, 0), "s": (0, 1), "ns": (1, 0), "o": (0, 0), "no": (1, 1), "p": (1, 0), "np": (0, 1),
}  # fmt: skip

SNIPPETS = (
    Snippet(
        "move_bytes",
        "REP MOVSB copies RCX bytes upward and leaves RCX 0 and both pointers behind.",
        """
        mov rsi, KDATA
        lea rdi, [rsi+0x100]
        mov ecx, 19
        cld
        rep movsb
        hlt
        """,
        prepare=text,
        registers={"rcx": 0, "rsi": KDATA + 19, "rdi": KDATA + 0x100 + 19},
        memory={KDATA + 0x100: int.from_bytes(b"abcdefgh", "little")},
    ),
    Snippet(
        "move_downward",
        "With DF set MOVSQ goes down, which an overlapping copy upward needs.",
        """
        mov rsi, KDATA+16
        lea rdi, [rsi+8]
        mov ecx, 3
        std
        rep movsq
        cld
        hlt
        """,
        prepare=text,
        registers={"rcx": 0, "rsi": KDATA - 8, "rdi": KDATA},
        clear=DF,
    ),
    Snippet(
        "move_overlapping",
        "REP MOVSB onto the next byte repeats the first one.",
        """
        mov rsi, KDATA
        lea rdi, [rsi+1]
        mov ecx, 7
        rep movsb
        hlt
        """,
        prepare=text,
        memory={KDATA: int.from_bytes(b"aaaaaaaa", "little")},
    ),
    Snippet(
        "store_words",
        "REP STOS of every size fills upward by its size.",
        """
        mov rdi, KDATA
        mov rax, 0x1122334455667788
        mov ecx, 2
        rep stosq
        mov ecx, 2
        rep stosd
        mov ecx, 2
        rep stosw
        mov ecx, 4
        rep stosb
        hlt
        """,
        registers={"rdi": KDATA + 32},
        memory={
            KDATA + 8: 0x1122_3344_5566_7788,
            KDATA + 16: 0x5566_7788_5566_7788,
            KDATA + 24: 0x8888_8888_7788_7788,
        },
    ),
    Snippet(
        "store_nothing",
        "REP with RCX 0 does nothing, not even touch a page that is not there.",
        """
        xor edi, edi
        xor ecx, ecx
        rep stosq
        hlt
        """,
        registers={"rdi": 0, "rcx": 0},
    ),
    Snippet(
        "scan",
        "REPNE SCASB stops behind the byte that it looks for, ZF set.",
        """
        mov rdi, KDATA
        mov al, 'e'
        mov ecx, 32
        repne scasb
        hlt
        """,
        prepare=text,
        registers={"rdi": KDATA + 5, "rcx": 27},
        set=ZF,
    ),
    Snippet(
        "scan_without_end",
        "REPNE SCASB that finds nothing ends with RCX 0 and ZF clear.",
        """
        mov rdi, KDATA
        mov al, '!'
        mov ecx, 16
        repne scasb
        hlt
        """,
        prepare=text,
        registers={"rdi": KDATA + 16, "rcx": 0},
        clear=ZF,
    ),
    Snippet(
        "compare_strings",
        "REPE CMPSB stops behind the first difference with the flags of that comparison.",
        """
        mov rsi, KDATA
        lea rdi, [rsi+8]
        mov byte ptr [rdi+3], 'z'
        mov ecx, 8
        repe cmpsb
        hlt
        """,
        prepare=text,
        registers={"rsi": KDATA + 4, "rcx": 4},
        set=CF,
        clear=ZF,
    ),
    Snippet(
        "load_strings",
        "LODSB, LODSW and LODSQ load and advance.",
        """
        mov rsi, KDATA
        xor eax, eax
        lodsb
        mov ebx, eax
        lodsw
        mov ecx, eax
        lodsq
        hlt
        """,
        prepare=text,
        registers={"rbx": 0x61, "rcx": 0x6362, "rsi": KDATA + 11},
    ),
    Snippet(
        "calls",
        "CALL pushes where it goes on; RET n takes arguments off as well.",
        """
        push 5
        push 6
        call double
    behind:
        hlt
    double:
        mov rax, [rsp+8]
        add rax, [rsp+16]
        mov rbx, [rsp]
        ret 16
        """,
        registers={"rax": 11, "rsp": KSTACK},
        check=lambda seen: equal(seen.machine.page.rbx, seen.machine.label("behind")),
    ),
    Snippet(
        "call_through_memory",
        "Near calls and jumps take their target from a register or from memory.",
        """
        lea rax, [rip+first]
        mov rbx, KDATA
        lea rcx, [rip+second]
        mov [rbx], rcx
        call rax
        call [rbx]
        lea rax, [rip+last]
        jmp rax
        ud2
    first:
        add edx, 1
        ret
    second:
        add edx, 16
        ret
    last:
        hlt
        """,
        registers={"rdx": 17},
        start={"rdx": 0},
    ),
    Snippet(
        "frames",
        "ENTER makes a frame, LEAVE takes it down.",
        """
        mov rbp, 0x77
        enter 0x20, 0
        mov rax, rbp
        mov rbx, rsp
        leave
        hlt
        """,
        registers={"rax": KSTACK - 8, "rbx": KSTACK - 0x28, "rbp": 0x77, "rsp": KSTACK},
    ),
    Snippet(
        "pushes",
        "PUSH RSP pushes the old value; POP to memory counts with the new one; 16-bit pushes take two bytes.",
        """
        push rsp
        pop rax
        push 0x1234
        push 0x55
        pop qword ptr [rsp]
        pop rbx
        pushw 0x9
        mov rcx, rsp
        hlt
        """,
        registers={"rax": KSTACK, "rbx": 0x55, "rcx": KSTACK - 2},
    ),
    Snippet(
        "flags_on_the_stack",
        "POPFQ at ring 0 sets DF and IF, and PUSHFQ shows them with bit 1.",
        """
        push 0x601
        popfq
        pushfq
        pop rax
        cli
        cld
        hlt
        """,
        registers={"rax": 0x603},
        clear=IF | DF,
        set=CF,
    ),
    Snippet(
        "every_branch",
        "Each conditional jump goes as its condition says, taken and not taken.",
        "\n".join(
            f"mov rcx, {left}\ncmp rcx, 1\nj{condition} 1f\njmp 2f\n1: bts rax, {2 * number + which}\n2:"
            for number, condition in enumerate(TAKEN)
            for which, left in enumerate((1, -1))
        )
        + "\nhlt",
        start={"rax": 0},
        registers={"rax": sum((one | other << 1) << 2 * at for at, (one, other) in enumerate(TAKEN.values()))},
        undefined=OF | SF | AF | PF,
    ),
    Snippet(
        "loops",
        "LOOP counts RCX down without flags; LOOPE stops at ZF clear; JRCXZ sees zero.",
        """
        mov ecx, 5
    1:  add eax, 2
        loop 1b
        jrcxz 2f
        ud2
    2:  mov ecx, 10
    3:  inc ebx
        cmp ebx, 3
        loopne 3b
        hlt
        """,
        start={"rax": 0, "rbx": 0},
        registers={"rax": 10, "rbx": 3, "rcx": 7},
        set=ZF,
    ),
    Snippet(
        "far_return",
        "A far return loads CS and RIP from the stack.",
        """
        lea rax, [rip+there]
        push 8
        push rax
        rex.w retf
        ud2
    there:
        mov ebx, cs
        hlt
        """,
        registers={"rbx": 8, "rsp": KSTACK},
    ),
    Snippet(
        "page_crossing_code",
        "An instruction that lies on two pages is fetched from both.",
        """
        mov rdi, SPARE-3
        mov rax, 0x1122334455667788
        mov word ptr [rdi], 0xb848
        mov [rdi+2], rax
        mov byte ptr [rdi+10], 0xf4
        jmp rdi
        """,
        registers={"rax": 0x1122_3344_5566_7788, "rip": KERNEL + 0x1000 + 8},
    ),
)
