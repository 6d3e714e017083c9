"""`lamina hardware devices`, `domains`, `dma-faults` and `dma-translate`: devices and what they reach."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.input import parse
from lamina_cli.output import printing, walks
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.devices_pb2_grpc import DevicesStub
    from lamina.hardware.v1.iommu_pb2_grpc import IommuStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands to those of `lamina hardware`."""
    command(verbs.add_parser("devices", help="list devices and who drives them"), devices, lists=True)
    command(verbs.add_parser("domains", help="list DMA domains"), domains, lists=True)
    command(verbs.add_parser("dma-faults", help="list refused DMA transfers"), dma_faults, lists=True)
    walk = verbs.add_parser("dma-translate", help="walk a device's DMA address as the IOMMU would")
    walk.add_argument("device", help="device, for example dma0")
    walk.add_argument("address", type=parse.address, help="DMA address")
    walk.add_argument("--write", action="store_true", help="check a write instead of a read")
    command(walk, dma_translate, lists=True)


def _devices(client: Client) -> DevicesStub:
    from lamina.hardware.v1 import devices_pb2_grpc

    return client.stub("hardware", devices_pb2_grpc.DevicesStub)


def _iommu(client: Client) -> IommuStub:
    from lamina.hardware.v1 import iommu_pb2_grpc

    return client.stub("hardware", iommu_pb2_grpc.IommuStub)


async def devices(client: Client, args: argparse.Namespace) -> None:
    """Lists devices."""
    from lamina.hardware.v1 import devices_pb2

    listed = await collect(_devices(client).ListDevices, devices_pb2.ListDevicesRequest(), "devices")
    printing.show(
        listed,
        ("DEVICE", "KIND", "PCI", "GROUP", "STATE", "DRIVER", "DOMAIN", "TRANSFERS", "REFUSED"),
        lambda device: (
            last(device.name),
            word(devices_pb2.Device.Kind, device.kind),
            device.pci_address or "-",
            device.iommu_group if device.iommu_group >= 0 else "-",
            word(devices_pb2.Device.State, device.state),
            device.driver or "-",
            last(device.dma_domain) or "-",
            f"{device.dma_transfers:,}",
            f"{device.dma_faults:,}",
        ),
        form=args.output,
    )


async def domains(client: Client, args: argparse.Namespace) -> None:
    """Lists DMA domains."""
    from lamina.hardware.v1 import iommu_pb2

    listed = await collect(_iommu(client).ListDmaDomains, iommu_pb2.ListDmaDomainsRequest(), "dma_domains")
    printing.show(
        listed,
        ("DOMAIN", "KIND", "ROOT", "DEVICES", "MAPPED", "TABLES", "SPARE", "HITS", "MISSES", "REFUSED", "LABEL"),
        lambda domain: (
            last(domain.name),
            word(iommu_pb2.DmaDomain.Kind, domain.kind),
            f"{domain.root_address:#x}" if domain.root_address else "-",
            ",".join(last(device) for device in domain.devices) or "-",
            printing.size(domain.mapped_bytes),
            domain.table_frames,
            domain.spare_table_frames,
            f"{domain.tlb_hits:,}",
            f"{domain.tlb_misses:,}",
            f"{domain.faults:,}",
            domain.label,
        ),
        form=args.output,
    )


async def dma_faults(client: Client, args: argparse.Namespace) -> None:
    """Lists refused DMA transfers."""
    from lamina.hardware.v1 import iommu_pb2

    listed = await collect(_iommu(client).ListDmaFaults, iommu_pb2.ListDmaFaultsRequest(), "faults")
    printing.show(
        listed,
        ("NUMBER", "TIME", "DEVICE", "DOMAIN", "ADDRESS", "BYTES", "ACCESS", "WHY", "ENTRY"),
        lambda fault: (
            fault.sequence,
            printing.duration(fault.time_ns),
            last(fault.device),
            last(fault.dma_domain) or "-",
            f"{fault.iova:#x}",
            fault.size_bytes,
            "write" if fault.write else "read",
            word(iommu_pb2.DmaOutcome, fault.outcome),
            f"{fault.entry:#x}" if fault.entry else "-",
        ),
        form=args.output,
    )


async def dma_translate(client: Client, args: argparse.Namespace) -> int:
    """Walks a DMA address."""
    from lamina.common.v1 import access_pb2
    from lamina.hardware.v1 import devices_pb2, iommu_pb2

    names = {
        last(device.name): device.name
        for device in await collect(_devices(client).ListDevices, devices_pb2.ListDevicesRequest(), "devices")
    }
    access = access_pb2.ACCESS_WRITE if args.write else access_pb2.ACCESS_READ
    device = names.get(args.device, args.device)
    request = iommu_pb2.TranslateDmaRequest(device=device, iova=args.address, access=access)
    response: Any = await _iommu(client).TranslateDma(request)
    if args.output == "json":
        printing.as_json(response)
    else:
        walks.steps(response.steps)
        outcome = word(iommu_pb2.DmaOutcome, response.outcome)
        found = f" at {response.physical_address:#x}" if outcome == "translated" else ""
        print(f"{args.address:#x}: {outcome}{found}")
    return 0 if response.outcome == iommu_pb2.DMA_OUTCOME_TRANSLATED else 1
