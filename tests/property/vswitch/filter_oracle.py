"""A naive reading of filters, as an oracle: expressions as trees, frames as dictionaries of fields."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

RELATIONS = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
MACS = [bytes.fromhex(text) for text in ("020000000001", "020000000002", "ffffffffffff", "01005e000001")]
ADDRESSES = [ipaddress.ip_address(text) for text in ("10.0.0.1", "10.0.1.2", "192.168.1.7", "fe80::1", "2001:db8::2")]
PORTS = [53, 80, 81, 8080]


def fields(frame: bytes, tags: int) -> dict[str, Any]:
    """Returns what can be read of a frame when so many tags are skipped; what is cut off is missing."""
    found: dict[str, Any] = {"ether": frame}
    if len(frame) >= 6:
        found["dst"] = frame[:6]
    if len(frame) >= 12:
        found["src"] = frame[6:12]
    rest = frame[12 + 4 * tags :]
    if len(rest) < 2:
        return found
    found["type"] = int.from_bytes(rest[:2], "big")
    if len(rest) >= 4 and found["type"] in (0x8100, 0x88A8, 0x9100):
        found["vlan"] = int.from_bytes(rest[2:4], "big") % 4096
    packet = rest[2:]
    if found["type"] == 0x0800:
        found["ip"] = packet
        _ipv4(found, packet)
    elif found["type"] == 0x0806:
        found["arp"] = packet
        for side, at in (("src", 14), ("dst", 24)):
            if len(packet) >= at + 4:
                found[f"arp {side}"] = ipaddress.ip_address(packet[at : at + 4])
    elif found["type"] == 0x86DD:
        found["ip6"] = packet
        _ipv6(found, packet)
    return found


def _ipv4(found: dict[str, Any], packet: bytes) -> None:
    for side, at in (("src", 12), ("dst", 16)):
        if len(packet) >= at + 4:
            found[f"ip {side}"] = ipaddress.ip_address(packet[at : at + 4])
    if len(packet) >= 10:
        found["ip proto"] = packet[9]
    if len(packet) >= 20 and int.from_bytes(packet[6:8], "big") % 8192 == 0:
        found["payload"], found["of"] = packet[packet[0] % 16 * 4 :], packet[9]


def _ipv6(found: dict[str, Any], packet: bytes) -> None:
    for side, at in (("src", 8), ("dst", 24)):
        if len(packet) >= at + 16:
            found[f"ip6 {side}"] = ipaddress.ip_address(packet[at : at + 16])
    if len(packet) >= 7:
        found["ip6 proto"] = packet[6]
    if len(packet) > 40 and packet[6] == 44:
        found["ip6 proto behind"] = packet[40]
    if len(packet) >= 40:
        found["payload6"], found["of6"] = packet[40:], packet[6]


@dataclass
class Test:
    """A leaf of a tree: its text, and what it asks of fields and length."""

    text: str
    asks: Any
    is_vlan: bool = False


def holds(tree: Any, frame: bytes, tags: list[int]) -> bool:
    """Evaluates a tree from left to right; `tags[0]` counts the `vlan` words read so far, as they are written."""
    if isinstance(tree, Test):
        found = fields(frame, tags[0])
        tags[0] += tree.is_vlan
        return bool(tree.asks(found, len(frame)))
    if tree[0] == "not":
        return not holds(tree[1], frame, tags)
    value = holds(tree[1], frame, tags)
    for word, part in tree[2]:
        other = holds(part, frame, tags)
        value = (value and other) if word in ("and", "&&") else (value or other)
    return value


def text(tree: Any) -> str:
    """Writes a tree as an expression."""
    if isinstance(tree, Test):
        return tree.text
    if tree[0] == "not":
        return f"{tree[2]} {text(tree[1])}"
    return "(" + text(tree[1]) + "".join(f" {word} {text(part)}" for word, part in tree[2]) + ")"


def _port_test(protocol: str, side: str, low: int, high: int) -> Test:
    numbers = {"tcp": (6,), "udp": (17,), "": (6, 17, 132)}[protocol]
    sides = [side] if side else ["src", "dst"]

    def asks(found: dict[str, Any], length: int) -> bool:
        for payload, of in (("payload", "of"), ("payload6", "of6")):
            if found.get(of) in numbers:
                for wanted in sides:
                    at = 0 if wanted == "src" else 2
                    piece = found[payload][at : at + 2]
                    if len(piece) == 2 and low <= int.from_bytes(piece, "big") <= high:
                        return True
        return False

    words = f"portrange {low}-{high}" if low != high else f"port {low}"
    return Test(" ".join(filter(None, (protocol, side, words))), asks)


def _network_test(protocol: str, side: str, network: Any, word: str) -> Test:
    families = ("ip6",) if network.version == 6 else ("ip", "arp")
    sides = [side] if side else ["src", "dst"]

    def asks(found: dict[str, Any], length: int) -> bool:
        wanted = [protocol] if protocol else families
        places = [f"{family} {each}" for family in wanted for each in sides]
        return any(place in found and found[place] in network for place in places)

    shown = network.network_address if word == "host" else network
    return Test(" ".join(filter(None, (protocol, side, word, str(shown)))), asks)


def _index_test(protocol: str, offset: int, size: int, relation: str, value: int) -> Test:
    numbers = {"tcp": 6, "udp": 17, "icmp": 1}

    def asks(found: dict[str, Any], length: int) -> bool:
        if protocol in numbers:
            data = found["payload"] if found.get("of") == numbers[protocol] else None
        elif protocol == "icmp6":
            data = found["payload6"] if found.get("of6") == 58 else None
        else:
            data = found.get(protocol)
        piece = data[offset : offset + size] if data is not None else b""
        return len(piece) == size and RELATIONS[relation](int.from_bytes(piece, "big"), value)

    return Test(f"{protocol}[{offset}:{size}] {relation} {value}", asks)


def _protocol_test(word: str) -> Test:
    number = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}[word]

    def asks(found: dict[str, Any], length: int) -> bool:
        v4 = word != "icmp6" and found.get("ip proto") == number
        direct, behind = found.get("ip6 proto") == number, found.get("ip6 proto behind") == number
        return v4 or (word != "icmp" and (direct or behind))

    return Test(word, asks)


def _vlan_test(number: int | None) -> Test:
    return Test(
        "vlan" if number is None else f"vlan {number}",
        lambda found, length: "vlan" in found and number in (None, found["vlan"]),
        is_vlan=True,
    )


def _mac_test(side: str, mac: bytes) -> Test:
    sides = [side] if side else ["src", "dst"]
    words = " ".join(filter(None, ("ether", side, "host", mac.hex(":"))))
    return Test(words, lambda found, length: any(found.get(each) == mac for each in sides))


sides = st.sampled_from(["", "src", "dst"])
PLAIN = [
    Test("ip", lambda found, length: "ip" in found),
    Test("ip6", lambda found, length: "ip6" in found),
    Test("arp", lambda found, length: "arp" in found),
    Test("ether", lambda found, length: len(found["ether"]) >= 14),
    Test("broadcast", lambda found, length: found.get("dst") == b"\xff" * 6),
    Test("multicast", lambda found, length: bool(found["ether"]) and found["ether"][0] % 2 == 1),
    Test("ether proto 0x88b5", lambda found, length: found.get("type") == 0x88B5),
    Test("ip proto 17", lambda found, length: found.get("ip proto") == 17),
]

leaves = st.one_of(
    st.sampled_from(PLAIN),
    st.sampled_from(["tcp", "udp", "icmp", "icmp6"]).map(_protocol_test),
    st.sampled_from([None, 5, 6]).map(_vlan_test),
    st.integers(0, 90).map(lambda n: Test(f"less {n}", lambda found, length: length <= n)),
    st.integers(0, 90).map(lambda n: Test(f"greater {n}", lambda found, length: length >= n)),
    st.builds(_mac_test, sides, st.sampled_from(MACS)),
    st.builds(
        lambda protocol, side, ports: _port_test(protocol, side, min(ports), max(ports)),
        st.sampled_from(["", "tcp", "udp"]),
        sides,
        st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)),
    ),
    st.builds(
        lambda named, side, address, prefix: _network_test(
            ("ip6" if address.version == 6 else "ip") if named else "",
            side,
            ipaddress.ip_network((address, prefix or address.max_prefixlen), strict=False),
            "net" if prefix else "host",
        ),
        st.booleans(),
        sides,
        st.sampled_from(ADDRESSES),
        st.sampled_from([0, 8, 24, 31]),
    ),
    st.builds(
        _index_test,
        st.sampled_from(["ether", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6"]),
        st.integers(0, 24),
        st.sampled_from([1, 2, 4]),
        st.sampled_from(sorted(RELATIONS)),
        st.sampled_from([0, 1, 6, 17, 53, 80, 0x4500, 0x0A000001]),
    ),
)
trees = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.tuples(st.just("not"), part, st.sampled_from(["not", "!"])),
        st.tuples(
            st.just("chain"),
            part,
            st.lists(st.tuples(st.sampled_from(["and", "or", "&&", "||"]), part), min_size=1, max_size=4),
        ),
    ),
    max_leaves=8,
)


def packet(pick: Any, octets: Any) -> bytes:
    """Makes a frame between a few stations, with tags, fragments, options, and cut anywhere.

    `pick` chooses from a sequence, `octets(low, high)` makes so many bytes.
    """
    frame: bytes = pick(MACS) + pick(MACS)
    for _ in range(pick([0, 0, 1, 2])):
        frame += pick([b"\x81\x00", b"\x88\xa8"]) + pick([b"\x00\x05", b"\xe0\x06"])
    kind = pick(["ip", "ip", "arp", "ip6", "other"])
    payload = pick(PORTS).to_bytes(2, "big") + pick(PORTS).to_bytes(2, "big") + octets(16, 24)
    protocol = bytes([pick([1, 6, 17, 44, 58, 132])])
    v4 = [address.packed for address in ADDRESSES if address.version == 4]
    v6 = [address.packed for address in ADDRESSES if address.version == 6]
    if kind == "ip":
        words = pick([5, 6])
        fragment = pick([b"\x00\x00", b"\x20\x00", b"\x00\x10"])
        header = bytes([0x40 | words, 0]) + b"\x00\x2a\x00\x01" + fragment + b"\x40" + protocol + b"\x00\x00"
        frame += b"\x08\x00" + header + pick(v4) + pick(v4) + bytes(4 * words - 20) + payload
    elif kind == "arp":
        senders = pick(MACS) + pick(v4)
        frame += b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + senders + bytes(6) + pick(v4)
    elif kind == "ip6":
        frame += b"\x86\xdd\x60\x00\x00\x00\x00\x10" + protocol + b"\x40" + pick(v6) + pick(v6) + protocol + payload
    else:
        frame += b"\x88\xb5" + payload
    return frame[: pick([len(frame), len(frame), len(octets(0, len(frame)))])]


def every_leaf() -> list[Test]:
    """Returns each kind of test with each side, protocol and relation that there is."""
    found = list(PLAIN)
    found += [_protocol_test(word) for word in ("tcp", "udp", "icmp", "icmp6")]
    found += [_vlan_test(number) for number in (None, 5, 6)]
    for side in ("", "src", "dst"):
        found += [_mac_test(side, mac) for mac in MACS]
        for protocol in ("", "tcp", "udp"):
            found += [_port_test(protocol, side, *ports) for ports in ((53, 53), (80, 81), (81, 9000))]
        for address, prefix in itertools.product(ADDRESSES, (0, 24, 31)):
            network = ipaddress.ip_network((address, prefix or address.max_prefixlen), strict=False)
            for protocol in ("", "ip6") if address.version == 6 else ("", "ip", "arp"):
                found.append(_network_test(protocol, side, network, "net" if prefix else "host"))
    for protocol, size, relation in itertools.product(
        ("ether", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6"), (1, 2, 4), sorted(RELATIONS)
    ):
        found += [_index_test(protocol, offset, size, relation, 80) for offset in (0, 1, 2, 13)]
    return found
