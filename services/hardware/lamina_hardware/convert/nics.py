"""Contract ↔ domain for NICs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from lamina.hardware.v1 import nics_pb2 as pb

from lamina_hardware.devices.nic import RECEIVE_QUEUES, TRANSMIT_QUEUES, VECTORS, NicDevice
from lamina_hardware.domain.nic import ring as rings
from lamina_hardware.domain.nic.moderation import Moderation
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.settings import ALL_OFFLOADS, LEAST_MTU, MOST_ADDRESSES, MOST_MTU, Offloads, Settings
from lamina_hardware.domain.nic.spreading import KEY_BYTES, TABLE_ENTRIES, Spreading
from lamina_hardware.names import Names
from lamina_kit.checks import Checks

MOST_VLAN = 4094
_HEX = frozenset("0123456789abcdefABCDEF")
_OFFLOADS = (
    "receive_checksum",
    "transmit_checksum",
    "segmentation",
    "receive_coalescing",
    "vlan_strip",
    "vlan_insert",
)
_FIELDS = (
    "mac_address",
    "mtu_bytes",
    "receive_addresses",
    "promiscuous",
    "all_multicast",
    "vlan_filter",
    "offloads",
    "receive_side_scaling",
    "admin_up",
)


def nic(name: str, device: NicDevice, wire: str, names: Names) -> pb.Nic:
    """Returns a NIC as a message."""
    settings = device.nic.settings
    spreading = settings.spreading
    return pb.Nic(
        name=names.format_nic(name),
        mac_address=_shown(settings.mac),
        mtu_bytes=settings.mtu,
        receive_addresses=[_shown(address) for address in sorted(settings.addresses)],
        promiscuous=settings.promiscuous,
        all_multicast=settings.all_multicast,
        vlan_filter=sorted(settings.vlans),
        offloads=_offloads(settings.offloads),
        receive_side_scaling=pb.ReceiveSideScaling(
            enabled=spreading.enabled, key=spreading.key, table=spreading.table, hash_ports=spreading.hash_ports
        ),
        admin_up=settings.admin_up,
        link=pb.Nic.LINK_STATE_UP if device.nic.is_link_up else pb.Nic.LINK_STATE_DOWN,
        offered=_offloads(ALL_OFFLOADS),
        max_receive_queues=RECEIVE_QUEUES,
        max_transmit_queues=TRANSMIT_QUEUES,
        wire=names.format_wire(wire) if wire else "",
    )


def changed(message: pb.Nic, paths: Collection[str], settings: Settings) -> Settings:
    """Returns settings with the fields that a mask names changed. Raises `InvalidArgument` with every violation."""
    with Checks() as check:
        check.that(bool(paths), "update_mask", "is empty")
        for path in paths:
            check.that(path in _FIELDS, "update_mask", f"names {path!r}, which cannot be changed")
        _check_addresses(check, message, paths)
        if "mtu_bytes" in paths:
            check.range("nic.mtu_bytes", message.mtu_bytes, LEAST_MTU, MOST_MTU)
        if "vlan_filter" in paths:
            vlans = message.vlan_filter
            check.that(len(vlans) <= MOST_VLAN, "nic.vlan_filter", f"has more than {MOST_VLAN} entries")
            check.that(all(1 <= vlan <= MOST_VLAN for vlan in vlans), "nic.vlan_filter", f"is not 1 to {MOST_VLAN}")
        if "receive_side_scaling" in paths:
            _check_spreading(check, message.receive_side_scaling)
    values: dict[str, tuple[str, Callable[[], Any]]] = {
        "mac_address": ("mac", lambda: _read(message.mac_address)),
        "mtu_bytes": ("mtu", lambda: message.mtu_bytes),
        "receive_addresses": ("addresses", lambda: frozenset(map(_read, message.receive_addresses))),
        "promiscuous": ("promiscuous", lambda: message.promiscuous),
        "all_multicast": ("all_multicast", lambda: message.all_multicast),
        "vlan_filter": ("vlans", lambda: frozenset(message.vlan_filter)),
        "offloads": ("offloads", lambda: Offloads(*(getattr(message.offloads, name) for name in _OFFLOADS))),
        "receive_side_scaling": ("spreading", lambda: _spreading(message.receive_side_scaling)),
        "admin_up": ("admin_up", lambda: message.admin_up),
    }
    return replace(settings, **{values[path][0]: values[path][1]() for path in paths})


def _check_addresses(check: Checks, message: pb.Nic, paths: Collection[str]) -> None:
    if "mac_address" in paths:
        mac = _read(message.mac_address)
        if check.that(mac is not None, "nic.mac_address", "is not six bytes in hexadecimal with colons"):
            check.that(not (mac or b"\1")[0] & 1, "nic.mac_address", "is a multicast address")
    if "receive_addresses" in paths:
        addresses = message.receive_addresses
        check.that(len(addresses) <= MOST_ADDRESSES, "nic.receive_addresses", f"has more than {MOST_ADDRESSES} entries")
        for address in addresses[:MOST_ADDRESSES]:
            check.that(_read(address) is not None, "nic.receive_addresses", "has an entry that is no address")


def _check_spreading(check: Checks, message: pb.ReceiveSideScaling) -> None:
    where = "nic.receive_side_scaling"
    if not message.enabled:
        return
    check.that(len(message.key) == KEY_BYTES, f"{where}.key", f"has {len(message.key)} bytes, not {KEY_BYTES}")
    entries = len(message.table)
    check.that(entries == TABLE_ENTRIES, f"{where}.table", f"has {entries} entries, not {TABLE_ENTRIES}")
    in_range = all(0 <= queue < RECEIVE_QUEUES for queue in message.table)
    check.that(in_range, f"{where}.table", f"names a queue that is not 0 to {RECEIVE_QUEUES - 1}")


def _spreading(message: pb.ReceiveSideScaling) -> Spreading:
    if not message.enabled:
        return Spreading()
    return Spreading(True, message.key, tuple(message.table), message.hash_ports)


def _offloads(offloads: Offloads) -> pb.Offloads:
    return pb.Offloads(**{name: getattr(offloads, name) for name in _OFFLOADS})


def _read(text: str) -> bytes | None:
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 or set(part) - _HEX for part in parts):
        return None
    return bytes.fromhex("".join(parts))


def _shown(address: bytes) -> str:
    return address.hex(":")


def queues(messages: Sequence[pb.Queue]) -> list[Ring]:
    """Returns rings to configure. Raises `InvalidArgument` with every violation."""
    with Checks() as check:
        most = RECEIVE_QUEUES + TRANSMIT_QUEUES
        check.that(len(messages) <= most, "queues", f"has more than {most} entries")
        numbers = [queue.number for queue in messages]
        check.that(len(set(numbers)) == len(numbers), "queues.number", "names a queue twice")
        for queue in messages[:most]:
            _check_queue(check, queue, most)
    return [
        Ring(
            queue.number,
            queue.ring_iova,
            queue.descriptors,
            queue.buffer_bytes,
            queue.vector,
            Moderation(queue.moderation_ns, queue.moderation_frames),
        )
        for queue in messages
    ]


def _check_queue(check: Checks, queue: pb.Queue, most: int) -> None:
    check.range("queues.number", queue.number, 0, most - 1)
    check.aligned("queues.ring_iova", queue.ring_iova, rings.RING_ALIGNMENT)
    check.range("queues.ring_iova", queue.ring_iova, 0, (1 << 57) - 1)
    check.range("queues.descriptors", queue.descriptors, rings.LEAST_DESCRIPTORS, rings.MOST_DESCRIPTORS)
    check.aligned("queues.descriptors", queue.descriptors, rings.DESCRIPTOR_STEP)
    if queue.number % 2:
        check.that(queue.buffer_bytes == 0, "queues.buffer_bytes", "is given for a transmit queue")
    else:
        check.range("queues.buffer_bytes", queue.buffer_bytes, rings.LEAST_BUFFER, rings.MOST_BUFFER)
        check.aligned("queues.buffer_bytes", queue.buffer_bytes, rings.BUFFER_STEP)
    check.range("queues.vector", queue.vector, 0, VECTORS - 1)
    check.range("queues.moderation_ns", queue.moderation_ns, 0, rings.MOST_MODERATION_NS)
    check.range("queues.moderation_frames", queue.moderation_frames, 0, rings.MOST_MODERATION_FRAMES)


def queue(ring: Ring) -> pb.Queue:
    """Returns a ring as a message."""
    return pb.Queue(
        number=ring.number,
        ring_iova=ring.iova,
        descriptors=ring.size,
        buffer_bytes=ring.buffer_bytes,
        vector=ring.vector,
        moderation_ns=ring.moderation.interval_ns,
        moderation_frames=ring.moderation.frames,
        head=ring.head,
        tail=ring.tail,
        stop_reason=ring.stop_reason,
    )


def counters(device: NicDevice) -> pb.NicCounters:
    """Returns a NIC's counters as a message."""
    found = device.nic.counters
    return pb.NicCounters(
        received_frames=found.received_frames,
        received_bytes=found.received_bytes,
        sent_frames=found.sent_frames,
        sent_bytes=found.sent_bytes,
        drops=[
            pb.NicDropCount(reason=pb.NicDropReason.ValueType(reason), count=count)
            for reason, count in sorted(found.drops.items())
        ],
        segmented_sends=found.segmented_sends,
        coalesced_frames=found.coalesced_frames,
        interrupts=found.interrupts,
        moderated_interrupts=found.moderated_interrupts,
        descriptor_reads=found.descriptor_reads,
        descriptor_writes=found.descriptor_writes,
        queues=[
            pb.QueueCounters(number=ring.number, frames=ring.frames, bytes=ring.bytes, empty=ring.empty)
            for ring in device.nic.rings.values()
        ],
    )
