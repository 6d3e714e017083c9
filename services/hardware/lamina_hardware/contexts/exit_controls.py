"""Exit controls of contexts: given, told, and compiled for the cores."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from lamina_hardware.domain.contexts.context import Context
from lamina_hardware.domain.contexts.exit_controls import ExitControls, Instruction, implied, missing
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_hardware.io.emulator.state.exit_table import ControlTable
from lamina_hardware.io.interrupt_controller import ApicWish
from lamina_kit.errors import Unimplemented


class ControlState:
    """The exit controls of one host's contexts; those that were never given any have what their creation implies."""

    def __init__(self, dispatcher: Dispatcher, capabilities: tuple[str, ...]) -> None:
        self._dispatcher = dispatcher
        self._capabilities = capabilities
        self._tables: dict[int, ControlTable] = {}
        self._watched: set[int] = set()

    def get(self, context: Context) -> ExitControls:
        """Returns a context's controls; shadow registers have the values that they have now."""
        table = self._tables.get(context.key)
        if table is None:
            found = implied(context.exceptions, context.cpuid, context.syscall)
            if "instruction-exits" in self._capabilities:
                return found
            return replace(found, instructions=(Instruction.HLT,))
        return replace(table.controls, shadows=table.shadows)

    def check_creation(self, *, exceptions: int, cpuid: bool, syscall: bool, eptp: int) -> None:
        """Raises `Unimplemented` for a context that cores of this kind cannot run as its creation asks.

        `ONE_STAGE_NOT_SUPPORTED` without a second stage, `CONTROL_NOT_SUPPORTED` for an intercept.
        """
        if not eptp and "one-stage" not in self._capabilities:
            raise Unimplemented(
                "The cores of this host walk two stages always, and the context has no second one.",
                reason="ONE_STAGE_NOT_SUPPORTED",
                next_step="Give the context an `eptp`, or use a host with the capability one-stage.",
            )
        for name, wanted, capability in (
            ("intercepts.exceptions", exceptions != 0, "exception-exits"),
            ("intercepts.cpuid", cpuid, "instruction-exits"),
            ("intercepts.syscall", syscall, "instruction-exits"),
        ):
            if wanted and capability not in self._capabilities:
                self._refuse(name, capability)

    def allowed(self, wish: ApicWish | None) -> ApicWish | None:
        """Returns a wish for a local APIC (None: none). Raises `Unimplemented` `APIC_NOT_SUPPORTED` without them."""
        if wish is not None and "apic" not in self._capabilities:
            raise Unimplemented(
                "The cores of this host give contexts no local APIC.",
                reason="APIC_NOT_SUPPORTED",
                next_step="Raise interrupts for the context itself, or use a host with the capability apic.",
            )
        return wish

    def check(self, controls: ExitControls) -> None:
        """Raises `Unimplemented` `CONTROL_NOT_SUPPORTED` for a control that this machine's cores do not have."""
        lacking = missing(controls, self._capabilities)
        if lacking is not None:
            self._refuse(*lacking)

    def _refuse(self, name: str, capability: str) -> NoReturn:
        raise Unimplemented(
            f"The cores of this host cannot honour {name}: they lack the capability {capability}.",
            reason="CONTROL_NOT_SUPPORTED",
            next_step="Leave it out; the handshake names the capabilities of this host.",
            control=name,
        )

    async def set(self, context: Context, controls: ExitControls) -> None:
        """Gives a context its controls; when this returns it runs by no others. Raises as `check` does."""
        self.check(controls)
        table, old = ControlTable(controls), self._tables.get(context.key)
        self._apply(context, table)
        await self._dispatcher.interrupt(context)
        del old  # a core may have read it until here

    def clear(self, context: Context, exceptions: int, cpuid: bool, syscall: bool) -> None:
        """Gives an idle context back what its creation implies."""
        self._tables.pop(context.key, None)
        context.controls, context.control_table, context.given = None, 0, None
        context.exceptions, context.cpuid, context.syscall, context.hlt = exceptions, cpuid, syscall, True
        context.work = None

    def put(self, context: Context, controls: ExitControls) -> None:
        """Gives an idle context its controls, which were checked."""
        self._apply(context, ControlTable(controls))

    def shadows(self, context: Context) -> dict[int, int]:
        """Returns the shadow registers of a context with their values."""
        table = self._tables.get(context.key)
        return dict(table.shadows) if table is not None else {}

    def set_shadow(self, context: Context, number: int, value: int) -> None:
        """Gives a shadow register, which the context has, a value."""
        self._tables[context.key].set_shadow(number, value)

    def watch(self, context: Context, wanted: bool) -> None:
        """Says whether someone waits for posted writes of a context: its core then tells each at once."""
        if wanted:
            self._watched.add(context.key)
        else:
            self._watched.discard(context.key)
        if context.key in self._tables:
            self._tables[context.key].watched = wanted

    def forget(self, context: Context) -> None:
        """Forgets a context that is gone."""
        self._tables.pop(context.key, None)
        self._watched.discard(context.key)

    def _apply(self, context: Context, table: ControlTable) -> None:
        controls = table.controls
        table.watched = context.key in self._watched
        self._tables[context.key] = table
        context.controls, context.control_table, context.given = controls, table.address, table
        context.exceptions = controls.exceptions
        context.cpuid = controls.traps(Instruction.CPUID)
        context.syscall = controls.traps(Instruction.SYSCALL)
        context.hlt = controls.traps(Instruction.HLT)
        context.work = None
