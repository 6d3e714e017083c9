"""Instructions at ring 3, which KVM leaves to the processor wherever it runs; they end with UD2."""

from __future__ import annotations

from typing import Any

from tests.contract.hardware.snippets.rings import ENTER_USER
from tests.contract.hardware.snippets.snippet import Snippet


def _at_ring_3(name: str, fact: str, user: str, **more: Any) -> Snippet:
    return Snippet(name, fact, ENTER_USER, user=user + "\nend: ud2", faults=((6, 0, None, None),), **more)


SNIPPETS = (
    _at_ring_3(
        "compare_exchange_fails",
        "CMPXCHG of a 32-bit register that does not match leaves it whole, and clears the upper half of RAX.",
        """
        mov rax, 0x1111111122222222
        mov rbx, 0x3333333344444444
        mov ecx, 5
        cmpxchg ebx, ecx
        """,
        registers={"rax": 0x4444_4444, "rbx": 0x3333_3333_4444_4444},
    ),
    _at_ring_3(
        "horizontal_addition",
        "PHADDW of a register with itself has the sums of neighbours in both halves.",
        """
        mov rax, 0x0004000300020001
        movq xmm0, rax
        punpcklqdq xmm0, xmm0
        phaddw xmm0, xmm0
        movq rbx, xmm0
        psrldq xmm0, 8
        movq rcx, xmm0
        """,
        registers={"rbx": 0x0007_0003_0007_0003, "rcx": 0x0007_0003_0007_0003},
    ),
    _at_ring_3(
        "doubles_at_ring_3",
        "SSE2 converts, adds, divides and takes roots in double precision.",
        """
        mov eax, 9
        cvtsi2sd xmm0, rax
        sqrtsd xmm1, xmm0
        mov ecx, 2
        cvtsi2sd xmm2, rcx
        divsd xmm1, xmm2
        movq rdx, xmm1
        """,
        registers={"rdx": 0x3FF8_0000_0000_0000},
    ),
    _at_ring_3(
        "x87_at_ring_3",
        "The stack of the FPU adds, multiplies and stores integers.",
        """
        fninit
        mov rbx, UDATA
        mov dword ptr [rbx], 7
        fild dword ptr [rbx]
        fld1
        faddp
        fmul st(0), st(0)
        fistp qword ptr [rbx+8]
        mov rax, [rbx+8]
        """,
        registers={"rax": 64},
    ),
    _at_ring_3(
        "bytes_at_ring_3",
        "CMPXCHG16B exchanges sixteen bytes, POPCNT counts, CRC32 has the Castagnoli polynomial.",
        """
        mov rsi, UDATA
        mov qword ptr [rsi], 1
        mov qword ptr [rsi+8], 2
        mov eax, 1
        mov edx, 2
        mov ebx, 3
        mov ecx, 4
        lock cmpxchg16b [rsi]
        mov r8, [rsi+8]
        popcnt r9, rsi
        xor r10d, r10d
        crc32 r10, rsi
        """,
        registers={"r8": 4, "r9": 2},
    ),
)
