"""Swap areas on disks of the machine: their transfers, over one `Disks.Transfer` stream of the hardware.

The disk reads and writes frames by DMA. A transfer of several pages that fails is made again page by page, so that one
bad sector costs one page. When the stream breaks, what was under way has failed; the next transfer opens another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import grpc
from lamina.hardware.v1 import disks_pb2 as pb

from lamina_kit.errors import DataLoss, LaminaError, NotFound, ResourceExhausted
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_kit.rpc.status import rpc_error
from lamina_mmu.domain.effects import OpenSwapDisk
from lamina_mmu.domain.swap.transfers import SwapTransfer

MOST_UNDER_WAY = 1024
"""Transfers without a response; the hardware takes 4096 of one stream."""
_WRITE, _READ = pb.TransferRequest.OPERATION_WRITE, pb.TransferRequest.OPERATION_READ
_DONE, _FULL = pb.TransferResponse.RESULT_DONE, pb.TransferResponse.RESULT_SPACE_EXHAUSTED
Spawn = Callable[[Coroutine[Any, Any, None]], Any]


class DiskArea:
    """Implements `domain.swap.transfers.DiskStore` over the first `slots` pages of a disk.

    `fails_reads` and `fails_writes` make it fail, as faults that were injected do.
    """

    def __init__(self, disks: SwapDisks, disk: str, slots: int) -> None:
        self.disk, self.slots = disk, slots
        self.fails_reads = self.fails_writes = False
        self._disks = disks

    def begin(self, transfer: SwapTransfer, /) -> None:
        """Begins a transfer."""
        self._disks.spawn(self._carry(transfer))

    def close(self) -> None:
        """Does nothing: the disk stays, and what the area wrote to it means nothing."""

    async def _carry(self, transfer: SwapTransfer) -> None:
        whole = await self._move(transfer, transfer.first, transfer.count)
        if whole == _DONE:
            pass
        elif transfer.count == 1:
            transfer.errors[transfer.first] = self._error(transfer, transfer.first, whole)
        else:
            await self._one_by_one(transfer)
        transfer.finished(transfer)

    async def _one_by_one(self, transfer: SwapTransfer) -> None:
        data = b""
        for place in range(transfer.first, transfer.first + transfer.count):
            frames = transfer.frames[place - transfer.first :][:1]
            single = replace(transfer, first=place, count=1, frames=frames)
            result = await self._move(single, place, 1)
            if result != _DONE:
                transfer.errors[place] = self._error(transfer, place, result)
            data += single.data.ljust(PAGE_SIZE, b"\0")
        transfer.data = data

    async def _move(self, transfer: SwapTransfer, first: int, count: int) -> int:
        """Makes one transfer with the disk; returns its result, 0 when the hardware did not answer."""
        if self.fails_writes if transfer.write else self.fails_reads:
            return 0
        request = pb.TransferRequest(
            disk=self.disk,
            operation=_WRITE if transfer.write else _READ,
            offset=first * PAGE_SIZE,
            size_bytes=count * PAGE_SIZE,
        )
        if transfer.frames:
            for frame in transfer.frames:
                request.memory.pieces.add(address=frame << PAGE_SHIFT, size_bytes=PAGE_SIZE)
        else:
            request.inline.SetInParent()
        response = await self._disks.transfer(request)
        if response is None:
            return 0
        transfer.data = response.data
        return response.result

    def _error(self, transfer: SwapTransfer, place: int, result: int) -> LaminaError:
        if result == _FULL:
            return ResourceExhausted(
                f"The file system that keeps {self.disk} has no room for slot {place}.",
                reason="SWAP_DEVICE_FULL",
                next_step="Free space there, or take the swap area out of use (DeleteSwapArea).",
                slot=place,
            )
        why = pb.TransferResponse.Result.Name(result) if result else self._silence(transfer)  # type: ignore[arg-type]
        return DataLoss(
            f"Slot {place} on {self.disk} cannot be {'written' if transfer.write else 'read'}: {why}.",
            reason="SWAP_IO_FAILED",
            next_step="Look at the disk (GetDisk of the hardware).",
            slot=place,
        )

    def _silence(self, transfer: SwapTransfer) -> str:
        """Returns why there is no answer: a fault that was injected, or the end of the stream."""
        if self.fails_writes if transfer.write else self.fails_reads:
            return "an injected fault"
        return f"no answer of the hardware ({self._disks.broken})"


class SwapDisks:
    """The disks of one machine, as the MMU uses them. `stub` is of `Disks`; `spawn` runs work until the MMU stops."""

    def __init__(self, stub: Any, spawn: Spawn) -> None:
        self.spawn = spawn
        self._stub = stub
        self._queue: asyncio.Queue[pb.TransferRequest] | None = None
        self._waiting: dict[int, asyncio.Future[pb.TransferResponse | None]] = {}
        self._places = asyncio.Semaphore(MOST_UNDER_WAY)
        self._sequence = 0
        self.broken = "it ended"
        """Why the stream ended that ended last."""

    async def open(self, effect: OpenSwapDisk) -> DiskArea:
        """Performs `OpenSwapDisk`."""
        try:
            disk = await self._stub.GetDisk(pb.GetDiskRequest(name=effect.disk))
        except grpc.aio.AioRpcError as failure:
            error = rpc_error(failure)
            if error.code != "NOT_FOUND":
                raise error from failure
            raise NotFound(
                f"There is no disk {effect.disk}.",
                reason="DISK_UNKNOWN",
                next_step="List the disks of the hardware (ListDisks), or make one (CreateDisk).",
            ) from None
        if effect.slots * PAGE_SIZE > disk.size_bytes:
            raise ResourceExhausted(
                f"The disk {effect.disk} has {disk.size_bytes:,} bytes, not {effect.slots * PAGE_SIZE:,}.",
                reason="SWAP_DEVICE_FULL",
                next_step="Make a smaller area, or a larger disk (UpdateDisk).",
            )
        return DiskArea(self, effect.disk, effect.slots)

    async def transfer(self, request: pb.TransferRequest) -> pb.TransferResponse | None:
        """Makes one transfer; None when the stream broke meanwhile."""
        async with self._places:
            if self._queue is None:
                self._queue = asyncio.Queue()
                self.spawn(self._stream(self._queue))
            self._sequence += 1
            request.sequence = self._sequence
            answer: asyncio.Future[pb.TransferResponse | None] = asyncio.get_running_loop().create_future()
            self._waiting[request.sequence] = answer
            self._queue.put_nowait(request)
            return await answer

    async def _stream(self, queue: asyncio.Queue[pb.TransferRequest]) -> None:
        """Carries requests and responses until the stream ends."""

        async def requests() -> AsyncIterator[pb.TransferRequest]:
            while True:
                yield await queue.get()

        call = self._stub.Transfer(requests())
        try:
            async for response in call:
                answer = self._waiting.pop(response.sequence, None)
                if answer is not None and not answer.done():
                    answer.set_result(response)
        except grpc.aio.AioRpcError as failure:
            self.broken = rpc_error(failure).message  # what those who wait are told
        finally:
            self._queue = None
            waiting, self._waiting = self._waiting, {}
            for answer in waiting.values():
                if not answer.done():
                    answer.set_result(None)
            call.cancel()
