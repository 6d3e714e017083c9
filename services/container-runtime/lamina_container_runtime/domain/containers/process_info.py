"""What a list of processes shows of one."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ProcessInfoState(enum.Enum):
    """What a process does."""

    RUNNING = "running"
    SLEEPING = "sleeping"
    STOPPED = "stopped"
    ZOMBIE = "zombie"


@dataclass(frozen=True)
class ProcessInfo:
    """One process. `space` and `context` are resource names of the MMU and the hardware, empty for a zombie.

    `syscall_counts` are (name, times made, times refused with ENOSYS), in alphabetical order; `start_time_ns` is Unix
    time, `run_time_ns` time on cores.
    """

    pid: int
    ppid: int
    state: ProcessInfoState
    container_id: str
    space: str
    context: str
    cmdline: tuple[str, ...]
    uid: int
    wait_channel: str
    start_time_ns: int
    syscalls: int
    faults: int
    instructions: int
    run_time_ns: int
    syscall_counts: tuple[tuple[str, int, int], ...]
