"""Whatever /proc and /sys say, the facts of a host are within the contract's bounds, and nothing raises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.hardware.host_trees import DictTree, arm_board, small_vm, two_sockets

from lamina_hardware.domain.host import cpus, facilities, memory, pci, processor
from lamina_hardware.domain.host.tree import numbers

BASES = (two_sockets(), small_vm(), arm_board())
NUMBERS = st.sampled_from(
    ("0-7", "4096", "-1", "99999999999999999999", "0x1", "1,2", "10 20 30", "1-2:1/2", "ffff", "10")
)
TEXTS = st.one_of(
    st.text(max_size=40), NUMBERS, st.sampled_from(("", "\0", "->", "->../" + "9" * 18, "->x/12", ":", " : \n\n: "))
)


@st.composite
def trees(draw: st.DrawFn) -> DictTree:
    """Returns a tree of which some files say anything, some are gone, and some are new."""
    files = dict(draw(st.sampled_from(BASES)))
    names = sorted(files)
    for name in draw(st.lists(st.sampled_from(names), max_size=12)):
        files[name] = draw(TEXTS)
    for name in draw(st.lists(st.sampled_from(names), max_size=6)):
        files.pop(name, None)
    for folder in (
        "sys/devices/system/node",
        "sys/bus/pci/devices",
        "sys/kernel/iommu_groups",
        "sys/devices/system/cpu",
    ):
        files[f"{folder}/{draw(st.text(max_size=12))}"] = draw(TEXTS)
    return DictTree(files)


@given(trees())
def test_facts_stay_within_bounds(tree: DictTree) -> None:
    """Threads, caches, nodes, pools, devices and facilities have their order, their limits and types that fit."""
    threads, caches = cpus.threads(tree), cpus.caches(tree)
    assert [thread.number for thread in threads] == sorted(dict.fromkeys(thread.number for thread in threads))
    assert all(0 <= part < 1 << 31 for thread in threads for part in (thread.core, thread.socket, thread.node))
    assert not {thread.number for thread in threads} & set(cpus.offline(tree))
    assert all(1 <= cache.level <= 4 and cache.threads and cache.size < 1 << 63 for cache in caches)
    nodes = memory.nodes(tree)
    assert 1 <= len(nodes) <= memory.MOST_NODES
    assert all(node.address < 1 << 64 and node.size < 1 << 63 for node in nodes)
    assert all(node.online_blocks <= node.blocks and len(node.distances) in (0, len(nodes)) for node in nodes)
    assert all(pool.page_bytes < 1 << 63 and pool.pages < 1 << 63 for pool in memory.pools(tree))
    assert all(-1 <= device.group < 1 << 31 and device.identity.vendor < 1 << 16 for device in pci.devices(tree))
    described = processor.read(tree)
    assert described.page_sizes and list(described.page_sizes) == sorted(described.page_sizes)
    assert all(facility.detail for facility in facilities.read(tree, described))


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40))))
def test_a_list_is_what_it_was_made_of(ranges: list[tuple[int, int]]) -> None:
    """Every number below the limit of every range is there, in order and once."""
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    wanted = {value for first, more in ranges for value in range(first, first + more + 1) if value < 4096}
    assert numbers(text) == sorted(wanted)


@given(st.binary(max_size=300))
def test_any_configuration_space_has_vectors(data: bytes) -> None:
    """Any bytes are read to an end, and promise at most 256 vectors."""
    assert 0 <= pci.vectors(data) <= 256
