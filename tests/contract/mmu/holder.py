"""The holder's end of a Hold stream: sends what a test says, keeps what the MMU says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.stack import WRITE, Stack


class Holder:
    """One open stream. `answering`: whether revocations and ages are answered by themselves, from `bits`."""

    def __init__(self, stack: Stack, space: pb.Space, eptp: int = 0) -> None:
        self.stack, self.space, self.eptp = stack, space, eptp
        self.answering = True
        self.bits: dict[int, tuple[bool, bool]] = {}
        self.table: dict[int, int] = {}
        self.extents: dict[int, pb.HoldGrantExtent] = {}
        self.seen: list[pb.HoldResponse] = []
        self.status: grpc.StatusCode | None = None
        self.details = ""
        self._sequence = 0
        self._waiting: dict[int, asyncio.Future[pb.HoldResponse]] = {}

    async def __aenter__(self) -> Holder:
        self.call: Any = self.stack.spaces.Hold()
        opened = pb.HoldOpen(handle=self.space.handle, eptp=self.eptp)
        await self.call.write(pb.HoldRequest(open=opened))
        first: Any = await self.call.read()
        assert first.WhichOneof("response") == "opened" and first.position == 1
        self.seen.append(first)
        self.reader = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.call.cancel()
        self.reader.cancel()
        await asyncio.gather(self.reader, return_exceptions=True)

    async def want(self, address: int, access: Any = WRITE) -> pb.HoldResponse:
        """Wants a page; returns the grant or the refusal."""
        self._sequence += 1
        answer: asyncio.Future[pb.HoldResponse] = asyncio.get_running_loop().create_future()
        self._waiting[self._sequence] = answer
        want = pb.HoldWant(sequence=self._sequence, address=address, access=access)
        await self.call.write(pb.HoldRequest(want=want))
        return await answer

    async def want_extent(self, address: int, access: Any = WRITE, size: int = 2 << 20, **fields: Any) -> Any:
        """Wants an extent; returns the grant of it, or of the page, or the refusal."""
        self._sequence += 1
        answer: asyncio.Future[pb.HoldResponse] = asyncio.get_running_loop().create_future()
        self._waiting[self._sequence] = answer
        want = pb.HoldWantExtent(sequence=self._sequence, address=address, access=access, extent_bytes=size, **fields)
        await self.call.write(pb.HoldRequest(want_extent=want))
        return await answer

    async def answer_extents(self, asked: pb.HoldRevokeExtents) -> None:
        """Answers the revocation or the split of extents with the bits of their first addresses."""
        pages = []
        for address in asked.addresses:
            accessed, dirty = self.bits.get(address, (False, False))
            pages.append(pb.PageBits(address=address, accessed=accessed, dirty=dirty))
            self.extents.pop(address)
        await self.call.write(pb.HoldRequest(acknowledge=pb.HoldAcknowledge(revocation=asked.revocation, pages=pages)))

    async def answer(self, response: pb.HoldResponse) -> None:
        """Answers a revocation or an age with the bits of the pages that the table has."""
        kind = response.WhichOneof("response")
        if kind == "revoke_extents":
            await self.answer_extents(response.revoke_extents)
            return
        asked = response.revocation.addresses if kind == "revocation" else response.age.addresses
        pages = []
        for address in asked:
            if address in self.table or address in self.extents:
                accessed, dirty = self.bits.get(address, (False, False))
                pages.append(pb.PageBits(address=address, accessed=accessed, dirty=dirty))
                if kind == "revocation" and not response.revocation.write_only:
                    self.table.pop(address, None)
        if kind == "revocation":
            done = pb.HoldAcknowledge(revocation=response.revocation.revocation, pages=pages)
            await self.call.write(pb.HoldRequest(acknowledge=done))
        else:
            await self.call.write(pb.HoldRequest(ages=pb.HoldAges(sequence=response.age.sequence, pages=pages)))

    def of(self, kind: str) -> list[pb.HoldResponse]:
        """Returns what the MMU said of one kind, in order."""
        return [response for response in self.seen if response.WhichOneof("response") == kind]

    async def _read(self) -> None:
        try:
            while (response := await self.call.read()) is not grpc.aio.EOF:
                await self._take(response)
            self.status = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            self.status, self.details = error.code(), error.details() or ""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.cancel()

    async def _take(self, response: pb.HoldResponse) -> None:
        assert response.position == self.seen[-1].position + 1, "a gap on the stream"
        self.seen.append(response)
        kind = response.WhichOneof("response")
        if kind == "grant":
            self.table[response.grant.address] = response.grant.frame
            self._waiting.pop(response.grant.sequence).set_result(response)
        elif kind == "grant_extent":
            self.extents[response.grant_extent.address] = response.grant_extent
            self._waiting.pop(response.grant_extent.sequence).set_result(response)
        elif kind == "refusal":
            self._waiting.pop(response.refusal.sequence).set_result(response)
        elif self.answering:
            await self.answer(response)
