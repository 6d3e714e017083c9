"""What CPUID answers on a KVM core: KVM answers it without an exit, from a table that is given before the first run.

The table has the leaves of the run page, and under them a processor of our own: enough for KVM to accept long mode and
the control bits that the contract knows. No leaf of the real processor is passed on.

Source: Intel SDM vol. 2, CPUID; Linux, Documentation/virt/kvm/api.rst, KVM_SET_CPUID2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from lamina_kit.bus.run_page import CpuidEntry

_ENTRY = struct.Struct("<7I12x")
_SIGNIFICANT_INDEX = 1
_INDEXED = (4, 7, 0xB, 0xD, 0xF, 0x10, 0x14)
_VENDOR = (0x756E6547, 0x6C65746E, 0x49656E69)  # GenuineIntel: KVM asks whose SYSENTER and SYSCALL these are
_SIGNATURE = 0x0006_0F01
_FEATURES_C = 1 << 0 | 1 << 9 | 1 << 13 | 1 << 17 | 1 << 19 | 1 << 20 | 1 << 23
_FEATURES_D = 0x0789_A97F & ~(1 << 9) | 1 << 23 | 1 << 24
_FEATURES_7 = 1 << 0 | 1 << 7 | 1 << 20
_EXTENDED_C = 1
_EXTENDED_D = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29
_SIZES = 48 << 8 | 46


def _own() -> Iterable[CpuidEntry]:
    yield CpuidEntry(0, 0, 7, _VENDOR[0], _VENDOR[2], _VENDOR[1])
    yield CpuidEntry(1, 0, _SIGNATURE, 8 << 8, _FEATURES_C, _FEATURES_D)
    yield CpuidEntry(7, 0, 0, _FEATURES_7, 0, 0)
    yield CpuidEntry(0x8000_0000, 0, 0x8000_0008, 0, 0, 0)
    yield CpuidEntry(0x8000_0001, 0, 0, 0, _EXTENDED_C, _EXTENDED_D)
    yield CpuidEntry(0x8000_0008, 0, _SIZES, 0, 0, 0)


def table(page: tuple[CpuidEntry, ...]) -> bytearray:
    """Returns `struct kvm_cpuid2` for the entries of a run page."""
    entries = {(entry.leaf, entry.subleaf): entry for entry in _own()}
    entries.update({(entry.leaf, entry.subleaf): entry for entry in page})
    listed = [entries[key] for key in sorted(entries)]
    packed = b"".join(
        _ENTRY.pack(
            entry.leaf, entry.subleaf, _SIGNIFICANT_INDEX if entry.leaf in _INDEXED else 0, entry.eax, entry.ebx,
            entry.ecx, entry.edx,
        )
        for entry in listed
    )  # fmt: skip
    return bytearray(struct.pack("<II", len(listed), 0) + packed)
