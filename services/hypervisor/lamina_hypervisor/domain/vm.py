"""A virtual machine: its definition, its states, and what moves it from one to the next. Pure.

The table `TRANSITIONS` is the rule; an event that it does not list for a state is refused.

    STOPPED ──start──▶ STARTING ──started──▶ RUNNING ◀──resume/pause──▶ PAUSED
       ▲  ▲               │ failed              │ end                     │ end
       │  └───────────────┘                     ▼                         │
       └────────────────────────── released ── STOPPING ◀─────────────────┘
    CRASHED ──start──▶ STARTING        ▲  │
       ▲                               │  └─ released after a crash ──▶ CRASHED
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_hypervisor.domain.vcpus.registers import Registers
from lamina_kit.errors import FailedPrecondition


class State(enum.Enum):
    """What a VM does."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    CRASHED = "CRASHED"


class Event(enum.Enum):
    """What happens to a VM."""

    START = "start"
    STARTED = "started"
    FAILED = "failed to start"
    PAUSE = "pause"
    RESUME = "resume"
    END = "end"
    RELEASED = "released"
    CRASHED = "released after a crash"
    LOST = "lost with the service"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.CRASHED, Event.START): State.STARTING,
    (State.STARTING, Event.STARTED): State.RUNNING,
    (State.STARTING, Event.FAILED): State.STOPPED,
    (State.RUNNING, Event.PAUSE): State.PAUSED,
    (State.PAUSED, Event.RESUME): State.RUNNING,
    (State.RUNNING, Event.END): State.STOPPING,
    (State.PAUSED, Event.END): State.STOPPING,
    (State.STOPPING, Event.RELEASED): State.STOPPED,
    (State.STOPPING, Event.CRASHED): State.CRASHED,
    (State.STARTING, Event.LOST): State.STOPPED,
    (State.RUNNING, Event.LOST): State.STOPPED,
    (State.PAUSED, Event.LOST): State.STOPPED,
    (State.STOPPING, Event.LOST): State.STOPPED,
}

WITHOUT_POWER = (State.STOPPED, State.CRASHED)
WITH_MEMORY = (State.RUNNING, State.PAUSED)
"""States in which there are vCPUs and guest RAM to ask about."""


@dataclass(frozen=True)
class Definition:
    """What a VM is, whether it has power or not. Sizes in bytes; `weight` 0 means 100 a vCPU."""

    vm_id: str
    vcpu_count: int
    memory_bytes: int
    kernel_digest: str
    command_line: str = ""
    serial_ports: tuple[int, ...] = (0x3F8,)
    memory_group: str = ""
    weight: int = 0
    label: str = ""

    @property
    def run_weight(self) -> int:
        """Share of the cores, 1 to 10000."""
        return self.weight or min(100 * self.vcpu_count, 10_000)


@dataclass(frozen=True)
class Verdict:
    """Why a VM loses its power. `crashed` says that the guest cannot go on; otherwise it was asked for.

    `cause` is what the event names as its cause; it is not recorded.
    """

    reason: str
    detail: str
    crashed: bool = False
    registers: Registers | None = None
    cause: str = ""


@dataclass
class Vm:
    """A VM as recorded. Times are Unix nanoseconds."""

    name: str
    slot: int
    generation: int
    definition: Definition
    create_time_ns: int
    request_id: str = ""
    state: State = State.STOPPED
    verdict: Verdict = field(default_factory=lambda: Verdict("CREATED", ""))
    start_time_ns: int = 0

    def apply(self, event: Event) -> None:
        """Moves to the next state; what the table does not list is `FailedPrecondition` `VM_STATE`."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            raise self.wrong_state(f"it cannot {event.value}")
        self.state = following

    def need(self, *states: State) -> None:
        """Wants one of these states; otherwise `FailedPrecondition` `VM_STATE`."""
        if self.state not in states:
            wanted = " or ".join(state.value for state in states)
            raise self.wrong_state(f"this needs {wanted}")

    def wrong_state(self, what: str) -> FailedPrecondition:
        """Returns the error that says which state the VM is in and what is not possible there."""
        return FailedPrecondition(
            f"{self.name} is {self.state.value}: {what}.",
            reason="VM_STATE",
            next_step="Look at its state with GetVirtualMachine; start, resume or stop it first.",
            state=self.state.value,
        )
