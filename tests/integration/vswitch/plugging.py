"""Plugging backends into ports, and asking for them."""

from __future__ import annotations

import asyncio
from typing import Any

from lamina.vswitch.v1 import backends_pb2, backends_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb

OPEN, WAITING, ENDED, FAILED = 1, 2, 3, 4


def backends(running: Any) -> Any:
    """Return the stub."""
    return backends_pb2_grpc.BackendsStub(running.channel)


async def plug(running: Any, port: pb.Port, request_id: str = "", **kind: Any) -> backends_pb2.Backend:
    """Open a backend at a port."""
    queue_frames = kind.pop("queue_frames", 0)
    wanted = backends_pb2.Backend(queue_frames=queue_frames, **kind)
    request = backends_pb2.CreateBackendRequest(parent=port.name, backend=wanted, request_id=request_id)
    made: backends_pb2.Backend = await backends(running).CreateBackend(request)
    return made


async def state(running: Any, port: pb.Port) -> backends_pb2.Backend:
    """Return the backend of a port."""
    found: backends_pb2.Backend = await backends(running).GetBackend(
        backends_pb2.GetBackendRequest(name=f"{port.name}/backend")
    )
    return found


async def until_state(running: Any, port: pb.Port, wanted: int) -> backends_pb2.Backend:
    """Wait until a backend is in a state."""
    async with asyncio.timeout(20):
        while (found := await state(running, port)).state != wanted:  # noqa: ASYNC110 (it tells when it is asked)
            await asyncio.sleep(0)
    return found
