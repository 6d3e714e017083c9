"""Where a stack keeps its files, and how a command finds the stack that is up.

A *home* is one folder per user. In it every stack has a folder of its own by name: its record (`stack.json`, who runs
and where it listens), its log, and one state folder a layer. RAM lies in shared memory when there is room, because a
memory bus on a disk is written back by the kernel all the time.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamina_kit.checks import Checks
from lamina_kit.errors import DataLoss, FailedPrecondition

PORTS = {
    "hardware": 50051,
    "mmu": 50052,
    "hypervisor": 50053,
    "vswitch": 50054,
    "container-runtime": 50055,
    "orchestrator": 50056,
}
"""TCP port of each layer while `lamina up` runs."""

LAYERS = tuple(PORTS)
"""The layers in the order of their ports."""

ORCHESTRATOR = "orchestrator"
"""The one layer that a stack has once, however many hosts it has."""

MOST_HOSTS = 1000

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_MEMORY = 512 << 20


def home() -> Path:
    """Returns the folder of all stacks: `$LAMINA_HOME`, else the XDG state folder of the user."""
    chosen = os.environ.get("LAMINA_HOME")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "lamina"


@dataclass(frozen=True)
class StackRecord:
    """What a running stack writes down for the commands that talk to it."""

    name: str
    pid: int
    start_ticks: int
    """Start time of the process in kernel ticks since boot: with the pid it names one process, never a successor."""
    host: str
    targets: dict[str, str] = field(default_factory=dict)
    """gRPC target of each layer."""
    engines: dict[str, str] = field(default_factory=dict)
    topology: str = "embedded"
    clock: str = "real"
    version: str = ""
    metrics: str = ""
    """Where metrics were served at the start, as HOST:PORT; empty when they were not, and for a split stack."""
    tls_dir: str = ""
    """Folder of certificates with which the stack's ports beyond the host are called; the stack's own."""
    plain_network: bool = False
    grace_s: int = 0
    """How long calls may go on once it is told to stop."""
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of a split stack: state, pid, start_ticks, restarts, socket, reason and message of each layer's process."""

    def is_alive(self) -> bool:
        """Says whether the process that wrote the record still runs."""
        return start_ticks(self.pid) == self.start_ticks


def stack_dir(name: str = "default") -> Path:
    """Returns the folder of the stack `name`.

    Raises:
        InvalidArgument: `STACK_NAME_INVALID`, the name is no identifier and could lead anywhere.
    """
    with Checks("STACK_NAME_INVALID") as check:
        check.identifier("stack", name)
    return home() / name


def record_path(name: str = "default") -> Path:
    """Returns the path of a stack's record."""
    return stack_dir(name) / "stack.json"


def write_record(record: StackRecord) -> None:
    """Writes a stack's record so that a reader sees all of it or nothing."""
    path = record_path(record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")
    scratch.replace(path)


def read_record(name: str = "default") -> StackRecord | None:
    """Returns the record of a stack, or None when none is written.

    Raises:
        DataLoss: `STACK_RECORD_MALFORMED`, the file is not what a stack writes.
    """
    path = record_path(name)
    try:
        return StackRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataLoss(
            f"the record of stack {name!r} cannot be read: {error}",
            reason="STACK_RECORD_MALFORMED",
            next_step=f"delete {path} after making sure that no `lamina` process runs",
        ) from error


def option(name: str) -> str:
    """Returns the words by which a command means the stack `name`, a space in front; none for the usual one."""
    return "" if name == "default" else f" --stack {name}"


def running(name: str = "default") -> StackRecord:
    """Returns the record of the stack `name`, which must be up.

    Raises:
        FailedPrecondition: `STACK_NOT_UP`, no stack of that name runs.
    """
    record = read_record(name)
    if record is None or not record.is_alive():
        raise FailedPrecondition(
            f"no stack is up under the name {name!r}",
            reason="STACK_NOT_UP",
            next_step=f"start one with `lamina up{option(name)}`",
        )
    return record


def host_names(first: str, count: int) -> tuple[str, ...]:
    """Returns the names of `count` hosts; those behind the first count on from its number: h1, h2, h3 …

    Raises:
        InvalidArgument: `HOSTS_OUT_OF_RANGE`, also for a first name that ends in no number.
    """
    stem = first.rstrip("0123456789")
    number = first[len(stem) :]
    with Checks("HOSTS_OUT_OF_RANGE") as check:
        check.range("hosts", count, 1, MOST_HOSTS)
        check.that(count == 1 or bool(number), "host", "ends in no number; the first of several is, say, h1")
    return (first,) if count == 1 else tuple(f"{stem}{int(number) + offset}" for offset in range(count))


def start_ticks(pid: int) -> int:
    """Returns when a process started, in ticks since boot, or -1 when there is none. Source: proc(5), field 22."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] == "Z" else int(fields[19])


def age_s(ticks: int) -> int:
    """Returns how many whole seconds ago a process started that started at `ticks`. Source: proc(5), uptime."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))


def bus_dir(state_dir: Path) -> Path:
    """Returns the folder for a memory bus: shared memory when it has room, else the stack's own folder."""
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return state_dir
    if room.f_bavail * room.f_frsize < LEAST_SHARED_MEMORY or not os.access(SHARED_MEMORY, os.W_OK):
        return state_dir
    return SHARED_MEMORY


def bus_name(host: str) -> str:
    """Returns the file name of a memory bus made by this process."""
    return f"lamina-{os.getuid()}-{os.getpid()}-{host}.ram"


def sweep_buses(folder: Path) -> None:
    """Removes the memory buses that processes of this user left in a folder when they were killed.

    RAM does not survive its host's power loss: nobody can use such a file again, and it holds real memory.
    """
    for path in sorted(folder.glob(f"lamina-{os.getuid()}-*.ram")):
        pid = path.name.split("-")[2]
        if pid.isdigit() and start_ticks(int(pid)) < 0:
            path.unlink(missing_ok=True)
