"""What the chapters ask the orchestrator: objects, and waiting for them to become as wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lamina_cli.client.client import Client
from lamina_cli.output.objects import body
from lamina_kit.errors import DeadlineExceeded

PATIENCE_SECONDS = 30.0
Objects = dict[str, dict[str, Any]]
"""Objects of one kind in Kubernetes form, by name."""


async def until(client: Client, kind: str, wanted: Callable[[Objects], bool], what: str) -> Objects:
    """Watches the objects of a kind until they are as wanted. Returns them.

    Raises:
        DeadlineExceeded: `STILL_WAITING`, they were not within 30 s.
    """
    seen: Objects = {}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _watch(client, kind, wanted, seen)
    except TimeoutError:
        raise DeadlineExceeded(
            f"waited {PATIENCE_SECONDS:.0f} s for {what}",
            reason="STILL_WAITING",
            next_step="`lamina get events` and `lamina explain` tell what holds it up",
        ) from None
    return seen


async def _watch(client: Client, kind: str, wanted: Callable[[Objects], bool], seen: Objects) -> None:
    from lamina.orchestrator.v1 import orchestrator_pb2 as pb
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

    stub = client.stub("orchestrator", services.ObjectsStub)
    stream = stub.WatchObjects(pb.WatchObjectsRequest(kind=kind, namespace="default", send_initial_events=True))
    complete = False
    async for change in stream:
        if change.type == pb.WatchObjectsResponse.TYPE_BOOKMARK:
            complete = True
        elif change.type == pb.WatchObjectsResponse.TYPE_DELETED:
            seen.pop(change.object.name, None)
        else:
            seen[change.object.name] = body(change.object)
        if complete and wanted(seen):
            stream.cancel()
            return


def is_ready(pod: dict[str, Any]) -> bool:
    """Says whether a pod runs and is ready and stays."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def ready_pods(count: int) -> Callable[[Objects], bool]:
    """Returns a condition: exactly `count` pods exist, all of them ready."""
    return lambda pods: len(pods) == count and all(is_ready(pod) for pod in pods.values())


async def first_line(client: Client, pod: str) -> str:
    """Returns the first line that a pod's container wrote, waiting for it if need be.

    Raises:
        DeadlineExceeded: `STILL_WAITING`, nothing came within 30 s.
    """
    from lamina.orchestrator.v1 import orchestrator_pb2 as pb
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

    stub = client.stub("orchestrator", services.PodsStub)
    stream = stub.ReadPodLogs(pb.ReadPodLogsRequest(namespace="default", name=pod, follow=True))
    text = b""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for piece in stream:
                text += piece.data
                if b"\n" in text:
                    break
    except TimeoutError:
        raise DeadlineExceeded(
            f"waited {PATIENCE_SECONDS:.0f} s for the first line of {pod}",
            reason="STILL_WAITING",
            next_step=f"`lamina logs {pod}` shows what there is",
        ) from None
    finally:
        stream.cancel()
    return text.decode(errors="replace").partition("\n")[0]


async def scale(client: Client, name: str, replicas: int) -> None:
    """Scales a deployment."""
    from lamina.orchestrator.v1 import orchestrator_pb2 as pb
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

    reference = pb.ObjectReference(kind="Deployment", namespace="default", name=name)
    await client.stub("orchestrator", services.ObjectsStub).ScaleObject(
        pb.ScaleObjectRequest(reference=reference, replicas=replicas)
    )
