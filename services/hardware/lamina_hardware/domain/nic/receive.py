"""The way in: a frame from the wire is filtered, spread, perhaps joined to others, and written into a ring by DMA."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Sequence
from functools import reduce

from lamina_hardware.domain.devices.dma import DmaRefused, PageNeeded
from lamina_hardware.domain.nic import descriptors
from lamina_hardware.domain.nic.adapter import Adapter
from lamina_hardware.domain.nic.coalescing import Joined
from lamina_hardware.domain.nic.descriptors import PacketType, Status
from lamina_hardware.domain.nic.ring import RING_DMA_FAULT, Ring
from lamina_hardware.domain.nic.settings import Drop
from lamina_net.offload.headers import (
    ETHERTYPE_VLAN,
    TAG_BYTES,
    TCP,
    UDP,
    Headers,
    is_ipv4_sum_good,
    is_transport_sum_good,
    parse,
)

MOST_PARKED = 256
"""Frames that wait for a page of memory; more are dropped."""


def receive(nic: Adapter, frames: Sequence[bytes]) -> None:
    """Takes frames that arrive at the same instant, in order. What cannot be received is counted by reason."""
    touched: dict[int, int] = {}
    for frame in frames:
        refused = _refuse(nic, frame)
        if refused is not None:
            nic.counters.drop(refused)
            continue
        headers = parse(frame)
        queue, _, _ = nic.settings.spreading.place(frame, headers)
        ring = nic.rings.get(2 * queue)
        if ring is None:
            nic.counters.drop(Drop.NOT_DRIVEN)
            continue
        if nic.settings.offloads.receive_coalescing:
            ready = ring.coalescer.take(frame, headers)
        else:
            ready = [Joined(frame, headers, 1)]
        touched[ring.number] = touched.get(ring.number, 0) + sum(deliver(nic, ring, joined) for joined in ready)
    for number, placed in touched.items():
        ring = nic.rings[number]
        if not ring.moderation.interval_ns:
            placed += flush(nic, ring)
        elif not ring.coalescer.is_empty:
            nic.hold_back(ring)
        if placed:
            nic.notify(ring, placed)


def flush(nic: Adapter, ring: Ring) -> int:
    """Delivers what the queue's coalescing holds back; returns how many frames were placed."""
    return sum(deliver(nic, ring, joined) for joined in ring.coalescer.flush())


def _refuse(nic: Adapter, frame: bytes) -> Drop | None:
    if not nic.is_link_up:
        return Drop.LINK_DOWN
    return nic.settings.refuse(frame)


def deliver(nic: Adapter, ring: Ring, joined: Joined) -> bool:
    """Writes one frame into a ring; returns whether it is there. A refused address stops the ring."""
    if ring.stop_reason:
        nic.counters.drop(Drop.DMA_FAULT if ring.stop_reason == RING_DMA_FAULT else Drop.NOT_DRIVEN, joined.count)
        return False
    if ring.parked:
        _park(nic, ring, joined)
        return False
    try:
        return _write(nic, ring, joined)
    except PageNeeded as needed:
        _park(nic, ring, joined)
        needed.then(lambda: _unpark(nic, ring))
        return False


def _park(nic: Adapter, ring: Ring, joined: Joined) -> None:
    if len(ring.parked) < MOST_PARKED:
        ring.parked.append(joined)
    else:
        nic.counters.drop(Drop.NO_DESCRIPTOR, joined.count)


def _unpark(nic: Adapter, ring: Ring) -> None:
    """Delivers what waited, in order; it may have to wait again."""
    if nic.rings.get(ring.number) is not ring:
        return
    waiting, ring.parked = ring.parked, deque()
    placed = sum(deliver(nic, ring, joined) for joined in waiting)
    if placed:
        nic.notify(ring, placed)


def _write(nic: Adapter, ring: Ring, joined: Joined) -> bool:
    frame, tag, status = joined.frame, 0, Status(0)
    headers = joined.headers
    if nic.settings.offloads.receive_checksum:
        status |= _checked(frame, headers)
    _, value, kind = nic.settings.spreading.place(frame, headers)
    if nic.settings.offloads.vlan_strip and int.from_bytes(frame[12:14], "big") == ETHERTYPE_VLAN and headers.l3 > 14:
        tag, status = int.from_bytes(frame[14:16], "big"), status | Status.VLAN_STRIPPED
        frame = frame[:12] + frame[12 + TAG_BYTES :]
    needed = -(-len(frame) // ring.buffer_bytes)
    if needed > ring.ready and not nic.look(ring):
        nic.counters.drop(Drop.NOT_DRIVEN, joined.count)
        return False
    if needed > ring.ready:
        ring.empty += 1
        nic.counters.drop(Drop.NO_DESCRIPTOR, joined.count)
        return False
    extra = joined.count if joined.count > 1 else 0
    written = [
        descriptors.write_receive(
            kind,
            _types(headers),
            value,
            Status.DONE | (status | Status.END_OF_PACKET if number == needed - 1 else 0),
            min(ring.buffer_bytes, len(frame) - number * ring.buffer_bytes),
            tag,
            extra,
        )
        for number in range(needed)
    ]
    if not _place(nic, ring, frame, written):
        nic.counters.drop(Drop.DMA_FAULT, joined.count)
        return False
    counters = nic.counters
    counters.received_frames += 1
    counters.received_bytes += len(frame)
    counters.coalesced_frames += joined.count - 1
    ring.frames += 1
    ring.bytes += len(frame)
    return True


def _place(nic: Adapter, ring: Ring, frame: bytes, written: list[bytes]) -> bool:
    """Moves the bytes: descriptors read, buffers written, descriptors written back, the last of a frame at the end."""
    ports, count, size = nic.ports, len(written), ring.buffer_bytes
    try:
        raw = b"".join(ports.read(address, n * descriptors.BYTES, ring.number) for address, n in ring.stretches(count))
        nic.counters.descriptor_reads += count
        for number in range(count):
            buffer = descriptors.read_receive(raw[number * descriptors.BYTES :][: descriptors.BYTES])
            ports.write(buffer, frame[number * size : (number + 1) * size], ring.number)
        for number in range(count):
            ports.write(ring.address(ring.head + number), written[number], ring.number)
        nic.counters.descriptor_writes += count
    except DmaRefused:
        nic.stop(ring, RING_DMA_FAULT)
        return False
    ring.advance(count)
    ports.publish(ring.number, ring.head)
    return True


def _checked(frame: bytes, headers: Headers) -> Status:
    status = Status(0)
    if headers.version == 4:
        status |= Status.IP_SUM_CHECKED
        if not is_ipv4_sum_good(frame, headers):
            status |= Status.IP_SUM_WRONG
    if headers.protocol:
        status |= Status.L4_SUM_CHECKED
        if headers.protocol == UDP:
            status |= Status.UDP_SUM_CHECKED
        if not is_transport_sum_good(frame, headers):
            status |= Status.L4_SUM_WRONG
    return status


def _types(headers: Headers) -> int:
    version = {4: PacketType.IPV4, 6: PacketType.IPV6}.get(headers.version, PacketType(0))
    protocol = {TCP: PacketType.TCP, UDP: PacketType.UDP}.get(headers.protocol, PacketType(0))
    return reduce(operator.or_, (version, protocol))
