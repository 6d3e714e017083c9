"""Serves `lamina.hardware.v1.Performance`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import performance_pb2 as pb
from lamina.hardware.v1 import performance_pb2_grpc as rpc

from lamina_hardware.convert import performance as convert
from lamina_hardware.domain.paging.tlb import TlbContent, TlbSlot
from lamina_hardware.domain.paging.walk import Access
from lamina_hardware.machine import Machine
from lamina_hardware.performance import Performance
from lamina_hardware.serving.pagination import page
from lamina_kit.checks import Checks

SERVICE_NAME = "lamina.hardware.v1.Performance"

DEFAULT_ENTRIES, DEFAULT_WAYS, DEFAULT_BATCH = 1536, 12, 8192
MAX_BATCH = 65536

Context = aio.ServicerContext[Any, Any]


class PerformanceServicer(rpc.PerformanceServicer):
    """Counts, prices and shows accesses."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    @property
    def _p(self) -> Performance:
        return self._m.performance

    async def GetPerformance(self, request: pb.GetPerformanceRequest, context: Context) -> pb.PerformanceCounters:
        """Returns counters of a context, a core, or the machine."""
        match request.WhichOneof("subject"):
            case "handle":
                return convert.counters(*self._p.of_context(self._m.find_context(request.handle)), 0)
            case "core":
                counts, price = self._p.of_core(request.core)
                return convert.counters(counts, price, self._m.uptime_ns() - counts.run_time_ns)
        counts, price = self._p.of_machine()
        return convert.counters(counts, price, self._m.uptime_ns() * self._p.core_count - counts.run_time_ns)

    async def GetCostTable(self, request: pb.GetCostTableRequest, context: Context) -> pb.CostTable:
        """Returns the cost table."""
        return convert.cost_table(self._p.costs)

    async def UpdateCostTable(self, request: pb.UpdateCostTableRequest, context: Context) -> pb.CostTable:
        """Changes costs."""
        costs, frequency_hz = convert.cost_changes(request)
        self._p.costs.update(costs, frequency_hz, self._p.subjects())
        return convert.cost_table(self._p.costs)

    async def SetObservation(self, request: pb.SetObservationRequest, context: Context) -> pb.Observation:
        """Switches observation of a context."""
        found = self._m.find_context(request.handle)
        entries, ways = request.tlb_entries or DEFAULT_ENTRIES, request.tlb_ways or DEFAULT_WAYS
        with Checks() as check:
            check.range("tlb_entries", entries, 16, 65536)
            check.range("tlb_ways", ways, 1, 64)
            check.that(not ways or entries % max(ways, 1) == 0, "tlb_ways", f"{ways} does not divide {entries}")
        await self._p.observe(found, entries if request.observed else 0, ways)
        if not request.observed:
            return pb.Observation()
        return pb.Observation(observed=True, tlb_entries=entries, tlb_ways=ways)

    async def ListTlbEntries(self, request: pb.ListTlbEntriesRequest, context: Context) -> pb.ListTlbEntriesResponse:
        """Lists the translations that a core's TLB holds."""
        content = await self._p.tlb(request.core)
        found, token = page(content.slots, _key, request.page_size, request.page_token)
        return pb.ListTlbEntriesResponse(
            entries=[convert.tlb_entry(slot, content, self._walk(slot, content)) for slot in found],
            next_page_token=token,
        )

    async def WatchAccesses(self, request: pb.WatchAccessesRequest, context: Context) -> AsyncIterator[pb.AccessBatch]:
        """Streams the accesses of an observed context."""
        found = self._m.find_context(request.handle)
        size = request.batch_size or DEFAULT_BATCH
        with Checks() as check:
            check.range("batch_size", size, 1, MAX_BATCH)
            for kind in request.kinds:
                check.one_of("kinds", kind, access_pb2.Access.values()[1:])
        with self._p.watch(found, list(request.kinds), size) as watcher:
            await context.send_initial_metadata(())  # tells the caller that it misses nothing from here on
            async for batch in watcher.batches():
                yield convert.accesses(batch)

    def _walk(self, slot: TlbSlot, content: TlbContent) -> Any:
        access = Access.EXECUTE if slot.executable else Access.READ
        return self._m.memory.translate(content.cr3, content.eptp, slot.address, access, slot.user)


def _key(slot: TlbSlot) -> str:
    """Returns where an entry stands in the list: its address, then ring 3 after ring 0."""
    return f"{slot.address:016x}-{int(slot.user)}-{slot.physical:013x}-{int(slot.writable)}{int(slot.executable)}"
