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

# All of these are KVM's, none are the engine's: it has no interface that would tell, or do, otherwise. Most are there
# only where KVM has no virtualization of the processor, and emulates ring 0 (`emulates`).
_EMULATED = "KVM's emulator of ring 0 does not do this as the processor does: "
_RING_3 = "where KVM emulates ring 0, ring 3 runs without the guest's gates and IOPL: "
_BEHIND = "KVM's emulator hands a store over when all else is done: RIP is behind it"
_NO_X = "KVM's memory slots have no right to execute"

KVM: dict[str, str] = {
    "access_across_two_pages": _EMULATED + "the first page is written before the second one faults",
    "paging_cannot_leave_long_mode": _EMULATED + "MOV CR4 drops bit 63",
    "fault_in_the_handler_stack": _EMULATED + "a fault of a delivery leaves CR2 as it was",
    "interrupt_waits_for_sti": _EMULATED + "a window of one instruction may be missed",
    "interrupt_waits_for_popf": _EMULATED + "a window of one instruction may be missed",
    "to_ring_3_and_back": _RING_3 + "INT n is #UD",
    "interrupt_stack_table": _RING_3 + "INT n is #UD",
    "user_gate": _RING_3 + "INT n is #UD",
    "user_cannot_raise_iopl": _RING_3 + "INT n is #UD",
    "system_call": _RING_3 + "SYSCALL enters the kernel's code with the rights of ring 3",
    "user_with_iopl": _RING_3 + "IN and OUT are #GP",
    "interrupt_at_ring_3": _RING_3 + "IN and OUT are #GP",
    "user_reads_kernel": "where KVM walks by software, P is clear in the error code for a page that was not read yet",
    "page_of_1_gib": "KVM offers pages of 1 GiB only where the processor has them (CPUID.80000001H:EDX.26)",
    "ept_write": _BEHIND,
    "ept_read_only": _BEHIND,
    "ept_across_two_frames": _BEHIND,
    "ept_on_the_stack": _BEHIND,
    "ept_fetch": _NO_X,
    "ept_execute_only": _NO_X,
    "ept_table_absent": "where KVM walks by software, a refused table is the guest's page fault, if it arrives",
    **dict.fromkeys(
        (
            *("write_breakpoint", "access_breakpoint", "breakpoint_of_one_byte", "breakpoint_of_two_bytes"),
            *("breakpoint_of_four_bytes", "two_breakpoints_at_once", "breakpoint_on_the_stack"),
            *("breakpoint_in_a_repeated_string", "breakpoint_behind_a_page", "breakpoint_of_a_linear_address"),
            *("breakpoint_disarmed", "breakpoint_moved", "breakpoint_while_stepping", "breakpoints_of_ring_3"),
            *("port_breakpoint", "port_breakpoint_at_an_exit"),
        ),
        _EMULATED + "no access and no port hits a breakpoint",
    ),
    **dict.fromkeys(
        ("code_breakpoint", "code_breakpoint_in_a_loop", "code_breakpoint_on_a_repeated_string"),
        _EMULATED + "IRETQ does not bring RF back, so an armed instruction faults again",
    ),
    "ept_accessed": "KVM does not tell what was accessed, so A and D of the EPT are set when a page is mapped",
}
"""What the engine `kvm` does otherwise: strictly where it emulates ring 0, as it may be better on another processor."""

VARIES = ("interrupt_waits_for_sti", "interrupt_waits_for_popf")
"""Of these, what depends on when the kernel is interrupted, as then it looks for a window: now so, now as it should."""
