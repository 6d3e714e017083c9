"""What waits to interrupt a context, beside the vectors in its APIC. Pure.

The event loop writes here; what a core takes it takes one at a time, and each kind merges with itself, as on hardware.
A core sees a vector that is posted while it runs when it is paused for it: before its next block.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_hardware.domain.apic.local_apic import LocalApic

_VECTOR_BYTES = 32
_FORM = struct.Struct(f"<{_VECTOR_BYTES}s???h")
_NO_STARTUP, _LAST_PAGE = -1, 255


@dataclass(slots=True)
class Pending:
    """Interrupts of one context that were raised and not taken.

    `fixed` and `taken` have a bit for each vector, of a context without an APIC: what is raised while a core has the
    context is put aside in `fixed`; `taken` is that core's. `startup` is the page number of a start-up IPI.
    """

    apic: LocalApic | None = None
    fixed: int = 0
    taken: int = 0
    nmi: bool = False
    machine_check: bool = False
    init: bool = False
    startup: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether a core has nothing to look at: no APIC, and nothing raised."""
        return self.apic is None and not (
            self.fixed or self.taken or self.nmi or self.machine_check or self.init or self.startup is not None
        )

    def raise_fixed(self, vector: int) -> bool:
        """Requests a vector; returns False when it was requested already."""
        if self.apic is not None:
            return self.apic.request(vector)
        fresh = not (self.fixed | self.taken) >> vector & 1
        self.fixed |= 1 << vector
        return fresh

    def raise_nmi(self) -> bool:
        """Requests an NMI; returns False when one was requested already."""
        fresh, self.nmi = not self.nmi, True
        return fresh

    def raise_machine_check(self) -> bool:
        """Requests a machine check; returns False when one was requested already."""
        fresh, self.machine_check = not self.machine_check, True
        return fresh

    def raise_init(self) -> bool:
        """Requests INIT; returns False when it was requested already. A start-up IPI from before it is void."""
        fresh, self.init, self.startup = not self.init, True, None
        return fresh

    def raise_startup(self, page: int) -> bool:
        """Requests start at a page; returns False when a start was requested already: the first one counts."""
        if self.startup is not None:
            return False
        self.startup = page
        return True

    def take(self) -> None:
        """Gives the core that is to have the context what was put aside."""
        self.taken |= self.fixed
        self.fixed = 0

    def next_vector(self) -> int:
        """Returns the vector that may be delivered next; 0 without one."""
        if self.apic is not None:
            return self.apic.next_vector()
        return max(self.taken.bit_length() - 1, 0)

    def acknowledge(self) -> int:
        """Takes the next vector for delivery; returns it."""
        if self.apic is not None:
            return self.apic.acknowledge()
        vector = self.next_vector()
        self.taken &= ~(1 << vector)
        return vector

    def pack(self) -> bytes:
        """Returns what waits beside the APIC as bytes: vectors, NMI, machine check, INIT, start-up page or -1."""
        vectors = (self.fixed | self.taken).to_bytes(_VECTOR_BYTES, "little")
        startup = _NO_STARTUP if self.startup is None else self.startup
        return _FORM.pack(vectors, self.nmi, self.machine_check, self.init, startup)

    def restore(self, data: bytes) -> bool:
        """Takes what `pack` returned; returns False, having changed nothing, when the bytes are not that."""
        if len(data) != _FORM.size:
            return False
        vectors, nmi, machine_check, init, startup = _FORM.unpack(data)
        found = Pending(
            None, int.from_bytes(vectors, "little"), 0, nmi, machine_check, init,
            None if startup == _NO_STARTUP else startup,
        )  # fmt: skip
        if found.pack() != data or not _NO_STARTUP <= startup <= _LAST_PAGE:
            return False
        self.fixed, self.taken, self.startup = found.fixed, 0, found.startup
        self.nmi, self.machine_check, self.init = nmi, machine_check, init
        return True
