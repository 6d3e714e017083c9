"""One virtual processor: its registers' page, its state, and where its time went. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_hypervisor.domain.exits.time_slices import SliceEnd, SliceTimer
from lamina_hypervisor.domain.vcpus.msr import MsrFile
from lamina_hypervisor.domain.vcpus.registers import Registers, snapshot
from lamina_kit.bus.run_page import RunPage


class VcpuState(enum.Enum):
    """What a vCPU does."""

    RUNNABLE = "runnable"
    HALTED = "halted"
    WAITING_MEMORY = "waiting for memory"
    PAUSED = "paused"
    OFF = "off"


@dataclass(frozen=True)
class Context:
    """An execution context of the hardware layer."""

    id: int
    generation: int
    run_page: int


@dataclass
class Times:
    """Where a vCPU's time went, in nanoseconds."""

    run: int = 0
    steal: int = 0
    halt: int = 0
    memory_wait: int = 0


@dataclass
class Vcpu:
    """One vCPU. `woken` remembers a wake-up while it runs; `offered`: its core has an interrupt to deliver."""

    number: int
    context: Context
    page: RunPage
    timer: SliceTimer
    msrs: MsrFile = field(default_factory=MsrFile)
    state: VcpuState = VcpuState.RUNNABLE
    times: Times = field(default_factory=Times)
    running: bool = False
    woken: bool = False
    offered: bool = False
    last_core: int = -1
    exits: int = 0
    instructions: int = 0
    interrupts: int = 0
    final: Registers | None = None

    @property
    def registers(self) -> Registers:
        """The registers as of the latest exit; the last ones once the run page is given back."""
        return self.final or snapshot(self.page)

    def retire(self) -> None:
        """Keeps the last registers and stands without power."""
        self.final = self.registers
        self.stand(VcpuState.OFF, SliceEnd.STOPPED)

    def stand(self, state: VcpuState, end: SliceEnd) -> None:
        """Leaves the core for another state; the slice ends."""
        self.state = state
        self.timer.close(end)
