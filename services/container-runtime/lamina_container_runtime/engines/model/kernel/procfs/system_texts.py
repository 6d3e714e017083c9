"""The texts of /proc about the system, as proc(5) describes them."""

from __future__ import annotations

from collections.abc import Callable

from lamina_container_runtime.engines.model.kernel.processes.process import Container
from lamina_container_runtime.engines.model.kernel.procfs.process_texts import TICK_NS, state_letter

SystemText = Callable[[Container], str]
RELEASE = "6.1.0-lamina"
VERSION = "#1 SMP Lamina container kernel"
_FLAGS = "fpu tsc pae cx8 sep pge cmov pat clflush mmx fxsr sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt syscall nx lm"


def _cpuinfo(container: Container) -> str:
    return "".join(
        f"processor\t: {number}\nvendor_id\t: LaminaModel \ncpu family\t: 6\nmodel\t\t: 107\n"
        f"model name\t: Lamina modelled x86-64 core\nflags\t\t: {_FLAGS}\n\n"
        for number in range(container.kernel.cores)
    )


def _meminfo(container: Container) -> str:
    total = min(container.memory_limit or container.kernel.total_memory, container.kernel.total_memory) // 1024
    return f"MemTotal:       {total:8d} kB\nMemFree:        {total:8d} kB\nMemAvailable:   {total:8d} kB\n"


def _uptime(container: Container) -> str:
    hundredths = container.kernel.clock.now_ns() // TICK_NS
    return f"{hundredths // 100}.{hundredths % 100:02d} 0.00\n"


def _loadavg(container: Container) -> str:
    running = sum(state_letter(process) == "R" for process in container.pids.ordered())
    return f"0.00 0.00 0.00 {running}/{len(container.pids.threads)} {container.pids.last}\n"


SYSTEM_FILES: dict[str, SystemText] = {
    "cpuinfo": _cpuinfo,
    "filesystems": lambda container: "nodev\tproc\nnodev\ttmpfs\nnodev\toverlay\n",
    "loadavg": _loadavg,
    "meminfo": _meminfo,
    "stat": lambda container: f"cpu  0 0 0 0 0 0 0 0 0 0\nprocesses {container.pids.last}\n",
    "uptime": _uptime,
    "version": lambda container: f"Linux version {RELEASE} {VERSION}\n",
}
"""Names below /proc."""

KERNEL_FILES: dict[str, SystemText] = {
    "hostname": lambda container: f"{container.hostname}\n",
    "osrelease": lambda container: f"{RELEASE}\n",
    "ostype": lambda container: "Linux\n",
    "pid_max": lambda container: "32768\n",
}
"""Names below /proc/sys/kernel."""
