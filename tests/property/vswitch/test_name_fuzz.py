"""DHCP and DNS messages: any bytes are read or refused, and what is written is read back as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.network.dhcp import message as dhcp
from lamina_vswitch.domain.network.dns import message as dns
from lamina_vswitch.domain.network.dns import name as names

LABELS = st.from_regex(r"[a-z0-9_]([-a-z0-9_]{0,8}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=6).map(".".join)
MESSAGES = st.builds(
    dhcp.Message,
    st.sampled_from([dhcp.BOOTREQUEST, dhcp.BOOTREPLY]),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=6, max_size=6).map(lambda mac: bytes([mac[0] & 0xFE | 2]) + mac[1:]),
    st.dictionaries(st.integers(1, 254), st.binary(max_size=300), max_size=3),
    flags=st.sampled_from([0, dhcp.BROADCAST_FLAG]),
    secs=st.integers(0, 65535),
    server=st.integers(0, 2**32 - 1),
    relay=st.integers(0, 2**32 - 1),
    client=st.integers(0, 2**32 - 1),
    yours=st.integers(0, 2**32 - 1),
)


@given(st.binary(max_size=1600))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No parser raises, whatever the bytes; also behind a head that is right."""
    head = dhcp.build(dhcp.Message(1, 1, b"\x02" + bytes(5), {}))[: dhcp.HEAD_BYTES]
    for text in (data, head + data):
        found = dhcp.parse(text)
        if isinstance(found, dhcp.Message):
            assert found.kind is None or found.kind in dhcp.Kind
            assert found.host_name == "" or names.is_label(found.host_name)
    question = b"\0\1\1\0\0\1\0\0\0\0\0\1" + data
    for text in (data, question):
        read = dns.parse(text)
        assert isinstance(read, dns.Query | dns.Code | Refusal)
        if isinstance(read, dns.Code):
            assert len(dns.failure(text, read)) == dns.HEADER_BYTES
        if isinstance(read, dns.Query):
            assert len(read.name) <= names.MAX_NAME_BYTES and read.size <= dns.MOST_BYTES
            dns.build(read, dns.Reply(dns.Code.REFUSED), read.size)


@given(MESSAGES, st.data())
def test_a_dhcp_message_is_read_back(message: dhcp.Message, data: st.DataObject) -> None:
    """What is built is parsed to the same, and a flipped byte or a cut never raises."""
    built = dhcp.build(message)
    if len(built) > dhcp.MAX_MESSAGE_BYTES:
        assert dhcp.parse(built) is Refusal.LENGTH
        return
    expected = message._replace(options={code: value for code, value in message.options.items() if value})
    assert dhcp.parse(built) == expected
    place = data.draw(st.integers(0, len(built) - 1))
    dhcp.parse(built[:place] + bytes([built[place] ^ data.draw(st.integers(1, 255))]) + built[place + 1 :])
    dhcp.parse(built[:place])


@given(st.lists(NAMES, min_size=1, max_size=8), st.integers(12, 0x4000))
def test_names_are_compressed_and_read_back(texts: list[str], start: int) -> None:
    """Names that share their ends point to each other, and each is read back as it was."""
    data, places, known = bytes(start), [], dict[str, int]()
    for text in texts:
        places.append(len(data))
        data += names.write(text, known, len(data))
    for text, place in zip(texts, places, strict=True):
        read = names.read(data, place)
        assert not isinstance(read, Refusal) and read[0] == text
    ends = [*places[1:], len(data)]
    assert [names.read(data, place)[1] for place in places] == ends  # type: ignore[index]


def test_pointers_end() -> None:
    """A name that points to itself, forward, or into a circle is refused."""
    for data in (
        b"\xc0\x00",
        b"\xc0\x02\xc0\x00",
        b"\x01a\xc0\x00",
        b"\x01a\xc0\x04\x01b\xc0\x00",
        b"\x40a",
        b"\x05ab",
    ):
        assert isinstance(names.read(data, 0), Refusal), data
    long = b"".join(b"\x3f" + b"a" * 63 for _ in range(5)) + b"\0"
    assert names.read(long, 0) is Refusal.LENGTH
