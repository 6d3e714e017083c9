"""What CPUID tells a guest: a 64-bit processor with what the cores have, and that a hypervisor is there. Pure.

Leaf 0 vendor `LaminaVirt64` · leaf 1 features and vCPU number · leaf 0x40000000 hypervisor vendor `LaminaLamina` ·
leaf 0x40000001 how the hypervisor is called · leaf 0x80000001 and up: long mode, names, address sizes. Leaves that do
not exist read zero, as AMD has it. Intel repeats the last basic leaf, and so does KVM: that is why leaf 6 is the last
and empty. Where CPUID does not exit, a table in the vCPU's run page answers the same.

Source: Intel SDM vol. 2, CPUID; the hypervisor range as Linux, KVM and Xen use it.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_hypervisor.domain.vcpus.processor import MODELLED, Processor
from lamina_kit.bus.run_page import CpuidEntry

VENDOR = b"LaminaVirt64"
HYPERVISOR_VENDOR = b"LaminaLamina"
BRAND = b"Lamina Virtual Processor".ljust(48, b"\0")
PHYSICAL_BITS, LINEAR_BITS = 40, 48
HYPERCALL_COUNT = 3
CALL_PORT = 0xCA1
"""A write to this port is a hypercall, with the registers of VMCALL: the form that every core leaves to us."""
VMCALL_ANSWERED = 1
"""Bit of EDX of leaf 0x40000001: VMCALL reaches the hypervisor, too."""
LAST_BASIC = 6

_FAMILY = 0x0006_0F10
"""Family 6, model 15, stepping 0, as small 64-bit processors report."""
# FPU PSE TSC MSR PAE CX8 PGE CMOV CLFSH MMX FXSR SSE SSE2
_FEATURES_EDX = sum(1 << bit for bit in (0, 3, 4, 5, 6, 8, 13, 15, 19, 23, 24, 25, 26))
# SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT RDRAND and the hypervisor bit
_FEATURES_ECX = sum(1 << bit for bit in (0, 9, 13, 19, 20, 23, 30, 31))
# SYSCALL NX RDTSCP LM
_EXTENDED_EDX = sum(1 << bit for bit in (11, 20, 27, 29))
_EXTENDED_ECX = 1  # LAHF in 64-bit mode
_RDRAND = 1 << 30
_LEAVES = (
    *range(8), 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0003, 0x8000_0004,
    0x8000_0005, 0x8000_0006, 0x8000_0007, 0x8000_0008,
)  # fmt: skip


class Answer(NamedTuple):
    """The four registers that CPUID fills."""

    eax: int
    ebx: int
    ecx: int
    edx: int


def answer(leaf: int, vcpu: int, vcpu_count: int, processor: Processor = MODELLED) -> Answer:
    """Returns what CPUID of `leaf` (32 bits) gives on vCPU `vcpu` of `vcpu_count`."""
    if leaf == 0:
        ebx, edx, ecx = _words(VENDOR)
        return Answer(LAST_BASIC, ebx, ecx, edx)
    if leaf == 1:
        # RDRAND that does not exit would not follow from the stack's seed, so it is not offered.
        features = _FEATURES_ECX if processor.traps else _FEATURES_ECX & ~_RDRAND
        return Answer(_FAMILY, vcpu << 24 | vcpu_count << 16 | 8 << 8, features, _FEATURES_EDX)
    if leaf == 0x4000_0000:
        return Answer(0x4000_0001, *_words(HYPERVISOR_VENDOR))
    if leaf == 0x4000_0001:
        return Answer(HYPERCALL_COUNT, processor.tsc_hz // 1000, CALL_PORT, VMCALL_ANSWERED if processor.traps else 0)
    if leaf == 0x8000_0000:
        ebx, edx, ecx = _words(VENDOR)
        return Answer(0x8000_0008, ebx, ecx, edx)
    if leaf == 0x8000_0001:
        return Answer(_FAMILY, 0, _EXTENDED_ECX, _EXTENDED_EDX)
    if 0x8000_0002 <= leaf <= 0x8000_0004:
        at = (leaf - 0x8000_0002) * 16
        return Answer(_word(BRAND, at), _word(BRAND, at + 4), _word(BRAND, at + 8), _word(BRAND, at + 12))
    if leaf == 0x8000_0008:
        return Answer(LINEAR_BITS << 8 | PHYSICAL_BITS, 0, vcpu_count - 1, 0)
    return Answer(0, 0, 0, 0)


def table(vcpu: int, vcpu_count: int, processor: Processor) -> tuple[CpuidEntry, ...]:
    """Returns all leaves as a run page has them: what a core answers that does not leave the guest for CPUID."""
    return tuple(CpuidEntry(leaf, 0, *answer(leaf, vcpu, vcpu_count, processor)) for leaf in _LEAVES)


def _word(text: bytes, at: int) -> int:
    return int.from_bytes(text[at : at + 4], "little")


def _words(text: bytes) -> tuple[int, int, int]:
    """Returns 12 characters as three words."""
    return _word(text, 0), _word(text, 4), _word(text, 8)
