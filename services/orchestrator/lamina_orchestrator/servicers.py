"""The contract's services: parse, call the engine, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from lamina.orchestrator.v1 import orchestrator_pb2_grpc as rpc

from lamina_kit.telemetry import trace
from lamina_orchestrator import convert
from lamina_orchestrator.engines.interface import Cursor
from lamina_orchestrator.io.cluster import Cluster

BATCH = 200


def _trace() -> str:
    """The trace of the call, if it is sampled: what the objects that it writes are to remember."""
    context = trace.current()
    return context.header if context is not None and context.sampled else ""


class Objects(rpc.ObjectsServicer):
    """Serves lamina.orchestrator.v1.Objects."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def ApplyObjects(self, request: pb.ApplyObjectsRequest, context: Any) -> pb.ApplyObjectsResponse:
        """Makes the objects of a manifest exist as written."""
        convert.refuse_planned(request, "write_options")
        args = (request.manifest, request.default_namespace, self._cluster.now(), _trace(), request.dry_run)
        applied = self._cluster.engine.apply(*args)
        self._cluster.poke()
        return pb.ApplyObjectsResponse(results=[convert.to_applied(one) for one in applied])

    async def CreateObject(self, request: pb.CreateObjectRequest, context: Any) -> pb.Object:
        """Creates one object."""
        convert.refuse_planned(request, "write_options")
        where, now = request.default_namespace, self._cluster.now()
        made = self._cluster.engine.create(request.json, where, now, _trace(), request.dry_run, request.request_id)
        self._cluster.poke()
        return convert.to_object(made)

    async def GetObject(self, request: pb.GetObjectRequest, context: Any) -> pb.Object:
        """Returns one object."""
        found = self._cluster.engine.get(*convert.reference(request.reference), self._cluster.now())
        return convert.to_object(found)

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Any) -> pb.ListObjectsResponse:
        """Returns a page of objects."""
        convert.refuse_planned(request, "resource_version")
        size = convert.page_size(request.page_size)
        page = self._cluster.engine.list(convert.query(request), size, request.page_token, self._cluster.now())
        return convert.to_listing(page)

    async def WatchObjects(
        self, request: pb.WatchObjectsRequest, context: Any
    ) -> AsyncIterator[pb.WatchObjectsResponse]:
        """Streams changes."""
        version = convert.version(request.resource_version)
        initial, bookmarks = request.send_initial_events, request.allow_bookmarks
        cursor = self._cluster.engine.watch(convert.query(request), version, initial, bookmarks)
        async for event in self._events(cursor):
            yield event

    async def _events(self, cursor: Cursor) -> AsyncIterator[pb.WatchObjectsResponse]:
        while True:
            news = self._cluster.news()
            events = cursor.next(BATCH)
            for event in events:
                yield convert.to_event(event)
            if events:
                await asyncio.sleep(0)
            else:
                await news.wait()

    async def UpdateObject(self, request: pb.UpdateObjectRequest, context: Any) -> pb.Object:
        """Replaces one object."""
        convert.refuse_planned(request, "write_options")
        where, now, status = request.default_namespace, self._cluster.now(), convert.status_only(request.subresource)
        made = self._cluster.engine.update(request.json, where, now, _trace(), status, request.dry_run)
        self._cluster.poke()
        return convert.to_object(made)

    async def PatchObject(self, request: pb.PatchObjectRequest, context: Any) -> pb.Object:
        """Applies a merge patch."""
        convert.refuse_planned(request, "write_options", "json_patch", "strategic_merge_patch")
        kind, where, name = convert.reference(request.reference)
        status, now, dry_run = convert.status_only(request.subresource), self._cluster.now(), request.dry_run
        patch = self._cluster.engine.patch
        made = patch(kind, where, name, request.merge_patch, now, _trace(), status, dry_run)
        self._cluster.poke()
        return convert.to_object(made)

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Any) -> pb.DeleteObjectResponse:
        """Deletes one object."""
        target, policy = convert.reference(request.reference), convert.propagation(request.propagation)
        grace = request.grace_period_seconds if request.HasField("grace_period_seconds") else None
        args = (request.uid, convert.version(request.resource_version), request.dry_run)
        left, gone = self._cluster.engine.delete(*target, self._cluster.now(), policy, grace, *args)
        self._cluster.poke()
        return pb.DeleteObjectResponse(object=convert.to_object(left), gone=gone)

    async def ScaleObject(self, request: pb.ScaleObjectRequest, context: Any) -> pb.Object:
        """Sets the replicas of a workload."""
        current = request.current_replicas if request.HasField("current_replicas") else None
        target, version = convert.reference(request.reference), convert.version(request.resource_version)
        now = self._cluster.now()
        made = self._cluster.engine.scale(*target, request.replicas, now, _trace(), current, version)
        self._cluster.poke()
        return convert.to_object(made)


class Pods(rpc.PodsServicer):
    """Serves lamina.orchestrator.v1.Pods."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def ReadPodLogs(self, request: pb.ReadPodLogsRequest, context: Any) -> AsyncIterator[pb.ReadPodLogsResponse]:
        """Streams the output of one container."""
        convert.refuse_planned(request, "since_wall_time_ns", "limit_bytes")
        tail = convert.tail_lines(request)
        where = (request.namespace, request.name, request.container, request.previous)
        source = self._cluster.engine.log_source(*where)
        runtime = self._cluster.runtime_of(source.node)
        async for chunk in runtime.read_logs(source.container, request.follow, tail):
            yield convert.to_log(chunk)


class Nodes(rpc.NodesServicer):
    """Serves lamina.orchestrator.v1.Nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def RegisterNode(self, request: pb.RegisterNodeRequest, context: Any) -> pb.Object:
        """Adds a host, or changes it."""
        convert.refuse_planned(request, "vswitch_address", "hypervisor_address")
        made = self._cluster.register(*convert.node(request))
        self._cluster.poke()
        return convert.to_object(made)

    async def CordonNode(self, request: pb.CordonNodeRequest, context: Any) -> pb.Object:
        """Marks a node unschedulable."""
        made = self._cluster.engine.cordon(request.name, True, self._cluster.now())
        self._cluster.poke()
        return convert.to_object(made)

    async def UncordonNode(self, request: pb.UncordonNodeRequest, context: Any) -> pb.Object:
        """Marks a node schedulable again."""
        made = self._cluster.engine.cordon(request.name, False, self._cluster.now())
        self._cluster.poke()
        return convert.to_object(made)
