"""Memory nodes, the blocks in which memory comes and goes, and pools of huge pages. Pure.

Source: Documentation/ABI/stable/sysfs-devices-node, Documentation/admin-guide/mm/memory-hotplug.rst and
hugetlbpage.rst of Linux 6.18; ACPI 6.5, 5.2.17 (SLIT).
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_hardware.domain.host.tree import Tree, fields, number, numbered

MOST_NODES = 256
MOST_POOLS = 1024
_MOST_BLOCKS = 1 << 16
_NODE = "sys/devices/system/node"
_BLOCK = "sys/devices/system/memory"
_MOST_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class Node:
    """A memory node: first physical address, bytes, distances to all nodes, blocks of memory and those in use."""

    number: int
    address: int
    size: int
    distances: tuple[int, ...]
    blocks: int
    online_blocks: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Huge pages of one size that a node has set aside."""

    node: int
    page_bytes: int
    pages: int
    free: int
    surplus: int


def block_bytes(tree: Tree) -> int:
    """Returns the size of a block of memory, 0 when memory neither comes nor goes."""
    found = number(tree.text(f"{_BLOCK}/block_size_bytes"), 16) or 0
    return found if found < _MOST_BYTES else 0


def nodes(tree: Tree) -> list[Node]:
    """Returns the memory nodes by number; a kernel without NUMA has node 0 alone."""
    known = numbered(tree.names(_NODE), "node", MOST_NODES)
    if not known:
        return [Node(0, _first_ram(tree), _kib(tree.text("proc/meminfo"), "MemTotal"), (), 0, 0)]
    return [_node(tree, node, len(known), is_only=len(known) == 1) for node in known]


def _node(tree: Tree, node: int, count: int, *, is_only: bool) -> Node:
    folder = f"{_NODE}/node{node}"
    blocks = numbered(tree.names(folder), "memory", _MOST_BLOCKS)
    online = sum(tree.text(f"{_BLOCK}/memory{block}/state") == "online" for block in blocks)
    distances = tuple(number(word) or 0 for word in tree.text(f"{folder}/distance").split()[:MOST_NODES])
    if len(distances) != count or any(distance >= 1 << 31 for distance in distances):
        distances = ()
    address = blocks[0] * block_bytes(tree) if blocks else (_first_ram(tree) if is_only else 0)
    return Node(
        node, address if address < 1 << 64 else 0, _kib(tree.text(f"{folder}/meminfo"), f"Node {node} MemTotal"),
        distances, len(blocks), online,
    )  # fmt: skip


def _kib(text: str, name: str) -> int:
    """Returns the bytes of a line `name: N kB`, 0 without one."""
    words = fields(text).get(name, "").split()
    found = number(words[0]) if words else None
    return min((found or 0) << 10, _MOST_BYTES)


def _first_ram(tree: Tree) -> int:
    """Returns where RAM begins. /proc/iomem tells nothing but zeros to those who may not see it."""
    for line in tree.text("proc/iomem").splitlines():
        span, _, name = line.partition(" : ")
        if name.strip() == "System RAM" and not line.startswith(" "):
            return number(span.partition("-")[0].lstrip("0"), 16) or 0
    return 0


def pools(tree: Tree) -> list[Pool]:
    """Returns the pools of huge pages by node, then size, also those without a page."""
    known = numbered(tree.names(_NODE), "node", MOST_NODES)
    folders = [(node, f"{_NODE}/node{node}/hugepages") for node in known] or [(0, "sys/kernel/mm/hugepages")]
    found = []
    for node, folder in folders:
        for name in tree.names(folder):
            kib = number(name.removeprefix("hugepages-").removesuffix("kB"))
            if kib and kib < 1 << 50:
                pages, free, surplus = (_count(tree, f"{folder}/{name}/{part}_hugepages") for part in _PARTS)
                found.append(Pool(node, kib << 10, pages, free, surplus))
    return sorted(found, key=lambda pool: (pool.node, pool.page_bytes))[:MOST_POOLS]


_PARTS = ("nr", "free", "surplus")


def _count(tree: Tree, path: str) -> int:
    return min(number(tree.text(path)) or 0, _MOST_BYTES)
