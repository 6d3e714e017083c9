"""One `Disks.Transfer` stream: transfers in, their ends out, in any order. Reading never waits for writing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from lamina.hardware.v1 import disks_pb2 as pb

from lamina_hardware.convert.disks import check_transfer
from lamina_hardware.devices.disks import Disks
from lamina_hardware.domain.disk.disk import Disk
from lamina_hardware.domain.disk.transfer import Operation, Result, Transfer
from lamina_hardware.names import Names
from lamina_kit.errors import NotFound, ResourceExhausted

MAX_OPEN = 4096


class DiskMemory(Protocol):
    """RAM as a disk reaches it: by DMA. Both raise `TransferFailed` `DMA_FAULT` before a byte moves, or `NotYet`."""

    def gather(self, disk: str, pieces: list[tuple[int, int]]) -> bytes:
        """Returns the bytes of pieces of memory (address, size), in order."""
        ...

    def scatter(self, disk: str, pieces: list[tuple[int, int]], data: bytes) -> None:
        """Stores bytes in pieces of memory, in order."""
        ...


class DiskStream:
    """The transfers of one stream. Ending it lets those that were begun end unheard."""

    def __init__(self, disks: Disks, names: Names, memory: DiskMemory) -> None:
        self._disks = disks
        self._names = names
        self._memory = memory
        self._done: deque[pb.TransferResponse] = deque()
        self._open: set[int] = set()
        self._wake: asyncio.Future[None] | None = None

    async def serve(self, requests: AsyncIterator[pb.TransferRequest]) -> AsyncIterator[pb.TransferResponse]:
        """Yields responses until the requests have ended and every transfer has."""
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._notify())
        try:
            while True:
                while self._done:
                    yield self._done.popleft()
                if reader.done() and (error := reader.exception()) is not None:
                    raise error
                if reader.done() and not self._open:
                    return
                self._wake = loop.create_future()
                await self._wake
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.TransferRequest]) -> None:
        async for request in requests:
            if len(self._open) + len(self._done) >= MAX_OPEN:
                raise ResourceExhausted(
                    f"{MAX_OPEN} transfers of this stream have no response yet.",
                    reason="TOO_MANY_TRANSFERS",
                    next_step="Read responses before sending more, or use another stream.",
                )
            self._begin(request)

    def _begin(self, request: pb.TransferRequest) -> None:
        check_transfer(request, self._open)
        try:
            disk = self._disks.find(self._names.disk(request.disk, "disk"))
            group = self._disks.groups.find(self._names.io_group(request.io_group, "io_group"))
        except NotFound:  # a name of another host: this one has no such disk or group
            disk = group = None
        if disk is None or group is None:
            self._respond(pb.TransferResponse(sequence=request.sequence, result=_result(Result.NOT_FOUND)))
            return
        check_transfer(request, self._open, disk.geometry.sector)
        self._open.add(request.sequence)
        answer = pb.TransferResponse(sequence=request.sequence)
        work = self._work(request, disk, answer)
        operation = Operation(request.operation)

        def ended(transfer: Transfer) -> None:
            answer.result = _result(transfer.result)
            answer.failed_offset = transfer.failed_offset
            answer.wait_ns = transfer.begun_ns - transfer.asked_ns
            answer.service_ns = transfer.done_ns - transfer.begun_ns
            if transfer.result != Result.DONE:
                answer.ClearField("data")
            self._open.discard(request.sequence)
            self._respond(answer)

        disk.queue.submit(Transfer(operation, request.offset, request.size_bytes, group.name, work, ended))

    def _work(self, request: pb.TransferRequest, disk: Disk, answer: pb.TransferResponse) -> Callable[[], None]:
        """Returns what moves the bytes of a transfer when the disk has got so far."""
        offset, size, fua = request.offset, request.size_bytes, request.fua
        writes = Operation(request.operation) not in (Operation.READ, Operation.FLUSH)
        pieces = [(piece.address, piece.size_bytes) for piece in request.memory.pieces]

        def read() -> None:
            data = disk.read(offset, size)
            if pieces:
                self._memory.scatter(disk.name, pieces, data)
            else:
                answer.data = data

        def write() -> None:
            disk.write(offset, self._memory.gather(disk.name, pieces) if pieces else request.inline.data, fua)

        def meter() -> None:
            disk.meter(offset, writes)

        if request.WhichOneof("place") == "metered":
            return meter
        works: dict[int, Callable[[], None]] = {
            Operation.READ: read,
            Operation.WRITE: write,
            Operation.FLUSH: disk.flush,
            Operation.DISCARD: lambda: disk.zero(offset, size, fua),
            Operation.WRITE_ZEROES: lambda: disk.zero(offset, size, fua),
        }
        return works[request.operation]

    def _respond(self, response: pb.TransferResponse) -> None:
        self._done.append(response)
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _result(result: Result) -> pb.TransferResponse.Result.ValueType:
    return pb.TransferResponse.Result.ValueType(result)
