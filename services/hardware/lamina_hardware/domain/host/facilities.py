"""What a machine offers to those that virtualise on it, and why each is usable or not. Pure.

Source: Documentation/admin-guide/mm/transhuge.rst, cgroup-v2.rst, Documentation/driver-api/vfio.rst of Linux 6.18;
include/uapi/linux/capability.h (numbers of capabilities).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina_hardware.domain.host import memory, pci
from lamina_hardware.domain.host.processor import Processor
from lamina_hardware.domain.host.tree import Tree, fields, number, numbered

_NET_ADMIN, _NET_RAW = 12, 13


@dataclass(frozen=True, slots=True)
class Facility:
    """Something that a machine may have: whether it can be used, and why not or what was found."""

    name: str
    usable: bool
    detail: str


def read(tree: Tree, processor: Processor) -> list[Facility]:
    """Returns the facilities in alphabetical order."""
    found = []
    for name, look in sorted(_LOOKS.items()):
        usable, detail = look(tree, processor)
        found.append(Facility(name, usable, detail))
    return found


def _cgroup(tree: Tree, processor: Processor) -> tuple[bool, str]:
    unified = tree.text("sys/fs/cgroup/cgroup.controllers").split()
    if unified:
        return True, f"version 2 with {', '.join(sorted(unified))}"
    first = [line.split()[0] for line in tree.text("proc/cgroups").splitlines()[1:] if line.split()[3:4] == ["1"]]
    mounted = [name for name in sorted(first) if tree.exists(f"sys/fs/cgroup/{name}")]
    if mounted:
        return True, f"version 1 with {', '.join(mounted)}"
    return False, "no controller is mounted at /sys/fs/cgroup"


def _edac(tree: Tree, processor: Processor) -> tuple[bool, str]:
    found = numbered(tree.names("sys/devices/system/edac/mc"), "mc", 256)
    if found:
        return True, f"{len(found)} memory controllers count their errors"
    return False, "no driver counts errors of memory (/sys/devices/system/edac/mc is empty)"


def _hugetlb(tree: Tree, processor: Processor) -> tuple[bool, str]:
    pools = memory.pools(tree)
    if not pools:
        return False, "the kernel has no pools of huge pages"
    sums: dict[int, int] = {}
    for pool in pools:
        sums[pool.page_bytes] = sums.get(pool.page_bytes, 0) + pool.pages
    told = ", ".join(f"{count} of {size >> 10} KiB" for size, count in sorted(sums.items()))
    usable = any(sums.values())
    return usable, f"pages set aside: {told}" if usable else f"no page is set aside ({told}); see vm.nr_hugepages"


def _iommu(tree: Tree, processor: Processor) -> tuple[bool, str]:
    units, groups = tree.names("sys/class/iommu"), pci.groups(tree)
    if groups:
        return True, f"{len(groups)} groups behind {len(units)} units"
    if units:
        return False, f"{len(units)} units, but no groups: translation is off (see iommu= of the kernel's command line)"
    return False, "the kernel has found none"


def _kvm(tree: Tree, processor: Processor) -> tuple[bool, str]:
    if not tree.exists("dev/kvm"):
        extension = next((flag for flag in ("vmx", "svm") if flag in processor.features), "")
        why = (
            f"the processor has {extension}; load its module"
            if extension
            else "the processor shows neither vmx nor svm"
        )
        return False, f"there is no /dev/kvm: {why}"
    if not tree.usable("dev/kvm"):
        return False, "this process may not open /dev/kvm"
    module = next((name for name in _KVM_MODULES if tree.exists(f"sys/module/{name}")), "kvm")
    return True, f"/dev/kvm, by {module}"


_KVM_MODULES = ("kvm_intel", "kvm_amd", "kvm_pvm")


def _memory_hotplug(tree: Tree, processor: Processor) -> tuple[bool, str]:
    size = memory.block_bytes(tree)
    return bool(size), f"in blocks of {size >> 20} MiB" if size else "the kernel cannot add or take away memory"


def _nested(tree: Tree, processor: Processor) -> tuple[bool, str]:
    for name in _KVM_MODULES:
        value = tree.text(f"sys/module/{name}/parameters/nested")
        if value:
            usable = value in ("Y", "y", "1")
            return usable, f"{name}: nested={value}"
    return False, "no module of KVM says that its guests may be hosts"


def _numa(tree: Tree, processor: Processor) -> tuple[bool, str]:
    count = len(memory.nodes(tree))
    return count > 1, f"{count} memory nodes" if count > 1 else "one memory node"


def _capability(tree: Tree, bit: int) -> bool:
    return bool((number(fields(tree.text("proc/self/status")).get("CapEff", ""), 16) or 0) >> bit & 1)


def _packet(tree: Tree, processor: Processor) -> tuple[bool, str]:
    usable = _capability(tree, _NET_RAW)
    return usable, "packet sockets carry wires" if usable else "this process lacks CAP_NET_RAW"


def _tap(tree: Tree, processor: Processor) -> tuple[bool, str]:
    if not tree.exists("dev/net/tun"):
        return False, "there is no /dev/net/tun"
    if not tree.usable("dev/net/tun"):
        return False, "this process may not open /dev/net/tun"
    usable = _capability(tree, _NET_ADMIN)
    return usable, "TAP devices carry wires" if usable else "this process lacks CAP_NET_ADMIN"


def _swap(tree: Tree, processor: Processor) -> tuple[bool, str]:
    areas = len(tree.text("proc/swaps").splitlines()) - 1
    return areas > 0, f"{areas} areas" if areas > 0 else "no area is in use"


def _thp(tree: Tree, processor: Processor) -> tuple[bool, str]:
    text = tree.text("sys/kernel/mm/transparent_hugepage/enabled")
    mode = text.partition("[")[2].partition("]")[0]
    if not mode:
        return False, "the kernel has no transparent huge pages"
    return mode != "never", f"mode {mode}"


def _vfio(tree: Tree, processor: Processor) -> tuple[bool, str]:
    if not tree.exists("dev/vfio/vfio"):
        return False, "there is no /dev/vfio/vfio; the module vfio-pci is not loaded"
    if not tree.usable("dev/vfio/vfio"):
        return False, "this process may not open /dev/vfio/vfio"
    return True, "devices of the kernel can be given to programs"


_LOOKS: dict[str, Callable[[Tree, Processor], tuple[bool, str]]] = {
    "cgroup": _cgroup,
    "edac": _edac,
    "hugetlb": _hugetlb,
    "iommu": _iommu,
    "kvm": _kvm,
    "memory-hotplug": _memory_hotplug,
    "nested": _nested,
    "numa": _numa,
    "packet": _packet,
    "swap": _swap,
    "tap": _tap,
    "transparent-hugepage": _thp,
    "vfio": _vfio,
}
