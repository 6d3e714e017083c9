"""Between the contract and the domain: the messages of the streams of ports, `Attach` and `AttachDevice`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lamina.vswitch.v1 import backends_pb2, rings_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_vswitch.convert.switches import link
from lamina_vswitch.domain.definitions.switches import DEFAULT_QUEUE_FRAMES, QUEUE_FRAMES
from lamina_vswitch.domain.frames.header import is_group, is_station, parse_mac
from lamina_vswitch.domain.offload import columns
from lamina_vswitch.domain.offload.features import ALL, Takes
from lamina_vswitch.domain.port.queue import MAX_BATCH_BYTES, MAX_BATCH_FRAMES
from lamina_vswitch.domain.port.receive_filter import MOST_GROUPS, ReceiveFilter
from lamina_vswitch.io.attachments.stream import Outgoing

MAX_QUEUES = 16

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a device plugs in: handle, frames that wait in each queue, queues, what it takes unfinished (None: it speaks
    of complete frames only), and whether it wants completions."""

    slot: int
    generation: int
    capacity: int
    completions: bool
    queues: int = 1
    takes: Takes | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a later message brings: frames, or what the device listens to."""

    frames: list[bytes]
    listening: ReceiveFilter | None = None


class StreamForm(Protocol[Request, Response]):
    """The messages of one kind of stream, to and from the domain."""

    def opening(self, request: Request) -> Opening:
        """Return what the first message asks for."""

    def opened(self, port: str, mtu_bytes: int, link_up: bool) -> Response:
        """Return the first answer."""

    def taken(self, request: Request, opening: Opening) -> Taken:
        """Return what a later message brings."""

    def responses(self, outgoing: Outgoing, opening: Opening) -> Iterator[Response]:
        """Yield the messages for what a stream has to send."""


class PlainForm:
    """The messages of `Ports.Attach`: complete frames, one queue."""

    def opening(self, request: pb.AttachRequest) -> Opening:
        """Return what the first message asks for."""
        if request.WhichOneof("message") != "open":
            raise _not_opened("Attach")
        wanted = request.open
        queue = wanted.queue_frames or DEFAULT_QUEUE_FRAMES
        with Checks() as check:
            check.range("open.queue_frames", queue, *QUEUE_FRAMES)
        return Opening(wanted.handle.id, wanted.handle.generation, queue, wanted.completions)

    def opened(self, port: str, mtu_bytes: int, link_up: bool) -> pb.AttachResponse:
        """Return the first answer."""
        return pb.AttachResponse(opened=pb.AttachOpened(port=port, mtu_bytes=mtu_bytes, link=link(link_up)))

    def taken(self, request: pb.AttachRequest, opening: Opening) -> Taken:
        """Return the frames of a later message."""
        if request.WhichOneof("message") != "frames":
            raise message_invalid("A message of Attach after the first carries no frames.")
        if len(request.frames.frames) > MAX_BATCH_FRAMES:
            raise _too_many(len(request.frames.frames))
        return Taken(list(request.frames.frames))

    def responses(self, outgoing: Outgoing, opening: Opening) -> Iterator[pb.AttachResponse]:
        """Yield the messages for what a stream has to send."""
        if outgoing.link_up is not None:
            yield pb.AttachResponse(link=pb.LinkChange(link=link(outgoing.link_up)))
        for _, frames, lost in outgoing.batches:
            response = pb.AttachResponse()  # filled where it lies: a batch that is put into a message is copied
            response.frames.frames.extend(frames)
            response.frames.dropped_frames = lost
            yield response
        if outgoing.completion is not None:
            yield pb.AttachResponse(completion=_completion(outgoing.completion))


class DeviceForm:
    """The messages of `PortRings.AttachDevice`: side columns, several queues."""

    def opening(self, request: rings_pb2.AttachDeviceRequest) -> Opening:
        """Return what the first message asks for."""
        if request.WhichOneof("message") != "open":
            raise _not_opened("AttachDevice")
        wanted = request.open
        queue, queues = wanted.queue_frames or DEFAULT_QUEUE_FRAMES, wanted.queues or 1
        with Checks() as check:
            check.range("open.queue_frames", queue, *QUEUE_FRAMES)
            check.range("open.queues", queues, 1, MAX_QUEUES)
        takes = takes_of(wanted.offloads, records=wanted.traces)
        return Opening(wanted.handle.id, wanted.handle.generation, queue, wanted.completions, queues, takes)

    def opened(self, port: str, mtu_bytes: int, link_up: bool) -> rings_pb2.AttachDeviceResponse:
        """Return the first answer."""
        opened = rings_pb2.AttachDeviceOpened(
            port=port, mtu_bytes=mtu_bytes, link=link(link_up), offloads=offloads(ALL)
        )
        return rings_pb2.AttachDeviceResponse(opened=opened)

    def taken(self, request: rings_pb2.AttachDeviceRequest, opening: Opening) -> Taken:
        """Return what a later message brings."""
        kind = request.WhichOneof("message")
        if kind == "state":
            return Taken([], device_state(request.state))
        if kind != "batch":
            raise message_invalid("A message of AttachDevice after the first carries neither frames nor a state.")
        if not 0 <= request.batch.queue < opening.queues:
            raise message_invalid(f"A batch is of queue {request.batch.queue}; the device opened {opening.queues}.")
        return Taken(batch_frames(request.batch))

    def responses(self, outgoing: Outgoing, opening: Opening) -> Iterator[rings_pb2.AttachDeviceResponse]:
        """Yield the messages for what a stream has to send."""
        if outgoing.link_up is not None:
            yield rings_pb2.AttachDeviceResponse(link=pb.LinkChange(link=link(outgoing.link_up)))
        for queue, frames, lost in outgoing.batches:
            response = rings_pb2.AttachDeviceResponse()
            _fill(response.batch, frames, queue, lost)
            yield response
        if outgoing.completion is not None:
            yield rings_pb2.AttachDeviceResponse(completion=_completion(outgoing.completion))


def batch_frames(batch: rings_pb2.DeviceBatch) -> list[bytes]:
    """Return the frames of a batch with their loads."""
    if len(batch.frames) > MAX_BATCH_FRAMES:
        raise _too_many(len(batch.frames))
    size = sum(map(len, batch.frames))
    if size > MAX_BATCH_BYTES:
        raise _too_large(f"The batch has {size} bytes of frames, more than {MAX_BATCH_BYTES}.")
    if not columns.fits(batch.frames, batch.offload_headers, batch.trace_records):
        raise message_invalid(
            f"The columns of a batch have {len(batch.offload_headers)} and {len(batch.trace_records)} bytes, which does"
            f" not fit {len(batch.frames)} frames."
        )
    return columns.joined(batch.frames, batch.offload_headers, batch.trace_records)


def device_batch(frames: list[bytes], queue: int = 0, lost: int = 0) -> rings_pb2.DeviceBatch:
    """Return frames as a batch."""
    batch = rings_pb2.DeviceBatch()
    _fill(batch, frames, queue, lost)
    return batch


def device_state(state: rings_pb2.DeviceState) -> ReceiveFilter:
    """Return what a device listens to."""
    mac = parse_mac(state.mac_address)
    groups = [parse_mac(text) for text in state.multicast_addresses[: MOST_GROUPS + 1]]
    with Checks() as check:
        if check.that(mac is not None, "state.mac_address", "is not an address such as 02:00:00:00:00:01"):
            check.that(is_station(mac or b""), "state.mac_address", "is zero or a group address")
        check.that(len(groups) <= MOST_GROUPS, "state.multicast_addresses", f"are more than {MOST_GROUPS}")
        for number, group in enumerate(groups):
            what = f"state.multicast_addresses[{number}]"
            check.that(group is not None and is_group(group), what, "is not a group address such as 01:00:5e:00:00:01")
    wanted = frozenset(group for group in groups if group is not None)
    return ReceiveFilter(mac or b"", wanted, state.all_multicasts, state.promiscuous)


def takes_of(wanted: backends_pb2.Offloads, *, records: bool = False) -> Takes:
    """Return what a device says that it takes."""
    return Takes(
        wanted.checksum, wanted.tcp4_segments, wanted.tcp6_segments, wanted.udp_segments, wanted.vlan_beside, records
    )


def offloads(takes: Takes) -> backends_pb2.Offloads:
    """Return what is taken as a message."""
    return backends_pb2.Offloads(
        checksum=takes.checksum,
        tcp4_segments=takes.tcp4,
        tcp6_segments=takes.tcp6,
        udp_segments=takes.udp,
        vlan_beside=takes.tag_beside,
    )


def message_invalid(what: str) -> InvalidArgument:
    """Return the error for a message that may not come: `ATTACH_MESSAGE_INVALID`."""
    return InvalidArgument(
        what,
        reason="ATTACH_MESSAGE_INVALID",
        next_step="Send frames only, once the stream is open, and to AttachDevice the state of the device.",
    )


def _not_opened(call: str) -> InvalidArgument:
    return InvalidArgument(
        f"The first message of {call} is not open.",
        reason="ATTACH_NOT_OPENED",
        next_step="Send open with the handle of the port first.",
    )


def _too_many(frames: int) -> InvalidArgument:
    return _too_large(f"The batch has {frames} frames, more than {MAX_BATCH_FRAMES}.")


def _too_large(what: str) -> InvalidArgument:
    return InvalidArgument(what, reason="BATCH_TOO_LARGE", next_step="Send smaller batches.")


def _fill(batch: rings_pb2.DeviceBatch, frames: list[bytes], queue: int, lost: int) -> None:
    """Put frames into an empty batch."""
    plain, headers, records = columns.parted(frames)
    batch.frames.extend(plain)
    batch.offload_headers, batch.trace_records = headers, records
    batch.queue, batch.dropped_frames = queue, lost


def _completion(done: tuple[int, int, int]) -> pb.Completion:
    batches, frames, dropped = done
    return pb.Completion(batches=batches, frames=frames, dropped_frames=dropped)
