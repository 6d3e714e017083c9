"""What the handling of an exit knows: whose it is, and what of an earlier access is still to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_hardware.domain.contexts import Given
from lamina_hardware.domain.exit_controls import ExitControls
from lamina_hardware.domain.walk import Access, Memory, Outcome, Walk, translate
from lamina_kit.paging import PAGE_SIZE
from lamina_kit.runpage import RunPage

if TYPE_CHECKING:
    from lamina_hardware.io.kvm.vcpu import Vcpu
    from lamina_hardware.io.kvm.vm import Vm

_CODE_BYTES = 15
_SS_DPL = 24 * 5 + 16
_CR2, _CR3 = 224 + 8, 224 + 16


@dataclass(slots=True)
class Kept:
    """An access that the EPT refused, `rip` where the context stood. `data` is what a store stores, None for a read."""

    gpa: int
    size: int
    data: bytes | None
    rip: int


@dataclass(slots=True)
class Items:
    """Items of an INS that KVM asked for at once: where they go in `kvm_run`, their size, how many, how many are."""

    place: int
    size: int
    count: int
    done: int = 0


@dataclass(slots=True)
class Situation:
    """What an exit is about: the VM and vCPU, the context's run page and controls (None: those implied).

    `waits`: an interrupt waits to be taken; `asleep`: the context sleeps; `told`: why KVM cannot go on with it.
    """

    vm: Vm
    vcpu: Vcpu
    page: RunPage
    given: Given | None
    hlt: bool
    tries: int = 0
    waits: bool = False
    asleep: bool = False
    told: str = ""

    @property
    def controls(self) -> ExitControls | None:
        """The controls that the context was given."""
        return None if self.given is None else self.given.controls

    def code_walk(self) -> Walk:
        """Walks both stages for the instruction at RIP."""
        return self._walk(self.vcpu.rip, Access.EXECUTE)

    def faulting_walk(self) -> Walk | None:
        """Walks both stages for the address in CR2; None with tables at 0, which `translate` takes for none."""
        if not self.vcpu.sregs_word(_CR3) & ~0xFFF:
            return None
        return self._walk(self.vcpu.sregs_word(_CR2), Access.READ)

    def code(self) -> bytes:
        """Returns the bytes at RIP, at most 15, as far as there is memory."""
        bus, rip = self.vm.memory.bus, self.vcpu.rip
        found = b""
        while len(found) < _CODE_BYTES:
            walk = self._walk(rip + len(found) & (1 << 64) - 1, Access.READ)
            if walk.outcome is not Outcome.TRANSLATED:
                break
            count = min(_CODE_BYTES - len(found), PAGE_SIZE - (walk.pa & PAGE_SIZE - 1))
            found += bus.read(walk.pa, count)
        return found

    def _walk(self, va: int, access: Access) -> Walk:
        bus = self.vm.memory.bus
        root = self.vcpu.sregs_word(_CR3)
        user = self.vcpu.sregs_byte(_SS_DPL) == 3
        return translate(Memory(bus.load64, bus.size), root & ~0xFFF, self.vm.eptp, va, access, user)
