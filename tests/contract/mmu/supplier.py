"""The supplier's end of a Supply stream: has the bytes of objects in a dict, answers as a test says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import supply_pb2
from tests.contract.mmu.stack import PAGE, Stack

from lamina_kit.rpc.status import rpc_error

AT = 0x40_0000


def content(size: int) -> bytearray:
    """Returns a file of which each page is another."""
    return bytearray(b"".join(f"{page:08d}".encode() * 512 for page in range(-(-size // PAGE)))[:size])


async def file(stack: Stack, size: int = 100 * PAGE, group: str = "") -> tuple[pb.Object, dict[int, bytearray]]:
    """Returns an object without content, and the file that its supplier has."""
    wanted = pb.Object(size_bytes=size, label="file", group=group)
    made = await stack.objects.CreateObject(pb.CreateObjectRequest(object=wanted))
    return made, {made.handle.id: content(size)}


async def mapped(stack: Stack, made: pb.Object, pages: int, shared: bool = True, group: str = "") -> pb.Space:
    """Returns a space that maps an object."""
    space = await stack.space(group)
    await stack.map(space, AT, pages, object=made.handle, shared=shared)
    return space


class Supplier:
    """One open stream. `answering`: whether questions are answered by themselves, from `files` by object handle id."""

    def __init__(self, stack: Stack, files: dict[int, bytearray], objects: list[pb.Object], **options: Any) -> None:
        self.stack, self.files, self.objects, self.options = stack, files, objects, options
        self.answering = True
        self.failure = self.keep_failure = ""
        self.most_pages = 256
        self.demands: list[supply_pb2.SupplyDemand] = []
        self.keeps: list[supply_pb2.SupplyKeep] = []
        self.positions: list[int] = []
        self.status = self.reason = ""

    async def __aenter__(self) -> Supplier:
        self.call: Any = self.stack.objects.Supply()
        await self.open(self.objects)
        first: Any = await self.call.read()
        assert first.WhichOneof("response") == "opened" and first.position == 1
        assert first.opened.objects == len(self.objects)
        self.positions.append(first.position)
        self.reader = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.call.cancel()
        self.reader.cancel()
        await asyncio.gather(self.reader, return_exceptions=True)

    async def open(self, objects: list[pb.Object]) -> None:
        """Becomes the supplier of objects."""
        opened = supply_pb2.SupplyOpen(objects=[one.handle for one in objects], **self.options)
        await self.call.write(supply_pb2.SupplyRequest(open=opened))

    async def say(self, **fields: Any) -> None:
        """Sends one request."""
        await self.call.write(supply_pb2.SupplyRequest(**fields))

    async def fill(self, demand: supply_pb2.SupplyDemand) -> None:
        """Answers a demand from the file."""
        filled = supply_pb2.SupplyFilled(sequence=demand.sequence)
        if self.failure:
            filled.failure = self.failure
        else:
            pages = min(demand.pages, self.most_pages)
            data = bytes(self.files[demand.object.id][demand.offset : demand.offset + pages * PAGE])
            filled.pages = pages
            if demand.frames:
                for index, frame in enumerate(demand.frames[:pages]):
                    self.stack.bus.write(frame * PAGE, data[index * PAGE : (index + 1) * PAGE])
            else:
                filled.data = data
                filled.pages = -(-len(data) // PAGE)
        await self.say(filled=filled)

    async def keep(self, keep: supply_pb2.SupplyKeep) -> None:
        """Answers a request to keep."""
        if not self.keep_failure:
            data = keep.data or b"".join(self.stack.bus.read(frame * PAGE, PAGE) for frame in keep.frames)
            file = self.files[keep.object.id]
            file[keep.offset : keep.offset + len(data)] = data[: len(file) - keep.offset]
        await self.say(kept=supply_pb2.SupplyKept(sequence=keep.sequence, failure=self.keep_failure))

    async def _read(self) -> None:
        try:
            while (response := await self.call.read()) is not grpc.aio.EOF:
                self.positions.append(response.position)
                if response.WhichOneof("response") == "demand":
                    self.demands.append(response.demand)
                    if self.answering:
                        await self.fill(response.demand)
                elif response.WhichOneof("response") == "keep":
                    self.keeps.append(response.keep)
                    if self.answering:
                        await self.keep(response.keep)
            self.status = "OK"
        except grpc.aio.AioRpcError as error:
            self.status, self.reason = error.code().name, rpc_error(error).reason
