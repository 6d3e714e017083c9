"""What can break in the memory of a host: the swap area is full, its disk fails.

The kit serves them as `lamina.common.v1.Faults` (`kit/lamina_kit/faults.py`); here is what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lamina_kit.errors import NotFound
from lamina_kit.fault_kinds import Breakage, FaultKind, Parameter
from lamina_kit.faults import FaultTable
from lamina_kit.names import Pattern

if TYPE_CHECKING:
    from lamina_mmu.host import MmuHost

SWAP = Pattern("hosts/{host}/swap")


class MmuFaults:
    """Breaks the swap area of one host."""

    def __init__(self, host: MmuHost) -> None:
        self._host = host

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table."""
        table.register(
            FaultKind(
                "swap-full",
                SWAP,
                "Every free swap slot is taken: dirty pages stay in RAM, and a group at its limit runs out of memory.",
                self._fill,
                self._empty,
            )
        )
        table.register(
            FaultKind(
                "swap-io-error",
                SWAP,
                "The disk under the swap file fails to read or to write. A fault on a page in swap answers DATA_LOSS "
                "SWAP_IO_FAILED; the page is there again once the disk works. A page that cannot be written stays.",
                self._fail,
                self._mend,
                (Parameter("operation", "what fails", choices=("read", "write", "both"), default="read"),),
            )
        )

    def _fill(self, breakage: Breakage) -> Mapping[str, object]:
        self._check(breakage)
        free = self._host.engine.memory().free_swap_slots
        self._host.engine.refuse_swap(True)
        return {"free_slots": free}

    def _empty(self, breakage: Breakage) -> None:
        self._host.engine.refuse_swap(False)

    def _fail(self, breakage: Breakage) -> Mapping[str, object]:
        self._check(breakage)
        operation = breakage.choices["operation"]
        self._host.swap_fails(reads=operation != "write", writes=operation != "read")
        return {}

    def _mend(self, breakage: Breakage) -> None:
        self._host.swap_fails(reads=False, writes=False)

    def _check(self, breakage: Breakage) -> None:
        if breakage.ids["host"] != self._host.name:
            raise NotFound(
                f"This service drives hosts/{self._host.name}, not hosts/{breakage.ids['host']}.",
                reason="HOST_UNKNOWN",
                next_step="Call the MMU of that host.",
            )
