"""Hardware threads, the cores and sockets that they are of, and the caches that they share. Pure.

Source: Documentation/ABI/stable/sysfs-devices-system-cpu, Documentation/admin-guide/cputopology.rst of Linux 6.18.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_hardware.domain.host.tree import MOST_NUMBERED, Tree, number, numbered, numbers, size

MOST_CACHES = 4096
_CPU = "sys/devices/system/cpu"
_MOST_INDICES = 16
_MOST_LEVEL = 4
_KINDS = ("data", "instruction", "unified")


@dataclass(frozen=True, slots=True)
class Thread:
    """A hardware thread that is on. `core` is a number in the whole machine, from 0 in the order of the threads."""

    number: int
    core: int
    socket: int
    node: int


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache: `kind` is `data`, `instruction` or `unified`; sizes in bytes, 0 when they are not known."""

    level: int
    kind: str
    size: int
    line: int
    threads: tuple[int, ...]


def online(tree: Tree) -> list[int]:
    """Returns the threads that are on. A kernel without the list has those that /proc/cpuinfo describes."""
    listed = numbers(tree.text(f"{_CPU}/online"))
    if listed:
        return listed
    lines = [line.partition(":") for line in tree.text("proc/cpuinfo").splitlines()]
    found = [number(value.strip()) for name, _, value in lines if name.strip() == "processor"]
    return sorted(dict.fromkeys(value for value in found if value is not None and value < MOST_NUMBERED))


def offline(tree: Tree) -> list[int]:
    """Returns the threads that are there and off; places for processors that are not plugged in are left out."""
    on = dict.fromkeys(online(tree))
    return [cpu for cpu in numbers(tree.text(f"{_CPU}/present")) if cpu not in on]


def threads(tree: Tree) -> list[Thread]:
    """Returns the threads that are on, by number."""
    nodes = _nodes(tree)
    cores: dict[tuple[int, ...], int] = {}
    found = []
    for cpu in online(tree):
        socket = _topology(tree, cpu, "physical_package_id", 0)
        place = (socket, _topology(tree, cpu, "die_id", 0), _topology(tree, cpu, "core_id", cpu))
        core = cores.setdefault(place, len(cores))
        found.append(Thread(cpu, core, socket, nodes.get(cpu, 0)))
    return found


def _topology(tree: Tree, cpu: int, name: str, otherwise: int) -> int:
    found = number(tree.text(f"{_CPU}/cpu{cpu}/topology/{name}"))
    return otherwise if found is None or found >= 1 << 31 else found


def _nodes(tree: Tree) -> dict[int, int]:
    """Returns the memory node of each thread."""
    found: dict[int, int] = {}
    for node in numbered(tree.names("sys/devices/system/node"), "node", 256):
        for cpu in numbers(tree.text(f"sys/devices/system/node/node{node}/cpulist")):
            found.setdefault(cpu, node)
    return found


def caches(tree: Tree) -> list[Cache]:
    """Returns the caches by level, kind and first thread: each once, with the threads that share it."""
    found: dict[tuple[int, str, tuple[int, ...]], Cache] = {}
    for cpu in online(tree):
        folder = f"{_CPU}/cpu{cpu}/cache"
        for index in numbered(tree.names(folder), "index", _MOST_INDICES):
            cache = _cache(tree, f"{folder}/index{index}", cpu)
            if cache is not None:
                found.setdefault((cache.level, cache.kind, cache.threads), cache)
    ordered = sorted(found.values(), key=lambda cache: (cache.level, cache.kind, cache.threads))
    return ordered[:MOST_CACHES]


def _cache(tree: Tree, folder: str, cpu: int) -> Cache | None:
    level, kind = number(tree.text(f"{folder}/level")), tree.text(f"{folder}/type").lower()
    if level is None or not 1 <= level <= _MOST_LEVEL or kind not in _KINDS:
        return None
    shared = tuple(numbers(tree.text(f"{folder}/shared_cpu_list"))) or (cpu,)
    line = number(tree.text(f"{folder}/coherency_line_size")) or 0
    bytes_ = size(tree.text(f"{folder}/size")) or 0
    return Cache(level, kind, min(bytes_, (1 << 62)), line if line < 1 << 31 else 0, shared)
