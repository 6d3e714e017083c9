"""Registers and whole states of contexts that do not run: read, written, saved and restored by calls."""

from __future__ import annotations

from collections.abc import Collection

from lamina.hardware.v1 import registers_pb2 as pb

from lamina_hardware.contexts import state as context_state
from lamina_hardware.contexts.exit_controls import ControlState
from lamina_hardware.contexts.register_checks import check_groups, check_msrs, check_registers
from lamina_hardware.contexts.state import Implied
from lamina_hardware.contexts.updates import require_idle
from lamina_hardware.convert import registers
from lamina_hardware.domain.apic.state import ApicState
from lamina_hardware.domain.contexts.context import Context
from lamina_hardware.engines.interface import SharedState
from lamina_hardware.io import register_file
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import RunPage
from lamina_kit.errors import FailedPrecondition


class RegisterAccess:
    """The registers of one host's contexts, in their run pages."""

    def __init__(self, bus: MemoryBus, controls: ControlState, dispatcher: Dispatcher, shared: SharedState) -> None:
        self._bus = bus
        self._controls = controls
        self._dispatcher = dispatcher
        self._shared = shared

    def read(self, context: Context, groups: Collection[int], msrs: Collection[int]) -> pb.ReadRegistersResponse:
        """Returns groups of registers and the latest exit."""
        check_groups(groups, required=False)
        shadows = self._controls.shadows(context)
        known = registers.known_msrs(shadows)
        check_msrs(msrs, known)
        require_idle(context)
        page = self._page(context)
        self._shared.fetch(context.key, page)
        found = registers.registers(page, groups or registers.ALL_GROUPS, msrs or known, shadows)
        return pb.ReadRegistersResponse(registers=found, exit=registers.exit_detail(page.load_exit(), page.rcx))

    def write(self, context: Context, message: pb.Registers, groups: Collection[int]) -> None:
        """Writes groups of registers, all or nothing."""
        check_groups(groups, required=True)
        shadows = self._controls.shadows(context)
        page = self._page(context)
        if pb.REGISTER_GROUP_MSRS in groups:
            check_msrs([entry.number for entry in message.msrs], registers.known_msrs(shadows))
        check_registers(message, groups, page.cr0, page.cr4)
        require_idle(context)
        self._shared.fetch(context.key, page)
        registers.put_registers(page, message, groups)
        if pb.REGISTER_GROUP_MSRS in groups:
            for entry in message.msrs:
                if entry.number in shadows:
                    self._controls.set_shadow(context, entry.number, entry.value)

    def save(self, context: Context) -> pb.ContextState:
        """Returns the whole state of a context."""
        require_idle(context)
        self._shared.fetch(context.key, self._page(context))
        apic = self._dispatcher.interrupts.save(context)
        return context_state.save(context, self._page(context), self._controls, apic)

    def restore(self, context: Context, state: pb.ContextState) -> None:
        """Gives a context a state, all or nothing."""
        found = context_state.load(state)
        if isinstance(found.controls, Implied):
            wanted = found.controls
            self._controls.check_creation(
                exceptions=wanted.exceptions, cpuid=wanted.cpuid, syscall=wanted.syscall, eptp=context.eptp
            )
        else:
            self._controls.check(found.controls)
        require_idle(context)
        self._check_apic(context, found.apic)
        register_file.restore(self._page(context), register_file.save(found.page))
        if isinstance(found.controls, Implied):
            implied = found.controls
            self._controls.clear(context, implied.exceptions, implied.cpuid, implied.syscall)
        else:
            self._controls.put(context, found.controls)
        context.pending.restore(found.pending)
        if found.apic is not None:
            self._dispatcher.interrupts.restore(context, found.apic)
        self._dispatcher.forget(context)

    def _check_apic(self, context: Context, state: ApicState | None) -> None:
        """Raises `FailedPrecondition` `APIC_MISMATCH` unless the context's APIC can have the state."""
        wanted, mode = state.mode if state is not None else None, self._dispatcher.interrupts.mode(context)
        if wanted is not mode:
            names = [found.value if found is not None else "none" for found in (mode, wanted)]
            raise FailedPrecondition(
                f"The context's local APIC is {names[0]}, that of the state {names[1]}.",
                reason="APIC_MISMATCH",
                next_step="Configure the context's APIC as the saved context's was, then restore.",
            )

    def _page(self, context: Context) -> RunPage:
        return RunPage(self._bus.run_page(context.run_page))
