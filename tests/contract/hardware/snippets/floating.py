"""x87 and SSE: results, rounding, exceptions as flags and as faults."""

from __future__ import annotations

from tests.contract.hardware.snippets.places import KDATA
from tests.contract.hardware.snippets.snippet import CF, PF, ZF, Snippet

TS, EM = 1 << 3, 1 << 2
CR0 = 0x8001_0033


def x87_pi(seen: object) -> None:
    """ST0 is pi in extended precision."""
    found = seen.facts["st0"]  # type: ignore[attr-defined]
    assert found == "4000c90fdaa22168c235", found


SNIPPETS = (
    Snippet(
        "x87_constants",
        "FLDPI has the 64-bit mantissa of pi.",
        """
        fninit
        fldpi
        hlt
        """,
        check=x87_pi,
    ),
    Snippet(
        "x87_arithmetic",
        "The stack of the FPU adds, multiplies and stores integers.",
        """
        fninit
        mov rbx, KDATA
        mov dword ptr [rbx], 7
        fild dword ptr [rbx]
        fld1
        faddp
        fmul st(0), st(0)
        fistp qword ptr [rbx+8]
        mov rax, [rbx+8]
        hlt
        """,
        registers={"rax": 64},
    ),
    Snippet(
        "x87_rounding",
        "The control word chooses the rounding: down gives -3 for -2.5, to nearest gives -2.",
        """
        fninit
        mov rbx, KDATA
        mov dword ptr [rbx], 0xc0200000
        fld dword ptr [rbx]
        fist dword ptr [rbx+8]
        mov word ptr [rbx+4], 0x077f
        fldcw [rbx+4]
        fistp dword ptr [rbx+12]
        movsxd rax, dword ptr [rbx+8]
        movsxd rcx, dword ptr [rbx+12]
        hlt
        """,
        registers={"rax": (1 << 64) - 2, "rcx": (1 << 64) - 3},
    ),
    Snippet(
        "x87_compare",
        "FCOMI sets ZF, PF and CF; a NaN compares unordered.",
        """
        fninit
        fldz
        fldz
        fdivp
        fld1
        fucomi st(0), st(1)
        hlt
        """,
        set=ZF | PF | CF,
    ),
    Snippet(
        "x87_divide_by_zero",
        "A masked division by zero sets ZE in the status word and gives infinity.",
        """
        fninit
        fld1
        fldz
        fdivp
        fnstsw ax
        hlt
        """,
        start={"rax": 0},
        registers={"rax": 0x3804},
    ),
    Snippet(
        "x87_pending",
        "An unmasked x87 exception faults (#MF) at the next waiting instruction.",
        """
        fninit
        mov rbx, KDATA
        mov word ptr [rbx], 0x37b
        fldcw [rbx]
        fld1
        fldz
        fdivp
    fault:
        fwait
        hlt
        """,
        faults=((16, 0, "fault", None),),
    ),
    Snippet(
        "scalar_double",
        "SSE2 converts, adds, divides and takes roots in double precision.",
        """
        mov eax, 9
        cvtsi2sd xmm0, rax
        sqrtsd xmm1, xmm0
        mov ecx, 2
        cvtsi2sd xmm2, rcx
        divsd xmm1, xmm2
        movq rdx, xmm1
        hlt
        """,
        registers={"rdx": 0x3FF8_0000_0000_0000},
    ),
    Snippet(
        "conversion_out_of_range",
        "CVTTSD2SI of what does not fit gives the integer indefinite and the flag IE.",
        """
        mov rax, 0x7ff0000000000000
        movq xmm0, rax
        cvttsd2si rcx, xmm0
        mov rbx, KDATA
        stmxcsr [rbx]
        mov edx, [rbx]
        hlt
        """,
        registers={"rcx": 1 << 63, "rdx": 0x1F81},
    ),
    Snippet(
        "sse_rounding",
        "MXCSR chooses the rounding of conversions.",
        """
        mov rbx, KDATA
        mov rax, 0x4004000000000000
        movq xmm0, rax
        cvtsd2si rcx, xmm0
        mov dword ptr [rbx], 0x5f80
        ldmxcsr [rbx]
        cvtsd2si rdx, xmm0
        hlt
        """,
        registers={"rcx": 2, "rdx": 3},
    ),
    Snippet(
        "sse_exception",
        "An unmasked SSE exception is #XM on the instruction, which has not been done.",
        """
        mov rbx, KDATA
        mov dword ptr [rbx], 0x1d80
        ldmxcsr [rbx]
        mov eax, 1
        cvtsi2sd xmm0, rax
        pxor xmm1, xmm1
    fault:
        divsd xmm0, xmm1
        hlt
        """,
        faults=((19, 0, "fault", None),),
    ),
    Snippet(
        "packed_integers",
        "Packed additions saturate or wrap by element.",
        """
        mov rax, 0x7fff00ff80010101
        movq xmm0, rax
        movq xmm1, rax
        movq xmm2, rax
        paddsw xmm0, xmm2
        paddb xmm1, xmm2
        movq rcx, xmm0
        movq rdx, xmm1
        hlt
        """,
        registers={"rcx": 0x7FFF_01FE_8000_0202, "rdx": 0xFEFE_00FE_0002_0202},
    ),
    Snippet(
        "shuffles",
        "PSHUFD, PSHUFB, PUNPCKLBW and PMOVMSKB move elements.",
        """
        mov rax, 0x0807060504030201
        movq xmm0, rax
        pshufd xmm1, xmm0, 0x11
        movq rcx, xmm1
        punpcklbw xmm0, xmm0
        movq rdx, xmm0
        pcmpeqb xmm2, xmm2
        pmovmskb ebx, xmm2
        hlt
        """,
        registers={"rcx": 0x0403_0201_0807_0605, "rdx": 0x0404_0303_0202_0101, "rbx": 0xFFFF},
    ),
    Snippet(
        "compare_doubles",
        "UCOMISD of a NaN is unordered; CMPLTSD makes a mask.",
        """
        mov rax, 0x7ff8000000000000
        movq xmm0, rax
        mov ecx, 1
        cvtsi2sd xmm1, rcx
        pxor xmm2, xmm2
        cmpltsd xmm2, xmm1
        movq rdx, xmm2
        ucomisd xmm1, xmm0
        hlt
        """,
        registers={"rdx": (1 << 64) - 1},
        set=ZF | PF | CF,
    ),
    Snippet(
        "state_saved",
        "FXSAVE64 and FXRSTOR64 keep XMM registers and MXCSR.",
        """
        mov rbx, KDATA
        mov rax, 0x1234567890abcdef
        movq xmm7, rax
        fxsave64 [rbx]
        mov qword ptr [rbx+8], 0        # where the last x87 instruction was: cores may lose it
        mov qword ptr [rbx+16], 0
        pxor xmm7, xmm7
        mov rcx, [rbx+160+7*16]
        fxrstor64 [rbx]
        movq rdx, xmm7
        hlt
        """,
        registers={"rcx": 0x1234_5678_90AB_CDEF, "rdx": 0x1234_5678_90AB_CDEF},
    ),
    Snippet(
        "aligned_moves",
        "MOVAPS of an address that is not a multiple of 16 is #GP(0); MOVUPS is not.",
        """
        mov rbx, KDATA+8
        movups xmm0, [rbx]
    fault:
        movaps xmm0, [rbx]
        hlt
        """,
        faults=((13, 0, "fault", None),),
    ),
    Snippet(
        "no_fpu_while_ts",
        "With CR0.TS an SSE instruction is #NM; after CLTS it runs.",
        """
        lea r15, [rip+handled]
    fault:
        movq xmm0, rax
        ud2
    handled:
        clts
        movq xmm0, rax
        mov rbx, cr0
        hlt
        """,
        start={"cr0": CR0 | TS},
        registers={"rbx": CR0},
        faults=((7, 0, "fault", None),),
    ),
    Snippet(
        "no_fpu_while_em",
        "With CR0.EM an x87 instruction is #NM and an SSE instruction #UD.",
        """
        lea r15, [rip+second]
    x87:
        fld1
        ud2
    second:
        xorps xmm0, xmm0
        hlt
        """,
        start={"cr0": (CR0 | EM) & ~2},
        faults=((7, 0, "x87", None), (6, 0, "second", None)),
    ),
    Snippet(
        "no_sse_without_osfxsr",
        "Without CR4.OSFXSR an SSE instruction is #UD.",
        """
    fault:
        movaps xmm0, xmm1
        hlt
        """,
        start={"cr4": 0x20},
        faults=((6, 0, "fault", None),),
    ),
    Snippet(
        "non_temporal",
        "MOVNTI, MOVNTDQ and the fences store what plain stores would.",
        """
        mov rbx, KDATA
        mov rax, 0x55aa
        movnti [rbx], rax
        movq xmm0, rax
        movntdq [rbx+16], xmm0
        sfence
        mfence
        lfence
        hlt
        """,
        memory={KDATA: 0x55AA, KDATA + 16: 0x55AA, KDATA + 24: 0},
    ),
)
