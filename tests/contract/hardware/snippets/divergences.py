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
    "resume_flag": (_EMULATOR, "a fault pushes RF clear: the emulator would show it to the next PUSHF of the block"),
    "compare_exchange_fails": (_EMULATOR, "CMPXCHG of a 32-bit register that fails clears its upper half"),
    "horizontal_addition": (_EMULATOR, "PHADDW of a register with itself adds sums for the upper half"),
    "bad_model_register": (_EMULATOR, "WRMSR takes an address that is not canonical; it faults where it is used"),
    "jump_not_canonical": (_EMULATOR, "a jump to an address that is not canonical faults at its target"),
}

_RING_3 = "KVM here turns INT n and ports of ring 3 into other exceptions"
_BEHIND = "where KVM emulates, RIP of a refused store is behind it"
_TABLES = "where KVM walks by software, a refused table of the guest is the guest's own fault"
_NO_X = "KVM has no right to execute"
_EMULATED = "KVM's emulator of ring 0 does not do this as the processor does"

KVM: dict[str, str] = {
    "access_across_two_pages": _EMULATED,
    "paging_cannot_leave_long_mode": _EMULATED,
    "bad_model_register": "KVM leaves a refused WRMSR to the holder",
    "triple_fault": "RF is in the flags of a context that shut down",
    "fault_in_the_handler_stack": "CR2 is not set by a fault of the delivery",
    "to_ring_3_and_back": _RING_3,
    "interrupt_stack_table": _RING_3,
    "system_call": _RING_3,
    "user_gate": _RING_3,
    "user_cannot_raise_iopl": _RING_3,
    "user_with_iopl": _RING_3,
    "interrupt_at_ring_3": _RING_3,
    "user_reads_kernel": "where KVM walks by software, P is clear for a page of the kernel that was not read yet",
    "swap_gs": _EMULATED + ": OF of a shift by 32",
    "segment_bases": _EMULATED + ": OF of a shift by 32",
    "string_out": "RIP of the last item of a string is on the instruction",
    "string_out_downward": "RIP of the last item of a string is on the instruction",
    "device_loads": "the holder's register replaces the whole of it",
    "device_loads_extended": "the holder's register replaces the whole of it",
    "page_of_1_gib": "no pages of 1 GiB of the guest",
    "ept_write": _BEHIND,
    "ept_read_only": _BEHIND,
    "ept_across_two_frames": _BEHIND,
    "ept_on_the_stack": _BEHIND,
    "ept_fetch": _NO_X,
    "ept_execute_only": _NO_X,
    "ept_table_absent": _TABLES,
    "ept_table_read_only": _TABLES,
    "ept_misconfigured": "KVM does not tell which access it was",
    "ept_accessed": "A and D of the EPT are set when it is mapped",
    "interrupt_waits_for_sti": _EMULATED + ": a window of one instruction is missed",
    "interrupt_waits_for_popf": _EMULATED + ": a window of one instruction is missed",
    "task_register": "TR is kept with its type as it was loaded",
}
"""What the engine `kvm` does otherwise: strictly where it emulates ring 0, as it may be better on another processor."""

VARIES = ("interrupt_waits_for_sti", "interrupt_waits_for_popf")
"""Of these, what depends on when KVM's emulator looks for a window: now so, now as the manual."""

NEVER_ENDS = {"hypercall_without_a_hypervisor": "KVM answers VMCALL itself; an untrapped one is not #UD"}
"""What is not tried on the engine `kvm`."""
