"""Serves `lamina.mmu.v1.Swap`: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from lamina.mmu.v1 import swap_pb2 as pb
from lamina.mmu.v1 import swap_pb2_grpc as rpc

from lamina_mmu.convert import mmu, swap
from lamina_mmu.host import MmuHost
from lamina_mmu.streams.swap_areas import check_area, drain_area

Context = grpc.aio.ServicerContext[Any, Any]


class SwapServicer(rpc.SwapServicer):
    """The swap areas of one host."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def ListSwapAreas(self, request: pb.ListSwapAreasRequest, context: Context) -> pb.ListSwapAreasResponse:
        """Lists areas by priority."""
        areas = [swap.area(view, self.host.names) for view in self.host.engine.swap_areas()]
        return pb.ListSwapAreasResponse(swap_areas=areas)

    async def GetSwapArea(self, request: pb.GetSwapAreaRequest, context: Context) -> pb.SwapArea:
        """Returns one area."""
        name = swap.area_name(request.name, self.host.name)
        return swap.area(self.host.engine.swap_area(name), self.host.names)

    async def CreateSwapArea(self, request: pb.CreateSwapAreaRequest, context: Context) -> pb.SwapArea:
        """Makes an area and takes it into use."""
        name, slots, priority = swap.new_area(request)
        host, disk = self.host, request.swap_area.disk
        view = await host.drive(host.engine.create_swap_area(name, slots, priority, request.request_id, disk))
        return swap.area(view, host.names)

    async def DeleteSwapArea(
        self, request: pb.DeleteSwapAreaRequest, context: Context
    ) -> AsyncIterator[pb.DeleteSwapAreaProgress]:
        """Takes an area out of use."""
        async with aclosing(drain_area(self.host, swap.area_name(request.name, self.host.name))) as said:
            async for progress in said:
                yield progress

    async def ListSwapSlots(self, request: pb.ListSwapSlotsRequest, context: Context) -> pb.ListSwapSlotsResponse:
        """Lists slots in use by number."""
        host = self.host
        after, size = mmu.page(request)
        name = swap.area_name(request.name, host.name)
        found = host.engine.swap_slots(name, after if request.page_token else -1, size + 1)
        slots = [swap.slot(view, host.names) for view in found[:size]]
        token = str(found[size - 1].slot) if len(found) > size else ""
        return pb.ListSwapSlotsResponse(slots=slots, next_page_token=token)

    async def GetSwapSettings(self, request: pb.GetSwapSettingsRequest, context: Context) -> pb.SwapSettings:
        """Returns the settings of swapping and reclaim."""
        return swap.settings(self.host.engine.swap_settings())

    async def UpdateSwapSettings(self, request: pb.UpdateSwapSettingsRequest, context: Context) -> pb.SwapSettings:
        """Changes settings of swapping and reclaim."""
        view = self.host.engine.update_swap_settings(swap.setting_changes(request))
        self.host.keep_zeroed(view.zeroed_frames)
        return swap.settings(view)

    async def CheckSwapArea(
        self, request: pb.CheckSwapAreaRequest, context: Context
    ) -> AsyncIterator[pb.CheckSwapAreaResponse]:
        """Compares every slot in use with its checksum."""
        async with aclosing(check_area(self.host, swap.area_name(request.name, self.host.name))) as said:
            async for found in said:
                yield found
