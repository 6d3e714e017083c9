"""How a two-stage walk reads: every entry, in the order of the visits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lamina_hardware.domain.paging.walk import Access, Memory, Walk, translate

HERE = Path(__file__).parent


def listing(walk: Walk) -> str:
    """Returns a walk as text, one entry a line."""
    lines = [
        f"{step.table:9} level {step.level} index {step.index:3} at {step.entry_address:#09x}: {step.entry:#018x}"
        f" {' '.join(step.bits):12} for {step.input_address:#x}"
        for step in walk.steps
    ]
    return "\n".join([*lines, f"{walk.outcome.value}: gpa {walk.gpa:#x} pa {walk.pa:#x} page {walk.page_size}", ""])


def test_guest_virtual_to_physical(golden: Callable[[str, Path], None]) -> None:
    """The example 0x1000 → 0x5000 → 0x15000 visits 24 entries."""
    guest = {0x10_1000: 0x2027, 0x10_2000: 0x3027, 0x10_3000: 0x4027, 0x10_4008: 0x5067}
    ept = {0x1_0000: 0x1_1107, 0x1_1000: 0x1_2107, 0x1_2000: 0x1_3107}
    ept.update({0x1_3000 + 8 * n: 0x10_0107 + n * 4096 for n in range(1, 5)})
    ept[0x1_3000 + 8 * 5] = 0x1_5307
    words = guest | ept
    memory = Memory(lambda address: words.get(address, 0), 1 << 21)
    walk = translate(memory, 0x1000, 0x1_0000, 0x1000, Access.WRITE, True)
    assert len(walk.steps) == 24
    golden(listing(walk), HERE / "two_stages.txt")


def test_a_missing_page(golden: Callable[[str, Path], None]) -> None:
    """A walk that ends in a page fault shows how far it came."""
    words = {0x1000: 0x2027, 0x2000: 0x3027, 0x3010: 0x4027}
    memory = Memory(lambda address: words.get(address, 0), 1 << 21)
    walk = translate(memory, 0x1000, 0, 0x40_1000, Access.READ, True)
    assert len(walk.steps) == 4
    golden(listing(walk), HERE / "page_fault.txt")
