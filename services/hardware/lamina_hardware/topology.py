"""What Lamina's own machine consists of: cores, memory and pages, as facts of one shape."""

from __future__ import annotations

from lamina.hardware.v1 import topology_pb2 as pb

from lamina_hardware.engines.interface import CorePath

PAGE_SIZES = (1 << 12, 1 << 21, 1 << 30)
PHYSICAL_BITS, VIRTUAL_BITS = 46, 48
MODELLED = "Lamina modelled core, x86-64"
FEATURES = (
    "apic", "clflush", "cmov", "cx16", "cx8", "de", "fpu", "fxsr", "lahf_lm", "lm", "mca", "mce", "mmx", "msr", "nx",
    "pae", "pat", "pcid", "pdpe1gb", "pge", "pni", "popcnt", "pse", "rdtscp", "sep", "smap", "smep", "sse", "sse2",
    "sse4_1", "sse4_2", "ssse3", "syscall", "tsc",
)  # fmt: skip
"""What CPUID tells programs, as /proc/cpuinfo names it, in alphabetical order; also on KVM: see `io/kvm/cpuid.py`."""


def model(cores: int, memory_bytes: int, path: CorePath, *, has_iommu: bool, processor: str = "") -> pb.Topology:
    """Returns the topology of Lamina's machine: one socket, one thread a core, one memory node, no caches.

    `processor` names the host's processor when the cores are that one's; empty when they are modelled.
    """
    facilities = {
        "iommu": (has_iommu, "second-stage tables of VT-d in RAM"),
        "kvm": (bool(processor), path.reason if processor else "the cores of this engine are modelled"),
        "nested": (True, "a guest's tables behind an EPT"),
        "walker": (path.name == "walker", path.reason),
    }
    return pb.Topology(
        cpu_model=processor or MODELLED,
        cpu_features=FEATURES,
        threads=[pb.Topology.Thread(number=n, core=n, socket=0, node=0) for n in range(cores)],
        nodes=[pb.Topology.MemoryNode(number=0, address=0, size_bytes=memory_bytes)],
        page_sizes_bytes=PAGE_SIZES,
        physical_address_bits=PHYSICAL_BITS,
        virtual_address_bits=VIRTUAL_BITS,
        facilities=[
            pb.Topology.Facility(name=name, usable=usable, detail=detail)
            for name, (usable, detail) in sorted(facilities.items())
        ],
    )
