"""What a hardware engine is, and what a core is.

Vocabulary
    context     the architectural state of one hardware thread, with its run page; it runs on one core at a time
    run         one stretch of execution: from a `Cpu.Run` request to its response
    grant       a core given to a context for at most one slice; a long run is many grants
    slice       the most that one grant lasts when others wait
    run group   a node in the host's tree of shares
    domain      (coherence domain) contexts that share writable memory; the modelled cores run one of them at a time
    root        physical address of a first-stage table (CR3) or of a second-stage one (EPTP)

`CoreEngine` is one core; `HostEngine` is the whole host, with arbitration. The model engine builds a `HostEngine` over
any cores; the two core engines of this package are the walker core and the portable core. Both pass the same contract
suite; where they may differ is said in `CoreEngine.capabilities`.

Capabilities
    exact-budget     a run stops at a block boundary at or before its budget, and counts every instruction
    error-codes      exceptions other than page faults carry their error code
    msr-exits        RDMSR and WRMSR of registers that the run page does not hold exit
    exit-controls    a context chooses its exits (`Cpu.SetExitControls`); what needs another capability says so there
    exception-exits  exceptions can exit
    instruction-exits  instructions other than HLT can exit, and accesses to control and debug registers
    one-stage        contexts without a second stage run
    nmi-exits        NMIs, and the first moment at which one could be taken, can exit
    own-idt          exceptions and interrupts that are not intercepted go through the context's own IDT
    observation      a context's single accesses can be seen
    tlb-entries      what the TLB holds can be seen
    apic             contexts may have a local APIC, whose interrupts are delivered without an exit
    nmi              NMIs are delivered, and held back from one until IRET
    halt-waits       HLT can leave the run open: the context sleeps until an interrupt
    smap             CR4.SMAP holds, and STAC and CLAC are there
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.domain.contexts.context import Given
from lamina_hardware.domain.paging.tlb import TlbContent
from lamina_kit.bus.run_page import RunPage


@dataclass(frozen=True, slots=True)
class ApicAccess:
    """A guest's access to a register of its local APIC that the core cannot do alone; RIP is behind the instruction.

    `register` is an offset in the virtual APIC page; `target` is the general register that the value of a read goes to,
    or 16 for EDX:EAX.
    """

    register: int
    write: bool
    value: int
    target: int


@dataclass(slots=True)
class CoreRun:
    """What a core needs to run a context: the same object for as long as nothing of it changes but the last six.

    `context` identifies it for as long as the engine lives; `moved` says that it, or another of its domain, ran
    elsewhere since it last ran here. `budget` is in instructions, 0 for none; `consumed` counts what this run has
    behind it already. `exceptions` has a bit for each vector that exits; `controls` is the address of its table of exit
    controls, 0 when it has those that its creation implies, and `given` the same as an object. `hlt` says whether HLT
    exits; `interrupts` is what waits to interrupt it, None for nothing: while a core runs a context these are the
    core's. `observation` is where an observed context's accesses go, 0 for one that is not observed. `kept` is the
    cores' own: what they keep with it from one run to the next.
    """

    context: int
    run_page: int
    eptp: int = 0
    exceptions: int = (1 << 32) - 1
    cpuid: bool = False
    syscall: bool = True
    controls: int = 0
    given: Given | None = None
    hlt: bool = True
    budget: int = 0
    consumed: int = 0
    moved: bool = True
    observation: int = 0
    interrupts: Pending | None = None
    kept: Any = None


@dataclass(slots=True)
class Stopped:  # not frozen: it is made at every exit
    """How a core stopped: `reason` is an `ExitReason` of the run page; `instructions` counts from the run's begin.

    `paused` means that the core was only asked to stop for a moment: `reason` is then nothing, and the run goes on.
    `asleep` means so too, but that it goes on only when something wakes it; `access` is to be done before it does.
    """

    reason: int
    instructions: int
    paused: bool = False
    asleep: bool = False
    access: ApicAccess | None = None


class CoreEngine(Protocol):
    """One core. `run` is called from one thread at a time; `cancel` and `pause` from any."""

    path: str
    capabilities: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        """Whether a run costs no more than the run: the first core that is made in a process loads the code first."""
        ...

    def run(self, work: CoreRun) -> Stopped:
        """Runs a context until it exits, its budget is used up, or someone asks it to stop.

        Registers come from the run page (those marked dirty, or all when the core held another context) and go back
        to it, with the exit record. At least one instruction runs unless a fault or a request prevents it.
        """
        ...

    def cancel(self) -> None:
        """Makes the run in progress, or the next one, end with CANCELED at its next block."""
        ...

    def relent(self) -> None:
        """Takes back a `cancel` that came behind the end of its run; called while no run is in progress."""
        ...

    def pause(self) -> None:
        """Makes the run in progress stop at its next block, to be continued."""
        ...

    def holds(self, root: int, eptp: int) -> bool:
        """Returns whether the TLB may hold translations of these roots (0 means any, but not both)."""
        ...

    def tlb(self) -> TlbContent:
        """Returns what the TLB of a core that does not run holds; nothing without the capability `tlb-entries`."""
        ...

    def flush(self) -> None:
        """Empties the TLB before the next instruction that a later `run` executes."""
        ...

    def drop_code(self, frames: Iterable[int] | None) -> None:
        """Drops translated code of these frames, or all of it (None), before the next instruction."""
        ...

    def forget(self, context: int) -> None:
        """Forgets a context that was deleted."""
        ...

    def counters(self) -> Sequence[int]:
        """Returns what the core counted since it was made, in the order of `domain.counts.EVENTS`; they stay so."""
        ...

    def close(self) -> None:
        """Frees the core. Idempotent."""
        ...


class SharedState:
    """What the cores of one host keep of contexts outside their run pages: nothing, unless an engine says otherwise."""

    note: Callable[[int, str], None]
    """Called with a context's key and a sentence when a core cannot go on with it."""

    def fetch(self, context: int, page: RunPage) -> None:
        """Writes to the run page of a context that does not run what a core has of it and the page does not."""

    def tsc_frequency_hz(self) -> int:
        """Returns what RDTSC counts a second where contexts' holders do not answer it; 0 where they do."""
        return 0

    def collect_writes(self, *, keep: bool) -> None:
        """Marks on the bus the frames that cores wrote without a mark; `keep`: a log of them is wanted from now on."""

    def close(self) -> None:
        """Frees what no core has freed."""


@dataclass(slots=True)
class CorePath:
    """Which core engine was chosen, and why, for people."""

    name: str
    reason: str
    capabilities: tuple[str, ...]
    make: Callable[[], CoreEngine] = field(repr=False)
    shared: SharedState = field(default_factory=SharedState, repr=False)
    loaded: Callable[[], bool] = field(default=lambda: True, repr=False)
    """Whether this process has the cores' code, so that making one takes no time to speak of."""
