"""Code that changes: by itself, through another address, and from outside."""

from __future__ import annotations

from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.snippets.places import PAGE, SPARE
from tests.contract.hardware.snippets.snippet import Snippet

from lamina_kit.bus.run_page import ExitReason, ExitRecord

IO, HLT = ExitReason.IO, ExitReason.HLT
RETURN_9 = bytes.fromhex("b809000000c3")  # mov eax, 9; ret


def alias(machine: Any) -> None:
    """PAGE is the frame of SPARE."""
    machine.map(PAGE, gpa=machine.guest.kernel[SPARE])


def write_outside(machine: Any, number: int, record: ExitRecord) -> Any:
    """Writes other code to SPARE through the service, as a debugger does."""
    return machine.bench.memory.WriteMemory(pb.WriteMemoryRequest(address=machine.host(SPARE), data=RETURN_9))


SNIPPETS = (
    Snippet(
        "patches_itself",
        "A store to the immediate of a later instruction of the same page counts when that is reached by a jump.",
        """
        lea rdi, [rip+next+1]
        mov dword ptr [rdi], 0x2222
        jmp next
    next:
        mov eax, 0x1111
        hlt
        """,
        registers={"rax": 0x2222},
    ),
    Snippet(
        "patches_a_loop",
        "A loop that changes an instruction of its own body runs the changed one in the next turn.",
        """
        xor eax, eax
        mov ecx, 3
        lea rdi, [rip+body+1]
    again:
    body:
        mov ebx, 5
        add eax, ebx
        add dword ptr [rdi], 100
        dec ecx
        jnz again
        hlt
        """,
        registers={"rax": 5 + 105 + 205},
    ),
    Snippet(
        "writes_a_function",
        "Code written to another page runs, and runs changed after it was written again.",
        """
        mov rdi, SPARE
        mov dword ptr [rdi], 0x0007b8
        mov word ptr [rdi+4], 0xc300
        call rdi
        mov ebx, eax
        mov byte ptr [rdi+1], 8
        call rdi
        hlt
        """,
        registers={"rax": 8, "rbx": 7},
    ),
    Snippet(
        "writes_through_another_address",
        "Code changed through another address of its frame is changed code.",
        """
        mov rdi, SPARE
        mov rsi, PAGE
        mov dword ptr [rdi], 0x0007b8
        mov word ptr [rdi+4], 0xc300
        call rdi
        mov ebx, eax
        mov byte ptr [rsi+1], 8
        call rdi
        hlt
        """,
        prepare=alias,
        registers={"rax": 8, "rbx": 7},
    ),
    Snippet(
        "written_from_outside",
        "Code that the service's memory call changed at an exit runs changed.",
        """
        mov rdi, SPARE
        mov dword ptr [rdi], 0x0007b8
        mov word ptr [rdi+4], 0xc300
        call rdi
        mov ebx, eax
        out 0x80, al
        call rdi
        hlt
        """,
        exits=(IO, HLT),
        answer=write_outside,
        registers={"rax": 9, "rbx": 7},
    ),
    Snippet(
        "copied_by_a_string",
        "Code that REP MOVSB copied over other code runs.",
        """
        mov rdi, SPARE
        mov byte ptr [rdi], 0xc3
        call rdi
        lea rsi, [rip+there]
        mov ecx, 6
        rep movsb
        mov rdi, SPARE
        call rdi
        hlt
    there:
        mov eax, 0x66
        ret
        """,
        registers={"rax": 0x66},
    ),
)
