"""Descriptors bit by bit as the datasheet has them, moderation by the clock, and the published hashes."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from tests.unit.hardware.nic_world import packet

from lamina_hardware.domain.nic.descriptors import (
    Malformed,
    TransmitContext,
    TransmitData,
    context_descriptor,
    data_descriptor,
    read_receive,
    read_transmit,
    write_receive,
)
from lamina_hardware.domain.nic.moderation import Moderation
from lamina_hardware.domain.nic.spreading import HashType, Spreading
from lamina_net.offload.headers import UDP, parse

PAIR = struct.Struct("<QQ")
DATA, CONTEXT = 3 << 20 | 1 << 29, 2 << 20 | 1 << 29
NOTHING = TransmitData(0, 0, False, False, False, False, False, False, 0)
NO_CONTEXT = TransmitContext(0, 0, 0, 0, 0, False, 0)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (0x1234_5678_9ABC, 0, replace(NOTHING, address=0x1234_5678_9ABC)),
        (0, 0xFFFF, replace(NOTHING, size=0xFFFF)),
        (0, 1 << 24, replace(NOTHING, is_last=True)),
        (0, 1 << 27, replace(NOTHING, wants_report=True)),
        (0, 1 << 30, replace(NOTHING, insert_vlan=True)),
        (0, 1 << 31, replace(NOTHING, segment=True)),
        (0, 1 << 40, replace(NOTHING, ip_sum=True)),
        (0, 1 << 41, replace(NOTHING, l4_sum=True)),
        (0, 0x3FFFF << 46, replace(NOTHING, payload_bytes=0x3FFFF)),
    ],
)
def test_each_field_of_a_data_descriptor(first: int, second: int, wanted: TransmitData) -> None:
    """A field lies where the datasheet says, for the NIC that reads it and for the driver that writes it."""
    raw = PAIR.pack(first, DATA | second)
    assert read_transmit(raw) == wanted
    assert data_descriptor(wanted) == raw


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (0x1FF, 0, replace(NO_CONTEXT, ip_bytes=0x1FF)),
        (0x7F << 9, 0, replace(NO_CONTEXT, mac_bytes=0x7F)),
        (0xFFFF << 16, 0, replace(NO_CONTEXT, vlan=0xFFFF)),
        (0, 1 << 10, replace(NO_CONTEXT, is_ipv4=True)),
        (0, 3 << 11, replace(NO_CONTEXT, l4_type=3)),
        (0, 0xFF << 40, replace(NO_CONTEXT, l4_bytes=0xFF)),
        (0, 0xFFFF << 48, replace(NO_CONTEXT, mss=0xFFFF)),
    ],
)
def test_each_field_of_a_context_descriptor(first: int, second: int, wanted: TransmitContext) -> None:
    """A field lies where the datasheet says, for the NIC that reads it and for the driver that writes it."""
    raw = PAIR.pack(first, CONTEXT | second)
    assert read_transmit(raw) == wanted
    assert context_descriptor(wanted) == raw


@pytest.mark.parametrize("second", [3 << 20, 2 << 20, 1 << 29, 1 << 20 | 1 << 29, 15 << 20 | 1 << 29])
def test_what_is_no_advanced_descriptor_is_malformed(second: int) -> None:
    """The legacy format and unknown types are refused."""
    with pytest.raises(Malformed):
        read_transmit(PAIR.pack(0, second))


def test_each_field_of_a_written_receive_descriptor() -> None:
    """Hash type, packet type, frames joined, hash, status, length and tag lie where the datasheet says."""
    assert write_receive(0, 0, 0, 0, 0, 0) == bytes(16)
    for fields, word, value in (
        ((0xF, 0, 0, 0, 0, 0, 0), 0, 0xF),
        ((0, 0x1FFF, 0, 0, 0, 0, 0), 0, 0x1FFF << 4),
        ((0, 0, 0, 0, 0, 0, 2), 0, 2 << 17),
        ((0, 0, 0, 0, 0, 0, 44), 0, 15 << 17),
        ((0, 0, 0xFFFF_FFFF, 0, 0, 0, 0), 1, 0xFFFF_FFFF),
        ((0, 0, 0, 0x8000_0003, 0, 0, 0), 2, 0x8000_0003),
        ((0, 0, 0, 0, 0xFFFF, 0, 0), 3, 0xFFFF),
        ((0, 0, 0, 0, 0, 0xFFFF, 0), 3, 0xFFFF << 16),
    ):
        wanted = [value if n == word else 0 for n in range(4)]
        assert list(struct.unpack("<4I", write_receive(*fields))) == wanted
    assert read_receive(PAIR.pack(0x1_0000_1000, 7)) == 0x1_0000_1000


def test_a_batch_after_the_interval_interrupts_at_once() -> None:
    """Exactly an interval after the last interrupt the next is due; until then one timer sees to all batches."""
    moderation = Moderation(100)
    assert moderation.note(1, 1000) == 1000
    assert moderation.fired(1000) == 0
    assert moderation.note(2, 1001) == 1100
    assert moderation.note(2, 1002) is None
    assert moderation.due(1100) == 1100
    assert moderation.fired(1100) == 1
    assert moderation.due(1150) is None
    assert moderation.note(1, 1199) == 1200
    assert moderation.due(1200) == 1200
    moderation.fired(1200)
    assert moderation.note(1, 1300) == 1300


def test_enough_frames_interrupt_before_the_interval() -> None:
    """The number of frames counts since the last interrupt; the timer that still runs waits for the new interval."""
    moderation = Moderation(100, frames=3)
    assert moderation.note(1, 0) == 0
    moderation.fired(0)
    assert (moderation.note(2, 10), moderation.note(1, 20)) == (100, 20)
    moderation.fired(20)
    assert moderation.note(1, 30) is None
    assert moderation.due(100) == 120
    assert moderation.armed
    assert moderation.due(120) == 120
    assert not moderation.armed


SPREAD = tuple(range(128))
VECTORS = [
    # addresses and ports of the published suite, and what they hash to without and with the ports
    ("420995bb", "a18e6450", 2794, 1766, 0x323E8FC2, 0x51CCC178),
    ("c75c6f02", "41458c53", 14230, 4739, 0xD718262A, 0xC626B0EA),
    ("1813c65f", "0c16cfb8", 12898, 38024, 0xD2D0A5DE, 0x5C2B394A),
]


@pytest.mark.parametrize(("source", "target", "from_port", "to_port", "of_addresses", "of_all"), VECTORS)
@pytest.mark.parametrize("protocol", [6, UDP])
def test_frames_hash_as_published(
    source: str, target: str, from_port: int, to_port: int, of_addresses: int, of_all: int, protocol: int
) -> None:
    """The hash is of addresses and ports, or of addresses alone; its low bits choose in the table."""
    frame = bytearray(packet(protocol=protocol, ports=(from_port, to_port)))
    frame[26:34] = bytes.fromhex(source + target)
    kinds = {6: HashType.IPV4_TCP, UDP: HashType.IPV4_UDP}
    found = Spreading(True, table=SPREAD).place(frame, parse(frame))
    assert found == (of_all & 127, of_all, kinds[protocol])
    found = Spreading(True, table=SPREAD, hash_ports=False).place(frame, parse(frame))
    assert found == (of_addresses & 127, of_addresses, HashType.IPV4)


@pytest.mark.parametrize(("protocol", "kind"), [(6, HashType.IPV6_TCP), (UDP, HashType.IPV6_UDP)])
def test_frames_of_version_6_hash_as_published(protocol: int, kind: HashType) -> None:
    """The suite's first vector of version 6, with ports and without."""
    frame = bytearray(packet(version=6, protocol=protocol, ports=(2794, 1766)))
    frame[22:38] = bytes.fromhex("3ffe250102001fff0000000000000007")
    frame[38:54] = bytes.fromhex("3ffe2501020000030000000000000001")
    found = Spreading(True, table=SPREAD).place(frame, parse(frame))
    assert found == (0x40207D3D & 127, 0x40207D3D, kind)
    found = Spreading(True, table=SPREAD, hash_ports=False).place(frame, parse(frame))
    assert found == (0x2CC18CD5 & 127, 0x2CC18CD5, HashType.IPV6)


def test_what_is_not_hashed_goes_to_the_first_entry() -> None:
    """Without spreading all is of queue 0; with it, what is no IP is of the table's first queue, hash 0."""
    table = (3, *SPREAD[1:])
    arp = bytes(12) + b"\x08\x06" + bytes(46)
    assert Spreading(True, table=table).place(arp, parse(arp)) == (3, 0, HashType.NONE)
    for frame in (arp, packet()):
        assert Spreading(False, table=table).place(frame, parse(frame)) == (0, 0, HashType.NONE)
    assert Spreading(True).place(packet(), parse(packet()))[0] == 0
