"""Interrupts and events that the holder injects: when they are delivered, and what the handler finds."""

from __future__ import annotations

from typing import Any

from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import KERNEL, UTEXT
from tests.contract.hardware.snippets.rings import ENTER_USER
from tests.contract.hardware.snippets.snippet import Snippet

from lamina_kit.bus.run_page import (
    EVENT_ERROR_CODE,
    EVENT_EXCEPTION,
    EVENT_EXTERNAL,
    EVENT_NMI,
    EVENT_SOFTWARE,
    EVENT_VALID,
    ExitReason,
    ExitRecord,
)

IO, HLT = ExitReason.IO, ExitReason.HLT


def event(kind: int, vector: int, code: int | None = None) -> Any:
    """Returns what injects an event before the first instruction."""

    def prepare(machine: Any) -> None:
        machine.page.event = vector | kind | EVENT_VALID | (EVENT_ERROR_CODE if code is not None else 0)
        machine.page.event_error_code = code or 0

    return prepare


def at_exit(kind: int, vector: int) -> Any:
    """Returns a holder that injects an event at the first exit."""

    def answer(machine: Any, number: int, record: ExitRecord) -> None:
        if number == 0:
            machine.page.event = vector | kind | EVENT_VALID

    return answer


SNIPPETS = (
    Snippet(
        "external_interrupt",
        "An injected interrupt is delivered at once when interrupts are open, and the handler returns to where it was.",
        """
        mov ebx, 4
        hlt
        """,
        start={"rflags": 0x202, "r15": 1},
        prepare=event(EVENT_EXTERNAL, 0x41),
        registers={"rbx": 4},
        faults=((0x41, 0, None, None),),
        check=lambda seen: equal(seen.faults[0][2], KERNEL),
    ),
    Snippet(
        "interrupt_waits_for_sti",
        "An injected interrupt waits while IF is clear, and for one more instruction behind STI.",
        """
        mov r15d, 1
        nop
        sti
        mov ebx, 4
    taken:
        nop
        hlt
        """,
        prepare=event(EVENT_EXTERNAL, 0x41),
        registers={"rbx": 4},
        faults=((0x41, 0, "taken", None),),
    ),
    Snippet(
        "interrupt_waits_for_popf",
        "POPFQ that sets IF lets a waiting interrupt in behind itself.",
        """
        mov r15d, 1
        push 0x202
        popfq
    taken:
        nop
        hlt
        """,
        prepare=event(EVENT_EXTERNAL, 0x55),
        faults=((0x55, 0, "taken", None),),
    ),
    Snippet(
        "handler_runs_closed",
        "An interrupt gate clears IF for the handler; the pushed flags have it.",
        "nop\nhlt",
        start={"rflags": 0x202},
        prepare=event(EVENT_EXTERNAL, 0x41),
        clear=1 << 9,
        check=lambda seen: equal(seen.faults[0][4], 0x202),
    ),
    Snippet(
        "interrupt_at_an_exit",
        "An interrupt that is injected at a port access comes between it and the next instruction.",
        """
        mov r15d, 1
        out 0x80, al
    taken:
        mov ebx, 3
        hlt
        """,
        start={"rflags": 0x202},
        exits=(IO, HLT),
        answer=at_exit(EVENT_EXTERNAL, 0x30),
        registers={"rbx": 3},
        faults=((0x30, 0, "taken", None),),
    ),
    Snippet(
        "interrupt_wakes",
        "After HLT an injected interrupt's handler returns behind the HLT.",
        """
        mov r15d, 1
        hlt
    behind:
        mov ebx, 7
        hlt
        """,
        start={"rflags": 0x202},
        exits=(HLT, HLT),
        answer=at_exit(EVENT_EXTERNAL, 0x30),
        registers={"rbx": 7},
        faults=((0x30, 0, "behind", None),),
    ),
    Snippet(
        "nmi",
        "An NMI is delivered with IF clear, through vector 2.",
        "mov ebx, 4\nhlt",
        start={"r15": 1},
        prepare=event(EVENT_NMI, 2),
        registers={"rbx": 4},
        faults=((2, 0, None, None),),
        needs=("nmi",),
    ),
    Snippet(
        "injected_fault",
        "An injected exception pushes the error code that came with it.",
        "nop\nhlt",
        prepare=event(EVENT_EXCEPTION, 13, 0x58),
        faults=((13, 0x58, None, None),),
    ),
    Snippet(
        "injected_page_fault",
        "An injected page fault has the CR2 that the holder put into the page.",
        "nop\nhlt",
        start={"cr2": 0x1234_5000},
        prepare=event(EVENT_EXCEPTION, 14, 4),
        faults=((14, 4, None, 0x1234_5000),),
    ),
    Snippet(
        "injected_software_interrupt",
        "INT n that the holder injects returns to the RIP of the page.",
        "nop\nhlt",
        prepare=event(EVENT_SOFTWARE, 0x80),
        faults=((0x80, 0, None, None),),
        check=lambda seen: equal(seen.faults[0][2], KERNEL),
    ),
    Snippet(
        "interrupt_at_ring_3",
        "An interrupt at ring 3 changes to the stack of the TSS and back.",
        ENTER_USER.replace("0x202", "0x3202"),
        user="""
        mov r15d, 1
        out 0x80, al
        mov ebx, 6
        int 0x80
        """,
        exits=(IO, HLT),
        answer=at_exit(EVENT_EXTERNAL, 0x41),
        registers={"rbx": 6},
        check=lambda seen: equal(
            [event[:4] for event in seen.faults], [(0x41, 0, UTEXT + 8, 0x2B), (0x80, 0, UTEXT + 15, 0x2B)]
        ),
    ),
)
