"""Performs what the engine's steps ask for: shootdowns on the hardware, waits with a limit.

A shootdown may be made any number of times, so one that is lost is made again. One that does not get through fails the
step that asked for it: the frames concerned stay where they are, or go to nobody, because a core may still reach them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lamina.hardware.v1 import hardware_pb2

from lamina_kit.clock import Clock
from lamina_kit.driver import Performer
from lamina_kit.effects import WaitFor
from lamina_kit.rpc.retry import Retry
from lamina_mmu.domain.effects import Answer, Aside, Shootdown


def waiting_performer(clock: Clock) -> Performer:
    """Returns the performer of an MMU without hardware below: it waits, and that is all."""
    perform = Performer(clock)

    async def await_answer(effect: Answer) -> object:
        timer = asyncio.get_running_loop().create_task(_expire(perform, clock, effect))
        try:
            return await perform(WaitFor(effect.key))
        finally:
            timer.cancel()

    perform.on(Answer, await_answer)
    return perform


def kernel_performer(clock: Clock) -> Performer:
    """Returns the performer of an MMU on the machine's kernel; what may take long runs in one of few threads."""
    perform = waiting_performer(clock)

    async def work_aside(effect: Aside) -> object:
        return await asyncio.to_thread(effect.work)

    perform.on(Aside, work_aside)
    return perform


def performer(clock: Clock, cpu: Any) -> Performer:
    """Returns the performer of one host's MMU; `cpu` is a stub of the hardware's `Cpu` service."""
    perform = waiting_performer(clock)
    retry = Retry(clock)

    async def shoot_down(effect: Shootdown) -> None:
        ranges = [hardware_pb2.AddressRange(start=start, size_bytes=size) for start, size in effect.ranges]
        request = hardware_pb2.ShootdownRequest(root=effect.root, eptp=effect.eptp, ranges=ranges)
        await retry.call(lambda: cpu.Shootdown(request))

    perform.on(Shootdown, shoot_down)
    return perform


async def _expire(perform: Performer, clock: Clock, effect: Answer) -> None:
    await clock.sleep_ns(effect.within_ns)
    perform.wake(effect.key, None)
