"""What a caller asks to map. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_mmu.domain.handles import Handle


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What to map. `address` is a hint unless `fixed`; `size` is a whole number of pages; `object` None: anonymous."""

    address: int
    size: int
    rights: int
    fixed: bool = False
    replace: bool = False
    object: Handle | None = None
    offset: int = 0
    shared: bool = False
    grows_down: bool = False
    label: str = ""
