"""The real-time timer of a process: alarm(2) and setitimer(2)."""

from __future__ import annotations

from lamina_container_runtime.engines.model.effects import Spawn
from lamina_container_runtime.engines.model.kernel.abi import SIGALRM
from lamina_container_runtime.engines.model.kernel.processes.process import Process, ProcessState
from lamina_kit.effects import Sleep, Step


def time_left(process: Process) -> int:
    """Returns the nanoseconds until the timer fires; 0 when it is not set."""
    return max(0, process.alarm_deadline - process.kernel.clock.now_ns()) if process.alarm_deadline else 0


def arm(process: Process, first_ns: int, interval_ns: int) -> Step[None]:
    """Sets the timer: SIGALRM after `first_ns` (0: never), then every `interval_ns` (0: once). Replaces the old one."""
    process.alarm_turn += 1
    process.alarm_interval = interval_ns
    process.alarm_deadline = process.kernel.clock.now_ns() + first_ns if first_ns else 0
    if first_ns:
        yield Spawn(_fire(process, process.alarm_turn), f"alarm of pid {process.pid}")


def _fire(process: Process, turn: int) -> Step[None]:
    """Waits and sends; a timer that was set anew since, or whose process ended, does nothing."""
    while True:
        yield Sleep(time_left(process))
        if process.alarm_turn != turn or process.state is not ProcessState.ALIVE:
            return
        process.send_signal(SIGALRM)
        if not process.alarm_interval:
            process.alarm_deadline = 0
            return
        process.alarm_deadline = process.kernel.clock.now_ns() + process.alarm_interval
