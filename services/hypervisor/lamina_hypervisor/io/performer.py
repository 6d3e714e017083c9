"""Binds the engine's effects to those who perform them."""

from __future__ import annotations

from collections.abc import Callable

from lamina_hypervisor.engines import effects
from lamina_hypervisor.io.cores import Cores
from lamina_hypervisor.io.guest_memory import GuestMemory
from lamina_kit.clock import Clock
from lamina_kit.driver import Performer, drive
from lamina_kit.errors import LaminaError


def bind(clock: Clock, cores: Cores, memory: GuestMemory, hold_lost: Callable[[str, LaminaError], None]) -> Performer:
    """Returns what performs every effect of the engine. `hold_lost(vm, error)` is told when the MMU ends a hold."""
    perform = Performer(clock)

    async def open_hold(effect: effects.OpenHold) -> None:
        await memory.open_hold(
            effect,
            lambda position, message: drive(effect.receive(position, message), perform),
            lambda error: hold_lost(effect.vm, error),
        )

    async def wake(effect: effects.Wake) -> None:
        perform.wake(effect.key)

    perform.on(effects.OpenHold, open_hold)
    perform.on(effects.Wake, wake)
    perform.on(effects.Run, cores.run)
    perform.on(effects.Kick, cores.kick)
    perform.on(effects.Shootdown, cores.shootdown)
    perform.on(effects.LookAtProcessor, cores.look)
    perform.on(effects.CreateRunGroup, cores.create_run_group)
    perform.on(effects.DeleteRunGroup, cores.delete_run_group)
    perform.on(effects.CreateContext, cores.create_context)
    perform.on(effects.DeleteContext, cores.delete_context)
    perform.on(effects.CreateSpace, memory.create_space)
    perform.on(effects.DeleteSpace, memory.delete_space)
    perform.on(effects.WriteRam, memory.write_ram)
    perform.on(effects.AllocateTables, memory.allocate_tables)
    perform.on(effects.FreeTables, memory.free_tables)
    perform.on(effects.CloseHold, memory.close_hold)
    perform.on(effects.Want, memory.want)
    perform.on(effects.Acknowledge, memory.acknowledge)
    perform.on(effects.SendAges, memory.send_ages)
    return perform
