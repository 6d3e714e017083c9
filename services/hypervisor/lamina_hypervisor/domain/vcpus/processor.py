"""What a host's cores do for a guest, and what they leave to the hypervisor. Pure.

A modelled core leaves the guest for CPUID, VMCALL, RDTSC and RDRAND, as VT-x lets a hypervisor choose. A core that is
a processor of the host, by KVM, does them itself: CPUID by a table that it is given, RDTSC by a counter of its own
frequency, RDRAND by its own source, and it answers VMCALL in the hypervisor's place.
"""

from __future__ import annotations

from dataclasses import dataclass

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Processor:
    """The cores of a host. `traps`: those four instructions exit; `tsc_hz`: what RDTSC counts a second, 0: unknown."""

    traps: bool = True
    tsc_hz: int = NANOSECONDS

    def ticks(self, elapsed_ns: int) -> int:
        """Returns what the time stamp counter shows so long after the power-on."""
        return elapsed_ns * self.tsc_hz // NANOSECONDS


MODELLED = Processor()
"""Cores that leave everything to the hypervisor; their time stamps are nanoseconds."""
