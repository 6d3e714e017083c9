"""RAM as the contract offers it: extents to map, bytes to read and write, walks to look at."""

from __future__ import annotations

from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.domain.paging.mode import Controls
from lamina_hardware.domain.paging.walk import FOUR_LEVEL, Access, Memory, Walk, translate
from lamina_kit.bus.memory import FAILED, MemoryBus
from lamina_kit.checks import Checks
from lamina_kit.errors import DataLoss, OutOfRange
from lamina_kit.paging import ADDR_MASK
from lamina_kit.rpc.inproc.call import MAX_ANSWER

MAX_TRANSFER = 4 << 20


class HostMemory:
    """The RAM of one host."""

    def __init__(self, bus: MemoryBus, boot_id: str) -> None:
        self._bus = bus
        self._boot_id = boot_id

    def extents(self, address: int, size: int) -> pb.MapMemoryResponse:
        """Returns the extents of a range; size 0 reaches to the end. The modelled RAM is one piece of one file."""
        with Checks() as check:
            check.aligned("address", address, 4096)
            check.range("size_bytes", size, 0, 1 << 62)
            check.aligned("size_bytes", size, 4096)
        size = size or max(self._bus.size - address, 0)
        self._bound(address, max(size, 1))
        extent = pb.Extent(
            path=str(self._bus.path), offset=self._bus.ram_offset + address, size_bytes=size, address=address
        )
        return pb.MapMemoryResponse(extents=[extent], boot_id=self._boot_id)

    def read(self, address: int, size: int) -> bytes:
        """Returns bytes."""
        with Checks() as check:
            check.range("size_bytes", size, 1, MAX_ANSWER)
        self._bound(address, size)
        self._check_works(address, size)
        return self._bus.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Writes bytes."""
        with Checks() as check:
            check.that(len(data) > 0, "data", "is empty")
            check.max_bytes("data", data, MAX_TRANSFER)
        self._bound(address, len(data))
        self._bus.write(address, data)

    def translate(
        self, root: int, eptp: int, address: int, access: Access, user: bool, controls: Controls = FOUR_LEVEL
    ) -> Walk:
        """Walks page tables. Raises `OutOfRange` `ADDRESS_OUTSIDE_RAM` for a root outside RAM."""
        self._bound((eptp or root) & ADDR_MASK, 4096)
        return translate(Memory(self._bus.load64, self._bus.size), root, eptp, address, access, user, controls)

    def _check_works(self, address: int, size: int) -> None:
        for frame in range(address >> 12, (address + size - 1 >> 12) + 1):
            if self._bus.state(frame) & FAILED:
                raise DataLoss(
                    f"The memory of frame {frame:#x} failed: its bytes are lost.",
                    reason="MEMORY_FAILED",
                    next_step="Take the frame out of use with `Frames.OfflineFrames`; `WatchMachine` told it.",
                    frame=frame,
                )

    def _bound(self, address: int, size: int) -> None:
        if address + size > self._bus.size:
            raise OutOfRange(
                f"{size} bytes at {address:#x} do not lie within the RAM of {self._bus.size:#x} bytes.",
                reason="ADDRESS_OUTSIDE_RAM",
                next_step="Check the address against memory_bytes of GetHost.",
                address=f"{address:#x}",
            )
