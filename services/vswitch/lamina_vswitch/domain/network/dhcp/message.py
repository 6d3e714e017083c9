"""DHCP messages: a fixed head, a magic cookie, and options. Bounds first, for every byte is a stranger's.

    byte 0   1     2    3    4   8    10    12     16     20     24     28     44    108  236    240
        |op |htype|hlen|hops|xid|secs|flags|ciaddr|yiaddr|siaddr|giaddr|chaddr|sname|file|cookie|options

An option is a code, a length and as many bytes; 0 is a filler without a length, 255 ends them. A code that comes twice
is joined (RFC 3396). Source: RFC 2131, 2; RFC 2132.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from lamina_net.packets.refusal import Refusal

SERVER_PORT = 67
CLIENT_PORT = 68
BOOTREQUEST = 1
BOOTREPLY = 2
BROADCAST_FLAG = 0x8000
HEAD_BYTES = 240
LEAST_BYTES = 300
"""A reply is padded to what BOOTP's relays and clients expect. Source: RFC 1542, 2.1."""
MAX_MESSAGE_BYTES = 1500
MAX_OPTIONS = 128
MAX_HOST_NAME_BYTES = 63

_COOKIE = b"\x63\x82\x53\x63"
_LAYOUT = struct.Struct("!BBBBIHHIIII16s64s128s4s")
_ETHERNET = 1
_PAD = 0
_END = 255


class Kind(enum.IntEnum):
    """Types of messages. Source: RFC 2132, 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(enum.IntEnum):
    """Options that are read or written here. Source: RFC 2132; RFC 3046 for 82; RFC 4361 for 61."""

    SUBNET_MASK = 1
    ROUTER = 3
    DNS_SERVER = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    INTERFACE_MTU = 26
    BROADCAST_ADDRESS = 28
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    PARAMETER_LIST = 55
    MESSAGE = 56
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT_IDENTIFIER = 61


class Message(NamedTuple):
    """A message. Addresses are integers; `mac` is the first six bytes of chaddr; `options` are raw, by code."""

    op: int
    xid: int
    mac: bytes
    options: dict[int, bytes]
    flags: int = 0
    secs: int = 0
    client: int = 0
    yours: int = 0
    server: int = 0
    relay: int = 0

    @property
    def kind(self) -> Kind | None:
        """The type of the message, or None when it has none that is known."""
        value = self.options.get(Option.MESSAGE_TYPE, b"")
        return Kind(value[0]) if len(value) == 1 and 1 <= value[0] <= 8 else None

    def address(self, option: Option) -> int:
        """Return the address in an option, or 0 when it is not there or is no address."""
        value = self.options.get(option, b"")
        return int.from_bytes(value, "big") if len(value) == 4 else 0

    @property
    def host_name(self) -> str:
        """The host name that the device gives, if it is one DNS label in lower case; else empty."""
        value = self.options.get(Option.HOST_NAME, b"").rstrip(b"\0").lower()
        if not 0 < len(value) <= MAX_HOST_NAME_BYTES or value[:1] == b"-" or value[-1:] == b"-":
            return ""
        return value.decode() if all(byte in _LABEL for byte in value) else ""


_LABEL = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")


def parse(data: bytes) -> Message | Refusal:
    """Return the message in the payload of a datagram, or why there is none. Never raises.

    TRUNCATED; LENGTH above 1500 bytes or an option that runs over the end; VERSION for other than Ethernet or without
    the cookie; OPERATION for neither request nor reply; ADDRESS for a device address that is zero or of a group.
    """
    if len(data) < HEAD_BYTES:
        return Refusal.TRUNCATED
    if len(data) > MAX_MESSAGE_BYTES:
        return Refusal.LENGTH
    head = _LAYOUT.unpack_from(data)
    op, hardware, length, _, xid, secs, flags, client, yours, server, relay, chaddr, _, _, cookie = head
    if op not in (BOOTREQUEST, BOOTREPLY):
        return Refusal.OPERATION
    if hardware != _ETHERNET or length != 6 or cookie != _COOKIE:
        return Refusal.VERSION
    mac = chaddr[:6]
    if mac[0] & 1 or mac == bytes(6):
        return Refusal.ADDRESS
    options = _options(data[HEAD_BYTES:])
    if isinstance(options, Refusal):
        return options
    return Message(op, xid, mac, options, flags, secs, client, yours, server, relay)


def _options(data: bytes) -> dict[int, bytes] | Refusal:
    found: dict[int, bytes] = {}
    place, size = 0, len(data)
    for _ in range(MAX_OPTIONS):
        while place < size and data[place] == _PAD:
            place += 1
        if place >= size or data[place] == _END:
            return found
        if place + 1 >= size:
            return Refusal.LENGTH
        code, end = data[place], place + 2 + data[place + 1]
        if end > size:
            return Refusal.LENGTH
        found[code] = found.get(code, b"") + data[place + 2 : end]
        place = end
    return Refusal.LENGTH


def build(message: Message) -> bytes:
    """Return the bytes of a message, padded to 300. Options are written in the order of the mapping."""
    head = _LAYOUT.pack(
        *(message.op, _ETHERNET, 6, 0, message.xid, message.secs, message.flags),
        *(message.client, message.yours, message.server, message.relay),
        *(message.mac, b"", b"", _COOKIE),
    )
    body = b"".join(part for code, value in message.options.items() for part in _option(code, value))
    return (head + body + bytes([_END])).ljust(LEAST_BYTES, b"\0")


def _option(code: int, value: bytes) -> Iterator[bytes]:
    """Yield an option, in several parts when it is longer than 255 bytes. Source: RFC 3396, 5."""
    for start in range(0, len(value), 255):
        part = value[start : start + 255]
        yield bytes((code, len(part))) + part


def addresses(*each: int) -> bytes:
    """Return addresses as the value of an option."""
    return b"".join(address.to_bytes(4, "big") for address in each)


def number(value: int, size: int = 4) -> bytes:
    """Return a number as the value of an option."""
    return value.to_bytes(size, "big")
