"""Serves `lamina.mmu.v1.Swap`: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from lamina.mmu.v1 import swap_pb2 as pb
from lamina.mmu.v1 import swap_pb2_grpc as rpc

from lamina_kit.effects import Sleep
from lamina_mmu import convert, convert_swap
from lamina_mmu.host import MmuHost

Context = grpc.aio.ServicerContext[Any, Any]

TOLD_EVERY_NS, TOLD_AT_FINDINGS = 500_000_000, 1000
"""How often a check tells how far it is: twice a second, or for so many findings."""


class SwapServicer(rpc.SwapServicer):
    """The swap areas of one host."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def ListSwapAreas(self, request: pb.ListSwapAreasRequest, context: Context) -> pb.ListSwapAreasResponse:
        """Lists areas by priority."""
        areas = [convert_swap.area(view, self.host.names) for view in self.host.engine.swap_areas()]
        return pb.ListSwapAreasResponse(swap_areas=areas)

    async def GetSwapArea(self, request: pb.GetSwapAreaRequest, context: Context) -> pb.SwapArea:
        """Returns one area."""
        name = convert_swap.area_name(request.name, self.host.name)
        return convert_swap.area(self.host.engine.swap_area(name), self.host.names)

    async def CreateSwapArea(self, request: pb.CreateSwapAreaRequest, context: Context) -> pb.SwapArea:
        """Makes an area and takes it into use."""
        name, slots, priority = convert_swap.new_area(request)
        host = self.host
        view = await host.drive(host.engine.create_swap_area(name, slots, priority, request.request_id))
        return convert_swap.area(view, host.names)

    async def DeleteSwapArea(
        self, request: pb.DeleteSwapAreaRequest, context: Context
    ) -> AsyncIterator[pb.DeleteSwapAreaProgress]:
        """Takes an area out of use."""
        engine = self.host.engine
        drain = engine.begin_drain(convert_swap.area_name(request.name, self.host.name))
        try:
            while not drain.done:
                await self.host.drive(engine.drain(drain))
                yield pb.DeleteSwapAreaProgress(
                    remaining_slots=drain.remaining,
                    returned_pages=drain.returned,
                    moved_pages=drain.moved,
                    done=drain.done,
                )
        finally:
            engine.end_drain(drain)

    async def ListSwapSlots(self, request: pb.ListSwapSlotsRequest, context: Context) -> pb.ListSwapSlotsResponse:
        """Lists slots in use by number."""
        host = self.host
        after, size = convert.page(request)
        name = convert_swap.area_name(request.name, host.name)
        found = host.engine.swap_slots(name, after if request.page_token else -1, size + 1)
        slots = [convert_swap.slot(view, host.names) for view in found[:size]]
        token = str(found[size - 1].slot) if len(found) > size else ""
        return pb.ListSwapSlotsResponse(slots=slots, next_page_token=token)

    async def CheckSwapArea(
        self, request: pb.CheckSwapAreaRequest, context: Context
    ) -> AsyncIterator[pb.CheckSwapAreaResponse]:
        """Compares every slot in use with its checksum."""
        host = self.host
        name = convert_swap.area_name(request.name, host.name)
        after, checked, told_ns = -1, 0, host.now_ns()
        findings: list[pb.SwapSlot] = []
        while True:
            found = host.engine.check_swap(name, after)
            after, checked = found.last, checked + found.checked
            findings += [convert_swap.slot(view, host.names) for view in found.corrupt]
            done = not found.remaining
            if done or len(findings) >= TOLD_AT_FINDINGS or host.now_ns() - told_ns >= TOLD_EVERY_NS:
                told, findings, told_ns = findings[:TOLD_AT_FINDINGS], findings[TOLD_AT_FINDINGS:], host.now_ns()
                yield pb.CheckSwapAreaResponse(
                    checked_slots=checked,
                    corrupt_slots=told,
                    remaining_slots=found.remaining,
                    done=done and not findings,
                )
            if done and not findings:
                return
            await host.perform(Sleep(0))
