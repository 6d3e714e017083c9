"""Serves `lamina.hardware.v1.Devices`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc as rpc

from lamina_hardware.convert import cpu
from lamina_hardware.convert import devices as convert_devices
from lamina_hardware.devices.drives import Drive
from lamina_hardware.serving.pagination import page
from lamina_kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class DevicesServicer(rpc.DevicesServicer):
    """Devices, who drives them, and DMA memory."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesResponse:
        """Lists devices."""
        kind = convert_devices.device_kind(request.kind)
        listed = [device for device in self._m.devices.table.entries() if kind in (None, device.kind)]
        found, token = page(listed, lambda device: device.id, request.page_size, request.page_token)
        devices = [convert_devices.device(device, self._m.names) for device in found]
        return pb.ListDevicesResponse(devices=devices, next_page_token=token)

    async def GetDevice(self, request: pb.GetDeviceRequest, context: Context) -> pb.Device:
        """Returns a device."""
        return convert_devices.device(self._m.devices.find(request.name), self._m.names)

    async def ReadConfiguration(
        self, request: pb.ReadConfigurationRequest, context: Context
    ) -> pb.ReadConfigurationResponse:
        """Returns a device's configuration space."""
        found = self._m.devices.find(request.name)
        return pb.ReadConfigurationResponse(data=self._m.devices.configuration(found))

    async def ResetDevice(self, request: pb.ResetDeviceRequest, context: Context) -> pb.Device:
        """Resets a device."""
        found = self._m.devices.find(request.name)
        self._m.devices.reset(found, self._m.owner(context))
        return convert_devices.device(found, self._m.names)

    async def Drive(
        self, request_iterator: AsyncIterator[pb.DriveRequest], context: Context
    ) -> AsyncIterator[pb.DriveResponse]:
        """Drives a device."""
        owner = self._m.sessions.require(context).owner
        async for response in DriveStream(self._m, owner, request_iterator).responses():
            yield response

    async def AllocateDmaBuffer(self, request: pb.AllocateDmaBufferRequest, context: Context) -> pb.DmaBuffer:
        """Sets DMA memory aside."""
        convert_devices.check_allocation(request)
        buffer = self._m.devices.allocate(request.size_bytes, self._m.owner(context), request.owner, request.request_id)
        return convert_devices.dma_buffer(buffer, self._m.bus)

    async def FreeDmaBuffer(self, request: pb.FreeDmaBufferRequest, context: Context) -> pb.FreeDmaBufferResponse:
        """Takes DMA memory back."""
        self._m.devices.free(cpu.handle(request.handle))
        return pb.FreeDmaBufferResponse()


class DriveStream:
    """One `Drive` call. Reading never waits for writing."""

    def __init__(self, machine: Machine, owner: str, requests: AsyncIterator[pb.DriveRequest]) -> None:
        self._m = machine
        self._owner = owner
        self._requests = requests
        self._wake = asyncio.Event()

    async def responses(self) -> AsyncIterator[pb.DriveResponse]:
        """Yields what the device says, until the driver ends the stream or something ends the driving."""
        drive = await self._open()
        reader = asyncio.get_running_loop().create_task(self._read(drive))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            device = drive.device
            yield convert_devices.opened(device, self._m.devices.page(device), self._m.names, self._m.bus)
            while True:
                self._wake.clear()
                while drive.ended is None and (found := drive.take()) is not None:
                    yield convert_devices.told(found)
                if drive.ended is not None:
                    raise drive.ended
                if reader.done():
                    reader.result()
                    return
                await self._wake.wait()
        finally:
            reader.cancel()
            self._m.devices.close(drive)

    async def _open(self) -> Drive:
        async for request in self._requests:
            if request.WhichOneof("message") == "open":
                device = self._m.devices.find(request.open.device, "open.device")
                drive = self._m.devices.open(device, self._owner)
                drive.changed = self._wake.set
                return drive
            break
        raise _not_opened()

    async def _read(self, drive: Drive) -> None:
        """Takes what the driver says."""
        async for request in self._requests:
            if drive.ended is not None:
                return
            kind = request.WhichOneof("message")
            if kind == "doorbell":
                drive.ring(convert_devices.doorbell(request.doorbell))
            elif kind == "mask":
                drive.mask(*convert_devices.mask(request.mask, drive.device.model.vector_count))
            else:
                raise _not_opened()


def _not_opened() -> FailedPrecondition:
    return FailedPrecondition(
        "The first message of the stream must open a device, and no other may.",
        reason="DRIVE_NOT_OPENED",
        next_step="Send open once, then doorbells and masks.",
    )
