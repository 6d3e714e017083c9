"""Trees of /proc and /sys of machines that are not here, made by hand after real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"
PCI = "sys/bus/pci/devices"
XEON_FLAGS = "fpu vme pse msr pae sep cmov pse36 clflush mmx sse sse2 ht syscall nx pdpe1gb rdtscp lm vmx ept"


class DictTree:
    """A `Tree` of a mapping from paths to texts; a text that begins with `->` is a symbolic link."""

    def __init__(self, files: Mapping[str, str], locked: Sequence[str] = ()) -> None:
        self._files = files
        self._locked = locked
        self._names: dict[str, dict[str, None]] = {}
        for name in files:
            folder, _, rest = name.rpartition("/")
            while rest:
                self._names.setdefault(folder, {})[rest] = None
                folder, _, rest = folder.rpartition("/")

    def text(self, path: str) -> str:
        """See `Tree.text`."""
        found = self._files.get(path, "")
        return "" if found.startswith("->") else found.strip()

    def names(self, path: str) -> list[str]:
        """See `Tree.names`."""
        return sorted(self._names.get(path, {}))

    def target(self, path: str) -> str:
        """See `Tree.target`."""
        found = self._files.get(path, "")
        return found[2:].rpartition("/")[2] if found.startswith("->") else ""

    def usable(self, path: str) -> bool:
        """See `Tree.usable`."""
        return path in self._files and path not in self._locked

    def exists(self, path: str) -> bool:
        """See `Tree.exists`."""
        return path in self._files or path in self._names


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Makes a tree of files; returns its root."""
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            place.symlink_to(text[2:])
        else:
            place.write_text(text)
    return root


def _cpuinfo(cpus: Sequence[int], model: str, flags: str, sizes: str) -> str:
    return "\n".join(
        f"processor\t: {cpu}\nmodel name\t: {model}\nflags\t\t: {flags}\naddress sizes\t: {sizes}\n" for cpu in cpus
    )


def _cache(files: dict[str, str], cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> None:
    folder = f"{CPU}/cpu{cpu}/cache/index{index}"
    values = {"level": level, "type": kind, "size": size, "coherency_line_size": 64, "shared_cpu_list": shared}
    files.update({f"{folder}/{name}": f"{value}\n" for name, value in values.items()})


def two_sockets() -> dict[str, str]:
    """Returns a Xeon with two sockets of two cores of two threads, two nodes, huge pages, an IOMMU and KVM."""
    files = {
        "proc/cpuinfo": _cpuinfo(
            range(8), "Intel(R) Xeon(R) Gold 6130", XEON_FLAGS, "46 bits physical, 48 bits virtual"
        ),
        f"{CPU}/online": "0-7\n",
        f"{CPU}/present": "0-7\n",
        "sys/devices/system/memory/block_size_bytes": "80000000\n",
        "proc/self/status": "Name:\tpython\nCapEff:\t000001ffffffffff\n",
        "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1 0 -2\n",
        "dev/kvm": "",
        "dev/net/tun": "",
        "dev/vfio/vfio": "",
        "sys/module/kvm_intel/parameters/nested": "Y\n",
        "sys/fs/cgroup/cgroup.controllers": "memory cpu io\n",
        "sys/devices/system/edac/mc/mc0/ce_count": "0\n",
        "sys/class/iommu/dmar0/intel-iommu/version": "1:0\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    }
    for cpu in range(8):  # as firmware numbers them: a core's second thread is four behind its first
        core, socket = cpu // 2 % 2, cpu % 2
        files[f"{CPU}/cpu{cpu}/topology/physical_package_id"] = f"{socket}\n"
        files[f"{CPU}/cpu{cpu}/topology/core_id"] = f"{core * 8}\n"
        siblings = f"{cpu % 4},{cpu % 4 + 4}"
        _cache(files, cpu, 0, 1, "Data", "32K", siblings)
        _cache(files, cpu, 1, 1, "Instruction", "32K", siblings)
        _cache(files, cpu, 2, 2, "Unified", "1024K", siblings)
        _cache(files, cpu, 3, 3, "Unified", "22528K", "0,2,4,6" if socket == 0 else "1,3,5,7")
    for node, cpus, near in ((0, "0,2,4,6", "10 21"), (1, "1,3,5,7", "21 10")):
        folder = f"{NODE}/node{node}"
        files[f"{folder}/cpulist"] = f"{cpus}\n"
        files[f"{folder}/distance"] = f"{near}\n"
        files[f"{folder}/meminfo"] = f"Node {node} MemTotal:       8388608 kB\nNode {node} MemFree:  1 kB\n"
        for block in (0, 1, 2, 3):
            number = node * 4 + block
            files[f"{folder}/memory{number}/removable"] = "1\n"
            files[f"sys/devices/system/memory/memory{number}/state"] = "offline\n" if number == 7 else "online\n"
        for kib, pages in ((2048, 512), (1048576, node)):
            pool = f"{folder}/hugepages/hugepages-{kib}kB"
            files |= {f"{pool}/nr_hugepages": f"{pages}\n", f"{pool}/free_hugepages": "0\n"}
            files[f"{pool}/surplus_hugepages"] = "0\n"
    _device(files, "0000:5e:00.0", "0x8086", "0x10fb", "0x020000", "ixgbe", 12)
    _device(files, "0000:5e:00.1", "0x8086", "0x10fb", "0x020000", "vfio-pci", 12)
    _device(files, "0000:00:1f.2", "0x8086", "0xa1d2", "0x010601", "", 7)
    return files


def _device(
    files: dict[str, str], address: str, vendor: str, device: str, class_code: str, driver: str, group: int
) -> None:
    folder = f"{PCI}/{address}"
    files |= {f"{folder}/vendor": vendor, f"{folder}/device": device, f"{folder}/class": class_code}
    files[f"{folder}/revision"] = "0x01\n"
    if driver:
        files[f"{folder}/driver"] = f"->../../../../bus/pci/drivers/{driver}"
    files[f"{folder}/iommu_group"] = f"->../../../../kernel/iommu_groups/{group}"
    files[f"sys/kernel/iommu_groups/{group}/devices/{address}"] = ""


def small_vm() -> dict[str, str]:
    """Returns a VM of two processors, one of them off, without NUMA, memory blocks, IOMMU, KVM and capabilities."""
    return {
        "proc/cpuinfo": _cpuinfo(
            [0], "QEMU Virtual CPU version 2.5+", "fpu pse lm nx", "40 bits physical, 48 bits virtual"
        ),
        "proc/meminfo": "MemTotal:        1000000 kB\n",
        "proc/iomem": "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n  01000000-020 : Kernel code\n",
        "proc/self/status": "CapEff:\t0000000000000000\n",
        "proc/swaps": "Filename\tType\n",
        f"{CPU}/online": "0\n",
        f"{CPU}/present": "0-1\n",
        f"{CPU}/possible": "0-63\n",
        f"{CPU}/cpu0/topology/core_id": "0\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n",
        "dev/net/tun": "",
    }


def arm_board() -> dict[str, str]:
    """Returns an ARM machine whose kernel is built without CPU lists."""
    return {
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"
        "processor\t: 1\nFeatures\t: fp asimd aes\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
        "sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages": "3\n",
    }
