"""CPUID, MSRs and the widths of registers."""

from __future__ import annotations

import struct

import pytest

from lamina_hypervisor.domain.exits import exits
from lamina_hypervisor.domain.vcpus import cpuid, msr


def text(*words: int) -> bytes:
    """Returns registers as the characters that they spell."""
    return struct.pack(f"<{len(words)}I", *words)


def test_vendors_are_ours() -> None:
    """Leaf 0 spells the processor's vendor in EBX, EDX, ECX; leaf 0x40000000 the hypervisor's in EBX, ECX, EDX."""
    leaf = cpuid.answer(0, 0, 1)
    assert text(leaf.ebx, leaf.edx, leaf.ecx) == b"LaminaVirt64"
    leaf = cpuid.answer(0x4000_0000, 0, 1)
    assert text(leaf.ebx, leaf.ecx, leaf.edx) == b"LaminaLamina"


def test_leaf_1_has_the_hypervisor_bit_and_the_vcpu() -> None:
    """Bit 31 of ECX says that a hypervisor is there; EBX holds the vCPU's number and their count."""
    leaf = cpuid.answer(1, 3, 4)
    assert leaf.ecx >> 31 == 1
    assert leaf.ebx >> 24 == 3
    assert leaf.ebx >> 16 & 0xFF == 4


def test_long_mode_and_names_are_announced() -> None:
    """The extended leaves say long mode, NX, SYSCALL and the brand."""
    leaf = cpuid.answer(0x8000_0001, 0, 1)
    assert all(leaf.edx >> bit & 1 for bit in (11, 20, 29))
    brand = b"".join(text(*cpuid.answer(number, 0, 1)) for number in (0x8000_0002, 0x8000_0003, 0x8000_0004))
    assert brand.rstrip(b"\0") == b"Lamina Virtual Processor"


@pytest.mark.parametrize("leaf", [2, 0xFFFF_FFFF, 0x4000_0002])
def test_leaves_that_do_not_exist_are_zero(leaf: int) -> None:
    """A guest that asks for more than there is gets zeros."""
    assert cpuid.answer(leaf, 0, 1) == (0, 0, 0, 0)


def test_msrs_are_read_written_or_refused() -> None:
    """PAT is stored, read-only registers keep their value, unknown ones are refused."""
    file = msr.MsrFile()
    assert file.write(msr.PAT, 5)
    assert file.read(msr.PAT) == 5
    assert not file.write(msr.APIC_BASE, 1)
    assert file.read(msr.APIC_BASE) == 0
    assert file.read(0x1234) is None
    assert msr.name(0x1234) == "unknown"
    assert msr.name(msr.EFER) == "0xc0000080"


def test_narrow_writes_keep_the_rest_of_a_register() -> None:
    """One and two bytes keep the upper part, four bytes clear it, eight replace it."""
    old = 0x1122_3344_5566_7788
    assert exits.merge(old, 0xFFAA, 1) == 0x1122_3344_5566_77AA
    assert exits.merge(old, 0xAABB, 2) == 0x1122_3344_5566_AABB
    assert exits.merge(old, 0xAABBCCDD, 4) == 0xAABBCCDD
    assert exits.merge(old, 1, 8) == 1
