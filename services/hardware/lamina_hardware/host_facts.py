"""The machine below, as its kernel shows it: topology and devices of the linux engine."""

from __future__ import annotations

import asyncio
from functools import partial

from lamina.hardware.v1 import topology_pb2 as pb

from lamina_hardware.devices.devices import HostDevices
from lamina_hardware.devices.kernel import KernelDevice
from lamina_hardware.domain.devices.device import DeviceKind, DeviceState
from lamina_hardware.domain.host import cpus, facilities, memory, pci, processor
from lamina_hardware.io.host_files import HostFiles

_MOST_CONFIGURATION = 4096
_SEGMENTS = 0x10000


class HostFacts:
    """What one tree of /proc and /sys says. Read anew for each call: facts change (memory, threads, pools)."""

    def __init__(self, files: HostFiles) -> None:
        self._files = files

    async def processor(self) -> str:
        """Returns the name of the processor, for people."""
        return (await asyncio.to_thread(processor.read, self._files)).model

    async def topology(self) -> pb.Topology:
        """Returns the topology as a message."""
        return await asyncio.to_thread(self._read)  # thousands of small files on a large machine: nobody waits for them

    def _read(self) -> pb.Topology:
        tree = self._files
        described = processor.read(tree)
        return pb.Topology(
            cpu_model=described.model,
            cpu_features=described.features,
            threads=[
                pb.Topology.Thread(number=thread.number, core=thread.core, socket=thread.socket, node=thread.node)
                for thread in cpus.threads(tree)
            ],
            offline_threads=cpus.offline(tree),
            caches=[_cache(cache) for cache in cpus.caches(tree)],
            nodes=[_node(node) for node in memory.nodes(tree)],
            memory_block_bytes=memory.block_bytes(tree),
            huge_page_pools=[_pool(pool) for pool in memory.pools(tree)],
            page_sizes_bytes=described.page_sizes,
            physical_address_bits=described.physical_bits,
            virtual_address_bits=described.virtual_bits,
            facilities=[
                pb.Topology.Facility(name=found.name, usable=found.usable, detail=found.detail)
                for found in facilities.read(tree, described)
            ],
        )

    def plug(self, devices: HostDevices) -> None:
        """Shows the kernel's PCI devices, and keeps the places of Lamina's own apart from theirs."""
        found = pci.devices(self._files)
        taken = dict.fromkeys(device.identity.address.partition(":")[0] for device in found)
        segment = next(f"{n:04x}" for n in reversed(range(_SEGMENTS)) if f"{n:04x}" not in taken)
        groups = [*pci.groups(self._files), *(device.group for device in found)]
        devices.keep_apart(segment if found else "0000", max(groups, default=pci.NO_GROUP) + 1)
        for device in found:
            address = device.identity.address
            model = KernelDevice(address, partial(self._configuration, address))
            plugged = devices.plug(device.id, DeviceKind.OTHER, device.identity, device.group, model)
            plugged.driver = f"(linux/{device.driver})" if device.driver else "(linux)"
            plugged.state = DeviceState.DRIVEN if device.driver else DeviceState.IDLE

    def _configuration(self, address: str) -> bytes:
        try:
            return self._files.data(f"{pci.FOLDER}/{address}/config", _MOST_CONFIGURATION)
        except OSError:
            return b""


def _cache(cache: cpus.Cache) -> pb.Topology.Cache:
    return pb.Topology.Cache(
        level=cache.level, kind=cache.kind, size_bytes=cache.size, line_bytes=cache.line, threads=cache.threads
    )


def _node(node: memory.Node) -> pb.Topology.MemoryNode:
    return pb.Topology.MemoryNode(
        number=node.number, address=node.address, size_bytes=node.size, distances=node.distances,
        memory_blocks=node.blocks, online_memory_blocks=node.online_blocks,
    )  # fmt: skip


def _pool(pool: memory.Pool) -> pb.Topology.HugePagePool:
    return pb.Topology.HugePagePool(
        node=pool.node, page_bytes=pool.page_bytes, pages=pool.pages, free_pages=pool.free, surplus_pages=pool.surplus
    )
