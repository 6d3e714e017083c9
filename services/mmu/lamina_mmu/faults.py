"""What can break in the memory of a host: the swap area is full, its disk fails.

The kit serves them as `lamina.common.v1.Faults` (`kit/lamina_kit/faults/table.py`); here is what they do.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina_kit.errors import NotFound
from lamina_kit.faults.kinds import Breakage, FaultKind, Parameter
from lamina_kit.faults.table import FaultTable
from lamina_kit.names import Pattern
from lamina_mmu.domain.names import SWAP_AREA
from lamina_mmu.host import MmuHost

SWAP = Pattern("hosts/{host}/swap")
_FULL = "Every free swap slot is taken: dirty pages stay in RAM, and a group at its limit runs out of memory."
_FAILS = (
    "The disk under the swap file fails to read or to write. A fault on a page in swap answers DATA_LOSS "
    "SWAP_IO_FAILED; the page is there again once the disk works. A page that cannot be written stays"
)
_OPERATION = Parameter("operation", "what fails", choices=("read", "write", "both"), default="read")


class MmuFaults:
    """Breaks the swap area of one host."""

    def __init__(self, host: MmuHost) -> None:
        self._host = host

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table: of all swap areas at once, and of one."""
        table.register(FaultKind("swap-full", SWAP, _FULL, self._fill, self._empty))
        table.register(FaultKind("swap-io-error", SWAP, f"{_FAILS}.", self._fail, self._mend, (_OPERATION,)))
        one = "As swap-full, of one area; pages go to others, as far as there are some."
        table.register(FaultKind("swap-area-full", SWAP_AREA, one, self._fill, self._empty))
        one = f"{_FAILS}, or goes to another area."
        table.register(FaultKind("swap-area-io-error", SWAP_AREA, one, self._fail, self._mend, (_OPERATION,)))

    def _fill(self, breakage: Breakage) -> Mapping[str, object]:
        self._check(breakage)
        free = self._host.engine.memory().free_swap_slots
        self._host.engine.refuse_swap(True, _area(breakage))
        return {"free_slots": free}

    def _empty(self, breakage: Breakage) -> None:
        if self._is_there(breakage):
            self._host.engine.refuse_swap(False, _area(breakage))

    def _fail(self, breakage: Breakage) -> Mapping[str, object]:
        self._check(breakage)
        operation = breakage.choices["operation"]
        self._host.swap_fails(_area(breakage), reads=operation != "write", writes=operation != "read")
        return {}

    def _mend(self, breakage: Breakage) -> None:
        self._host.swap_fails(_area(breakage), reads=False, writes=False)

    def _is_there(self, breakage: Breakage) -> bool:
        """Whether the area of a fault is still there: it may have been taken out of use since."""
        name = _area(breakage)
        return not name or any(area.name == name for area in self._host.engine.swap_areas())

    def _check(self, breakage: Breakage) -> None:
        if breakage.ids["host"] != self._host.name:
            raise NotFound(
                f"This service drives hosts/{self._host.name}, not hosts/{breakage.ids['host']}.",
                reason="HOST_UNKNOWN",
                next_step="Call the MMU of that host.",
            )
        if _area(breakage):
            self._host.engine.swap_area(_area(breakage))


def _area(breakage: Breakage) -> str:
    """Returns the name of the swap area that is broken; empty: all of them."""
    return str(breakage.ids.get("swap_area", ""))
