"""Messages of netlink, as the `linux` engine writes and reads them."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.engines.linux.netlink.neighbours import GONE, NEW, told
from lamina_vswitch.engines.linux.netlink.requests import NESTED, attribute, attributes, messages

STATION = bytes.fromhex("020000000001")


def neighbour(state: int, port: int = 7, bridge: int = 3, seen: int = 25) -> bytes:
    """Returns the body of what the kernel tells of an entry."""
    body = struct.pack("=B3xiHBB", 7, port, state, 0, 0) + attribute(2, STATION) + attribute(9, bridge)
    return body + attribute(3, struct.pack("=IIII", 1, 0, seen, 0))


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_come_back(values: dict[int, bytes]) -> None:
    """What is written as attributes is read as the same, whatever the sizes."""
    assert attributes(b"".join(attribute(kind, value) for kind, value in values.items())) == values


def test_numbers_texts_and_nests_have_their_forms() -> None:
    """A number has four bytes, a text its end, a mapping lies within its attribute."""
    assert attribute(1, 5) == struct.pack("=HHI", 8, 1, 5)
    assert attribute(1, "ab") == b"\x07\0\x01\0ab\0\0"
    nested = attribute(1, {2: 5})
    assert struct.unpack_from("=HH", nested) == (12, 1 | NESTED) and attributes(nested[4:]) == {2: struct.pack("=I", 5)}


@given(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=20)), max_size=6), st.binary(max_size=12))
def test_any_entry_is_told_or_left_out(found: list[tuple[int, bytes]], rest: bytes) -> None:
    """Attributes of any size in what the kernel tells of an entry give whole entries or none."""
    body = struct.pack("=B3xiHBB", 7, 1, 2, 0, 0) + b"".join(attribute(kind, value) for kind, value in found) + rest
    assert all(len(entry.mac) == 6 for _, entry in told([(NEW, body)]))


@given(st.binary(max_size=200))
def test_nothing_that_comes_breaks_the_readers(data: bytes) -> None:
    """Any bytes are read to an end, within their bounds."""
    read = [body for _, _, _, body in messages(data)]
    assert sum(map(len, read)) <= len(data)
    for body in (*read, data):
        assert all(len(value) <= len(body) for value in attributes(body, 12).values())
        assert len(list(told([(NEW, body), (GONE, body)]))) in (0, 2)


def test_entries_are_told_with_age_and_kind() -> None:
    """Learned and static entries are told; addresses of the kernel's devices are not."""
    (kind, learned), (_, static) = told([(NEW, neighbour(0x02)), (GONE, neighbour(0x40)), (NEW, neighbour(0x80))])
    assert (kind, learned.mac, learned.port, learned.bridge) == (NEW, STATION, 7, 3)
    assert (learned.age_ns, learned.static, static.static) == (250_000_000, False, True)
