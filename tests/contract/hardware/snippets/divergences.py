"""Where a core does not do what the manual says: each is a row of docs/divergences.md, and fails strictly here."""

from __future__ import annotations

_EMULATOR = ("walker", "portable")
_NO_SSE_FLAGS = "the emulator neither sets the exception flags of MXCSR nor raises #XM"

# name of a snippet: (cores, why)
KNOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "conversion_out_of_range": (_EMULATOR, _NO_SSE_FLAGS),
    "sse_exception": (_EMULATOR, _NO_SSE_FLAGS),
    "aligned_moves": (_EMULATOR, "the emulator does not check that SSE operands are aligned"),
    "user_misaligned": (_EMULATOR, "the emulator has no alignment checks (CR0.AM)"),
    "stack_not_canonical": (_EMULATOR, "an address that is not canonical is #GP, through RSP and RBP too"),
    "bad_model_register": (_EMULATOR, "WRMSR takes an address that is not canonical; it faults where it is used"),
    "jump_not_canonical": (_EMULATOR, "a jump to an address that is not canonical faults at its target"),
}
