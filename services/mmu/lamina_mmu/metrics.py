"""What the MMU layer tells of itself in numbers, when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lamina_kit.telemetry.metrics import Family, by_label, counter, gauge

if TYPE_CHECKING:
    from lamina_mmu.host import MmuHost


def families(host: MmuHost) -> Iterable[Family]:
    """Yields frames by use and swap; nothing while the layer has not started."""
    if not host.is_started:
        return
    memory = host.engine.memory()
    uses = {use.name.lower(): count for use, count in memory.uses} | {"free": memory.free}
    yield by_label("lamina_mmu_frames", "Frames of RAM, 4096 bytes each, by use; `free` is one.", "use", uses)
    yield gauge("lamina_mmu_swap_slots", "Slots of the swap area, 4096 bytes each.", memory.swap_slots)
    yield gauge("lamina_mmu_swap_slots_free", "Slots of the swap area that are free.", memory.free_swap_slots)
    yield counter("lamina_mmu_pages_swapped_out_total", "Pages that were written to swap.", memory.swapped_out)
    yield counter("lamina_mmu_pages_swapped_in_total", "Pages that were read from swap.", memory.swapped_in)
    yield counter("lamina_mmu_pages_dropped_total", "Clean pages that were taken out of RAM.", memory.dropped)
