"""The driver of one NIC of the hardware below: memory, domain, queues and the stream, from opening to closing.

Rings and buffers lie in DMA memory that hardware gave to this service, and its domain lets a NIC reach nothing else,
not even what other NICs of the switch have. Doorbells and interrupts go over the stream. One driver is one stream; when
it ends, the NIC has been reset, and whoever wants it again opens another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf import field_mask_pb2
from lamina.hardware.v1 import (
    devices_pb2,
    devices_pb2_grpc,
    hardware_pb2,
    iommu_pb2,
    iommu_pb2_grpc,
    nics_pb2_grpc,
    wires_pb2,
    wires_pb2_grpc,
)
from lamina.hardware.v1 import nics_pb2 as pb

from lamina_kit.errors import LaminaError, Unavailable
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.rpc.status import rpc_error
from lamina_vswitch.domain.offload.features import PLAIN, Takes
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.uplink.nic import plan
from lamina_vswitch.domain.uplink.nic.queue_pair import QueuePair
from lamina_vswitch.io.nic.dma_memory import DmaMemory

_PAGE = 4096
_TABLE_BYTES = 16 * _PAGE
"""Tables of a NIC's domain: a root, two levels, and a page for each 2 MiB; `plan` needs six of them at most."""
_IOVA = 1 << 28
"""Where rings and buffers begin for the NIC."""
_SETTINGS = ("mtu_bytes", "promiscuous", "all_multicast", "offloads", "receive_side_scaling", "admin_up")


class HardwareBelow:
    """The hardware of this host: stubs, and the session that what is made there belongs to."""

    def __init__(self, channel: Any, session: OwnerSession, bus_path: Path | None) -> None:
        self.devices = devices_pb2_grpc.DevicesStub(channel)
        self.iommu = iommu_pb2_grpc.IommuStub(channel)
        self.nics = nics_pb2_grpc.NicsStub(channel)
        self.wires = wires_pb2_grpc.WiresStub(channel)
        self.session = session
        self._bus_path = bus_path

    def map(self, extent: hardware_pb2.Extent, skip: int) -> DmaMemory:
        """Map DMA memory into this process, but for its first bytes."""
        return DmaMemory(self._bus_path or Path(extent.path), extent.offset + skip, extent.size_bytes - skip)


class NicUser(Protocol):
    """Who is told what a NIC brings."""

    def received(self, good: list[bytes], bad: list[bytes]) -> None:
        """Take frames, and heads of what the NIC wrote that is no frame."""

    def link(self, up: bool, rate_bits_per_second: int) -> None:
        """Learn the state of the link."""

    def refused(self, error: LaminaError) -> None:
        """Learn that hardware refused other settings, or to take something back."""


@dataclass(frozen=True, slots=True)
class NicWish:
    """A NIC by its resource name, its MTU in bytes, and whether its link is wanted up."""

    nic: str
    mtu_bytes: int
    link_up: bool

    @property
    def device(self) -> str:
        """Resource name of the device that the NIC is."""
        return self.nic.replace("/nics/", "/devices/")


class NicDriver:
    """An open driver. `serve` runs it until its stream ends; `close` gives everything back."""

    def __init__(self, below: HardwareBelow, wish: NicWish, user: NicUser) -> None:
        """Use `open`."""
        self._below, self._user = below, user
        self.wish = wish
        self.takes: Takes = PLAIN
        self.pairs: list[QueuePair] = []
        self._call: Any = None
        self._finished = False
        self._mtu_bytes = wish.mtu_bytes
        self._draining: list[int] = []
        """What each transmit ring has to be past before the NIC may have a smaller MTU: a longer frame stops it."""
        self._bells: dict[int, int] = {}
        self._rung, self._changed = asyncio.Event(), asyncio.Event()
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls, below: HardwareBelow, wish: NicWish, user: NicUser) -> NicDriver:
        """Take a NIC and set it up. Raises what hardware answers; then nothing of it is left there."""
        driver = cls(below, wish, user)
        try:
            await driver._open()
        except BaseException as error:
            await driver._stack.aclose()
            if isinstance(error, grpc.aio.AioRpcError):
                raise rpc_error(error) from error
            if isinstance(error, (asyncio.InvalidStateError, OSError, ValueError)):
                raise driver._ended(f": {error}") from error  # the stream ended meanwhile, or the memory is not there
            raise
        return driver

    async def serve(self) -> None:
        """Bring what the NIC brings to the user. Raises a LaminaError that says why the stream ended."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._write_bells()), loop.create_task(self._write_settings())]
        try:
            await self._first_link()
            while True:
                self._take(await self._read())
        except grpc.aio.AioRpcError as error:
            raise rpc_error(error) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Say that no doorbell follows: hardware resets the NIC and ends the stream, and with it `serve`."""
        self._finished = True
        if not self._call.done():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it ends by itself
                await self._call.done_writing()

    async def close(self) -> None:
        """Give the NIC back, with its domain and its memory."""
        await self._stack.aclose()

    def send(self, frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Give frames to the NIC; return those that it or its queue took, and those that are lost."""
        taken: list[bytes] = []
        lost: list[bytes] = []
        for frame in frames:
            number = flow_hash(frame) % len(self.pairs) if len(self.pairs) > 1 else 0
            (taken if self.pairs[number].send(frame, self._mtu_bytes) else lost).append(frame)
        self._ring_all()
        return taken, lost

    def want(self, wish: NicWish) -> None:
        """Have the NIC get another MTU or link. Frames of a larger MTU follow when it has that."""
        if wish != self.wish:
            self.wish = wish
            if wish.mtu_bytes < self._mtu_bytes:
                self._mtu_bytes = wish.mtu_bytes
                self._draining = [pair.taken for pair in self.pairs]
            self._changed.set()

    # Opening

    async def _open(self) -> None:
        below = self._below
        nic = await below.nics.GetNic(pb.GetNicRequest(name=self.wish.nic))
        device = await below.devices.GetDevice(devices_pb2.GetDeviceRequest(name=self.wish.device))
        count = plan.pairs_of(nic.max_receive_queues, nic.max_transmit_queues, device.vector_count)
        memory = await self._memory(-(-count * plan.PAIR_BYTES // _PAGE) * _PAGE)
        await self._drive()
        await self._configure(nic, memory, count)

    async def _memory(self, size: int) -> DmaMemory:
        """Return so many bytes that the NIC reaches from `_IOVA` on, and it alone; the tables lie before them."""
        below, metadata = self._below, self._below.session.metadata
        request = devices_pb2.AllocateDmaBufferRequest(size_bytes=_TABLE_BYTES + size, owner=below.session.owner)
        buffer = await below.devices.AllocateDmaBuffer(request, metadata=metadata)
        free = devices_pb2.FreeDmaBufferRequest(handle=buffer.handle)
        self._later(lambda: below.devices.FreeDmaBuffer(free))
        memory = below.map(buffer.extent, _TABLE_BYTES)
        self._stack.callback(memory.close)
        wish = iommu_pb2.DmaDomain(root_address=buffer.address, label=f"{self.wish.nic} of vswitch")
        create = iommu_pb2.CreateDmaDomainRequest(dma_domain=wish)
        domain = await below.iommu.CreateDmaDomain(create, metadata=metadata)
        delete = iommu_pb2.DeleteDmaDomainRequest(handle=domain.handle)
        self._later(lambda: below.iommu.DeleteDmaDomain(delete))
        first = buffer.address // _PAGE
        frames = range(first + 1, first + _TABLE_BYTES // _PAGE)
        await below.iommu.AddTableFrames(iommu_pb2.AddTableFramesRequest(handle=domain.handle, frames=frames))
        mapping = iommu_pb2.DmaMapping(
            iova=_IOVA, address=buffer.address + _TABLE_BYTES, size_bytes=size, read=True, write=True
        )
        await below.iommu.MapDma(iommu_pb2.MapDmaRequest(handle=domain.handle, mappings=[mapping]))
        attach = iommu_pb2.AttachDeviceRequest(handle=domain.handle, device=self.wish.device)
        await below.iommu.AttachDevice(attach, metadata=metadata)
        return memory

    def _later(self, give_back: Callable[[], Awaitable[object]]) -> None:
        """Give something back at the end; what hardware does not take back it frees with the session."""

        async def call() -> None:
            try:
                await give_back()
            except grpc.aio.AioRpcError as error:
                self._user.refused(rpc_error(error))

        self._stack.push_async_callback(call)

    async def _drive(self) -> None:
        self._call = self._below.devices.Drive(metadata=self._below.session.metadata)
        self._stack.push_async_callback(self._end_call)
        opening = devices_pb2.DriveOpen(device=self.wish.device)
        await self._call.write(devices_pb2.DriveRequest(open=opening))
        await self._read()

    async def _end_call(self) -> None:
        """End the stream and wait until hardware has reset the NIC, unless the stream has ended, or is cut here."""
        if self._call.done():
            return
        try:
            await self._call.done_writing()
            while await self._call.read() is not grpc.aio.EOF:
                pass
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # it ended meanwhile, and the device with it
        finally:
            self._call.cancel()

    async def _configure(self, nic: pb.Nic, memory: DmaMemory, count: int) -> None:
        metadata = self._below.session.metadata
        offered = nic.offered
        self.takes = Takes(checksum=offered.transmit_checksum, tcp4=offered.segmentation, tcp6=offered.segmentation)
        wanted = pb.Nic(
            name=nic.name,
            mtu_bytes=self.wish.mtu_bytes,
            promiscuous=True,
            all_multicast=True,
            offloads=pb.Offloads(transmit_checksum=offered.transmit_checksum, segmentation=offered.segmentation),
            receive_side_scaling=pb.ReceiveSideScaling(
                enabled=count > 1, key=plan.HASH_KEY, table=plan.receive_table(count), hash_ports=True
            ),
            admin_up=self.wish.link_up,
        )
        mask = field_mask_pb2.FieldMask(paths=_SETTINGS)
        await self._below.nics.UpdateNic(pb.UpdateNicRequest(nic=wanted, update_mask=mask), metadata=metadata)
        queues: list[pb.Queue] = []
        for number in range(count):
            place = plan.pair(number)
            self.pairs.append(QueuePair(memory, _IOVA, place))
            queues += _queues(number, _IOVA, place)
        request = pb.ConfigureQueuesRequest(nic=nic.name, queues=queues)
        await self._below.nics.ConfigureQueues(request, metadata=metadata)
        bells = [devices_pb2.QueueTail(queue=2 * n, tail=pair.receive.tail) for n, pair in enumerate(self.pairs)]
        await self._call.write(devices_pb2.DriveRequest(doorbell=devices_pb2.Doorbell(queues=bells)))

    # The stream

    async def _first_link(self) -> None:
        """Tell the link as it is: the stream tells changes alone."""
        nic = await self._below.nics.GetNic(pb.GetNicRequest(name=self.wish.nic))
        rate = 0
        if nic.wire:
            with contextlib.suppress(grpc.aio.AioRpcError):  # the wire went meanwhile, which the stream tells
                rate = (await self._below.wires.GetWire(wires_pb2.GetWireRequest(name=nic.wire))).rate_bits_per_second
        up = nic.link == pb.Nic.LINK_STATE_UP
        self._user.link(up, rate if up else 0)

    async def _read(self) -> devices_pb2.DriveResponse:
        try:
            message = await self._call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._ended() from None  # the call was cancelled, not this task
        if message is grpc.aio.EOF:
            raise self._ended()
        assert isinstance(message, devices_pb2.DriveResponse)
        return message

    def _ended(self, why: str = "") -> Unavailable:
        return Unavailable(
            f"What drives {self.wish.nic} ended{why}.",
            reason="HARDWARE_UNREACHABLE",
            next_step="Look at the device (GetDevice of the hardware).",
        )

    async def _write(self, bell: devices_pb2.Doorbell) -> bool:
        """Send a doorbell; False: the stream has ended, which who reads it learns."""
        if self._finished:
            return False  # what came since is not answered; cut here, the call would end before the NIC is reset
        try:
            await self._call.write(devices_pb2.DriveRequest(doorbell=bell))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self._call.cancel()
            return False
        return True

    def _take(self, message: devices_pb2.DriveResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "interrupts":
            for vector in message.interrupts.vectors:
                if vector < len(self.pairs):
                    self._serve_pair(self.pairs[vector], 2 * vector)
            self._ring_all()
        elif kind == "link":
            self._user.link(message.link.up, message.link.rate_bits_per_second)
        elif kind == "fault":
            raise Unavailable(
                f"DMA of {self.wish.nic} to {message.fault.iova:#x} was refused, so its queue stands.",
                reason="NIC_DMA_FAULT",
                next_step="Look at the faults of the device (ListDmaFaults of the hardware); it is opened anew.",
            )

    def _serve_pair(self, pair: QueuePair, queue: int) -> None:
        before = pair.receive.tail
        good, bad = pair.receive.take()
        pair.transmit.reclaim()
        pair.flush()
        if self._draining and self._is_drained():
            self._changed.set()
        if pair.receive.tail != before:  # also when no frame is whole yet: its buffers are the NIC's again
            self._bells[queue] = pair.receive.tail
        if good or bad:
            self._user.received(good, bad)

    def _ring_all(self) -> None:
        """Ring for every transmit ring that has more than it told."""
        for number, pair in enumerate(self.pairs):
            if pair.transmit.tail != pair.transmit.told:
                pair.transmit.told = pair.transmit.tail
                self._bells[2 * number + 1] = pair.transmit.tail
        if self._bells:
            self._rung.set()

    async def _write_bells(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            bells, self._bells = self._bells, {}
            queues = [devices_pb2.QueueTail(queue=queue, tail=bells[queue]) for queue in sorted(bells)]
            if not await self._write(devices_pb2.Doorbell(queues=queues)):
                return

    async def _write_settings(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wish, paths = self.wish, ["admin_up"]
            if self._is_drained():
                self._draining = []
                paths.append("mtu_bytes")
            wanted = pb.Nic(name=wish.nic, mtu_bytes=wish.mtu_bytes, admin_up=wish.link_up)
            try:
                request = pb.UpdateNicRequest(nic=wanted, update_mask=field_mask_pb2.FieldMask(paths=paths))
                await self._below.nics.UpdateNic(request, metadata=self._below.session.metadata)
                if "mtu_bytes" in paths:
                    self._mtu_bytes = min(wish.mtu_bytes, self.wish.mtu_bytes)
            except grpc.aio.AioRpcError as error:
                self._user.refused(rpc_error(error))

    def _is_drained(self) -> bool:
        return all(pair.sent >= min(mark, pair.taken) for pair, mark in zip(self.pairs, self._draining, strict=False))


def _queues(number: int, address: int, place: plan.Pair) -> list[pb.Queue]:
    """Return the rings of a queue pair, whose interrupts have its number as their vector."""
    return [
        pb.Queue(
            number=2 * number,
            ring_iova=address + place.receive_ring,
            descriptors=plan.RECEIVE_DESCRIPTORS,
            buffer_bytes=plan.BUFFER_BYTES,
            vector=number,
        ),
        pb.Queue(
            number=2 * number + 1,
            ring_iova=address + place.transmit_ring,
            descriptors=plan.TRANSMIT_DESCRIPTORS,
            vector=number,
        ),
    ]
