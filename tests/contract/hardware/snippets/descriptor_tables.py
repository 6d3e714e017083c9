"""Exceptions that come of the descriptor tables, and what becomes of one that cannot be delivered."""

from __future__ import annotations

from typing import Any

from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import GDT, IDT, PAGE, SPARE
from tests.contract.hardware.snippets.preparations import no_gate, on_another_stack, stack_ends
from tests.contract.hardware.snippets.recorder import gate
from tests.contract.hardware.snippets.snippet import Snippet

from lamina_kit.bus.run_page import ExitReason

NOT_PRESENT_DATA = 0x00CF_1300_0000_FFFF


def segment_not_present(machine: Any) -> None:
    """Makes the last segment of the GDT (0x28) a data segment that is not present."""
    machine.store(GDT + 0x28, NOT_PRESENT_DATA)


SNIPPETS = (
    Snippet(
        "breakpoint",
        "INT3 is a trap: vector 3 with RIP behind it.",
        """
        mov r15d, 1
        int3
    behind:
        mov eax, 77
        hlt
        """,
        registers={"rax": 77},
        faults=((3, 0, "behind", None),),
    ),
    Snippet(
        "selector_beyond_the_table",
        "Loading a selector beyond the GDT is #GP with the selector as error code.",
        """
        mov eax, 0x1234
    fault:
        mov ds, eax
        hlt
        """,
        faults=((13, 0x1234, "fault", None),),
        needs=("error-codes",),
    ),
    Snippet(
        "segment_not_present",
        "Loading a data segment that is not present is #NP with its selector.",
        """
        mov eax, 0x28
    fault:
        mov es, eax
        hlt
        """,
        prepare=segment_not_present,
        faults=((11, 0x28, "fault", None),),
        needs=("error-codes",),
    ),
    Snippet(
        "stack_segment_not_present",
        "Loading SS with a segment that is not present is #SS with its selector.",
        """
        mov eax, 0x28
    fault:
        mov ss, eax
        hlt
        """,
        prepare=segment_not_present,
        faults=((12, 0x28, "fault", None),),
        needs=("error-codes",),
    ),
    Snippet(
        "push_onto_nothing",
        "A push below the stack's last page is a page fault, which an IST stack handles; RSP is as before.",
        """
        mov rbp, rsp
        mov rsp, PAGE+0x1000
    fault:
        push rax
        hlt
        """,
        prepare=stack_ends,
        faults=((14, 2, "fault", PAGE + 0xFF8),),
        check=lambda seen: equal(seen.faults[0][5], PAGE + 0x1000),
    ),
    Snippet(
        "interrupt_beyond_the_table",
        "INT n beyond the IDT is #GP with the vector's error code, on the instruction.",
        """
    fault:
        int 0x50
        hlt
        """,
        start={"idtr_limit": 0x4FF},
        faults=((13, 0x50 * 8 + 2, "fault", None),),
        needs=("error-codes",),
    ),
    Snippet(
        "gate_not_present",
        "INT n of a gate that is not present is #NP with the vector's error code.",
        """
    fault:
        int 0x50
        hlt
        """,
        prepare=lambda machine: machine.write(IDT + 16 * 0x50, gate(SPARE, kind=0x0E)),
        faults=((11, 0x50 * 8 + 2, "fault", None),),
        needs=("error-codes",),
    ),
    Snippet(
        "double_fault",
        "A page fault whose own gate is missing (#NP) is a double fault: vector 8, error code 0.",
        """
        mov rax, [0x123000]
        hlt
        """,
        prepare=no_gate(14),
        faults=((8, 0, None, 0x123000),),
    ),
    Snippet(
        "triple_fault",
        "Without a gate for the double fault either the context shuts down.",
        """
        nop
        ud2
        hlt
        """,
        start={"idtr_limit": 0},
        exits=(ExitReason.SHUTDOWN,),
        undefined=1 << 16,  # RF: the manual does not say which it has in the state of shutdown
    ),
    Snippet(
        "fault_in_the_handler_stack",
        "When the kernel's stack is gone a fault becomes a double fault, which its IST stack handles.",
        """
        mov rsp, 0x7000
        ud2
        hlt
        """,
        prepare=on_another_stack(8),
        faults=((8, 0, None, 0x6FF8),),
    ),
)
