"""Bytes to begin with: one of each kind, right as they are."""

from __future__ import annotations

import struct

from tests.property.vswitch.test_router_fuzz import DISCOVER, GUEST, MAC, OWN, RIGHT, framed, packet

from lamina_net.packets import icmp, ipv4, udp
from lamina_net.tcp.segment import ACK, SYN, Options, Segment, build

QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0\5alice\3lab\0\0\1\0\1"
_OPTIONS = Options(mss=1460, window_scale=7, sack_permitted=True, timestamp=(1, 2))
_SYN = build(GUEST, OWN, Segment(40000, 80, 1, 0, SYN, 65535, b"", _OPTIONS))
_DATA = build(GUEST, OWN, Segment(40000, 80, 2, 5, ACK, 65535, b"GET / HTTP/1.0", Options(sack=((9, 12),))))
PACKETS = (
    packet(ipv4.TCP, _SYN),
    packet(ipv4.TCP, _DATA),
    packet(ipv4.UDP, udp.build(GUEST, OWN, udp.Datagram(5000, 53, QUESTION))),
    packet(ipv4.ICMP, icmp.build(icmp.echo_request(1, 1, b"ping"))),
    packet(ipv4.ICMP, icmp.build(icmp.error(3, 3, packet(ipv4.TCP, _DATA, GUEST, OWN)))),
    ipv4.build(ipv4.Packet(GUEST, OWN, ipv4.UDP, bytes(16), more=True, identification=9, options=b"\x07\x04\x04\0")),
    ipv4.build(ipv4.Packet(GUEST, OWN, ipv4.UDP, bytes(16), offset=8, identification=9)),
)
FRAMES = (
    *RIGHT,
    *(framed(each) for each in PACKETS),
    framed(PACKETS[2])[:12] + b"\x81\0\0\7\x81\0\0\5" + framed(PACKETS[2])[12:],
    MAC + RIGHT[0][6:12] + b"\x86\xdd\x60\0\0\0\0\x08\x3a\xff" + bytes(32) + b"\x86\0\0\0\0\0\0\0",
)
_RECORD = struct.pack("<IIII", 1, 2, len(FRAMES[0]), len(FRAMES[0])) + FRAMES[0]
PCAP = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + _RECORD * 2


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


PCAPNG = (
    _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    + _block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3x", 9, 1, 9) + bytes(4))
    + _block(6, struct.pack("<IIIII", 0, 1, 2, 60, 60) + bytes(60))
    + _block(3, struct.pack("<I", 60) + bytes(60))
)
_IDENT = b"\x7fELF\2\1\1"
_ELF_HEAD = struct.pack("<16sHHIQQQIHHHHHH", _IDENT, 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
ELF = _ELF_HEAD + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)
MANIFEST = (
    b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n---\nkind: List\nitems: [{kind: Pod, metadata: {name: b}}]\n",
    b'{"kind": "Pod", "metadata": {"name": "a"}, "spec": {"x": [1, 2.5, null, true]}}',
    b"a: &a [1]\nb: *a\n",
)
__all__ = ["DISCOVER", "ELF", "FRAMES", "MANIFEST", "PACKETS", "PCAP", "PCAPNG", "QUESTION"]
