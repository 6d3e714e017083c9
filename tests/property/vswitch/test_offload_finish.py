"""What a switch finishes is what a sender without offloads would have sent, read with the stack's own codecs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.offload_frames import packet

from lamina_net.offload.headers import is_transport_sum_good, parse
from lamina_net.packets import ipv4, udp
from lamina_net.tcp import segment as tcp
from lamina_vswitch.domain.frames.metadata import LadenFrame, Offload, laden, load_of
from lamina_vswitch.domain.offload import columns
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import ALL, PLAIN, Takes
from lamina_vswitch.domain.offload.ingress import MOST_PIECES, admitted

FIN, PSH, CWR = 1, 8, 0x80
TAGS = st.sampled_from([bytes.fromhex(tags) for tags in ("", "81000064", "88a80064", "88a8006481000007")])
PAYLOADS = st.binary(min_size=1, max_size=64).flatmap(lambda seed: st.integers(1, 6000).map(lambda n: (seed * n)[:n]))
RECORD = bytes(range(1, 33))


def long_tcp(version: int, payload: bytes, segment: int, tag: bytes, flags: int) -> bytes:
    """Return a laden TCP packet that was admitted."""
    frame = packet(version, 6, payload, flags, tag)
    headers = parse(frame, stacked=True)
    kind = 1 if version == 4 else 4
    offload = Offload(1, kind, headers.payload, segment, headers.l4, 16)
    good, bad = admitted([laden(frame, offload, RECORD)], 9000)
    assert not bad
    return good[0]


@given(st.sampled_from([4, 6]), PAYLOADS, st.integers(8, 9000), TAGS, st.sampled_from([0x18, 0x19, 0x99]))
def test_tcp_is_cut_into_what_was_sent(version: int, payload: bytes, segment: int, tag: bytes, flags: int) -> None:
    """Pieces carry the payload in order with numbers that go on, right sums, FIN and PSH last, CWR first."""
    segment = min(segment, 8900)
    whole = long_tcp(version, payload, segment, tag, flags)
    pieces = finished([whole], PLAIN)
    assert {type(piece) for piece in pieces} == {bytes}
    sequence, found = 1000, b""
    for number, piece in enumerate(pieces):
        headers = parse(piece, stacked=True)
        assert piece[: headers.l3] == whole[: headers.l3]
        assert headers.end == len(piece) and is_transport_sum_good(piece, headers)
        assert int.from_bytes(piece[headers.l4 + 4 : headers.l4 + 8], "big") == sequence + len(found)
        expected = flags & ~((FIN | PSH) if number < len(pieces) - 1 else 0) & ~(CWR if number else 0)
        assert piece[headers.l4 + 13] == expected
        if version == 4:
            read = ipv4.parse(piece[headers.l3 :])
            assert isinstance(read, ipv4.Packet) and read.identification == 7 + number
            assert isinstance(tcp.parse(read.src, read.dst, read.payload), tcp.Segment)
        found += piece[headers.payload :]
    assert found == payload
    assert [len(piece) for piece in pieces[:-1]] == [parse(whole, stacked=True).payload + segment] * (len(pieces) - 1)


@given(PAYLOADS, st.integers(8, 1400), TAGS)
def test_long_datagrams_become_fragments(payload: bytes, segment: int, tag: bytes) -> None:
    """Fragments of IPv4 put together are the datagram, with a sum that a receiver finds right."""
    frame = packet(4, 17, payload, tag=tag)
    headers = parse(frame, stacked=True)
    offload = Offload(1, 3, headers.payload, segment, headers.l4, 6)
    good, bad = admitted([laden(frame, offload, None)], 1500)
    assert not bad
    parts = [ipv4.parse(piece[headers.l3 :]) for piece in finished(good, PLAIN)]
    datagram = bytearray(8 + len(payload))
    for part in parts:
        assert isinstance(part, ipv4.Packet) and len(part.payload) <= segment
        datagram[part.offset : part.offset + len(part.payload)] = part.payload
    first = parts[0]
    assert isinstance(first, ipv4.Packet)
    read = udp.parse(first.src, first.dst, bytes(datagram))
    assert isinstance(read, udp.Datagram) and read.payload == payload


@given(PAYLOADS, st.integers(8, 1400))
def test_long_datagrams_over_ipv6_become_fragments(payload: bytes, segment: int) -> None:
    """Each has a fragment header with its place, all but the last say that more follow, and all say the same name."""
    frame = packet(6, 17, payload)
    headers = parse(frame, stacked=True)
    good, bad = admitted([laden(frame, Offload(1, 3, headers.payload, segment, headers.l4, 6), None)], 1500)
    assert not bad
    pieces, found, names = finished(good, PLAIN), b"", []
    for number, piece in enumerate(pieces):
        assert int.from_bytes(piece[18:20], "big") == len(piece) - 54 and piece[20] == 44
        place = int.from_bytes(piece[56:58], "big")
        assert (piece[54], place >> 3 << 3, place & 1) == (17, len(found), number < len(pieces) - 1)
        names.append(piece[58:62])
        found += piece[62:]
    whole = frame[:54] + found
    assert (
        found[8:] == payload
        and names == names[:1] * len(pieces)
        and is_transport_sum_good(whole, parse(whole, stacked=True))
    )


@given(st.sampled_from([4, 6]), PAYLOADS, TAGS, st.tuples(*[st.booleans()] * 6).map(Takes._make))
def test_a_device_gets_only_what_it_takes(version: int, payload: bytes, tag: bytes, takes: Takes) -> None:
    """Whatever a device takes, a second switch that finishes the rest makes the same frames of it."""
    whole = long_tcp(version, payload, 500, tag, 0x18)
    given_out = finished([whole], takes)
    for frame in given_out:
        offload, record = load_of(frame)
        assert record == (RECORD if takes.records else None)
        if offload is not None:
            assert takes.checksum or not offload.flags & 1
            assert not offload.segments or takes.segments(offload.kind)
            assert bool(offload.flags & 4) == (takes.tag_beside and tag[:2] == b"\x81\0")
    plain, headers, records = columns.parted(given_out)
    again, bad = admitted(columns.joined(plain, headers, records), 9000)
    assert not bad and finished(again, PLAIN) == finished([whole], PLAIN)


@given(st.binary(max_size=200), st.binary(min_size=20, max_size=20), st.one_of(st.none(), st.just(RECORD)))
def test_any_header_is_refused_or_can_be_finished(frame: bytes, header: bytes, record: bytes | None) -> None:
    """No bytes of a header make the switch fail, or make more pieces than are bounded."""
    good, bad = admitted(columns.joined([frame], header, record or b""), 1500)
    assert len(good) + len(bad) == 1
    assert len(finished(good, PLAIN)) <= MOST_PIECES
    finished(good, ALL)


@given(st.data(), st.sampled_from([4, 6]), st.sampled_from([6, 17]))
def test_headers_near_the_right_ones_are_refused_or_can_be_finished(data: st.DataObject, ip: int, proto: int) -> None:
    """Neither do those that almost fit, on frames that almost are what they say."""
    frame = bytearray(packet(ip, proto, bytes(data.draw(st.integers(0, 3000)))))
    for _ in range(data.draw(st.integers(0, 2))):
        frame[data.draw(st.integers(12, min(len(frame), 74) - 1))] = data.draw(st.integers(0, 255))
    small = st.integers(0, 80)
    fields = [st.sampled_from([0, 1, 2, 3, 5]), st.sampled_from([0, 1, 3, 4, 0x81]), small, st.integers(0, 2000), small]
    offload = Offload._make([*(data.draw(field) for field in (*fields, small)), 0, 0, 0, 0])
    good, bad = admitted([laden(bytes(frame), offload, None)], 1500)
    assert len(good) + len(bad) == 1
    pieces = finished(good, PLAIN)
    assert len(pieces) <= MOST_PIECES and not any(isinstance(piece, LadenFrame) for piece in pieces)
    if good and offload.segments and load_of(good[0])[0] is not None:
        assert max(map(len, pieces)) <= 1500 + 22
