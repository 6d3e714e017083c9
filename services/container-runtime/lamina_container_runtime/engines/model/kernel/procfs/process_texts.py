"""The texts of /proc about one process, as proc(5) describes them."""

from __future__ import annotations

from collections.abc import Callable

from lamina_container_runtime.engines.model.effects import ListMappings, MappingInfo
from lamina_container_runtime.engines.model.kernel.abi import PROT_EXEC, PROT_READ, PROT_WRITE
from lamina_container_runtime.engines.model.kernel.processes.process import Process, ProcessState
from lamina_kit.effects import Step
from lamina_kit.paging import PAGE_SIZE

ProcessText = Callable[[Process], Step[bytes]]
TICK_NS = 10_000_000


def state_letter(process: Process) -> str:
    """Returns R, S, T or Z."""
    if process.state is not ProcessState.ALIVE:
        return "Z"
    if process.stopped:
        return "T"
    return "S" if all(thread.waiting for thread in process.threads.values()) else "R"


def _plain(text: Callable[[Process], bytes]) -> ProcessText:
    def content(process: Process) -> Step[bytes]:
        return text(process)
        yield

    return content


def _cmdline(process: Process) -> bytes:
    return b"".join(word.encode(errors="surrogateescape") + b"\0" for word in process.cmdline)


def _mappings(process: Process) -> Step[list[MappingInfo]]:
    if process.state is not ProcessState.ALIVE:
        return []
    mappings: list[MappingInfo] = yield ListMappings(process.memory.space)
    return mappings


def _maps(process: Process) -> Step[bytes]:
    lines = []
    for mapping in (yield from _mappings(process)):
        rights = "".join(
            letter if mapping.protection & bit else "-"
            for letter, bit in (("r", PROT_READ), ("w", PROT_WRITE), ("x", PROT_EXEC))
        )
        kind = "s" if mapping.shared else "p"
        line = f"{mapping.start:08x}-{mapping.end:08x} {rights}{kind} {mapping.offset:08x} 00:00 0"
        lines.append(f"{line:<73}{mapping.label}".rstrip() + "\n")
    return "".join(lines).encode(errors="surrogateescape")


def _sizes(process: Process) -> Step[tuple[int, int]]:
    mappings = yield from _mappings(process)
    pages = sum(mapping.end - mapping.start for mapping in mappings) // PAGE_SIZE
    return pages, sum(mapping.resident_pages for mapping in mappings)


def _stat(process: Process) -> Step[bytes]:
    pages, resident = yield from _sizes(process)
    parent = process.parent.pid if process.parent else 0
    start = max(0, process.start_time_ns - process.kernel.clock.wall_ns() + process.kernel.clock.now_ns())
    fields = [
        process.pid, f"({process.name})", state_letter(process), parent, process.group, process.session, 0, -1, 0,
        process.minor_faults, 0, process.major_faults, 0, process.run_time_ns // TICK_NS, 0, 0, 0,
        20 + process.nice, process.nice, max(1, len(process.threads)), 0, start // TICK_NS,
        pages * PAGE_SIZE, resident, 2**64 - 1, *(0,) * 13, 17, 0, 0, 0, 0, 0, 0, *(0,) * 8,
    ]  # fmt: skip
    return (" ".join(str(field) for field in fields) + "\n").encode()


def _statm(process: Process) -> Step[bytes]:
    pages, resident = yield from _sizes(process)
    return f"{pages} {resident} 0 0 0 0 0\n".encode()


def _smaps_rollup(process: Process) -> Step[bytes]:
    """The line that programs read of it: the resident size, as the page tables have it."""
    mappings = yield from _mappings(process)
    if not mappings:
        return b""
    resident = sum(mapping.resident_pages for mapping in mappings)
    place = f"{mappings[0].start:08x}-{mappings[-1].end:08x} ---p 00000000 00:00 0"
    return f"{place:<73}[rollup]\nRss:            {resident * PAGE_SIZE // 1024:8d} kB\n".encode()


def _status(process: Process) -> Step[bytes]:
    pages, resident = yield from _sizes(process)
    who = process.view.who
    names = {"R": "running", "S": "sleeping", "T": "stopped", "Z": "zombie"}
    letter = state_letter(process)
    lines = [
        f"Name:\t{process.name}",
        f"Umask:\t{process.umask:04o}",
        f"State:\t{letter} ({names[letter]})",
        f"Tgid:\t{process.pid}",
        f"Pid:\t{process.pid}",
        f"PPid:\t{process.parent.pid if process.parent else 0}",
        f"Uid:\t{who.uid}\t{who.uid}\t{who.uid}\t{who.uid}",
        f"Gid:\t{who.gid}\t{who.gid}\t{who.gid}\t{who.gid}",
        f"FDSize:\t{max(64, len(process.fds.slots))}",
        f"Groups:\t{' '.join(str(group) for group in who.groups)}",
        f"VmSize:\t{pages * 4:8d} kB",
        f"VmRSS:\t{resident * 4:8d} kB",
        f"Threads:\t{max(1, len(process.threads))}",
        f"SigPnd:\t{process.pending.mask:016x}",
        f"SigIgn:\t{process.handlers.mask(ignored=True):016x}",
        f"SigCgt:\t{process.handlers.mask(ignored=False):016x}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _mounts(process: Process) -> bytes:
    return (
        b"overlay / overlay rw,relatime 0 0\n"
        b"proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n"
        b"tmpfs /dev tmpfs rw,nosuid,size=65536k,mode=755 0 0\n"
        b"shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k 0 0\n"
        b"sysfs /sys tmpfs ro,nosuid,nodev,noexec,relatime 0 0\n"
    )


PROCESS_FILES: dict[str, ProcessText] = {
    "cmdline": _plain(_cmdline),
    "comm": _plain(lambda process: process.name.encode(errors="surrogateescape") + b"\n"),
    "environ": _plain(lambda process: b"\0".join(process.environment) + (b"\0" if process.environment else b"")),
    "maps": _maps,
    "mounts": _plain(_mounts),
    "smaps_rollup": _smaps_rollup,
    "stat": _stat,
    "statm": _statm,
    "status": _status,
}
"""Names below /proc/PID."""
