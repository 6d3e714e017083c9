"""Guards of an engine: frames that only servers and routers send, and addresses that nobody gave."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_vswitch.domain.policy.settings import PolicyInForce, Security

A = bytes([2, 0, 0, 0, 0, 10])
ALL = b"\xff" * 6


def udp4(source: bytes, ports: tuple[int, int], fragment: int = 0, options: int = 0) -> bytes:
    """Return EtherType and IPv4 packet with a UDP datagram."""
    head = bytes([0x45 + options // 4, 0, 0, 0, 0, 0]) + fragment.to_bytes(2, "big") + b"\x40\x11\0\0"
    return (
        b"\x08\x00"
        + head
        + source
        + ALL[:4]
        + bytes(options)
        + b"".join(p.to_bytes(2, "big") for p in ports)
        + bytes(40)
    )


def icmp6(kind: int, *extensions: tuple[int, bytes]) -> bytes:
    """Return EtherType and IPv6 packet with an ICMPv6 message behind extension headers."""
    chain = [*(number for number, _ in extensions), 58]
    body = b"".join(bytes([following]) + data for following, (_, data) in zip(chain[1:], extensions, strict=True))
    return b"\x86\xdd\x60\0\0\0\0\0" + bytes([chain[0], 255]) + bytes(32) + body + bytes([kind]) + bytes(15)


def arp(sender: bytes) -> bytes:
    """Return EtherType and ARP packet."""
    return b"\x08\x06\0\x01\x08\0\x06\x04\0\x01" + A + sender + bytes(6) + b"\x0a\0\0\x01"


OFFERS = [
    udp4(bytes(4), (67, 68)),
    udp4(b"\x0a\0\0\x01", (67, 68), options=8),
    b"\x81\0\0\0" + udp4(bytes(4), (67, 68)),
    b"\x81\0\0\0\x88\xa8\0\0" + udp4(bytes(4), (67, 68)),
    b"\x86\xdd\x60\0\0\0\0\0\x11\xff" + bytes(32) + b"\x02\x23\x02\x22" + bytes(20),
]
NO_OFFERS = [
    udp4(bytes(4), (68, 67)),
    udp4(b"\x0a\0\0\x01", (53, 68)),
    udp4(b"\x0a\0\0\x01", (67, 68), fragment=9),
    b"\x08\x00\x45" + bytes(8),
    b"\x81\x00",
]
ADVERTISEMENTS = [
    icmp6(134),
    icmp6(134, (0, bytes(7))),
    icmp6(134, (60, b"\x01" + bytes(14)), (44, b"\0\0\x01" + bytes(4))),
    b"\x86\xdd\x60\0\0\0\0\0\x3a\xff" + bytes(20),
    b"\x86\xdd\x60\0\0\0\0\0\0\xff" + bytes(32) + b"\x3a\x09" + bytes(6),
    icmp6(134, *[(60, bytes(7))] * 20),
]
NO_ADVERTISEMENTS = [
    icmp6(135),
    b"\x86\xdd\x60\0\0\0\0\0\x3b\xff" + bytes(32),
    icmp6(134, (44, b"\0\x01\x08" + bytes(4))),
    b"\x08\x00" + bytes(40),
]
CLAIMS = [
    arp(b"\x0a\0\0\x05"),
    udp4(b"\x0a\0\0\x05", (68, 67)),
    udp4(bytes(4), (1, 2)),
    b"\x08\x00\x45" + bytes(3),
    b"\x08\x06" + bytes(20),
    b"\x81\0\0\0" + arp(b"\x0a\0\0\x05"),
]
NO_CLAIMS = [arp(bytes(4)), udp4(bytes(4), (68, 67)), icmp6(135), b"\x88\xb5" + bytes(46), arp(b"\x0a\0\0\x07")]


class Book:
    """Gives 10.0.0.7 to a device behind the port in slot 1."""

    def gives(self, slot: int, address: bytes, now_ns: int) -> bool:
        """Look it up."""
        return (slot, address) == (1, b"\x0a\0\0\x07")


@pytest.mark.parametrize(
    ("guard", "bad", "good"),
    [
        ("dhcp_guard", OFFERS, NO_OFFERS),
        ("router_guard", ADVERTISEMENTS, NO_ADVERTISEMENTS),
        ("source_guard", CLAIMS, NO_CLAIMS),
    ],
)
def test_a_guard_stops_what_it_is_for(bench: Any, guard: str, bad: list[bytes], good: list[bytes]) -> None:
    """Tags within tags, options, extension headers and cut headers do not hide it; everything else passes."""
    made = bench()
    if "policies" not in made.engine.capabilities:
        pytest.skip("the engine has no policies")
    made.port(1)
    made.port(2)
    made.engine.set_lease_book(Book())
    made.engine.set_policy(1, 0, PolicyInForce(security=Security(**{guard: True})), 0)
    stopped = [ALL + A + packet for packet in bad]
    for frame in stopped:
        assert made.engine.trace(1, frame, 0).steps[-2].rule == f"security.{guard}"
        assert made.reached(1, frame) == {}, frame.hex()
    passed = [frame for packet in good if len(made.reached(1, frame := ALL + A + packet)) == 1]
    assert len(passed) == sum(packet != b"\x81\x00" for packet in good)
    assert made.drops(1) == {guard.upper(): len(bad)} | ({"VLAN_TRUNCATED": 1} if b"\x81\x00" in good else {})


def test_without_a_lease_nothing_is_allowed(bench: Any) -> None:
    """A host without networks has given no address to anybody."""
    made = bench()
    if "policies" not in made.engine.capabilities:
        pytest.skip("the engine has no policies")
    made.port(1)
    made.port(2)
    made.engine.set_policy(1, 0, PolicyInForce(security=Security(source_guard=True)), 0)
    assert made.reached(1, ALL + A + arp(b"\x0a\0\0\x07")) == {}
    assert made.drops(1) == {"SOURCE_GUARD": 1}
