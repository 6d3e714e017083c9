"""Runs of threads on cores: one `Cpu.Run` stream a context, opened at its first run."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import hardware_pb2

from lamina_container_runtime.engines.model.effects import ContextRef, RunEnd, RunResult
from lamina_container_runtime.io.machine.clients import Clients
from lamina_kit.errors import FailedPrecondition, Internal, Unavailable
from lamina_kit.rpc.status import rpc_error

_ENDS = {
    hardware_pb2.EXIT_REASON_BUDGET: RunEnd.BUDGET,
    hardware_pb2.EXIT_REASON_CANCELED: RunEnd.STOPPED,
}


class Runs:
    """The open streams, by the context's handle."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._streams: dict[int, Any] = {}
        self._requests: dict[int, hardware_pb2.RunRequest] = {}

    async def run(self, context: ContextRef) -> RunResult:
        """Runs a context until it exits.

        Raises `FailedPrecondition` `RUN_REFUSED`, and `Unavailable` `CORE_LOST` when the stream ends under it.
        """
        key = context.handle.id
        stream = self._streams.get(key)
        if stream is None:
            stream = self._clients.cpu.Run(metadata=self._clients.hardware_metadata)
            self._streams[key] = stream
            handle = handle_pb2.Handle(id=context.handle.id, generation=context.handle.generation)
            self._requests[key] = hardware_pb2.RunRequest(handle=handle)
        try:
            await stream.write(self._requests[key])
            response: Any = await stream.read()
        except asyncio.InvalidStateError:
            response = grpc.aio.EOF  # so says a stream that had ended before the write
        except grpc.aio.AioRpcError as error:
            raise rpc_error(error) from error
        if response is grpc.aio.EOF:
            raise Unavailable(
                f"The run of {context.name} ended with its stream.",
                reason="CORE_LOST",
                next_step="The hardware layer has stopped; the container is started anew by its owner.",
            )
        if response.reason == hardware_pb2.EXIT_REASON_REFUSED:
            raise FailedPrecondition(
                f"The hardware refused to run {context.name}: {response.detail}.",
                reason="RUN_REFUSED",
                next_step="The context is gone; the container is started anew by its owner.",
                detail=response.detail,
            )
        if response.reason == hardware_pb2.EXIT_REASON_SHUTDOWN:
            raise Internal(f"The context {context.name} cannot go on (triple fault).", reason="CONTEXT_SHUTDOWN")
        end = _ENDS.get(response.reason, RunEnd.EXIT)
        return RunResult(end, response.instructions, response.run_time_ns)

    def close(self, context: ContextRef) -> None:
        """Closes the stream of a context, if it has one."""
        self._requests.pop(context.handle.id, None)
        stream = self._streams.pop(context.handle.id, None)
        if stream is not None:
            stream.cancel()

    def close_all(self) -> None:
        """Closes all streams."""
        for key in sorted(self._streams):
            self._streams[key].cancel()
        self._streams.clear()
        self._requests.clear()
