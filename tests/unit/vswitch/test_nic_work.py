"""What a NIC is asked to do with a frame: sums, segments, and frames that the switch finishes itself."""

from __future__ import annotations

from tests.unit.hardware.nic_world import packet

from lamina_net.offload.headers import fill_transport_sum, is_transport_sum_good, parse
from lamina_vswitch.domain.frames.metadata import NEEDS_CHECKSUM, TCP4, UDP, Offload, laden
from lamina_vswitch.domain.uplink.nic import plan
from lamina_vswitch.domain.uplink.nic.descriptors import Work
from lamina_vswitch.domain.uplink.nic.offloads import prepared


def partial(payload: bytes = b"x" * 100, **fields: int) -> bytes:
    """Return a TCP frame whose sum is left to be done."""
    frame = packet(payload)
    headers = parse(frame)
    base = Offload(flags=NEEDS_CHECKSUM, sum_start=headers.l4, sum_offset=16, header_bytes=headers.payload)
    return laden(frame, base._replace(**fields), None)


def test_a_plain_frame_needs_nothing() -> None:
    """A complete frame goes as it is, and so does one whose header says nothing that is left."""
    frame = packet(b"x")
    assert list(prepared(frame)) == [(frame, None)]
    assert list(prepared(laden(frame, Offload(flow_hash=7), None))) == [(frame, None)]


def test_sums_and_segments_are_for_the_nic() -> None:
    """A partial sum and a long TCP packet become a context with the lengths of their headers."""
    ((frame, work),) = prepared(partial())
    assert work == Work(14, 20, 20, ipv4=True, tcp=True)
    ((frame, work),) = prepared(partial(bytes(4000), kind=TCP4, segment_bytes=1460))
    assert work == Work(14, 20, 20, ipv4=True, tcp=True, mss=1460, payload_bytes=4000)
    assert type(frame) is bytes


def test_what_no_nic_can_say_is_finished_here() -> None:
    """A sum elsewhere than in the outer transport header, and segments of UDP, are done by the switch."""
    odd = partial(sum_start=40, sum_offset=4)
    assert [work for _, work in prepared(odd)] == [None]
    udp = bytearray(packet(b"y" * 3000, protocol=17))
    fill_transport_sum(udp, parse(udp))
    headers = parse(udp)
    long = laden(bytes(udp), Offload(kind=UDP, header_bytes=headers.payload, segment_bytes=1000), None)
    pieces = list(prepared(long))
    assert len(pieces) > 2
    assert all(work is None and len(piece) <= 1034 for piece, work in pieces)
    assert is_transport_sum_good(bytes(udp), headers)


def test_the_plan_fits() -> None:
    """Queue pairs do not overlap, rings are aligned as hardware wants, and every hash has a queue."""
    for count in (1, 2, 4):
        ends = [0]
        for number in range(count):
            place = plan.pair(number)
            starts = (place.receive_ring, place.transmit_ring, place.receive_buffers, place.transmit_buffers)
            assert list(starts) == sorted(starts)
            assert place.receive_ring == ends[-1]
            assert not place.receive_ring % 128
            assert not place.transmit_ring % 128
            ends.append(place.transmit_buffers + plan.TRANSMIT_BYTES)
        assert ends[-1] == count * plan.PAIR_BYTES
        assert sorted(set(plan.receive_table(count))) == list(range(count))
    assert [plan.pairs_of(*queues) for queues in ((1, 8, 8), (8, 2, 8), (8, 8, 3), (64, 64, 64))] == [1, 2, 3, 4]
