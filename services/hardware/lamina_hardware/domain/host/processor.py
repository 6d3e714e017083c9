"""What /proc/cpuinfo says of the processor. Pure.

Source: arch/x86/kernel/cpu/proc.c and arch/arm64/kernel/cpuinfo.c of Linux 6.18.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamina_hardware.domain.host.tree import Tree, fields, number

_MOST_FEATURES = 1024
_ADDRESS_SIZES = re.compile(r"(\d{1,3}) bits physical, (\d{1,3}) bits virtual")
_PAGE_SIZES = {"pse": 1 << 21, "pdpe1gb": 1 << 30}
_BASE_PAGE = 1 << 12


@dataclass(frozen=True, slots=True)
class Processor:
    """Name for people, features in alphabetical order, bits of addresses (0: not known), sizes of pages in bytes."""

    model: str
    features: tuple[str, ...]
    physical_bits: int
    virtual_bits: int
    page_sizes: tuple[int, ...]


def read(tree: Tree) -> Processor:
    """Returns the first processor that is described: Linux has one kind of them in a machine, or says no more."""
    found = fields(tree.text("proc/cpuinfo").split("\n\n", 1)[0])
    words = (found.get("flags") or found.get("Features") or "").split()[:_MOST_FEATURES]
    features = tuple(sorted(dict.fromkeys(words)))
    sizes = _ADDRESS_SIZES.search(found.get("address sizes", ""))
    physical, virtual = (int(sizes[1]), int(sizes[2])) if sizes else (0, 0)
    pages = {_BASE_PAGE, *(size for flag, size in _PAGE_SIZES.items() if flag in features)}
    pages |= _pool_sizes(tree) if "pse" not in features else set()
    return Processor(_model(found), features, physical, virtual, tuple(sorted(pages)))


def _model(found: dict[str, str]) -> str:
    name = found.get("model name") or found.get("Processor") or found.get("cpu model")
    if name:
        return name
    part = found.get("CPU part")
    return f"implementer {found.get('CPU implementer', '?')}, part {part}" if part else "unknown"


def _pool_sizes(tree: Tree) -> set[int]:
    """Returns the sizes of huge pages that the kernel knows: elsewhere than on x86 no feature tells them."""
    names = tree.names("sys/kernel/mm/hugepages")
    found = [number(name.removeprefix("hugepages-").removesuffix("kB")) for name in names]
    return {value << 10 for value in found if value}
