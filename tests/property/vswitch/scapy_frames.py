"""Frames that scapy builds: such as nobody should send, and what it makes of those that ours send."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

_SUMS = ((IP, "chksum"), (TCP, "chksum"), (UDP, "chksum"), (ICMP, "chksum"))


def rebuilt(frame: bytes) -> bytes:
    """Returns a frame as scapy would have built it: its own lengths and checksums in what it read there.

    Fragments but the first have no header of their own to be summed; they keep what they have.
    """
    read: Any = Ether(frame)
    if IP in read:
        read[IP].len = None
        is_part = bool(read[IP].frag or read[IP].flags.MF)
        for layer, field in _SUMS:
            if layer in read and not (is_part and layer is not IP):
                setattr(read[layer], field, None)
        if UDP in read and not is_part:
            read[UDP].len = None
    return bytes(read)


def adversarial(rng: random.Random, ether: Any, src: str, dst: str) -> bytes:
    """Returns a frame with a lie in it, for a host at `dst`, in frames like `ether`."""
    kind = rng.choice(_KINDS)
    frame = bytes(ether / kind(rng, src, dst))
    cut = rng.choice((len(frame), len(frame), rng.randrange(len(frame) + 1)))
    return frame[:cut]


def _junk(rng: random.Random, most: int = 100) -> Raw:
    return Raw(rng.randbytes(rng.randrange(most)))


def _ip(rng: random.Random, src: str, dst: str, **fields: Any) -> Any:
    """Returns a header in which one of the numbers may be wrong."""
    lies: dict[str, Callable[[], Any]] = {
        "ihl": lambda: rng.randrange(16), "len": lambda: rng.randrange(1 << 16), "version": lambda: rng.randrange(16),
        "ttl": lambda: rng.randrange(2), "chksum": lambda: rng.randrange(1 << 16),
        "src": lambda: rng.choice(("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", dst)),
        "options": lambda: [Raw(rng.randbytes(rng.choice((1, 4, 40))))],
    }  # fmt: skip
    values = {"src": src, "dst": dst, **fields}
    if rng.random() < 0.5:
        name = rng.choice(sorted(lies))
        values[name] = lies[name]()
    if "options" in values:
        del values["options"]
        return IP(**values) / Raw(rng.randbytes(4))
    return IP(**values)


def _fragment(rng: random.Random, src: str, dst: str) -> Any:
    """Returns a piece that overlaps others of one of four datagrams, or ends beyond all that there can be."""
    header = _ip(rng, src, dst, id=rng.randrange(4), flags=rng.choice(("", "MF")), frag=rng.choice((0, 1, 2, 3, 8191)))
    header.proto = rng.choice((1, 6, 17))
    return header / _junk(rng)


def _tcp(rng: random.Random, src: str, dst: str) -> Any:
    options = rng.choice([
        [], [("MSS", 0)], [("WScale", 255)], [("SAck", (5, 1, 1, 5))], [("Timestamp", (1, 2))], [("NOP", None)] * 40,
        [(254, rng.randbytes(20))], [("MSS", 1460), ("MSS", 1), ("SAckOK", b"")],
    ])  # fmt: skip
    header = TCP(
        sport=rng.choice((0, 5, 40000)), dport=rng.choice((0, 53, 80)), flags=rng.randrange(512),
        seq=rng.choice((0, 1, 7, 2**32 - 1)), ack=rng.randrange(1 << 32), window=rng.randrange(1 << 16),
        options=options,
    )  # fmt: skip
    if rng.random() < 0.3:
        header.dataofs = rng.randrange(16)
    return _ip(rng, src, dst) / header / _junk(rng)


def _udp(rng: random.Random, src: str, dst: str) -> Any:
    header = UDP(sport=rng.randrange(1 << 16), dport=rng.choice((0, 9, 53, 67)))
    if rng.random() < 0.4:
        header.len = rng.randrange(1 << 16)
    return _ip(rng, src, dst) / header / _junk(rng)


def _icmp(rng: random.Random, src: str, dst: str) -> Any:
    quoted = rng.choice((Raw(b""), _tcp(rng, dst, src), _udp(rng, dst, src), _junk(rng)))
    return _ip(rng, src, dst) / ICMP(type=rng.choice((0, 3, 5, 8, 11, 12, 200)), code=rng.randrange(16)) / quoted


def _dhcp(rng: random.Random, src: str, dst: str) -> Any:
    said = [("message-type", rng.randrange(12)), (rng.randrange(1, 255), rng.randbytes(rng.randrange(60))), "end"]
    hardware = rng.choice((b"\x02\0\0\0\0\x02", b"", bytes(16), rng.randbytes(16)))
    message = BOOTP(chaddr=hardware, hlen=rng.randrange(20), op=rng.randrange(3), ciaddr=rng.choice(("0.0.0.0", src)))
    return (
        IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / message / DHCP(options=said) / _junk(rng)
    )


def _dns(rng: random.Random, src: str, dst: str) -> Any:
    name = rng.choice(("alice.lab", "a." * 60 + "lab", "x" * 63 + ".lab", "."))
    question = DNS(id=rng.randrange(1 << 16), rd=1, qd=[DNSQR(qname=name, qtype=rng.randrange(300))])
    data = bytearray(bytes(question))
    if rng.random() < 0.7:  # counts that are not true, names that point at themselves
        data[rng.randrange(4, 13)] = rng.choice((0xC0, 0xFF, rng.randrange(256)))
    return _ip(rng, src, dst) / UDP(sport=5000, dport=53) / Raw(bytes(data))


def _arp(rng: random.Random, src: str, dst: str) -> Any:
    return ARP(op=rng.randrange(4), psrc=rng.choice((src, dst, "0.0.0.0")), pdst=dst, hwlen=rng.choice((6, 6, 0, 255)))


def _tags(rng: random.Random, src: str, dst: str) -> Any:
    stack: Packet = Dot1Q(vlan=rng.randrange(4096), type=rng.choice((0x8100, 0x88A8, 0x0800)))
    for _ in range(rng.randrange(12)):
        stack = stack / Dot1Q(vlan=rng.randrange(4096))
    return stack / rng.choice((_udp, _icmp, _arp))(rng, src, dst)


def _ipv6(rng: random.Random, src: str, dst: str) -> Any:
    return IPv6(plen=rng.randrange(1 << 16), nh=rng.choice((0, 6, 17, 43, 44, 58, 59))) / _junk(rng)


_KINDS: tuple[Callable[[random.Random, str, str], Any], ...] = (
    _fragment, _fragment, _tcp, _udp, _icmp, _dhcp, _dns, _arp, _tags, _ipv6,
)  # fmt: skip
