"""The way out: descriptors are read by DMA, frames gathered, prepared as their descriptors ask, and put on the wire."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from lamina_hardware.domain.devices.dma import DmaRefused, PageNeeded
from lamina_hardware.domain.nic import descriptors
from lamina_hardware.domain.nic.adapter import Adapter
from lamina_hardware.domain.nic.descriptors import Malformed, TransmitContext, TransmitData
from lamina_hardware.domain.nic.ring import DESCRIPTOR_MALFORMED, RING_DMA_FAULT, Ring
from lamina_hardware.domain.nic.segmentation import MOST_BYTES, prepare
from lamina_hardware.domain.nic.settings import LEAST_FRAME
from lamina_net.offload.headers import ETHERNET_BYTES, TAG_BYTES

MOST_AT_ONCE = 256
"""Descriptors that one step takes; the rest waits for the next, so that other work goes on in between."""

MOST_FRAMES_AT_ONCE, MOST_BYTES_AT_ONCE = 1024, 1 << 20
"""What one step puts on the wire, but for its last send."""

MOST_PIECES = 64
"""Buffers that one frame may be made of."""

_HEADER_ROOM = 512
_DONE = struct.pack("<I", descriptors.DONE >> 32)


@dataclass(slots=True)
class _Send:
    """A frame in the making; `first` is its first data descriptor, from which its commands are taken."""

    first: TransmitData | None = None
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


def transmit(nic: Adapter, ring: Ring) -> None:
    """Sends what stands in a ring, at most `MOST_AT_ONCE` descriptors and whole frames only; then asks to go on."""
    if ring.stop_reason or ring.is_waiting or not nic.is_link_up:
        return
    before = ring.head
    count = min(ring.ready, MOST_AT_ONCE)
    try:
        if count:
            _send_all(nic, ring, count)
    except PageNeeded as needed:
        ring.is_waiting = True
        needed.then(lambda: _unblock(nic, ring))
    except DmaRefused:
        nic.stop(ring, RING_DMA_FAULT)
    except Malformed as malformed:
        nic.stop(ring, DESCRIPTOR_MALFORMED, str(malformed))
    reports, ring.reports = ring.reports, 0
    if reports:
        nic.notify(ring, reports)
    if ring.stop_reason or ring.is_waiting:
        return
    has_more = ring.ready and ring.head != before
    if has_more or not nic.ports.sleep(ring.number):
        nic.ports.call_at(nic.ports.now_ns(), lambda: nic.resume(ring))


def _unblock(nic: Adapter, ring: Ring) -> None:
    ring.is_waiting = False
    nic.resume(ring)


def _send_all(nic: Adapter, ring: Ring, count: int) -> None:
    """Sends the whole frames of `count` descriptors; the head moves behind each frame that has left.

    Stops early where a step has sent enough.
    """
    ports, counters = nic.ports, nic.counters
    most = counters.sent_frames + MOST_FRAMES_AT_ONCE, counters.sent_bytes + MOST_BYTES_AT_ONCE
    raw = b"".join(ports.read(address, n * descriptors.BYTES, ring.number) for address, n in ring.stretches(count))
    nic.counters.descriptor_reads += count
    send, places, first, taken = _Send(), [], ring.head, 0
    for number in range(count):
        read = descriptors.read_transmit(raw[number * descriptors.BYTES :][: descriptors.BYTES])
        if isinstance(read, TransmitContext):
            if send.first is not None:
                raise Malformed("a context descriptor within a frame")
            ring.context = read
        else:
            if read.wants_report:
                places.append(ring.address(first + number))
            if not _gather(nic, ring, send, read):
                continue
            for place in places:  # before the frame leaves: it must not leave twice
                ports.check(place + 12, len(_DONE), ring.number)
            _put(nic, ring, send)
            _report(nic, ring, places)
            send, places = _Send(), []
        ring.advance(number + 1 - taken)
        taken = number + 1
        ports.publish(ring.number, ring.head)
        if counters.sent_frames >= most[0] or counters.sent_bytes >= most[1]:
            return
    if not taken and count == MOST_AT_ONCE:
        raise Malformed(f"a frame of more than {count} descriptors")


def _gather(nic: Adapter, ring: Ring, send: _Send, read: TransmitData) -> bool:
    """Adds a buffer to a frame; returns whether the frame is whole. Raises `Malformed` for one that grows too big."""
    send.first = send.first or read
    send.size += read.size
    limit = MOST_BYTES + _HEADER_ROOM if send.first.segment else nic.settings.mtu + ETHERNET_BYTES + TAG_BYTES
    if send.size > limit or len(send.pieces) >= MOST_PIECES:
        raise Malformed(f"a frame of more than {limit} bytes or {MOST_PIECES} buffers")
    if read.size:
        send.pieces.append(nic.ports.read(read.address, read.size, ring.number))
    return read.is_last


def _put(nic: Adapter, ring: Ring, send: _Send) -> None:
    data, offers = send.first, nic.settings.offloads
    assert data is not None
    if send.size < ETHERNET_BYTES:
        raise Malformed(f"a frame of {send.size} bytes")
    unwanted = (
        (data.segment and not offers.segmentation)
        or ((data.ip_sum or data.l4_sum) and not offers.transmit_checksum)
        or (data.insert_vlan and not offers.vlan_insert)
    )
    if unwanted:
        raise Malformed("an offload that is switched off")
    frames = prepare(bytearray(b"".join(send.pieces)), data, ring.context)
    most = nic.settings.mtu + ETHERNET_BYTES + TAG_BYTES
    if max(map(len, frames)) > most:
        raise Malformed(f"segments that make frames of more than {most} bytes")
    frames = [frame if len(frame) >= LEAST_FRAME else frame.ljust(LEAST_FRAME, b"\0") for frame in frames]
    size = sum(map(len, frames))
    counters = nic.counters
    counters.sent_frames += len(frames)
    counters.sent_bytes += size
    counters.segmented_sends += data.segment
    ring.frames += len(frames)
    ring.bytes += size
    nic.ports.send(frames)


def _report(nic: Adapter, ring: Ring, places: list[int]) -> None:
    """Writes "done" into the descriptors of a frame that has left."""
    for place in places:
        nic.ports.write(place + 12, _DONE, ring.number)
    nic.counters.descriptor_writes += len(places)
    ring.reports += len(places)
