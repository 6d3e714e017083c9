"""What the handling of an exit knows: whose it is, and what its instruction and its tables say."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_hardware.domain.contexts.context import Given
from lamina_hardware.domain.contexts.exit_controls import ExitControls
from lamina_hardware.domain.paging.walk import Access, Memory, Outcome, Walk, translate
from lamina_hardware.io.kvm.operands import Registers
from lamina_hardware.io.kvm.vcpu import Vcpu
from lamina_hardware.io.kvm.vm import Vm
from lamina_kit.bus.run_page import RunPage
from lamina_kit.paging import PAGE_SIZE, PS

CODE_BYTES = 15
"""The most bytes that an instruction has."""
_SS_DPL = 24 * 5 + 16
_FS_BASE, _GS_BASE = 24 * 3, 24 * 4
_PLACES = (0, 2, 3, 1, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
"""Where KVM has each general register, by the numbers that instructions use."""
_CR2, _CR3 = 224 + 8, 224 + 16


@dataclass(slots=True)
class ExitState:
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
        return self.walk_code(self.vcpu.rip)

    def walk_code(self, va: int) -> Walk:
        """Walks both stages for a fetch."""
        return self._walk(va, Access.EXECUTE)

    def walk_data(self, va: int, access: Access) -> Walk:
        """Walks both stages for an access of the instruction."""
        return self._walk(va, access)

    def operand_registers(self) -> Registers:
        """Returns what the addresses of the instruction's operands are made of."""
        values, vcpu = self.vcpu.registers(), self.vcpu
        general = [values[_PLACES[number]] for number in range(16)]
        return Registers(general, vcpu.rip, vcpu.sregs_word(_FS_BASE), vcpu.sregs_word(_GS_BASE))

    def is_page(self, walk: Walk) -> bool:
        """Whether a refused walk ended with its page, and not with a table of the guest."""
        steps = [step for step in walk.steps if not step.table.startswith("EPT")]
        if not steps:
            return not self.vcpu.sregs_word(_CR3) & ~0xFFF
        return steps[-1].level == 1 or bool(steps[-1].entry & PS)

    def faulting_walk(self) -> Walk | None:
        """Walks both stages for the address in CR2; None with tables at 0, which `translate` takes for none."""
        if not self.vcpu.sregs_word(_CR3) & ~0xFFF:
            return None
        return self._walk(self.vcpu.sregs_word(_CR2), Access.READ)

    def code(self) -> bytes:
        """Returns the bytes at RIP, at most 15, as far as there is memory."""
        bus, rip = self.vm.memory.bus, self.vcpu.rip
        found = b""
        while len(found) < CODE_BYTES:
            walk = self._walk(rip + len(found) & (1 << 64) - 1, Access.READ)
            if walk.outcome is not Outcome.TRANSLATED:
                break
            count = min(CODE_BYTES - len(found), PAGE_SIZE - (walk.pa & PAGE_SIZE - 1))
            found += bus.read(walk.pa, count)
        return found

    def system_walk(self, va: int) -> Walk:
        """Walks both stages for what the processor itself reads of a guest's tables, at ring 0 whatever the ring."""
        return self._walk(va, Access.READ, user=False)

    def system_read(self, va: int, count: int) -> bytes | None:
        """Returns bytes, all in one page, of a guest's tables; None where they cannot be reached."""
        walk = self.system_walk(va)
        return self.vm.memory.bus.read(walk.pa, count) if walk.outcome is Outcome.TRANSLATED else None

    def _walk(self, va: int, access: Access, *, user: bool | None = None) -> Walk:
        bus = self.vm.memory.bus
        root = self.vcpu.sregs_word(_CR3)
        if user is None:
            user = self.vcpu.sregs_byte(_SS_DPL) == 3
        return translate(Memory(bus.load64, bus.size), root & ~0xFFF, self.vm.eptp, va, access, user)
