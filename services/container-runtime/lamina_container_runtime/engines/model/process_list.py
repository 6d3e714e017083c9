"""The processes of a running container, as `ListProcesses` shows them."""

from __future__ import annotations

from collections.abc import Iterator

from lamina_container_runtime.domain.containers.process_info import ProcessInfo, ProcessInfoState
from lamina_container_runtime.engines.model.kernel.processes.process import Container, Process, ProcessState
from lamina_container_runtime.engines.model.kernel.procfs.process_texts import state_letter
from lamina_container_runtime.engines.model.syscalls.numbers import name_of

_STATES = {
    "R": ProcessInfoState.RUNNING,
    "S": ProcessInfoState.SLEEPING,
    "T": ProcessInfoState.STOPPED,
    "Z": ProcessInfoState.ZOMBIE,
}


def list_processes(container: Container) -> Iterator[ProcessInfo]:
    """Yields the processes in the order of their numbers."""
    for process in container.pids.ordered():
        yield _info(container, process)


def _info(container: Container, process: Process) -> ProcessInfo:
    first = next((process.threads[tid] for tid in sorted(process.threads)), None)
    counts = sorted(
        (name_of(number), count, process.unsupported.get(number, 0)) for number, count in process.syscall_counts.items()
    )
    return ProcessInfo(
        pid=process.pid,
        ppid=process.parent.pid if process.parent else 0,
        state=_STATES[state_letter(process)],
        container_id=container.container_id,
        space=process.memory.space.name if first and process.state is ProcessState.ALIVE else "",
        context=first.context.name if first else "",
        cmdline=process.cmdline,
        uid=process.uid,
        wait_channel=first.wait_channel if first else "",
        start_time_ns=process.start_time_ns,
        syscalls=process.syscalls,
        faults=process.faults,
        instructions=process.instructions,
        run_time_ns=process.run_time_ns,
        syscall_counts=tuple(counts),
    )
