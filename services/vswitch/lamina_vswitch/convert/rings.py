"""Between the contract and the domain: the messages of attached rings."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.vswitch.v1 import rings_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_vswitch.convert.streams import device_state, message_invalid, offloads, takes_of
from lamina_vswitch.convert.switches import link
from lamina_vswitch.domain.backend.address import MAX_PATH_BYTES
from lamina_vswitch.domain.offload.features import ALL, Takes
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.domain.port.ring_layout import QUEUES, SLOT_ALIGNMENT, SLOT_BYTES, SLOTS, Geometry

DEFAULT_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class RingOpening:
    """How a device at a ring plugs in: handle, sizes, what it takes unfinished, where it waits for doorbells."""

    slot: int
    generation: int
    geometry: Geometry
    takes: Takes
    doorbell_path: str


def ring_opening(request: pb.AttachRingRequest) -> RingOpening:
    """Return what the first message asks for."""
    if request.WhichOneof("message") != "open":
        raise InvalidArgument(
            "The first message of AttachRing is not open.",
            reason="ATTACH_NOT_OPENED",
            next_step="Send open with the handle of the port first.",
        )
    wanted = request.open
    takes = takes_of(wanted.offloads, records=True)
    cuts = takes.tcp4 or takes.tcp6 or takes.udp
    slot_bytes = wanted.slot_bytes or (SLOT_BYTES[1] if cuts else SLOT_BYTES[0])
    slots, path = wanted.slots or DEFAULT_SLOTS, wanted.doorbell_path
    with Checks() as check:
        check.range("open.slots", slots, *SLOTS)
        check.that(slots & (slots - 1) == 0, "open.slots", "is no power of two")
        check.range("open.slot_bytes", slot_bytes, *SLOT_BYTES)
        check.that(slot_bytes % SLOT_ALIGNMENT == 0, "open.slot_bytes", f"is no multiple of {SLOT_ALIGNMENT}")
        check.range("open.queues", wanted.queues or 1, *QUEUES)
        if path:
            check.that(path.startswith("/") and "\0" not in path, "open.doorbell_path", "is not an absolute path")
            check.max_bytes("open.doorbell_path", path, MAX_PATH_BYTES)
    geometry = Geometry(wanted.queues or 1, slots, slot_bytes)
    return RingOpening(wanted.handle.id, wanted.handle.generation, geometry, takes, path)


def ring_state(request: pb.AttachRingRequest) -> ReceiveFilter:
    """Return what a later message says."""
    if request.WhichOneof("message") != "state":
        raise message_invalid("A message of AttachRing after the first is not a state.")
    return device_state(request.state)


def ring_opened(
    port: str, mtu_bytes: int, link_up: bool, geometry: Geometry, file_path: str, doorbell_path: str
) -> pb.AttachRingResponse:
    """Return the first answer."""
    opened = pb.AttachRingOpened(
        port=port,
        mtu_bytes=mtu_bytes,
        link=link(link_up),
        offloads=offloads(ALL),
        file_path=file_path,
        file_bytes=geometry.file_bytes,
        doorbell_path=doorbell_path,
    )
    return pb.AttachRingResponse(opened=opened)


def ring_link(link_up: bool) -> pb.AttachRingResponse:
    """Return the message for a change of the link."""
    return pb.AttachRingResponse(link=vswitch_pb2.LinkChange(link=link(link_up)))
