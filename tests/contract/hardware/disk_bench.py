"""What tests of disks share: a stub, a disk, and streams of transfers."""

from __future__ import annotations

from typing import Any

from google.protobuf import field_mask_pb2
from lamina.hardware.v1 import disks_pb2 as pb
from lamina.hardware.v1 import disks_pb2_grpc

MIB = 1 << 20
SECTOR = 4096
DISK = "hosts/h1/disks/d"
READ, WRITE = pb.TransferRequest.OPERATION_READ, pb.TransferRequest.OPERATION_WRITE
FLUSH, DISCARD = pb.TransferRequest.OPERATION_FLUSH, pb.TransferRequest.OPERATION_DISCARD
ZEROES = pb.TransferRequest.OPERATION_WRITE_ZEROES
DONE = pb.TransferResponse.RESULT_DONE


def stub(bench: Any) -> Any:
    """Returns the stub."""
    return disks_pb2_grpc.DisksStub(bench.channel)


async def make(bench: Any, name: str = "d", size: int = MIB, **more: Any) -> pb.Disk:
    """Makes a disk."""
    request = pb.CreateDiskRequest(disk_id=name, disk=pb.Disk(size_bytes=size, **more))
    made: pb.Disk = await stub(bench).CreateDisk(request)
    return made


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    """Returns a mask."""
    return field_mask_pb2.FieldMask(paths=paths)


class Transfers:
    """One stream; sequences count up."""

    def __init__(self, bench: Any, disk: str = DISK, **common: Any) -> None:
        self.stream = stub(bench).Transfer()
        self._disk = disk
        self._common = common
        self._sequence = 0

    async def begin(self, operation: int, offset: int = 0, size: int = SECTOR, **more: Any) -> int:
        """Begins a transfer; returns its sequence."""
        self._sequence += 1
        if operation == FLUSH:
            size = 0
        elif operation == READ and not {"memory", "metered"} & set(more):
            more.setdefault("inline", pb.InlineData())
        fields = {"disk": self._disk, "sequence": self._sequence, **self._common, **more}
        await self.stream.write(pb.TransferRequest(operation=operation, offset=offset, size_bytes=size, **fields))  # type: ignore[arg-type]
        return self._sequence

    async def end(self) -> pb.TransferResponse:
        """Returns the next response."""
        response = await self.stream.read()
        assert isinstance(response, pb.TransferResponse)
        return response

    async def do(self, operation: int, offset: int = 0, size: int = SECTOR, **more: Any) -> pb.TransferResponse:
        """Does one transfer."""
        sequence = await self.begin(operation, offset, size, **more)
        response = await self.end()
        assert response.sequence == sequence
        return response

    async def write(self, data: bytes, offset: int = 0, **more: Any) -> pb.TransferResponse:
        """Writes bytes."""
        return await self.do(WRITE, offset, len(data), inline=pb.InlineData(data=data), **more)

    async def read(self, offset: int = 0, size: int = SECTOR, **more: Any) -> bytes:
        """Reads bytes."""
        response = await self.do(READ, offset, size, **more)
        assert response.result == DONE
        return response.data
