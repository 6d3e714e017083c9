"""Filter expressions: the part of the pcap-filter language that the contract names, read once into a predicate.

    expression  term (("and" | "&&" | "or" | "||") term)*           equal rank, from left to right, as libpcap has it
    term        ("not" | "!") term | "(" expression ")" | test
    test        "vlan" [N] | "broadcast" | "multicast" | "less" N | "greater" N
              | PROTO | PROTO "[" OFFSET [":" SIZE] "]" RELATION N | ("ether" | "ip" | "ip6") "proto" N
              | [PROTO] ["src" | "dst"] ("host" | "net" | "port" | "portrange") X | [PROTO] ("src" | "dst") ADDRESS

A test of bytes that a frame does not have fails, where libpcap rejects the frame whatever else is said; everything else
is as there. Names of hosts, services and protocols beyond those above are not looked up.

Source: pcap-filter(7).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from lamina_kit.errors import InvalidArgument
from lamina_vswitch.domain.capture import predicates as tests
from lamina_vswitch.domain.capture.addresses import host_test, mac_test, network_test
from lamina_vswitch.domain.capture.predicates import Predicate

MAX_FILTER_BYTES = 4096
MAX_DEPTH = 64
"""Most parentheses and negations within each other."""

_TOKEN = re.compile(r"\s*(?:(&&|\|\||!=|==|>=|<=|[()\[\]!<>=])|([A-Za-z0-9._:/\\-]+))")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")

PROTOCOLS = ("ether", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6")
TYPES = ("host", "net", "port", "portrange")
SIDES = {"src": ("src",), "dst": ("dst",), "": ("src", "dst")}
IP_PROTOCOLS = {"icmp": tests.ICMP, "tcp": tests.TCP, "udp": tests.UDP, "icmp6": tests.ICMP6}
ETHERTYPES = {"ip": tests.IPV4, "arp": tests.ARP, "ip6": tests.IPV6}
FOR_MANY = {"broadcast": tests.broadcast, "multicast": tests.multicast}
LENGTHS = {"less": tests.no_longer, "greater": tests.no_shorter}
U32 = (1 << 32) - 1


class Token(NamedTuple):
    """A word or sign and where it begins, from 0. The last token is empty and stands at the end."""

    text: str
    at: int


def compile_filter(text: str) -> Predicate:
    """Return the predicate of a filter; the empty one passes everything.

    Raises InvalidArgument `FILTER_MALFORMED`, whose message has the position, counted from 1.
    """
    if len(text.encode()) > MAX_FILTER_BYTES:
        raise malformed(MAX_FILTER_BYTES, f"it is longer than {MAX_FILTER_BYTES} bytes")
    tokens = _tokens(text)
    return _Parser(tokens).whole() if tokens[0].text else tests.everything


def malformed(at: int, problem: str) -> InvalidArgument:
    """Return the error for a filter that cannot be read at an offset."""
    return InvalidArgument(
        f"The filter is malformed at position {at + 1}: {problem}.",
        reason="FILTER_MALFORMED",
        next_step="Write it as pcap-filter(7) says, with the words that the contract of Captures lists.",
        position=at + 1,
    )


def _tokens(text: str) -> list[Token]:
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise malformed(start, f"{text[start]!r} means nothing here")
        found.append(Token(match[1] or match[2], match.start(1 if match[1] else 2)))
        at = match.end()
    return [*found, Token("", end)]


class _Parser:
    """Reads tokens from left to right; `_shift` grows with each `vlan`, for everything that follows it."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._shift = 0
        self._depth = 0

    def whole(self) -> Predicate:
        """Return the predicate of all tokens."""
        found = self._expression()
        if self._peek().text:
            raise malformed(self._peek().at, f"{self._peek().text!r} is one word too many; say and, or")
        return found

    def _expression(self) -> Predicate:
        first = self._term()
        rest: list[tuple[bool, Predicate]] = []
        while self._peek().text in ("and", "&&", "or", "||"):
            conjunction = self._take().text in ("and", "&&")
            rest.append((conjunction, self._term()))
        return _chain(first, rest) if rest else first

    def _term(self) -> Predicate:
        token = self._peek()
        if token.text not in ("not", "!", "("):
            return self._test()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise malformed(token.at, f"more than {MAX_DEPTH} parentheses and negations are within each other")
        self._take()
        if token.text == "(":
            found = self._expression()
            self._expect(")")
        else:
            found = tests.negated(self._term())
        self._depth -= 1
        return found

    def _test(self) -> Predicate:
        word = self._peek().text
        if word in ("src", "dst") or word in TYPES:
            return self._address("")
        if word in PROTOCOLS:
            return self._of_protocol(self._take().text)
        if word == "vlan":
            return self._vlan()
        if word in FOR_MANY:
            return FOR_MANY[self._take().text]
        if word in LENGTHS:
            return LENGTHS[self._take().text](self._number(U32))
        raise malformed(self._peek().at, f"{word!r} begins no test" if word else "a test is missing")

    def _vlan(self) -> Predicate:
        self._take()
        vlan_id = self._number(4095) if self._peek().text[:1].isdigit() else None
        found = tests.vlan(vlan_id, self._shift)
        self._shift += tests.TAG_BYTES
        return found

    def _of_protocol(self, protocol: str) -> Predicate:
        following = self._peek().text
        if following == "[":
            return self._index(protocol)
        if following == "proto" and protocol in ("ether", "ip", "ip6"):
            self._take()
            return self._protocol_number(protocol)
        if following in ("src", "dst") or following in TYPES:
            return self._address(protocol)
        if protocol == "ether":
            return FOR_MANY[self._take().text] if following in FOR_MANY else tests.ether
        if protocol in ETHERTYPES:
            return tests.ethertype(ETHERTYPES[protocol], self._shift)
        return self._transport(protocol)

    def _transport(self, protocol: str) -> Predicate:
        number, versions = IP_PROTOCOLS[protocol], []
        if protocol != "icmp6":
            versions.append(tests.ip_protocol(number, self._shift))
        if protocol != "icmp":
            versions.append(tests.ip6_protocol(number, self._shift))
        return tests.either(versions)

    def _protocol_number(self, protocol: str) -> Predicate:
        names = ETHERTYPES if protocol == "ether" else IP_PROTOCOLS
        name = self._peek().text.lstrip("\\")
        if name in names:
            self._take()
            wanted = names[name]
        else:
            wanted = self._number(0xFFFF if protocol == "ether" else 0xFF)
        if protocol == "ether":
            return tests.ethertype(wanted, self._shift)
        make = tests.ip_protocol if protocol == "ip" else tests.ip6_protocol
        return make(wanted, self._shift)

    def _address(self, protocol: str) -> Predicate:
        """Read `[src|dst] [host|net|port|portrange] X`."""
        side = self._take().text if self._peek().text in ("src", "dst") else ""
        at = self._peek().at
        kind = self._take().text if self._peek().text in TYPES else "host"
        value = self._take()
        if kind in ("port", "portrange"):
            if protocol not in ("", "tcp", "udp"):
                raise malformed(at, f"{kind} cannot be asked of {protocol}")
            return self._ports(protocol, SIDES[side], value, is_range=kind == "portrange")
        if protocol in ("tcp", "udp", "icmp", "icmp6") or (protocol, kind) == ("ether", "net"):
            raise malformed(at, f"{kind} cannot be asked of {protocol}")
        if protocol == "ether":
            found = mac_test(value.text, SIDES[side])
        elif kind == "host":
            found = host_test(value.text, protocol, SIDES[side], self._shift)
        else:
            found = network_test(value.text, protocol, SIDES[side], self._shift)
        if isinstance(found, str):
            raise malformed(value.at, f"{value.text!r} {found}" if value.text else "an address is missing")
        return found

    def _ports(self, protocol: str, sides: tuple[str, ...], value: Token, *, is_range: bool) -> Predicate:
        low, dash, high = value.text.partition("-")
        if bool(dash) != is_range:
            raise malformed(value.at, f"{value.text!r} is not {'a range such as 80-90' if is_range else 'a port'}")
        first = _parsed(low, value.at, 0xFFFF)
        last = _parsed(high, value.at, 0xFFFF) if dash else first
        protocols = (IP_PROTOCOLS[protocol],) if protocol else tests.WITH_PORTS
        offsets = tuple(0 if side == "src" else 2 for side in sides)
        return tests.ports(min(first, last), max(first, last), offsets, protocols, self._shift)

    def _index(self, protocol: str) -> Predicate:
        """Read `[OFFSET[:SIZE]] RELATION N` behind a protocol."""
        opening = self._take()
        inside = ""
        while self._peek().text not in ("]", ""):
            inside += self._take().text
        self._expect("]")
        offset_text, colon, size_text = inside.partition(":")
        offset = _parsed(offset_text, opening.at + 1, 0xFFFF)
        size = _parsed(size_text, opening.at + 1, 4) if colon else 1
        if size not in (1, 2, 4):
            raise malformed(opening.at + 1, f"{size} bytes cannot be compared, only 1, 2 or 4")
        relation = self._take()
        if relation.text not in tests.RELATIONS:
            raise malformed(relation.at, "one of > < >= <= = != is missing")
        return tests.index(self._start(protocol), offset, size, relation.text, self._number(U32))

    def _start(self, protocol: str) -> Callable[[bytes], int]:
        """Return what finds the beginning of a protocol's header in a frame, -1 where there is none."""
        if protocol == "ether":
            return lambda frame: 0
        if protocol in ETHERTYPES:
            has, base = tests.ethertype(ETHERTYPES[protocol], self._shift), tests.HEADER_BYTES + self._shift
            return lambda frame: base if has(frame, 0) else -1
        find = tests.transport6_at if protocol == "icmp6" else tests.transport_at
        return partial(find, shift=self._shift, protocols=(IP_PROTOCOLS[protocol],))

    def _number(self, limit: int) -> int:
        token = self._take()
        return _parsed(token.text, token.at, limit)

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _expect(self, sign: str) -> None:
        if self._peek().text != sign:
            raise malformed(self._peek().at, f"{sign} is missing")
        self._take()


def _parsed(text: str, at: int, limit: int) -> int:
    """Return a number as C writes it: decimal, 0x hexadecimal, or octal with a leading 0."""
    if not _NUMBER.fullmatch(text):
        raise malformed(at, f"{text!r} is not a number" if text else "a number is missing")
    base = 16 if text[:2] in ("0x", "0X") else 8 if text[0] == "0" else 10
    try:
        value = int(text, base)
    except ValueError as error:
        raise malformed(at, f"{text!r} is not an octal number") from error
    if value > limit:
        raise malformed(at, f"{value} is above {limit}")
    return value


def _chain(first: Predicate, rest: list[tuple[bool, Predicate]]) -> Predicate:
    """Return the predicate of `a and b or c …`, from left to right, without a call within a call for each word."""

    def test(frame: bytes, length: int) -> bool:
        value = first(frame, length)
        for conjunction, following in rest:
            if value == conjunction:
                value = following(frame, length)
        return value

    return test
