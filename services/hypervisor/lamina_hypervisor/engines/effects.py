"""What the engine asks of the layers below: the effects of its steps. Pure.

An engine step is a generator (`lamina_kit.effects`). It yields one of these and receives the result; `io/` performs
them over the hardware's and the MMU's contracts, tests perform them on fakes. Handles and names are the lower layers'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa, Hpa
from lamina_hypervisor.domain.memory.ept import PageBits
from lamina_hypervisor.domain.memory.hold import HoldMessage
from lamina_hypervisor.domain.vcpus.vcpu import Context
from lamina_kit.effects import Effect, Step


@dataclass(frozen=True)
class Space:
    """A VM's RAM in the MMU."""

    id: int
    generation: int
    name: str


@dataclass(frozen=True, slots=True)
class LookAtProcessor(Effect):
    """Asks what the host's cores do by themselves. Result: `Processor`."""


@dataclass(frozen=True, slots=True)
class CreateRunGroup(Effect):
    """Makes a run group for a VM. Result: its name."""

    vm_id: str
    weight: int


@dataclass(frozen=True, slots=True)
class DeleteRunGroup(Effect):
    """Deletes an empty run group."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateContext(Effect):
    """Makes an execution context under an EPT, which exits for CPUID if `traps`. Result: `Context`."""

    run_group: str
    domain: str
    eptp: Hpa
    label: str
    traps: bool


@dataclass(frozen=True, slots=True)
class DeleteContext(Effect):
    """Deletes a context; a run of it ends first."""

    context: Context


@dataclass(frozen=True, slots=True)
class Run(Effect):
    """Runs a context for at most the scheduler's slice. Result: `Ran`."""

    context: Context


@dataclass(frozen=True, slots=True)
class Kick(Effect):
    """Makes a running context exit."""

    context: Context


@dataclass(frozen=True, slots=True)
class Shootdown(Effect):
    """Drops translations of guest pages from all cores; none given means all. Back when no core uses them."""

    eptp: Hpa
    pages: tuple[Gpa, ...]


@dataclass(frozen=True, slots=True)
class CreateSpace(Effect):
    """Makes guest RAM of `memory_bytes` from address 0, without a page in it. Result: `Space`."""

    memory_bytes: int
    group: str
    label: str


@dataclass(frozen=True, slots=True)
class DeleteSpace(Effect):
    """Frees guest RAM."""

    space: Space


@dataclass(frozen=True, slots=True)
class OpenHold(Effect):
    """Opens the stream of grants and revocations.

    Each message of it is given to `receive` with its position, in order, one after the other. The MMU is told the root
    of the EPT, so that it can take all translations away when this service is silent.
    """

    vm: str
    space: Space
    eptp: Hpa
    receive: Callable[[int, HoldMessage], Step[None]]


@dataclass(frozen=True, slots=True)
class CloseHold(Effect):
    """Closes the stream."""

    vm: str


@dataclass(frozen=True, slots=True)
class WriteRam(Effect):
    """Writes bytes to guest RAM before the start."""

    space: Space
    gpa: Gpa
    data: bytes


@dataclass(frozen=True, slots=True)
class AllocateTables(Effect):
    """Allocates zeroed frames for EPT tables. Result: list of `Frame`."""

    owner: str
    group: str
    count: int


@dataclass(frozen=True, slots=True)
class FreeTables(Effect):
    """Gives frames back."""

    owner: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Want(Effect):
    """Asks for a guest page, `access` as in an exit record. Result: "" once granted, or why it was refused."""

    vm: str
    gpa: Gpa
    access: int


@dataclass(frozen=True, slots=True)
class Acknowledge(Effect):
    """Answers a revocation with the bits of the pages that were held."""

    vm: str
    revocation: int
    bits: tuple[PageBits, ...]


@dataclass(frozen=True, slots=True)
class SendAges(Effect):
    """Answers a request for accessed bits."""

    vm: str
    sequence: int
    bits: tuple[PageBits, ...]


@dataclass(frozen=True, slots=True)
class Wake(Effect):
    """Wakes the steps that wait (`WaitFor`) for a key."""

    key: tuple[str, ...]
