"""Serves `lamina.hardware.v1.Disks`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import disks_pb2 as pb
from lamina.hardware.v1 import disks_pb2_grpc as rpc

from lamina_hardware.convert import disks as convert
from lamina_hardware.devices.disks import Disks, changed
from lamina_hardware.serving.pagination import page
from lamina_hardware.serving.transfer_stream import DiskMemory, DiskStream
from lamina_kit.checks import Checks

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class DisksServicer(rpc.DisksServicer):
    """Serves `lamina.hardware.v1.Disks`."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    @property
    def _disks(self) -> Disks:
        return self._m.disks

    async def ListDisks(self, request: pb.ListDisksRequest, context: Context) -> pb.ListDisksResponse:
        """Lists disks."""
        found, token = page(self._disks.entries(), lambda disk: disk.name, request.page_size, request.page_token)
        now = self._m.clock.now_ns()
        disks = [convert.disk(disk, self._m.names, now) for disk in found]
        return pb.ListDisksResponse(disks=disks, next_page_token=token)

    async def GetDisk(self, request: pb.GetDiskRequest, context: Context) -> pb.Disk:
        """Returns a disk."""
        return self._shown(request.name)

    async def CreateDisk(self, request: pb.CreateDiskRequest, context: Context) -> pb.Disk:
        """Creates a disk."""
        with Checks() as check:
            check.identifier("disk_id", request.disk_id)
        disk = self._disks.create(request.disk_id, convert.wish(request.disk), request.request_id)
        return self._shown(self._m.names.format_disk(disk.name))

    async def UpdateDisk(self, request: pb.UpdateDiskRequest, context: Context) -> pb.Disk:
        """Changes a disk."""
        disk = self._disks.get(self._m.names.disk(request.disk.name, "disk.name"))
        values = convert.disk_changes(request.disk, list(request.update_mask.paths), disk)
        self._disks.update(disk, changed(disk, **values))
        return self._shown(request.disk.name)

    async def DeleteDisk(self, request: pb.DeleteDiskRequest, context: Context) -> pb.DeleteDiskResponse:
        """Deletes a disk."""
        self._disks.delete(self._disks.get(self._m.names.disk(request.name)))
        return pb.DeleteDiskResponse()

    async def Transfer(
        self, request_iterator: AsyncIterator[pb.TransferRequest], context: Context
    ) -> AsyncIterator[pb.TransferResponse]:
        """Moves blocks."""
        memory: DiskMemory = self._m.disk_devices
        async for response in DiskStream(self._disks, self._m.names, memory).serve(request_iterator):
            yield response

    async def CreateIoGroup(self, request: pb.CreateIoGroupRequest, context: Context) -> pb.IoGroup:
        """Creates an I/O group."""
        with Checks() as check:
            check.identifier("io_group_id", request.io_group_id)
        wish, owner = convert.group_wish(request.io_group, self._m.names), self._m.owner(context)
        return self._shown_group(self._disks.create_group(request.io_group_id, wish, owner, request.request_id).name)

    async def GetIoGroup(self, request: pb.GetIoGroupRequest, context: Context) -> pb.IoGroup:
        """Returns an I/O group; the root has the empty name."""
        return self._shown_group(self._m.names.io_group(request.name))

    async def ListIoGroups(self, request: pb.ListIoGroupsRequest, context: Context) -> pb.ListIoGroupsResponse:
        """Lists I/O groups."""
        entries = self._disks.groups.entries()
        found, token = page(entries, lambda group: group.name, request.page_size, request.page_token)
        now = self._m.clock.now_ns()
        groups = [convert.io_group(group, self._m.names, now) for group in found]
        return pb.ListIoGroupsResponse(io_groups=groups, next_page_token=token)

    async def UpdateIoGroup(self, request: pb.UpdateIoGroupRequest, context: Context) -> pb.IoGroup:
        """Changes an I/O group."""
        group = self._disks.groups.get(self._m.names.io_group(request.io_group.name, "io_group.name"))
        paths = list(request.update_mask.paths)
        self._disks.change_group(group, *convert.group_changes(request.io_group, paths, self._m.names))
        return self._shown_group(group.name)

    async def DeleteIoGroup(self, request: pb.DeleteIoGroupRequest, context: Context) -> pb.DeleteIoGroupResponse:
        """Deletes an I/O group."""
        self._disks.groups.delete(self._m.names.io_group(request.name))
        return pb.DeleteIoGroupResponse()

    def _shown(self, name: str) -> pb.Disk:
        disk = self._disks.get(self._m.names.disk(name))
        return convert.disk(disk, self._m.names, self._m.clock.now_ns())

    def _shown_group(self, name: str) -> pb.IoGroup:
        return convert.io_group(self._disks.groups.get(name), self._m.names, self._m.clock.now_ns())
