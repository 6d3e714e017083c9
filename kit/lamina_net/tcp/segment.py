"""TCP segments: header and options. Pure.

    byte 0          2           4          8     12          14       16         18       20
         | src port | dst port  | sequence | ack | off|flags | window | checksum | urgent | options, payload …

Source: RFC 9293, 3.1 and 3.2; RFC 7323 for window scale and timestamps; RFC 2018 for SACK.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lamina_net.packets import ipv4
from lamina_net.packets.checksum import checksum, is_right, pseudo_sum, word_sum
from lamina_net.packets.refusal import Refusal

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20
ECE = 0x40
CWR = 0x80

HEADER_BYTES = 20
MAX_OPTION_BYTES = 40

_LAYOUT = struct.Struct("!HHIIBBHHH")
_END, _NOP, _MSS, _SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMP = 0, 1, 2, 3, 4, 5, 8
_TIMESTAMP_ALONE = b"\x01\x01\x08\x0a"
_PAIR = struct.Struct("!II")
_FLAG_LETTERS = "FSRPAUEW"


class Options(NamedTuple):
    """Options of a segment; None, False or empty for what is not there.

    `mss` in bytes, 16 bits; `window_scale` as sent, 0 to 255 (a receiver takes more than 14 as 14); `sack` has up to
    four blocks `(left, right)`; `timestamp` is `(value, echo)`; all sequence numbers and times have 32 bits.
    """

    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamp: tuple[int, int] | None = None


NO_OPTIONS = Options()


class Segment(NamedTuple):
    """A segment. `flags` is FIN | SYN | …; `window` is the field as it travels, not scaled."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgment: int
    flags: int
    window: int
    payload: bytes = b""
    options: Options = NO_OPTIONS
    urgent: int = 0

    @property
    def length(self) -> int:
        """Sequence numbers that it takes up: payload bytes, and one each for SYN and FIN."""
        return len(self.payload) + (self.flags & FIN) + ((self.flags & SYN) >> 1)

    def __str__(self) -> str:
        """Return the segment in a line, for tests and logs: `49152>80 SA 7:7 ack 9 win 512`."""
        letters = "".join(letter for bit, letter in enumerate(_FLAG_LETTERS) if self.flags >> bit & 1) or "."
        acknowledged = f" ack {self.acknowledgment}" if self.flags & ACK else ""
        ports = f"{self.source_port}>{self.destination_port}"
        span = f"{self.sequence}:{(self.sequence + self.length) & 0xFFFFFFFF}"
        return f"{ports} {letters} {span}{acknowledged} win {self.window}"


def parse(src: int, dst: int, data: bytes, *, verify: bool = True) -> Segment | Refusal:
    """Return the segment in the payload of a packet from `src` to `dst`, or why there is none. Never raises.

    TRUNCATED, LENGTH of the header, CHECKSUM unless not to `verify` (a device vouched for it). Unknown options are
    skipped; a broken one ends the walk, what stood before it counts, as Linux does (tcp_parse_options).
    """
    size = len(data)
    if size < HEADER_BYTES:
        return Refusal.TRUNCATED
    source, destination, sequence, acknowledgment, offset, flags, window, _, urgent = _LAYOUT.unpack_from(data)
    header = offset >> 4 << 2
    if header < HEADER_BYTES:
        return Refusal.LENGTH
    if size < header:
        return Refusal.TRUNCATED
    if verify and not is_right(data, pseudo_sum(src, dst, ipv4.TCP, size)):
        return Refusal.CHECKSUM
    options = NO_OPTIONS if header == HEADER_BYTES else parse_options(data[HEADER_BYTES:header])
    return Segment(source, destination, sequence, acknowledgment, flags, window, data[header:], options, urgent)


def parse_options(data: bytes) -> Options:
    """Return the options in up to 40 bytes. Never raises; of an option that comes twice the last one counts."""
    if len(data) == 12 and data.startswith(_TIMESTAMP_ALONE):  # every segment of a connection with timestamps
        return Options(timestamp=_PAIR.unpack_from(data, 4))
    found: dict[str, object] = {}
    place, end = 0, len(data)
    while place < end and data[place] != _END:
        kind = data[place]
        if kind == _NOP:
            place += 1
            continue
        size = data[place + 1] if place + 1 < end else 0
        if size < 2 or place + size > end:
            break
        _read_option(found, kind, data[place + 2 : place + size])
        place += size
    return Options(**found) if found else NO_OPTIONS  # type: ignore[arg-type]  # _read_option keeps the types


def _read_option(found: dict[str, object], kind: int, body: bytes) -> None:
    """Add an option whose body has the right size to `found`; others are skipped."""
    if kind == _MSS and len(body) == 2:
        found["mss"] = body[0] << 8 | body[1]
    elif kind == _SCALE and len(body) == 1:
        found["window_scale"] = body[0]
    elif kind == _SACK_PERMITTED and not body:
        found["sack_permitted"] = True
    elif kind == _SACK and body and len(body) % 8 == 0:
        found["sack"] = tuple(_PAIR.iter_unpack(body))
    elif kind == _TIMESTAMP and len(body) == 8:
        found["timestamp"] = _PAIR.unpack(body)


def build_options(options: Options) -> bytes:
    """Return the options, padded with NOPs to four bytes: those of a SYN, timestamp, then as many SACK blocks as fit.

    Raises ValueError when what is not a SACK block takes more than 40 bytes, which no set of these options does.
    """
    if options.timestamp is not None and options[:4] == (None, None, False, ()):
        return _TIMESTAMP_ALONE + _PAIR.pack(*options.timestamp)
    parts = b""
    if options.mss is not None:
        parts += struct.pack("!BBH", _MSS, 4, options.mss)
    filler = b"\x01\x01"
    if options.sack_permitted:  # stands where the padding of the timestamp would
        filler = b"\x04\x02"
    if options.timestamp is not None:
        parts += filler + _TIMESTAMP_ALONE[2:] + _PAIR.pack(*options.timestamp)
    elif options.sack_permitted:
        parts += b"\x01\x01" + filler
    if options.window_scale is not None:
        parts += struct.pack("!BBBB", _NOP, _SCALE, 3, options.window_scale)
    blocks = options.sack[: (MAX_OPTION_BYTES - len(parts) - 4) // 8]
    if blocks:
        parts += bytes((_NOP, _NOP, _SACK, 2 + 8 * len(blocks))) + b"".join(_PAIR.pack(*block) for block in blocks)
    return parts


def build(src: int, dst: int, segment: Segment, *, with_checksum: bool = True) -> bytes:
    """Return the bytes of a segment from `src` to `dst`.

    Without checksum the field holds the folded sum of the pseudo header, as devices that complete it want (virtio 1.2,
    5.1.6.2: the checksum field is set to the sum of the pseudo header).
    """
    source, destination, sequence, acknowledgment, flags, window, payload, options, urgent = segment
    optional = b"" if options is NO_OPTIONS else build_options(options)
    header = HEADER_BYTES + len(optional)
    offset = header << 2  # number of 32-bit words in the upper four bits
    head = _LAYOUT.pack(source, destination, sequence, acknowledgment, offset, flags, window, 0, urgent)
    pseudo = pseudo_sum(src, dst, ipv4.TCP, header + len(payload))
    if with_checksum:  # of the parts, as headers are even: a long payload is copied once
        value = checksum(payload, pseudo + word_sum(head) + word_sum(optional))
    else:
        value = pseudo % 65535 or 65535
    return b"%b%b%b%b%b" % (head[:16], value.to_bytes(2, "big"), head[18:], optional, payload)
