"""What is read from /proc and /sys of machines of several kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.hardware.host_trees import CPU, NODE, PCI, DictTree, arm_board, small_vm, two_sockets, write

from lamina_hardware.domain.host import cpus, facilities, memory, pci, processor
from lamina_hardware.domain.host.tree import number, numbers, size
from lamina_hardware.io.host_files import HostFiles

GIB = 1 << 30


def told(files: dict[str, str], locked: tuple[str, ...] = ()) -> dict[str, tuple[bool, str]]:
    """Returns the facilities of a tree by name."""
    tree = DictTree(files, locked)
    found = facilities.read(tree, processor.read(tree))
    assert [one.name for one in found] == sorted(one.name for one in found)
    return {one.name: (one.usable, one.detail) for one in found}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-3,8", [0, 1, 2, 3, 8]),
        ("0-9:2/4", [0, 1, 4, 5, 8, 9]),
        ("", []),
        ("5-2,x,3-,-1,7", [7]),
        ("2,0-1,1", [0, 1, 2]),
        ("0-99999999999999", list(range(4096))),
        ("1:0/0", []),
    ],
)
def test_lists_of_processors(text: str, found: list[int]) -> None:
    """Ranges, groups and single numbers are understood; what makes no sense is passed over, and lists are bounded."""
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("32K", 32 << 10), ("307200K", 307200 << 10), ("1M", 1 << 20), ("7", 7), ("K", None), ("3X", None)],
)
def test_sizes(text: str, found: int | None) -> None:
    """Sizes have the units of sysfs."""
    assert size(text) == found


def test_numbers_are_plain() -> None:
    """Signs, other digits, underscores and long ones are no numbers; base 16 takes the prefix of sysfs."""
    assert [number(text) for text in ("-1", "+1", "1_0", "²", "9" * 21, "")] == [None] * 6
    assert (number("0x8086", 16), number("80000000", 16)) == (0x8086, 1 << 31)


def test_two_sockets() -> None:
    """Threads of a core share its number, whatever the order in which firmware numbered them; caches come once."""
    tree = DictTree(two_sockets())
    found = cpus.threads(tree)
    assert [(t.number, t.core, t.socket, t.node) for t in found] == [
        (0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 0, 0), (3, 3, 1, 1), (4, 0, 0, 0), (5, 1, 1, 1), (6, 2, 0, 0), (7, 3, 1, 1),
    ]  # fmt: skip
    caches = cpus.caches(tree)
    assert [(c.level, c.kind, c.threads) for c in caches[:2]] == [(1, "data", (0, 4)), (1, "data", (1, 5))]
    assert [(c.size, c.threads) for c in caches if c.level == 3] == [
        (22528 << 10, (0, 2, 4, 6)),
        (22528 << 10, (1, 3, 5, 7)),
    ]
    assert len(caches) == 4 * 3 + 2
    described = processor.read(tree)
    assert (described.model, described.physical_bits, described.virtual_bits) == ("Intel(R) Xeon(R) Gold 6130", 46, 48)
    assert described.page_sizes == (4096, 1 << 21, 1 << 30)
    assert list(described.features) == sorted(described.features)


def test_memory_of_two_nodes() -> None:
    """Nodes lie where their first block lies; distances, blocks in use and pools are theirs."""
    tree = DictTree(two_sockets())
    first, second = memory.nodes(tree)
    assert (first.address, first.size, first.distances, first.blocks, first.online_blocks) == (
        0,
        8 * GIB,
        (10, 21),
        4,
        4,
    )
    assert (second.address, second.distances, second.online_blocks) == (8 * GIB, (21, 10), 3)
    assert memory.block_bytes(tree) == 2 * GIB
    assert [(p.node, p.page_bytes, p.pages, p.free) for p in memory.pools(tree)] == [
        (0, 2 << 20, 512, 0), (0, GIB, 0, 0), (1, 2 << 20, 512, 0), (1, GIB, 1, 0),
    ]  # fmt: skip


def test_devices_and_groups() -> None:
    """Devices come by address, with the kernel's driver, and those that the IOMMU cannot tell apart in one group."""
    tree = DictTree(two_sockets())
    found = pci.devices(tree)
    assert [(d.id, d.group, d.driver) for d in found] == [
        ("pci-0000-00-1f-2", 7, ""),
        ("pci-0000-5e-00-0", 12, "ixgbe"),
        ("pci-0000-5e-00-1", 12, "vfio-pci"),
    ]
    assert (found[1].identity.vendor, found[1].identity.device, found[1].identity.class_code) == (
        0x8086,
        0x10FB,
        0x020000,
    )
    assert pci.groups(tree) == [7, 12]


def test_what_a_machine_offers() -> None:
    """A machine that has everything says what was found."""
    found = told(two_sockets())
    assert all(usable for usable, _ in found.values()), found
    assert found["kvm"] == (True, "/dev/kvm, by kvm_intel")
    assert found["iommu"] == (True, "2 groups behind 1 units")
    assert found["hugetlb"] == (True, "pages set aside: 1024 of 2048 KiB, 1 of 1048576 KiB")


def test_what_a_small_machine_lacks() -> None:
    """A VM without anything says why for each; switched-off processors are told apart from places for more."""
    files = small_vm()
    tree, found = DictTree(files), told(files)
    assert not [name for name, (usable, _) in found.items() if usable]
    assert found["kvm"][1] == "there is no /dev/kvm: the processor shows neither vmx nor svm"
    assert found["tap"][1] == "this process lacks CAP_NET_ADMIN"
    assert found["hugetlb"][1] == "the kernel has no pools of huge pages"
    assert ([t.number for t in cpus.threads(tree)], cpus.offline(tree)) == ([0], [1])
    [node] = memory.nodes(tree)
    assert (node.number, node.address, node.size, node.distances) == (0, 0x1000, 1000000 << 10, ())
    assert processor.read(tree).page_sizes == (4096, 1 << 21)


def test_devices_of_the_kernel_that_may_not_be_opened() -> None:
    """A device node that this process may not open is not usable, and the reason is another one."""
    found = told(two_sockets(), ("dev/kvm", "dev/net/tun", "dev/vfio/vfio"))
    assert [found[name] for name in ("kvm", "tap", "vfio")] == [
        (False, "this process may not open /dev/kvm"),
        (False, "this process may not open /dev/net/tun"),
        (False, "this process may not open /dev/vfio/vfio"),
    ]
    unloaded = two_sockets()
    del unloaded["dev/kvm"]
    assert told(unloaded)["kvm"][1] == "there is no /dev/kvm: the processor has vmx; load its module"
    del unloaded["sys/kernel/iommu_groups/7/devices/0000:00:1f.2"]
    quiet = {name: text for name, text in unloaded.items() if not name.startswith("sys/kernel/iommu_groups")}
    assert told(quiet)["iommu"][1].startswith("1 units, but no groups: translation is off")


def test_another_architecture() -> None:
    """Without flags, lists and model names there are features, processors by count, and sizes of the kernel's pools."""
    tree = DictTree(arm_board())
    found = processor.read(tree)
    assert (found.model, found.features) == ("implementer 0x41, part 0xd08", ("aes", "asimd", "fp"))
    assert found.page_sizes == (4096, 64 << 10, 2 << 20)
    assert [t.number for t in cpus.threads(tree)] == [0, 1]
    assert [(p.page_bytes, p.pages) for p in memory.pools(tree)] == [(64 << 10, 3), (2 << 20, 0)]


def test_vectors_of_a_configuration_space() -> None:
    """MSI-X counts before MSI, MSI before the pin; a list of capabilities that goes in circles ends."""
    space = bytearray(256)
    assert pci.vectors(bytes(space)) == 0
    space[0x3D] = 1
    assert pci.vectors(bytes(space)) == 1
    space[0x34], space[0x40:0x44] = 0x40, bytes((5, 0x50, 0x06, 0))  # MSI, eight messages
    assert pci.vectors(bytes(space)) == 8
    space[0x50:0x54] = bytes((0x11, 0x40, 0x0B, 0))  # MSI-X, twelve; its next is MSI again
    assert pci.vectors(bytes(space)) == 12
    assert pci.vectors(bytes(space[:63])) == 0
    space[0x51], space[0x52:0x54] = 0xFF, b"\xff\x07"
    assert pci.vectors(bytes(space)) == 256


def test_a_folder_reads_as_a_mapping_does(tmp_path: Path) -> None:
    """A tree of files tells the same as the mapping that it was made of; what is not there is empty."""
    files = two_sockets()
    disk, memory_ = HostFiles(write(tmp_path, files)), DictTree(files)
    assert cpus.threads(disk) == cpus.threads(memory_)
    assert cpus.caches(disk) == cpus.caches(memory_)
    assert memory.nodes(disk) == memory.nodes(memory_)
    assert pci.devices(disk) == pci.devices(memory_)
    assert facilities.read(disk, processor.read(disk)) == facilities.read(memory_, processor.read(memory_))
    assert (disk.text("none"), disk.names("none"), disk.target(f"{NODE}/node0"), disk.text(PCI)) == ("", [], "", "")
    assert disk.data(f"{CPU}/online", 2) == b"0-"
