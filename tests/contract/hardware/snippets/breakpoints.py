"""Breakpoints in the debug registers: instructions fault, accesses and ports trap; what DR6, DR7 and RF then say.

DR7 has for each of the four L and G (bits 2n, 2n+1), R/W (bits 16+4n: 0 instruction, 1 write, 2 port, 3 access) and LEN
(bits 18+4n: 0 one byte, 1 two, 3 four, 2 eight). Source: Intel SDM vol. 3, 18.2.
"""

from __future__ import annotations

from typing import Any

from tests.contract.hardware.snippets.checks import both, equal
from tests.contract.hardware.snippets.places import KDATA, PAGE, UDATA, UTEXT
from tests.contract.hardware.snippets.rings import ENTER_USER
from tests.contract.hardware.snippets.snippet import TF, Snippet
from tests.contract.hardware.snippets.system import trapping

from lamina_kit.bus.run_page import ExitReason

RF = 1 << 16
FIXED_6, FIXED_7 = 0xFFFF_0FF0, 0x400
DETECTED, STEPPED = 1 << 13, 1 << 14
WRITES, PORTS, ACCESSES = 1, 2, 3


def arm(number: int, address: int | str, kind: int = 0, length: int = 0) -> str:
    """Returns code that arms one breakpoint (of 1, 2, 4 or 8 bytes; 0: of an instruction) and no other."""
    size = (0, 0, 1, 0, 3, 0, 0, 0, 2)[length]
    dr7 = FIXED_7 | 1 << 2 * number | (kind | size << 2) << (16 + 4 * number)
    load = f"lea rax, [{address}]" if isinstance(address, str) else f"mov rax, {address:#x}"
    return f"{load}\nmov dr{number}, rax\nmov eax, {dr7:#x}\nmov dr7, rax\nmov r15d, 1\n"


def flags(value: int, mask: int = RF) -> Any:
    """Returns the check of bits of the flags that the first event pushed."""
    return lambda seen: equal(seen.faults[0][4] & mask, value)


def alias(machine: Any) -> None:
    """Maps the kernel's data a second time, at PAGE."""
    machine.map(PAGE, gpa=machine.guest.kernel[KDATA])


SNIPPETS = (
    Snippet(
        "code_breakpoint",
        "An armed instruction faults before it runs, with RF in the flags that are pushed; IRETQ then lets it run.",
        arm(0, "rip+spot") + "xor ebx, ebx\nspot: inc ebx\nmov rcx, dr6\nhlt",
        registers={"rbx": 1, "rcx": FIXED_6 | 1},
        faults=((1, 0, "spot", None),),
        check=flags(RF),
    ),
    Snippet(
        "code_breakpoint_in_a_loop",
        "RF holds an armed instruction back once: the next time round it faults again.",
        arm(2, "rip+spot") + "mov ecx, 2\nspot: inc ebx\nmov r15d, 1\ndec ecx\njnz spot\nhlt",
        start={"rbx": 0},
        registers={"rbx": 2, "dr6": FIXED_6 | 4},
        faults=((1, 0, "spot", None), (1, 0, "spot", None)),
    ),
    Snippet(
        "code_breakpoint_on_a_repeated_string",
        "REP STOSB that is armed faults once, before its first item.",
        arm(0, "rip+spot") + f"mov rdi, {KDATA:#x}\nmov ecx, 5\nmov al, 7\nspot: rep stosb\nhlt",
        registers={"rcx": 0, "rdi": KDATA + 5},
        faults=((1, 0, "spot", None),),
    ),
    Snippet(
        "write_breakpoint",
        "A store to an armed address traps behind itself, with RF clear; a load does not.",
        arm(0, KDATA + 8, WRITES, 8) + f"mov rdi, {KDATA:#x}\nmov rbx, [rdi+8]\nmov [rdi+8], rdi\n"
        "behind: mov rcx, dr6\nhlt",
        registers={"rcx": FIXED_6 | 1},
        memory={KDATA + 8: KDATA},
        faults=((1, 0, "behind", None),),
        check=flags(0),
    ),
    Snippet(
        "access_breakpoint",
        "With R/W 11 a load traps behind itself too.",
        arm(3, KDATA + 8, ACCESSES, 4) + f"mov rdi, {KDATA:#x}\nmov ebx, [rdi+8]\nbehind: nop\nhlt",
        registers={"dr6": FIXED_6 | 8},
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_of_one_byte",
        "LEN 00 covers one byte: accesses beside it do not hit, one that covers it does.",
        arm(0, KDATA + 9, WRITES, 1)
        + f"mov rdi, {KDATA:#x}\nmov [rdi+8], al\nmov [rdi+10], al\nmov [rdi+8], ax\nbehind: nop\nhlt",
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_of_two_bytes",
        "LEN 01 covers the two bytes that the address lies in.",
        arm(1, KDATA + 11, WRITES, 2)
        + f"mov rdi, {KDATA:#x}\nmov [rdi+8], ax\nmov [rdi+12], ax\nmov [rdi+10], al\nbehind: nop\nhlt",
        registers={"dr6": FIXED_6 | 2},
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_of_four_bytes",
        "LEN 11 covers four bytes.",
        arm(1, KDATA + 12, WRITES, 4)
        + f"mov rdi, {KDATA:#x}\nmov [rdi+8], eax\nmov [rdi+16], eax\nmov [rdi+15], al\nbehind: nop\nhlt",
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "two_breakpoints_at_once",
        "DR6 names each breakpoint that an instruction hit.",
        f"mov rax, {KDATA:#x}\nmov dr0, rax\nadd rax, 4\nmov dr2, rax\nmov eax, 0xd0d0422\n"
        f"mov dr7, rax\nmov r15d, 1\nmov rdi, {KDATA:#x}\nmov [rdi], rdi\nbehind: nop\nhlt",
        registers={"dr6": FIXED_6 | 5},
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_on_the_stack",
        "A push to an armed address traps behind itself.",
        arm(0, "rsp-8", WRITES, 8) + "push rbx\nbehind: pop rbx\nhlt",
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_in_a_repeated_string",
        "REP STOSB traps behind the item that hit, on itself, and goes on with the rest.",
        arm(0, KDATA + 3, WRITES, 1) + f"mov rdi, {KDATA:#x}\nmov ecx, 8\nmov al, 7\nspot: rep stosb\nhlt",
        registers={"rcx": 0, "rdi": KDATA + 8},
        memory={KDATA: 0x0707_0707_0707_0707},
        faults=((1, 0, "spot", None),),
    ),
    Snippet(
        "breakpoint_behind_a_page",
        "An access across two pages hits what is armed in the second one.",
        arm(0, UDATA + 0x1000, WRITES, 1)
        + f"mov rdi, {UDATA:#x}\nmov [rdi+0xff8], rdi\nmov [rdi+0xffc], rdi\nbehind: nop\nhlt",
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_of_a_linear_address",
        "The same memory at another linear address does not hit.",
        arm(0, KDATA + 8, WRITES, 8)
        + f"mov rdi, {PAGE:#x}\nmov [rdi+8], rdi\nmov rdi, {KDATA:#x}\nmov [rdi+8], rdi\nbehind: nop\nhlt",
        prepare=alias,
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_disarmed",
        "What DR7 no longer arms does not hit.",
        arm(0, KDATA + 8, WRITES, 8)
        + f"mov rdi, {KDATA:#x}\nmov [rdi+8], rdi\nbehind: mov eax, 0x400\nmov dr7, rax\nmov [rdi+8], rax\nhlt",
        memory={KDATA + 8: 0x400},
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_moved",
        "A breakpoint that is moved hits where it is, not where it was.",
        arm(0, KDATA + 8, WRITES, 8) + f"mov rdi, {KDATA:#x}\nlea rax, [rdi+16]\nmov dr0, rax\nmov [rdi+8], rdi\n"
        "mov [rdi+16], rdi\nbehind: nop\nhlt",
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "breakpoint_while_stepping",
        "A store that hits while TF is set is one trap, of which DR6 tells both causes.",
        arm(0, KDATA + 8, WRITES, 8) + f"mov rdi, {KDATA:#x}\npush {TF | 2:#x}\npopfq\nmov [rdi+8], rdi\nbehind: hlt",
        faults=((1, 0, "behind", None),),
        registers={"dr6": FIXED_6 | STEPPED | 1},
    ),
    Snippet(
        "debug_registers_guarded",
        "With DR7.GD an access to a debug register faults with DR6.BD, and GD is clear for the handler.",
        f"mov eax, {FIXED_7 | 1 << 13:#x}\nmov dr7, rax\nmov r15d, 1\nspot: mov rbx, dr7\nhlt",
        registers={"rbx": FIXED_7, "dr6": FIXED_6 | DETECTED},
        faults=((1, 0, "spot", None),),
    ),
    Snippet(
        "breakpoints_of_ring_3",
        "An instruction and a store of ring 3 hit as those of the kernel do.",
        f"mov rax, {UTEXT:#x}\nmov dr0, rax\nmov rax, {UDATA + 8:#x}\nmov dr1, rax\n"
        f"mov eax, {FIXED_7 | 0x5 | 0x9 << 20:#x}\nmov dr7, rax\nmov r15d, 1\n" + ENTER_USER,
        user="nop\nmov r15d, 1\nmov [UDATA+8], rax\nhlt",
        check=both(
            lambda seen: equal(
                [event[:4] for event in seen.faults[:2]], [(1, 0, UTEXT, 0x2B), (1, 0, UTEXT + 15, 0x2B)]
            ),
            flags(RF),
        ),
    ),
    Snippet(
        "port_breakpoint",
        "With CR4.DE an access to an armed port traps behind itself.",
        "mov rax, cr4\nor eax, 8\nmov cr4, rax\n"
        + arm(0, 0x80, PORTS, 2)
        + "in al, 0x7f\nin al, 0x82\nin al, 0x81\nbehind: mov rax, cr4\nhlt",
        controls=trapping(),
        registers={"dr6": FIXED_6 | 1},
        faults=((1, 0, "behind", None),),
    ),
    Snippet(
        "port_breakpoint_at_an_exit",
        "The trap behind a port access that exits comes when the context goes on.",
        "mov rax, cr4\nor eax, 8\nmov cr4, rax\n" + arm(0, 0x80, PORTS, 1) + "out 0x80, al\nbehind: nop\nhlt",
        exits=(ExitReason.IO, ExitReason.HLT),
        registers={"dr6": FIXED_6 | 1},
        faults=((1, 0, "behind", None),),
    ),
)
