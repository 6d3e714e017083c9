"""`lamina.vswitch.v1.Captures`: captures, mirrors, records of frames, counters, and changes of ports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import policies_pb2, vswitch_pb2

from lamina_vswitch.convert import captures as to
from lamina_vswitch.convert import switches
from lamina_vswitch.domain.capture.mirror import MIRROR_NAME, MirrorDefinition
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.port.changes import Change
from lamina_vswitch.serving.views import Views
from lamina_vswitch.watching.frame_paths import FramePaths
from lamina_vswitch.watching.watchers import Watchers

Context = aio.ServicerContext[Any, Any]

NEWEST = 10**16 - 1
"""Records are numbered from 1; their page keys count down from here, so that the newest sorts first."""


class CapturesServicer(rpc.CapturesServicer):
    """Serves `lamina.vswitch.v1.Captures`."""

    def __init__(self, views: Views, watchers: Watchers, paths: FramePaths) -> None:
        self._v = views
        self._paths = paths
        self._captures = watchers.captures
        self._mirrors = watchers.mirrors
        self._watches = watchers.ports

    async def CaptureFrames(
        self, request: pb.CaptureFramesRequest, context: Context
    ) -> AsyncIterator[pb.CaptureFramesResponse]:
        """Stream what passes as a pcapng file."""
        selection = to.selection(request, self._v.names)
        self._v.catalog.switch(self._v.names.switch(request.switch, "switch"))
        for port in request.ports:
            self._v.catalog.port(*self._v.names.port(port, "ports"))
        async with aclosing(self._captures.run(selection)) as pieces:
            async for piece in pieces:
                yield to.capture_response(piece)

    async def CreateMirror(self, request: pb.CreateMirrorRequest, context: Context) -> pb.Mirror:
        """Create a mirror."""
        wanted = to.mirror_definition(request, self._v.names)
        return self._mirror(self._mirrors.create(wanted, request.request_id, self._v.now_ns()))

    async def GetMirror(self, request: pb.GetMirrorRequest, context: Context) -> pb.Mirror:
        """Return a mirror."""
        return self._mirror(self._mirrors.get(*self._v.names.of("mirror", MIRROR_NAME, request.name)))

    async def ListMirrors(self, request: pb.ListMirrorsRequest, context: Context) -> pb.ListMirrorsResponse:
        """List the mirrors of a switch."""
        found = self._mirrors.mirrors(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.mirror, request.page_size, request.page_token)
        return pb.ListMirrorsResponse(mirrors=map(self._mirror, chosen), next_page_token=token)

    async def DeleteMirror(self, request: pb.DeleteMirrorRequest, context: Context) -> pb.DeleteMirrorResponse:
        """Delete a mirror."""
        self._mirrors.delete(*self._v.names.of("mirror", MIRROR_NAME, request.name), self._v.now_ns())
        return pb.DeleteMirrorResponse()

    async def ListFrameRecords(
        self, request: pb.ListFrameRecordsRequest, context: Context
    ) -> pb.ListFrameRecordsResponse:
        """List what became of frames, newest first."""
        switch, port, trace_id, passes = to.record_query(request, self._v.names)
        self._v.catalog.switch(switch)
        found = [
            record
            for record in self._v.engine.records(self._v.catalog.switch_name(switch))
            if port in ("", record.port) and trace_id in ("", record.trace_id) and passes(record.head, record.length)
        ]
        chosen, token = page(found, lambda each: f"{NEWEST - each.number:016d}", request.page_size, request.page_token)
        return pb.ListFrameRecordsResponse(frame_records=map(to.frame_record, chosen), next_page_token=token)

    async def TraceFramePath(self, request: pb.TraceFramePathRequest, context: Context) -> pb.TraceFramePathResponse:
        """Tell a frame's way through this host."""
        frame, header = to.traced_path(request)
        port = self._v.catalog.port(*self._v.names.port(request.port, "port"))
        hops, loop = self._paths.path(port, frame, header, self._v.now_ns())
        return pb.TraceFramePathResponse(hops=map(to.frame_hop, hops), loop=loop)

    async def ListCounters(self, request: pb.ListCountersRequest, context: Context) -> pb.ListCountersResponse:
        """List counters by port or by VLAN."""
        switch = self._v.names.switch(request.parent, "parent")
        if request.by_vlan:
            self._v.catalog.switch(switch)
            vlans = self._v.engine.vlan_counters(self._v.catalog.switch_name(switch))
            lines, token = page(vlans, lambda each: f"{each[0]:04d}", request.page_size, request.page_token)
            return pb.ListCountersResponse(vlans=[to.vlan_counters(*line) for line in lines], next_page_token=token)
        ports = self._v.catalog.ports(switch)
        chosen, token = page(ports, lambda each: each.port, request.page_size, request.page_token)
        return pb.ListCountersResponse(ports=map(self._counters, chosen), next_page_token=token)

    async def WatchPorts(self, request: pb.WatchPortsRequest, context: Context) -> AsyncIterator[pb.WatchPortsResponse]:
        """Stream the ports of a switch and their changes."""
        switch = self._v.names.switch(request.parent, "parent")
        async with aclosing(self._watches.run(switch)) as messages:
            async for changes, initial_end in messages:
                yield pb.WatchPortsResponse(changes=map(self._change, changes), initial_end=initial_end)

    def _mirror(self, mirror: MirrorDefinition) -> pb.Mirror:
        catalog = self._v.catalog
        return to.mirror(
            self._mirrors.name(mirror),
            mirror,
            [catalog.port_name(mirror.switch, port) for port in mirror.ports],
            [catalog.port_group_name(mirror.switch, group) for group in mirror.groups],
            catalog.port_name(mirror.switch, mirror.destination),
            self._mirrors.copied(mirror),
        )

    def _counters(self, port: PortDefinition) -> vswitch_pb2.PortCounters:
        name = self._v.catalog.port_name(port.switch, port.port)
        return switches.counters(name, self._v.engine.counters(port.slot))

    def _change(self, change: Change) -> pb.PortChange:
        if not change.deleted:
            shut = self._v.engine.shut(change.port.slot)
            return pb.PortChange(
                port=self._v.port(change.port),
                shut_reason=policies_pb2.ShutReason.ValueType(shut.reason if shut is not None else 0),
                held=self._v.engine.hold(change.port.slot) is not None,
            )
        name = self._v.catalog.port_name(change.port.switch, change.port.port)
        return pb.PortChange(port=to.gone_port(name, change.port), deleted=True)
