"""Serves `lamina.hardware.v1.Iommu`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import iommu_pb2 as pb
from lamina.hardware.v1 import iommu_pb2_grpc as rpc

from lamina_hardware.convert import cpu
from lamina_hardware.convert import iommu as convert_iommu
from lamina_hardware.domain.iommu.domains import DmaDomain
from lamina_hardware.serving.pagination import page
from lamina_kit.checks import Checks
from lamina_kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class IommuServicer(rpc.IommuServicer):
    """Domains, mapping, attachment, DMA on behalf of devices, faults and page requests."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    def _domain(self, found: DmaDomain) -> pb.DmaDomain:
        return convert_iommu.domain(found, self._m.devices.iommu.devices_of(found), self._m.names)

    async def CreateDmaDomain(self, request: pb.CreateDmaDomainRequest, context: Context) -> pb.DmaDomain:
        """Creates a domain."""
        wish = convert_iommu.domain_wish(request.dma_domain, self._m.owner(context))
        return self._domain(self._m.domains.create(wish, request.request_id))

    async def GetDmaDomain(self, request: pb.GetDmaDomainRequest, context: Context) -> pb.DmaDomain:
        """Returns a domain."""
        handle = cpu.handle(request.handle) if request.HasField("handle") else None
        return self._domain(self._m.domains.find(handle, request.name))

    async def ListDmaDomains(self, request: pb.ListDmaDomainsRequest, context: Context) -> pb.ListDmaDomainsResponse:
        """Lists domains."""
        domains = self._m.devices.iommu.domains()
        found, token = page(domains, lambda domain: f"{domain.key:018d}", request.page_size, request.page_token)
        return pb.ListDmaDomainsResponse(dma_domains=[self._domain(entry) for entry in found], next_page_token=token)

    async def DeleteDmaDomain(self, request: pb.DeleteDmaDomainRequest, context: Context) -> pb.DeleteDmaDomainResponse:
        """Deletes a domain."""
        self._m.domains.delete(cpu.handle(request.handle))
        return pb.DeleteDmaDomainResponse()

    async def AttachDevice(self, request: pb.AttachDeviceRequest, context: Context) -> pb.AttachDeviceResponse:
        """Attaches a device."""
        group = self._m.domains.attach(cpu.handle(request.handle), request.device, self._m.owner(context))
        return pb.AttachDeviceResponse(devices=[self._m.names.format_device(device.id) for device in group])

    async def DetachDevice(self, request: pb.DetachDeviceRequest, context: Context) -> pb.DetachDeviceResponse:
        """Detaches a device."""
        self._m.domains.detach(request.device, self._m.owner(context))
        return pb.DetachDeviceResponse()

    async def AddTableFrames(self, request: pb.AddTableFramesRequest, context: Context) -> pb.AddTableFramesResponse:
        """Takes table frames."""
        iommu = self._m.devices.iommu
        frames = convert_iommu.frames(request.frames)
        iommu.add_frames(iommu.get(cpu.handle(request.handle)), frames)
        return pb.AddTableFramesResponse()

    async def MapDma(self, request: pb.MapDmaRequest, context: Context) -> pb.MapDmaResponse:
        """Maps DMA addresses."""
        iommu = self._m.devices.iommu
        mappings = convert_iommu.mappings(request.mappings)
        iommu.map(iommu.get(cpu.handle(request.handle)), mappings)
        return pb.MapDmaResponse()

    async def UnmapDma(self, request: pb.UnmapDmaRequest, context: Context) -> pb.UnmapDmaResponse:
        """Unmaps DMA addresses."""
        iommu = self._m.devices.iommu
        ranges = convert_iommu.ranges(request.ranges)
        return convert_iommu.unmapped(iommu.unmap(iommu.get(cpu.handle(request.handle)), ranges))

    async def InvalidateDma(self, request: pb.InvalidateDmaRequest, context: Context) -> pb.InvalidateDmaResponse:
        """Drops kept translations."""
        iommu = self._m.devices.iommu
        ranges = convert_iommu.ranges(request.ranges, at_least=0)
        return pb.InvalidateDmaResponse(dropped=iommu.invalidate(iommu.get(cpu.handle(request.handle)), ranges))

    async def TranslateDma(self, request: pb.TranslateDmaRequest, context: Context) -> pb.TranslateDmaResponse:
        """Walks a domain's table."""
        write = convert_iommu.is_write(request.access)
        return convert_iommu.walk(self._m.devices.iommu.look(self._subject(request), request.iova, write))

    def _subject(self, request: pb.TranslateDmaRequest) -> DmaDomain | None:
        """Returns the domain that a walk is of; None for a device without one."""
        subject = request.WhichOneof("subject")
        with Checks() as check:
            check.that(subject is not None, "subject", "is neither a domain nor a device")
        if subject == "handle":
            return self._m.devices.iommu.get(cpu.handle(request.handle))
        return self._m.devices.iommu.find(self._m.devices.find(request.device, "device").domain)

    async def ReadDma(self, request: pb.ReadDmaRequest, context: Context) -> pb.ReadDmaResponse:
        """Reads as a device."""
        convert_iommu.check_transfer(request.size_bytes, "size_bytes")
        devices = self._m.devices
        device = devices.find(request.device, "device")
        devices.require_driver(device, self._m.owner(context))
        return pb.ReadDmaResponse(data=await devices.read_as(device, request.iova, request.size_bytes))

    async def WriteDma(self, request: pb.WriteDmaRequest, context: Context) -> pb.WriteDmaResponse:
        """Writes as a device."""
        convert_iommu.check_transfer(len(request.data), "data")
        devices = self._m.devices
        device = devices.find(request.device, "device")
        devices.require_driver(device, self._m.owner(context))
        await devices.write_as(device, request.iova, request.data)
        return pb.WriteDmaResponse()

    async def ListDmaFaults(self, request: pb.ListDmaFaultsRequest, context: Context) -> pb.ListDmaFaultsResponse:
        """Lists refused transfers."""
        faults = self._m.devices.iommu.faults
        device = self._m.names.device(request.device, "device") if request.device else ""
        listed = faults.entries(device)
        found, token = page(listed, lambda fault: f"{fault.sequence:018d}", request.page_size, request.page_token)
        return pb.ListDmaFaultsResponse(
            faults=[convert_iommu.fault(entry, self._m.names) for entry in found],
            next_page_token=token,
            forgotten=faults.forgotten,
        )

    async def ServePageRequests(
        self, request_iterator: AsyncIterator[pb.ServePageRequestsRequest], context: Context
    ) -> AsyncIterator[pb.ServePageRequestsResponse]:
        """Serves page requests."""
        async for response in PageStream(self._m, request_iterator).responses():
            yield response


class PageStream:
    """One `ServePageRequests` call. Reading never waits for writing."""

    def __init__(self, machine: Machine, requests: AsyncIterator[pb.ServePageRequestsRequest]) -> None:
        self._m = machine
        self._requests = requests
        self._wake = asyncio.Event()

    async def responses(self) -> AsyncIterator[pb.ServePageRequestsResponse]:
        """Yields requests, until the owner ends the stream or the domain goes."""
        domain = await self._open()
        reader = asyncio.get_running_loop().create_task(self._read(domain))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            yield pb.ServePageRequestsResponse()
            while True:
                self._wake.clear()
                self._m.devices.iommu.get(domain.handle)  # a domain that was deleted ends the stream
                while found := domain.requests.take():
                    yield convert_iommu.page_requests(found, self._m.names)
                if reader.done():
                    reader.result()
                    return
                await self._wake.wait()
        finally:
            reader.cancel()
            domain.requests.served = False
            domain.requests.resolve_all()

    async def _open(self) -> DmaDomain:
        async for request in self._requests:
            if request.WhichOneof("message") == "open":
                domain = self._m.domains.serve_pages(cpu.handle(request.open))
                domain.requests.changed = self._wake.set
                return domain
            break
        raise _not_opened()

    async def _read(self, domain: DmaDomain) -> None:
        """Takes the owner's answers."""
        async for request in self._requests:
            if request.WhichOneof("message") != "answers":
                raise _not_opened()
            for sequence, present in convert_iommu.answers(request.answers):
                domain.requests.answer(sequence, present)


def _not_opened() -> FailedPrecondition:
    return FailedPrecondition(
        "The first message of the stream must open a domain, and no other may.",
        reason="PAGE_REQUESTS_NOT_OPENED",
        next_step="Send open once, then answers.",
    )
